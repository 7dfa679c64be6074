"""Where samples go along rays: between which distances, evenly, by importance, by proposals.

Rays are origins and unit directions; distances t in metres along them. Samplers return edges, which never decrease:
sample i fills [t[i], t[i + 1]]. Keys come first and are consumed whatever the jitter. For samples in occupied space
only see `renderers.volumes.occupancy`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from renderers.volumes.quadrature import weights_from_density
from renderers.volumes.spacing import Spacing, metric_distances
from renderers.volumes.step_functions import (
    Jitter,
    max_dilate_weights,
    pdf_from_weights,
    sample,
    sample_intervals,
    stratified_numbers,
)


def ray_box(
    origins: Float[Array, "*r 3"],
    directions: Float[Array, "*r 3"],
    box: Float[Array, "2 3"],
    *,
    near: float = 0.0,
    far: float = jnp.inf,
) -> tuple[Float[Array, "*r"], Float[Array, "*r"], Bool[Array, "*r"]]:
    """Distances at which rays enter and leave an axis-aligned box, cut to [near, far]; and which rays meet it.

    A ray that misses has `entry == exit == near`: its samples have no length and no weight. A ray along a face is
    inside if it lies in the closed box.

    Args:
        box: lowest corner, highest corner.
        near: no sample lies before it.
        far: or behind it.
    """
    low, high = (jnp.broadcast_to(corner, origins.shape) for corner in box)
    moves = directions != 0
    safe = jnp.where(moves, directions, 1.0)
    to_low, to_high = (low - origins) / safe, (high - origins) / safe
    within = (origins >= low) & (origins <= high)
    # an axis along which the ray does not move bounds nothing if the ray is between its planes, and all if it is not
    entry = jnp.where(moves, jnp.minimum(to_low, to_high), jnp.where(within, -jnp.inf, jnp.inf))
    exit_ = jnp.where(moves, jnp.maximum(to_low, to_high), jnp.where(within, jnp.inf, -jnp.inf))
    return _cut(jnp.max(entry, -1), jnp.min(exit_, -1), near, far)


def ray_sphere(
    origins: Float[Array, "*r 3"],
    directions: Float[Array, "*r 3"],
    center: Float[Array, " 3"],
    radius: float,
    *,
    near: float = 0.0,
    far: float = jnp.inf,
) -> tuple[Float[Array, "*r"], Float[Array, "*r"], Bool[Array, "*r"]]:
    """Distances at which rays enter and leave a ball, cut to [near, far]; and which rays meet it. As `ray_box`."""
    offset = origins - jnp.broadcast_to(center, origins.shape)
    middle = -jnp.sum(offset * directions, -1)
    # distance from the centre to the ray by the offset at the closest point: no difference of large squares
    closest = offset + middle[..., None] * directions
    squared = radius * radius - jnp.sum(closest * closest, -1)
    meets = squared > 0
    half = jnp.where(meets, jnp.sqrt(jnp.where(meets, squared, 1.0)), -jnp.inf)
    return _cut(middle - half, middle + half, near, far)


def _cut(entry, exit_, near, far):
    entry, exit_ = jnp.maximum(entry, near), jnp.minimum(exit_, far)
    hit = entry < exit_
    return jnp.where(hit, entry, near), jnp.where(hit, exit_, near), hit


def stratified_edges(
    key: Key[Array, ""],
    near: Float[Array, "*r"],
    far: Float[Array, "*r"],
    count: int,
    *,
    jitter: Jitter = "stratified",
    spacing: Spacing = "linear",
) -> Float[Array, "*r e"]:
    """Edges of `count` intervals that fill [near, far], even on the axis that `spacing` bends.

    With jitter the inner edges move, each within half an interval on either side of its place ("stratified"), or all of
    a ray together ("single"); the first and the last stay, so that nothing of the ray is left out.
    """
    places = stratified_numbers(key, near.shape, count - 1, jitter, near.dtype) * (count - 1) + 0.5
    ends = jnp.zeros((*near.shape, 1), near.dtype)
    s = jnp.concatenate([ends, places / count, ends + 1], -1)
    return metric_distances(s, near, far, spacing)


def importance_edges(
    key: Key[Array, ""],
    edges: Float[Array, "*r e"],
    weights: Float[Array, "*r e-1"],
    count: int,
    *,
    jitter: Jitter = "single",
    padding: float = 1e-5,
) -> Float[Array, "*r q"]:
    """Edges of `count` intervals about points drawn from the weights of a coarser pass; no gradient passes.

    `padding` is weight that is spread evenly over the ray beside its own, so that what was missed can still be found.
    """
    edges, weights = jax.lax.stop_gradient((edges, weights))
    return sample_intervals(key, edges, annealed_weights(edges, weights, 1.0, padding), count, jitter=jitter)


def merged_edges(
    key: Key[Array, ""],
    edges: Float[Array, "*r e"],
    weights: Float[Array, "*r e-1"],
    count: int,
    *,
    jitter: Jitter = "stratified",
    padding: float = 1e-5,
) -> Float[Array, "*r q"]:
    """The edges given and `count` more drawn by importance between them, in order: NeRF's fine pass (section 5.2)."""
    edges, weights = jax.lax.stop_gradient((edges, weights))
    more = sample(key, edges, annealed_weights(edges, weights, 1.0, padding), count, jitter=jitter)
    return jnp.sort(jnp.concatenate([edges, more], -1), -1)


def proposal_edges(
    key: Key[Array, ""],
    origins: Float[Array, "*r 3"],
    directions: Float[Array, "*r 3"],
    near: Float[Array, "*r"],
    far: Float[Array, "*r"],
    proposals: Sequence[Callable[[Array], Array]],
    counts: Sequence[int],
    *,
    jitter: Jitter = "single",
    spacing: Spacing = "linear",
    anneal: float | Float[Array, ""] = 1.0,
    dilation: float = 0.0025,
    dilation_per_interval: float = 0.5,
    padding: float = 1e-5,
) -> tuple[Float[Array, "*r e"], list[tuple[Array, Array]]]:
    """Samples placed by a chain of proposal densities (mip-NeRF 360, arXiv:2111.12077, sections 3 and C.1).

    Each density is integrated on the intervals that the one before it chose; its histogram, dilated and annealed, says
    where the next intervals go. The proposals learn through `regularizers.interlevel_loss`; no gradient passes through
    the places of samples.

    Args:
        near: start of the rays.
        far: end of the rays.
        proposals: densities (per metre) of points `[*r, s, 3]`, as `[*r, s]`.
        counts: intervals of each proposal and, last, of the result.
        jitter: see `step_functions.stratified_numbers`.
        spacing: axis on which intervals are even at first and on which sampling goes on.
        anneal: power to which weights are raised, 0 (even) to 1; multinerf's schedule is b x / ((b - 1) x + 1) with
            b = 10 and x the share of training done.
        dilation: of the histogram, in normalised distance, beside
        dilation_per_interval: that many times the mean width of an interval.
        padding: weight that is spread evenly over the ray beside its own.

    Returns:
        Edges (metres) of the last intervals; and for each proposal its edges, in normalised distance, and weights,
        which carry the gradient to the proposal.

    Raises:
        ValueError: counts and proposals do not match.
    """
    if len(counts) != len(proposals) + 1:
        raise ValueError(f"expected one count more than proposals ({len(proposals)}), got counts {tuple(counts)}")
    *keys, last_key = jax.random.split(key, len(counts))
    ends = jnp.zeros((*near.shape, 1), near.dtype)
    s, w, histograms, share = jnp.concatenate([ends, ends + 1], -1), ends + 1, [], 1.0
    for key, density, count in zip(keys, proposals, counts[:-1], strict=True):
        s = jax.lax.stop_gradient(sample_intervals(key, s, w, count, jitter=jitter))
        t = metric_distances(s, near, far, spacing)
        found, _ = weights_from_density(density(interval_points(origins, directions, t)), jnp.diff(t))
        histograms.append((s, found))
        share /= count
        s, w = max_dilate_weights(s, found, dilation + dilation_per_interval * share, domain=(0.0, 1.0))
        w = annealed_weights(s, w, anneal, padding)
    s = jax.lax.stop_gradient(sample_intervals(last_key, s, w, counts[-1], jitter=jitter))
    return metric_distances(s, near, far, spacing), histograms


def annealed_weights(
    edges: Float[Array, "*r e"], weights: Float[Array, "*r e-1"], anneal: float | Float[Array, ""], padding: float
) -> Float[Array, "*r e-1"]:
    """Weights of the density raised to a power, from 0 (even) to 1 (as it is).

    Weight `padding` is spread evenly over the ray before. Whatever the power, intervals of no width have no weight.
    """
    width = jnp.diff(edges)
    length = jnp.sum(width, -1, keepdims=True)
    density = pdf_from_weights(edges, weights) + padding / jnp.where(length > 0, length, 1.0)
    return density**anneal * width


def interval_points(
    origins: Float[Array, "*r 3"], directions: Float[Array, "*r 3"], edges: Float[Array, "*r e"]
) -> Float[Array, "*r s 3"]:
    """World points in the middle of the intervals."""
    middles = 0.5 * (edges[..., 1:] + edges[..., :-1])
    return origins[..., None, :] + middles[..., None] * directions[..., None, :]
