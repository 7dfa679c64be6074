"""Compositing for callers: chooses the backend and defines its derivatives once."""

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels import tiling
from renderers.kernels.composite import reference, xla
from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.transformations import alike, one_by_one

Derivative = Literal["reverse", "forward"]


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
    mask: Bool[Array, "h w"] | None = None,
    capacity: int | None = None,
    backend: Backend | None = None,
    derivative: Derivative = "reverse",
) -> Composited:
    """Blend Gaussians front to back.

    Differentiable in means2d, conics, opacities and features; nothing flows through extents, depths (order only), or
    overflow.

    Args:
      means2d: pixels.
      conics: inverse 2D covariances (xx, xy, yy), 1 / pixel^2.
      opacities: in [0, 1].
      features: values to blend, any number of channels.
      extents: half sizes of the boxes outside which alpha < 1/255, pixels; zero drops a Gaussian.
      depths: near to far; equal depths keep the order given.
      size: image (height, width).
      probe: pass zeros to receive the absolute-valued gradient of means2d as its cotangent.
      mask: pixels to draw; the others stay empty, see the background, pass no gradient, and tiles of none but those
        cost nothing. None draws all.
      capacity: bound on (Gaussian, tile) intersections. None: counted and rounded up to a power of two outside a
        trace, `tiling.default_capacity` inside one. The reference and cpu backends need none.
      backend: None takes the platform's default; an explicit one never falls back.
      derivative: the mode to differentiate in, since JAX lets hand-written code have only one. "reverse" is for
        `jax.grad`; "forward" for `jax.jvp` and `jax.jacfwd`, whose many tangents share one walk under `vmap`. Forward
        mode of the Pallas backends is that of xla.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: a probe in forward mode, which has no cotangents.
    """
    if derivative == "forward" and probe is not None:
        raise ValueError('expected no probe with derivative="forward": absolute gradients exist in reverse mode only')
    n, channels = features.shape
    chosen = choose(backend, dtype=means2d.dtype.name)
    if n == 0:
        dtype = means2d.dtype
        return Composited(
            image=jnp.zeros((*size, channels), dtype),
            transmittance=jnp.ones(size, dtype),
            overflow=jnp.zeros((), jnp.int32),
        )
    if derivative == "reverse" and probe is None:
        probe = jnp.zeros_like(means2d)
    extents, depths = lax.stop_gradient((extents, depths))
    if chosen == "reference":
        dropped = jnp.where(extents[:, 0] > 0, opacities, 0.0)
        image, transmittance = reference.composite(means2d, conics, dropped, features, probe, depths, mask, size)
        return Composited(image=image, transmittance=transmittance, overflow=jnp.zeros((), jnp.int32))
    if capacity is None and chosen != "cpu":
        capacity = _capacity(means2d, extents, size)
    plan = _Plan(chosen, size, capacity or 0)
    if derivative == "forward":
        inputs = alike(means2d, conics, opacities, features, extents, depths)
        run: Callable = _host_forward_mode if chosen == "cpu" else _listed_forward_mode
        outputs = run(plan, *inputs, mask)
    else:
        inputs = alike(means2d, conics, opacities, features, probe, extents, depths)
        outputs = _tiled(plan, *inputs, mask)
    image, transmittance, overflow = typing.cast(tuple[jax.Array, jax.Array, jax.Array], outputs)
    return Composited(image=image, transmittance=transmittance, overflow=overflow)


def _capacity(means2d, extents, size) -> int:
    if isinstance(means2d, Tracer) or isinstance(extents, Tracer):
        return tiling.default_capacity(means2d.shape[0], size)
    return tiling.next_capacity(int(_count(means2d, extents, size)))


_count = jax.jit(tiling.count_intersections, static_argnums=2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled(plan, means2d, conics, opacities, features, probe, extents, depths, mask):
    return _forward(plan, means2d, conics, opacities, features, probe, extents, depths, mask)[0]


def _forward(plan, means2d, conics, opacities, features, probe, extents, depths, mask):
    inputs = (means2d, conics, opacities, features)
    if plan.backend == "cpu":
        from renderers.kernels.composite import cpu_handlers  # Numba is an extra, and takes a second to import

        # custom calls forget the mesh axes that they vary over: adding a zero brings those back
        zero = jnp.zeros_like(depths[0])
        image, transmittance = (v + zero for v in cpu_handlers.forward(*inputs, extents, depths, mask, plan.size))
        lists, overflow = None, jnp.zeros((), jnp.int32)
    else:
        lists = tiling.bin_gaussians(means2d, extents, depths, plan.size, plan.capacity)
        image, transmittance = _passes(plan)[0](*inputs, lists, mask)
        overflow = lists.overflow
    return (image, transmittance, overflow), (inputs, extents, depths, mask, lists, image, transmittance)


def _backward(plan, residuals, cotangents):
    (means2d, conics, opacities, features), extents, depths, mask, lists, image, transmittance = residuals
    inputs = (means2d, conics, opacities, features)
    outputs, cotangents = (image, transmittance), (cotangents[0], cotangents[1])
    if plan.backend == "cpu":
        from renderers.kernels.composite import cpu_handlers

        zero = jnp.zeros_like(depths[0])
        gradients = cpu_handlers.backward(*inputs, extents, depths, mask, outputs, cotangents)
        gradients = tuple(v + zero for v in gradients)
    else:
        gradients = _passes(plan)[1](*inputs, lists, outputs, cotangents, mask)
    return *gradients, None, None, None


def _passes(plan: _Plan) -> tuple[Callable, Callable]:
    """Forward and backward pass of a backend that takes tile lists; Pallas takes a second to import."""
    if plan.backend == "pallas_gpu":
        from renderers.kernels.composite import pallas_gpu as kernels
    elif plan.backend == "pallas_tpu":
        from renderers.kernels.composite import pallas_tpu as kernels
    else:
        kernels = xla
    forward = functools.partial(kernels.forward, size=plan.size)
    backward = functools.partial(kernels.backward, size=plan.size)
    if plan.backend == "xla":
        return one_by_one(forward), one_by_one(backward)
    return forward, backward


_tiled.defvjp(_forward, _backward)


def _listed_forward_mode(plan, means2d, conics, opacities, features, extents, depths, mask):
    """The walk over fixed tile lists in plain XLA, which JAX differentiates forward by itself."""
    lists = tiling.bin_gaussians(lax.stop_gradient(means2d), extents, depths, plan.size, plan.capacity)
    return *xla.forward(means2d, conics, opacities, features, lists, mask, plan.size), lists.overflow


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _host_forward_mode(plan, means2d, conics, opacities, features, extents, depths, mask):
    return _forward(plan, means2d, conics, opacities, features, None, extents, depths, mask)[0]


@_host_forward_mode.defjvp
def _host_tangent(plan, primals, tangents):
    from renderers.kernels.composite import cpu_handlers

    arrays, mask = primals[:-1], primals[-1]
    means2d, conics, opacities, features = tangents[:4]
    moved = jnp.concatenate([means2d, conics, opacities[:, None], features], 1)
    zero = jnp.zeros_like(arrays[-1][0])
    image, transmittance = (v + zero for v in cpu_handlers.tangent(*arrays, mask=mask, moved=moved, size=plan.size))
    return _host_forward_mode(plan, *primals), (image, transmittance, np.zeros((), jax.dtypes.float0))
