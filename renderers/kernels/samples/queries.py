"""Queries for callers: contributions by Gaussian over an image, contributors by sample; no derivatives."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels import tiling
from renderers.kernels.composite.reference import pixel_centres
from renderers.kernels.composite.xla import drawn_pixels, to_tiles
from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.samples import api, contributions, groups, reference
from renderers.kernels.transformations import one_by_one

_count = jax.jit(tiling.count_intersections, static_argnums=2)


def by_gaussian(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    *,
    size: tuple[int, int],
    mask: Bool[Array, "h w"] | None = None,
    importance: Float[Array, "h w"] | None = None,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> tuple[Float[Array, " n"], Float[Array, " n"], Int[Array, " n"], Int[Array, ""]]:
    """Sum and largest of importance times weight, number of pixels blended into, and intersections dropped.

    Args:
      means2d, conics, opacities, extents, depths, capacity: as for `kernels.composite.api.composite`.
      size: image (height, width).
      mask: pixels to look at. None looks at all.
      importance: of each pixel, at least 0. None counts each pixel as 1.
      backend: None takes the platform's default; there are no Pallas kernels.

    Raises:
      Unsupported: the backend cannot run here.
    """
    chosen = choose(backend, dtype=means2d.dtype.name, pallas=False)
    inputs = lax.stop_gradient((means2d, conics, opacities))
    extents, depths, n = lax.stop_gradient(extents), lax.stop_gradient(depths), len(opacities)
    importance = jnp.ones(size, means2d.dtype) if importance is None else importance.astype(means2d.dtype)
    none_dropped = jnp.zeros((), jnp.int32)
    if n == 0:
        return opacities, opacities, jnp.zeros(0, jnp.int32), none_dropped
    if chosen == "reference":
        positions = pixel_centres(size, means2d.dtype).reshape(-1, 2)
        drawn = jnp.ones(len(positions), bool) if mask is None else mask.reshape(-1)
        weights = _dense_weights(*inputs, extents, depths, positions, drawn)
        valued = weights * importance.reshape(1, -1)
        return valued.sum(1), valued.max(1), (weights > 0).sum(1, dtype=jnp.int32), none_dropped
    if chosen == "cpu":
        from renderers.kernels.samples import cpu_handlers  # Numba is an extra, and takes a second to import

        return *cpu_handlers.by_gaussian(*inputs, extents, depths, mask, importance), none_dropped
    if capacity is None:
        traced = isinstance(means2d, Tracer) or isinstance(extents, Tracer)
        bound = tiling.default_capacity(n, size) if traced else 0
        capacity = bound or tiling.next_capacity(int(_count(means2d, extents, size)))
    lists = tiling.bin_gaussians(means2d, extents, depths, size, capacity)
    by_tile = to_tiles(jnp.concatenate([pixel_centres(size, means2d.dtype), importance[..., None]], -1))
    tiles = jnp.arange(len(by_tile), dtype=jnp.int32)
    walked = groups.Groups(tiles=tiles, x=by_tile[:, 0], y=by_tile[:, 1], drawn=drawn_pixels(mask, size))
    return *one_by_one(contributions.by_gaussian)(*inputs, lists, walked, by_tile[:, 2]), lists.overflow


def by_sample(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    positions: Float[Array, "m 2"],
    *,
    size: tuple[int, int],
    k: int,
    by_weight: bool,
    drawn: Bool[Array, " m"] | None = None,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> tuple[Int[Array, " m"], Int[Array, "m k"], Float[Array, "m k"], Int[Array, ""]]:
    """Number of Gaussians blended into each sample; k of them and their weights; intersections dropped.

    Args:
      means2d, conics, opacities, extents, depths, positions, size, drawn, capacity: as for `api.composite_samples`.
      k: Gaussians to keep, at least 1; -1 with weight 0 fills up where there are fewer.
      by_weight: keep the largest weights, in falling order (of equal ones the nearer first); else the nearest.
      backend: None takes the platform's default; there are no Pallas kernels.

    Raises:
      Unsupported: the backend cannot run here.
    """
    chosen = choose(backend, dtype=means2d.dtype.name, pallas=False)
    inputs = lax.stop_gradient((means2d, conics, opacities))
    extents, depths, positions = lax.stop_gradient((extents, depths, positions))
    n, m, none_dropped = len(opacities), len(positions), jnp.zeros((), jnp.int32)
    drawn = jnp.ones(m, bool) if drawn is None else drawn
    if n == 0 or m == 0:
        return jnp.zeros(m, jnp.int32), jnp.full((m, k), -1, jnp.int32), jnp.zeros((m, k), means2d.dtype), none_dropped
    if chosen == "reference":
        drawn &= groups.inside(positions, size)
        weights = _dense_weights(*inputs, extents, depths, positions, drawn).T
        return *_dense_contributors(weights, depths, k, by_weight), none_dropped
    if chosen == "cpu":
        from renderers.kernels.samples import cpu_handlers  # Numba is an extra, and takes a second to import

        return *cpu_handlers.by_sample(*inputs, extents, depths, positions, drawn, size, k, by_weight), none_dropped
    if capacity is None:
        capacity = api.sample_capacity(means2d, extents, positions, drawn, size)
    lists, walked, place = api.grouped(means2d, extents, depths, positions, drawn, size, capacity)
    walk = functools.partial(contributions.by_sample, k=k, by_weight=by_weight)
    found = one_by_one(walk)(*inputs, lists, walked)
    count, ids, weights = (v.reshape(-1, *v.shape[2:]) for v in found)
    return (
        count.at[place].get(mode="fill", fill_value=0),
        ids.at[place].get(mode="fill", fill_value=-1),
        weights.at[place].get(mode="fill", fill_value=0.0),
        lists.overflow,
    )


def _dense_weights(means2d, conics, opacities, extents, depths, positions, drawn):
    visible = jnp.where(extents[:, 0] > 0, opacities, 0.0)
    return reference.blending_weights(means2d, conics, visible, jnp.zeros_like(means2d), depths, positions, drawn)[0]


def _dense_contributors(weights: Float[Array, "m n"], depths: Float[Array, " n"], k: int, by_weight: bool):
    """Sort all Gaussians of each sample; stable, so that ties go to the nearer."""
    order = jnp.argsort(depths, stable=True).astype(jnp.int32)
    near_to_far = weights[:, order]
    key = -near_to_far if by_weight else (near_to_far <= 0).astype(jnp.int32)
    best = jnp.argsort(key, axis=1, stable=True)[:, :k]
    best = jnp.pad(best, ((0, 0), (0, max(0, k - len(order)))), constant_values=len(order))
    kept = jnp.take_along_axis(jnp.pad(near_to_far, ((0, 0), (0, 1))), best, 1)
    ids = jnp.where(kept > 0, jnp.pad(order, (0, 1))[best], -1)
    return (weights > 0).sum(1, dtype=jnp.int32), ids, kept
