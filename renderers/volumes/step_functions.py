"""Step functions on rays: piecewise-constant functions of one variable, as histograms and as densities.

Notation, which holds in this module:

    t  edges, never decreasing along the last axis: interval i runs from t[i] to t[i + 1].
    y  values of any step function, one an interval.
    w  weights: the integral over each interval. Non-negative; the weights of a ray sum to its opacity, at most 1.
    p  densities: weights over widths, p[i] = w[i] / (t[i + 1] - t[i]).
    u  numbers in [0, 1], arguments of an inverse cumulative distribution.

`e` edges enclose `e - 1` intervals. Every function takes any leading axes `*r` of rays, the same for all arguments.
Sampling and the two bounds look intervals up by binary search; of those lookups nothing is differentiated, of the
arithmetic everything is. The losses that steer proposals are in `renderers.volumes.regularizers`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Jitter = Literal["none", "single", "stratified"]
_SMALLEST_TOTAL = 1e-15  # of a ray's weights; the square, which the derivative divides by, is a normal float32


def count_below(
    t: Float[Array, "*r e"], queries: Float[Array, "*r q"], side: Literal["left", "right"]
) -> Int[Array, "*r q"]:
    """How many edges are `< query` (side "left") or `<= query` ("right"), ray by ray."""
    flat = jax.lax.stop_gradient((t.reshape(-1, t.shape[-1]), queries.reshape(-1, queries.shape[-1])))
    # Unrolled binary search: 2 ms for 4096 rays of 64 intervals and 64 queries on 2 cores; comparing all 18, a sort 33.
    search = jax.vmap(lambda t, q: jnp.searchsorted(t, q, side=side, method="scan_unrolled"))
    return search(*flat).reshape(queries.shape)


def query(
    queries: Float[Array, "*r q"], t: Float[Array, "*r e"], y: Float[Array, "*r e-1"], *, outside: float = 0.0
) -> Float[Array, "*r q"]:
    """Value of the step function at points; each interval holds its left edge, the last one its right edge too."""
    last = y.shape[-1] - 1
    found = jnp.take_along_axis(y, jnp.clip(count_below(t, queries, "right") - 1, 0, last), -1)
    within = (queries >= t[..., :1]) & (queries <= t[..., -1:])
    return jnp.where(within, found, outside)


def pdf_from_weights(t: Float[Array, "*r e"], w: Float[Array, "*r e-1"]) -> Float[Array, "*r e-1"]:
    """p of w; zero on intervals of zero width."""
    width = jnp.diff(t)
    wide = width > 0
    return jnp.where(wide, w / jnp.where(wide, width, 1.0), 0.0)


def weights_from_pdf(t: Float[Array, "*r e"], p: Float[Array, "*r e-1"]) -> Float[Array, "*r e-1"]:
    """w of p."""
    return p * jnp.diff(t)


def cumulative(w: Float[Array, "*r s"]) -> Float[Array, "*r s+1"]:
    """Integral up to each edge: 0 first, the sum of the weights last."""
    return jnp.concatenate([jnp.zeros_like(w[..., :1]), jnp.cumsum(w, -1)], -1)


def distribution(t: Float[Array, "*r e"], w: Float[Array, "*r e-1"]) -> Float[Array, "*r e"]:
    """Cumulative distribution at the edges: from exactly 0 to exactly 1.

    Where a ray has no weight (less than 1e-15) every length is equally likely; where it has no length, every interval.
    """
    total, width = jnp.sum(w, -1, keepdims=True), jnp.diff(t)
    length = jnp.sum(width, -1, keepdims=True)
    instead = jnp.where(length > 0, width, 1.0)
    w = jnp.where(total > _SMALLEST_TOTAL, w, instead)
    edges = cumulative(w / jnp.sum(w, -1, keepdims=True))
    # rounding may end a sum of fractions beside 1; and what is beyond 1 would be an interval that runs backwards
    edges = jnp.minimum(edges, 1.0)
    full = jnp.flip(jnp.cumsum(jnp.flip(w, -1), -1), -1) <= 0  # nothing follows this edge
    return jnp.concatenate([edges[..., :1], jnp.where(_after(full), 1.0, edges[..., 1:])], -1)


def _after(full):
    """For each interval, whether none of those that follow it has weight."""
    return jnp.concatenate([full[..., 1:], jnp.ones_like(full[..., :1])], -1)


def invert_distribution(
    u: Float[Array, "*r q"], t: Float[Array, "*r e"], w: Float[Array, "*r e-1"]
) -> Float[Array, "*r q"]:
    """Points at which the cumulative distribution of the histogram reaches u.

    Intervals without weight are never entered: u at a plateau of the distribution gives the plateau's far end, u = 1
    the end of the last interval that has weight. Differentiable in t and w almost everywhere.
    """
    c = distribution(t, w)
    last_with_weight = jnp.sum(c < 1, -1, keepdims=True, dtype=jnp.int32) - 1
    i = jnp.clip(jnp.minimum(count_below(c, u, "right") - 1, last_with_weight), 0, w.shape[-1] - 1)
    c0, c1, t0, t1 = (jnp.take_along_axis(a, j, -1) for a, j in ((c, i), (c, i + 1), (t, i), (t, i + 1)))
    rises = c1 > c0
    fraction = jnp.where(rises, (u - c0) / jnp.where(rises, c1 - c0, 1.0), 0.0)
    return jnp.clip(t0 + jnp.clip(fraction, 0.0, 1.0) * (t1 - t0), t0, t1)


def stratified_numbers(
    key: Key[Array, ""], leading: tuple[int, ...], count: int, jitter: Jitter, dtype=jnp.float32
) -> Float[Array, "*r q"]:
    """Increasing numbers in [0, 1), one in each of `count` equal strata.

    Args:
        key: consumed, whatever the jitter.
        leading: axes of rays.
        count: strata, static.
        jitter: "none" takes the middle of every stratum, "single" one random place per ray the same in all strata (what
            multinerf trains with: spacing stays even), "stratified" a random place in each.
        dtype: of the result.
    """
    strata = jnp.broadcast_to(jnp.arange(count, dtype=dtype), (*leading, count))
    if jitter == "none":
        place = jnp.full((*leading, 1), 0.5, dtype)
    else:
        place = jax.random.uniform(key, (*leading, 1 if jitter == "single" else count), dtype)
    # the largest float below 1: rounding up to it would put two strata's points together
    return jnp.minimum((strata + place) / count, 1.0 - jnp.finfo(dtype).epsneg)


def sample(
    key: Key[Array, ""],
    t: Float[Array, "*r e"],
    w: Float[Array, "*r e-1"],
    count: int,
    *,
    jitter: Jitter = "stratified",
) -> Float[Array, "*r q"]:
    """Points drawn from the histogram by inversion, increasing along the ray; see `stratified_numbers` for jitter."""
    u = stratified_numbers(key, t.shape[:-1], count, jitter, t.dtype)
    return invert_distribution(u, t, w)


def sample_intervals(
    key: Key[Array, ""], t: Float[Array, "*r e"], w: Float[Array, "*r e-1"], count: int, *, jitter: Jitter = "single"
) -> Float[Array, "*r q"]:
    """Edges of `count` intervals around points drawn from the histogram (mip-NeRF 360, arXiv:2111.12077, section 3.1).

    Inner edges lie midway between neighbouring points; the outermost mirror their neighbours in the first and the last
    point, and stay within the histogram's own ends.

    Returns:
        count + 1 edges, never decreasing.

    Raises:
        ValueError: fewer than 2 intervals.
    """
    if count < 2:
        raise ValueError(f"expected at least 2 intervals, got {count}: one point does not say how wide its interval is")
    points = sample(key, t, w, count, jitter=jitter)
    inner = 0.5 * (points[..., 1:] + points[..., :-1])
    first = jnp.maximum(2 * points[..., :1] - inner[..., :1], t[..., :1])
    last = jnp.minimum(2 * points[..., -1:] - inner[..., -1:], t[..., -1:])
    return jnp.concatenate([first, inner, last], -1)


def inner_outer(
    queries: Float[Array, "*r q"], t: Float[Array, "*r e"], w: Float[Array, "*r e-1"]
) -> tuple[Float[Array, "*r q-1"], Float[Array, "*r q-1"]]:
    """Bounds of the weight that lies within each query interval, whatever the distribution inside the histogram's own.

    The inner measure sums the intervals that lie inside the query interval, the outer one (mip-NeRF 360, eq. 13) those
    that overlap it; touching at one point is no overlap. For `queries` equal to t both are w, exactly up to rounding
    of the running sum. A query interval of zero width has measures zero at an edge of t.
    """
    c, last = cumulative(w), t.shape[-1] - 1
    below = jnp.clip(count_below(t, queries, "right") - 1, 0, last)  # the last edge at or before the query
    above = jnp.clip(count_below(t, queries, "left"), 0, last)  # the first edge at or after it
    c_below, c_above = (jnp.take_along_axis(c, i, -1) for i in (below, above))
    inner = jnp.where(below[..., 1:] > above[..., :-1], c_below[..., 1:] - c_above[..., :-1], 0.0)
    outer = jnp.where(above[..., 1:] > below[..., :-1], c_above[..., 1:] - c_below[..., :-1], 0.0)
    return inner, outer


def max_dilate(
    t: Float[Array, "*r e"], y: Float[Array, "*r e-1"], distance: float, *, domain: tuple[float, float]
) -> tuple[Float[Array, "*r d"], Float[Array, "*r d-1"]]:
    """The largest value within a distance, again a step function: 2 (e - 1) edges (mip-NeRF 360, section C.1).

    Args:
        t: edges within the domain.
        y: non-negative values, such as densities.
        distance: in the units of t.
        domain: what the result is cut to.
    """
    starts, ends = t[..., :-1] - distance, t[..., 1:] + distance
    edges = jnp.clip(jnp.sort(jnp.concatenate([starts, ends], -1), -1), *domain)
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None]
    covered = (starts[..., None, :] <= middle) & (middle < ends[..., None, :])
    return edges, jnp.max(jnp.where(covered, y[..., None, :], 0.0), -1)


def max_dilate_weights(
    t: Float[Array, "*r e"], w: Float[Array, "*r e-1"], distance: float, *, domain: tuple[float, float]
) -> tuple[Float[Array, "*r d"], Float[Array, "*r d-1"]]:
    """Weights that sum to 1, of the density dilated by `max_dilate`: what is sampled next may miss by `distance`."""
    edges, p = max_dilate(t, pdf_from_weights(t, w), distance, domain=domain)
    dilated = weights_from_pdf(edges, p)
    total = jnp.sum(dilated, -1, keepdims=True)
    return edges, dilated / jnp.where(total > 0, total, 1.0)


def resample(
    queries: Float[Array, "*r q"], t: Float[Array, "*r e"], y: Float[Array, "*r e-1"]
) -> Float[Array, "*r q-1"]:
    """Integral of the step function over each query interval, zero outside t; of its own edges: y times width."""
    integral = _interpolate(queries, t, cumulative(weights_from_pdf(t, y)))
    return jnp.diff(integral)


def blurred_weights(
    queries: Float[Array, "*r q"], t: Float[Array, "*r e"], w: Float[Array, "*r e-1"], half_width: float
) -> Float[Array, "*r q-1"]:
    """Weight in each query interval after the histogram was blurred by a box (Zip-NeRF, arXiv:2304.06706, section 3).

    The blurred density is piecewise linear and its integral piecewise quadratic: exactly the mean of the histogram's
    cumulative weight over [x - half_width, x + half_width]. Rounding is that of the weights over `half_width / range`.
    """
    c = cumulative(w)
    width = jnp.diff(t)
    area = cumulative(0.5 * (c[..., 1:] + c[..., :-1]) * width)  # integral of the cumulative weight up to each edge

    def integral(x):
        i = jnp.clip(count_below(t, x, "right") - 1, 0, w.shape[-1] - 1)
        t0, c0, a0, p = (jnp.take_along_axis(v, i, -1) for v in (t, c, area, pdf_from_weights(t, w)))
        inside = jnp.clip(x, t[..., :1], t[..., -1:]) - t0
        beyond = jnp.maximum(x - t[..., -1:], 0.0) * c[..., -1:]
        return a0 + inside * (c0 + 0.5 * p * inside) + beyond

    mean = (integral(queries + half_width) - integral(queries - half_width)) / (2 * half_width)
    return jnp.diff(mean)


def weighted_percentile(
    t: Float[Array, "*r e"], w: Float[Array, "*r e-1"], fractions: Float[Array, "*r q"]
) -> Float[Array, "*r q"]:
    """Points by which the given fractions of the histogram's total weight are passed; 0.5 is the median."""
    return invert_distribution(fractions, t, w)


def _interpolate(x, t, values):
    """Piecewise-linear function with the given values at the edges, constant beyond them."""
    i = jnp.clip(count_below(t, x, "right") - 1, 0, t.shape[-1] - 2)
    t0, t1, v0, v1 = (jnp.take_along_axis(a, j, -1) for a, j in ((t, i), (t, i + 1), (values, i), (values, i + 1)))
    wide = t1 > t0
    fraction = jnp.where(wide, (x - t0) / jnp.where(wide, t1 - t0, 1.0), jnp.where(x >= t1, 1.0, 0.0))
    return v0 + jnp.clip(fraction, 0.0, 1.0) * (v1 - v0)
