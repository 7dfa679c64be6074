"""Compositing at samples for callers: chooses the backend and defines its derivative once."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.samples import groups, reference, xla
from renderers.kernels.tiling import TileLists, next_capacity
from renderers.kernels.transformations import alike, one_by_one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Sampled:
    """Blended Gaussians at samples.

    Attributes:
      values: Float["m c"], sum of features by weight, no background.
      transmittance: Float["m"], what the background is seen through; 1 outside the image.
      overflow: Int[""], intersections dropped for want of capacity.
    """

    values: Float[Array, "m c"]
    transmittance: Float[Array, " m"]
    overflow: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Static choices of a call."""

    backend: Backend
    size: tuple[int, int]
    capacity: int


def composite_samples(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    positions: Float[Array, "m 2"],
    *,
    size: tuple[int, int],
    probe: Float[Array, "n 2"] | None = None,
    drawn: Bool[Array, " m"] | None = None,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> Sampled:
    """Blend Gaussians front to back at positions in the image; at pixel centres, what `composite` has there.

    Differentiable in means2d, conics, opacities, features and positions. Reverse mode.

    Args:
      means2d, conics, opacities, features, extents, depths: as for `kernels.composite.api.composite`.
      positions: pixels (x, y), centres at +0.5; outside the image nothing is seen.
      size: image (height, width).
      probe: pass zeros to receive the absolute-valued gradient of means2d, summed over samples, as its cotangent.
      drawn: False leaves a sample empty. None draws all.
      capacity: bound on intersections of Gaussians with tiles that hold samples. None: counted and rounded up to a
        power of two outside a trace, `groups.default_capacity` inside one. The reference and cpu backends need none.
      backend: None takes the platform's default; there are no Pallas kernels.

    Raises:
      Unsupported: the backend cannot run here.
    """
    chosen = choose(backend, dtype=means2d.dtype.name, pallas=False)
    (n, channels), m, dtype = features.shape, len(positions), means2d.dtype
    none_dropped = jnp.zeros((), jnp.int32)
    if n == 0 or m == 0:
        empty = jnp.zeros((m, channels), dtype)
        return Sampled(values=empty, transmittance=jnp.ones(m, dtype), overflow=none_dropped)
    probe = jnp.zeros_like(means2d) if probe is None else probe
    held = groups.inside(positions, size)
    drawn = held if drawn is None else drawn & held
    positions = jnp.where(held[:, None], positions, 0.0)  # what is not finite must not reach any gradient
    extents, depths = lax.stop_gradient((extents, depths))
    if chosen == "reference":
        visible = jnp.where(extents[:, 0] > 0, opacities, 0.0)
        weights, transmittance = reference.blending_weights(means2d, conics, visible, probe, depths, positions, drawn)
        values = jnp.matmul(weights.T, features, precision=lax.Precision.HIGHEST)
        return Sampled(values=values, transmittance=transmittance, overflow=none_dropped)
    if chosen != "cpu":
        capacity = sample_capacity(means2d, extents, positions, drawn, size) if capacity is None else capacity
    plan = _Plan(chosen, size, capacity or 0)
    inputs = alike(means2d, conics, opacities, features, probe, extents, depths, positions)
    values, transmittance, overflow = typing.cast(
        tuple[jax.Array, jax.Array, jax.Array], _sampled(plan, *inputs, drawn)
    )
    return Sampled(values=values, transmittance=transmittance, overflow=overflow)


def sample_capacity(means2d, extents, positions, drawn, size) -> int:
    """Capacity that lists of the samples' tiles need: counted outside a trace, a bound inside one."""
    if any(isinstance(array, Tracer) for array in (means2d, extents, positions, drawn)):
        return groups.default_capacity(len(means2d), len(positions), size)
    return next_capacity(int(_count(means2d, extents, positions, drawn, size)))


@functools.partial(jax.jit, static_argnums=4)
def _count(means2d, extents, positions, drawn, size):
    used = groups.used_tiles(groups.tile_of(positions, drawn, size), size)
    return groups.count_intersections(means2d, extents, used, size)


def grouped(
    means2d, extents, depths, positions, drawn, size, capacity
) -> tuple[TileLists, groups.Groups, Int[Array, " m"]]:
    """What the xla walk runs over: lists of the samples' tiles, groups of samples, and each sample's place in them."""
    tile = groups.tile_of(positions, drawn, size)
    lists = groups.bin_used_tiles(means2d, extents, depths, groups.used_tiles(tile, size), size, capacity)
    return lists, *groups.sample_groups(positions, tile, size, groups.default_width(len(positions), size))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sampled(plan, means2d, conics, opacities, features, probe, extents, depths, positions, drawn):
    return _forward(plan, means2d, conics, opacities, features, probe, extents, depths, positions, drawn)[0]


def _forward(plan, means2d, conics, opacities, features, probe, extents, depths, positions, drawn):
    inputs, order, at = (means2d, conics, opacities, features), (extents, depths), (positions, drawn)
    if plan.backend == "cpu":
        from renderers.kernels.samples import cpu_handlers  # Numba is an extra, and takes a second to import

        # custom calls forget the mesh axes that they vary over: adding a zero brings those back
        zero = jnp.zeros_like(depths[0])
        values, transmittance = (v + zero for v in cpu_handlers.forward(*inputs, *order, *at, plan.size))
        outputs, overflow, walked = (values, transmittance), jnp.zeros((), jnp.int32), None
    else:
        walked = grouped(means2d, *order, *at, plan.size, plan.capacity)
        lists, grouping, place = walked
        outputs = one_by_one(xla.forward)(*inputs, lists, grouping)
        values, transmittance = from_groups(outputs[0], place, 0.0), from_groups(outputs[1][:, None], place, 1.0)[:, 0]
        overflow = lists.overflow
    return (values, transmittance, overflow), (inputs, order, at, walked, outputs)


def _backward(plan, residuals, cotangents):
    inputs, order, at, walked, outputs = residuals
    g_values, g_transmittance, _ = cotangents
    if plan.backend == "cpu":
        from renderers.kernels.samples import cpu_handlers

        zero = jnp.zeros_like(order[1][0])
        gradients = cpu_handlers.backward(
            *inputs, *order, *at, size=plan.size, outputs=outputs, cotangents=(g_values, g_transmittance)
        )
        *gradients, moved = (v + zero for v in gradients)
    else:
        lists, grouping, place = walked
        given = to_groups(g_values, place, grouping), to_groups(g_transmittance[:, None], place, grouping)[:, 0]
        *gradients, by_group = one_by_one(xla.backward)(*inputs, lists, grouping, outputs, given)
        moved = from_groups(by_group, place, 0.0)
    return *gradients, None, None, moved, None


_sampled.defvjp(_forward, _backward)


def from_groups(by_group: Float[Array, "g c p"], place: Int[Array, " m"], otherwise: float) -> Float[Array, "m c"]:
    """Values of the samples, by each one's place; `otherwise` for samples that have none."""
    count, channels, width = by_group.shape
    flat = jnp.swapaxes(by_group, 1, 2).reshape(count * width, channels)
    return flat.at[place].get(mode="fill", fill_value=otherwise)


def to_groups(values: Float[Array, "m c"], place: Int[Array, " m"], grouping: groups.Groups) -> Float[Array, "g c p"]:
    """Values of the samples laid out by group, zero where a place holds none."""
    count, width = grouping.x.shape
    flat = jnp.zeros((count * width, values.shape[1]), values.dtype).at[place].set(values, mode="drop")
    return jnp.swapaxes(flat.reshape(count, width, -1), 1, 2)
