"""Compositing of surfels for callers: chooses the backend and defines its derivative once."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels import tiling
from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.surfels import reference, xla
from renderers.kernels.surfels.reference import tile_rectangles
from renderers.kernels.transformations import alike, one_by_one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class CompositedSurfels:
    """Blended surfels.

    Attributes:
      image: Float["h w c"], sum of features by weight, no background.
      transmittance: Float["h w"], what the background is seen through.
      depth: Float["h w"], sum of the centres' depths by weight.
      distortion: Float["h w"], 2 sum_{j < i} w_i w_j (d_i - d_j).
      median_depth: Float["h w"], depth of the last surfel that more than half of the light reaches; 0 where none is.
      overflow: Int[""], intersections dropped for want of capacity.
    """

    image: Float[Array, "h w c"]
    transmittance: Float[Array, "h w"]
    depth: Float[Array, "h w"]
    distortion: Float[Array, "h w"]
    median_depth: Float[Array, "h w"]
    overflow: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Static choices of a call."""

    backend: Backend
    size: tuple[int, int]
    capacity: int


def composite_surfels(
    transforms: Float[Array, "n 3 3"],
    means2d: Float[Array, "n 2"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    depths: Float[Array, " n"],
    radii: Int[Array, "n 2"],
    *,
    size: tuple[int, int],
    probe: Float[Array, "n 2"] | None = None,
    mask: Bool[Array, "h w"] | None = None,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> CompositedSurfels:
    """Blend surfels front to back.

    Differentiable in transforms, means2d, opacities, features and depths (their order is piecewise constant, and the
    median's gradient goes to the one surfel that it is of); nothing flows through radii or overflow. Reverse mode.

    Args:
      transforms: M, plane coordinates (u, v, 1) in standard deviations to homogeneous pixels.
      means2d: centres of the boxes and of the low-pass filter, pixels.
      opacities: in [0, 1].
      features: values to blend, any number of channels.
      depths: of the centres, near to far; equal depths keep the order given.
      radii: half boxes, pixels; a surfel is drawn in the 16-pixel tiles that its box meets; zero drops it.
      size: image (height, width).
      probe: pass zeros to receive the absolute-valued gradient of means2d, which is that of the low-pass filter's
        pixels alone, as its cotangent.
      mask: pixels to draw; the others stay empty and pass no gradient. None draws all.
      capacity: bound on (surfel, tile) intersections. None: counted and rounded up to a power of two outside a trace,
        `tiling.default_capacity` inside one. The reference and cpu backends need none.
      backend: None takes the platform's default; an explicit one never falls back.

    Raises:
      Unsupported: the backend cannot run here; there are no Pallas kernels for surfels.
    """
    dtype = means2d.dtype
    chosen = choose(backend, dtype=dtype.name, pallas=False)
    if means2d.shape[0] == 0:
        planes = jnp.zeros((*size, 4), dtype).at[..., 0].set(1.0)
        return _record(jnp.zeros((*size, features.shape[1]), dtype), planes, jnp.zeros((), jnp.int32))
    probe = jnp.zeros_like(means2d) if probe is None else probe
    rectangles = tile_rectangles(means2d, radii, size)
    if chosen == "reference":
        inputs = (transforms, means2d, opacities, features, probe, depths, rectangles)
        return _record(*reference.composite(*inputs, mask, size), jnp.zeros((), jnp.int32))
    if capacity is None and chosen != "cpu":
        capacity = _capacity(rectangles, size)
    plan = _Plan(chosen, size, capacity or 0)
    inputs = alike(transforms, means2d, opacities, features, probe, depths, rectangles)
    return _record(*typing.cast(tuple[jax.Array, jax.Array, jax.Array], _tiled(plan, *inputs, mask)))


def _record(image, planes, overflow):
    transmittance, depth, distortion, median = (planes[..., k] for k in range(4))
    return CompositedSurfels(
        image=image,
        transmittance=transmittance,
        depth=depth,
        distortion=distortion,
        median_depth=median,
        overflow=overflow,
    )


def _boxes(rectangles):
    """Boxes whose tiles, as `tiling` finds them, are those of the rectangles: they end half a pixel within."""
    first, last = rectangles[:, :2], rectangles[:, 2:]
    half = (last - first) * (tiling.TILE / 2)
    return (first + last) * (tiling.TILE / 2), jnp.where(half > 0, half - 0.5, 0.0)


def _capacity(rectangles, size) -> int:
    if isinstance(rectangles, Tracer):
        return tiling.default_capacity(rectangles.shape[0], size)
    return tiling.next_capacity(int(tile_count(rectangles)))


@jax.jit
def tile_count(rectangles: Float[Array, "n 4"]) -> Int[Array, ""]:
    """Number of intersections, which sets the capacity that lists need."""
    return jnp.sum(jnp.prod(rectangles[:, 2:] - rectangles[:, :2], -1).astype(jnp.int32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled(plan, transforms, means2d, opacities, features, probe, depths, rectangles, mask):
    return _forward(plan, transforms, means2d, opacities, features, probe, depths, rectangles, mask)[0]


def _forward(plan, transforms, means2d, opacities, features, probe, depths, rectangles, mask):
    inputs = (transforms, means2d, opacities, features, depths)
    if plan.backend == "cpu":
        from renderers.kernels.surfels import cpu_handlers  # Numba is an extra, and takes a second to import

        # custom calls forget the mesh axes that they vary over: adding a zero brings those back
        zero = jnp.zeros_like(depths[0])
        image, planes = (v + zero for v in cpu_handlers.forward(*inputs, rectangles, mask, plan.size))
        lists, overflow = None, jnp.zeros((), jnp.int32)
    else:
        lists = tiling.bin_gaussians(*_boxes(rectangles), depths, plan.size, plan.capacity)
        image, planes = one_by_one(functools.partial(xla.forward, size=plan.size))(*inputs, lists, mask)
        overflow = lists.overflow
    return (image, planes, overflow), (inputs, rectangles, mask, lists, image, planes)


def _backward(plan, residuals, cotangents):
    (transforms, means2d, opacities, features, depths), rectangles, mask, lists, image, planes = residuals
    inputs = (transforms, means2d, opacities, features, depths)
    outputs, cotangents = (image, planes), (cotangents[0], cotangents[1])
    if plan.backend == "cpu":
        from renderers.kernels.surfels import cpu_handlers

        zero = jnp.zeros_like(image[0, 0, 0])
        gradients = tuple(v + zero for v in cpu_handlers.backward(*inputs, rectangles, mask, outputs, cotangents))
    else:
        backward = one_by_one(functools.partial(xla.backward, size=plan.size))
        gradients = backward(*inputs, lists, outputs, cotangents, mask)
    transform, mean, opacity, feature, depth, probe = gradients
    return transform, mean, opacity, feature, probe, depth, None, None


_tiled.defvjp(_forward, _backward)
