"""Compositing for callers: chooses the backend and defines its derivative once."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from renderers.kernels import tiling
from renderers.kernels.composite import reference, xla
from renderers.kernels.dispatch import Backend, choose


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Composited:
    """Blended Gaussians.

    Attributes:
      image: Float["h w c"], sum of features by weight, no background.
      transmittance: Float["h w"], what the background is seen through.
      overflow: Int[""], intersections dropped for want of capacity.
    """

    image: Float[Array, "h w c"]
    transmittance: Float[Array, "h w"]
    overflow: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Static choices of a call."""

    backend: Backend
    size: tuple[int, int]
    capacity: int


def composite(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    *,
    size: tuple[int, int],
    probe: Float[Array, "n 2"] | None = None,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> Composited:
    """Blend Gaussians front to back.

    Differentiable in means2d, conics, opacities and features; nothing flows through extents, depths (order only), or
    overflow. Reverse mode.

    Args:
      means2d: pixels.
      conics: inverse 2D covariances (xx, xy, yy), 1 / pixel^2.
      opacities: in [0, 1].
      features: values to blend, any number of channels.
      extents: half sizes of the boxes outside which alpha < 1/255, pixels; zero drops a Gaussian.
      depths: near to far; equal depths keep the order given.
      size: image (height, width).
      probe: pass zeros to receive the absolute-valued gradient of means2d as its cotangent.
      capacity: bound on (Gaussian, tile) intersections of the xla backend. None: counted and rounded up to a power of
        two outside a trace, `tiling.default_capacity` inside one. The other backends need none.
      backend: None takes the platform's default; an explicit one never falls back.

    Raises:
      Unsupported: the backend cannot run here.
    """
    n, channels = features.shape
    chosen = choose(backend, dtype=means2d.dtype.name)
    if n == 0:
        dtype = means2d.dtype
        return Composited(
            image=jnp.zeros((*size, channels), dtype),
            transmittance=jnp.ones(size, dtype),
            overflow=jnp.zeros((), jnp.int32),
        )
    probe = jnp.zeros_like(means2d) if probe is None else probe
    extents, depths = lax.stop_gradient((extents, depths))
    if chosen == "reference":
        dropped = jnp.where(extents[:, 0] > 0, opacities, 0.0)
        image, transmittance = reference.composite(means2d, conics, dropped, features, probe, depths, size)
        return Composited(image=image, transmittance=transmittance, overflow=jnp.zeros((), jnp.int32))
    if capacity is None and chosen != "cpu":
        capacity = _capacity(means2d, extents, size)
    plan = _Plan(chosen, size, capacity or 0)
    inputs = _alike(means2d, conics, opacities, features, probe, extents, depths)
    image, transmittance, overflow = typing.cast(tuple[jax.Array, jax.Array, jax.Array], _tiled(plan, *inputs))
    return Composited(image=image, transmittance=transmittance, overflow=overflow)


def _alike(*arrays):
    """The same arrays, all varying over the same mesh axes, as a hand-written derivative under `shard_map` needs.

    Adding a constant zero that varies like every array lets JAX insert (and, backwards, sum over) the missing axes.
    """
    zero = sum(jnp.zeros_like(array.ravel()[0]) for array in arrays)
    return tuple(array + zero for array in arrays)


def _capacity(means2d, extents, size) -> int:
    if isinstance(means2d, Tracer) or isinstance(extents, Tracer):
        return tiling.default_capacity(means2d.shape[0], size)
    return tiling.next_capacity(int(_count(means2d, extents, size)))


_count = jax.jit(tiling.count_intersections, static_argnums=2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled(plan, means2d, conics, opacities, features, probe, extents, depths):
    return _forward(plan, means2d, conics, opacities, features, probe, extents, depths)[0]


def _forward(plan, means2d, conics, opacities, features, probe, extents, depths):
    inputs = (means2d, conics, opacities, features)
    if plan.backend == "cpu":
        from renderers.kernels.composite import cpu_handlers  # Numba is an extra, and takes a second to import

        # custom calls forget the mesh axes that they vary over: adding a zero brings those back
        zero = jnp.zeros_like(depths[0])
        image, transmittance = (v + zero for v in cpu_handlers.forward(*inputs, extents, depths, plan.size))
        lists, overflow = None, jnp.zeros((), jnp.int32)
    else:
        lists = tiling.bin_gaussians(means2d, extents, depths, plan.size, plan.capacity)
        image, transmittance = xla.forward(*inputs, lists, plan.size)
        overflow = lists.overflow
    return (image, transmittance, overflow), (inputs, extents, depths, lists, image, transmittance)


def _backward(plan, residuals, cotangents):
    (means2d, conics, opacities, features), extents, depths, lists, image, transmittance = residuals
    inputs = (means2d, conics, opacities, features)
    outputs, cotangents = (image, transmittance), (cotangents[0], cotangents[1])
    if plan.backend == "cpu":
        from renderers.kernels.composite import cpu_handlers

        zero = jnp.zeros_like(depths[0])
        gradients = cpu_handlers.backward(*inputs, extents, depths, outputs, cotangents)
        gradients = tuple(v + zero for v in gradients)
    else:
        gradients = xla.backward(*inputs, lists, outputs, cotangents, plan.size)
    return *gradients, None, None


_tiled.defvjp(_forward, _backward)
