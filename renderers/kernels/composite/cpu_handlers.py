"""The host compositing kernels as XLA custom calls: handlers, registration, and the JAX functions that call them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.composite import cpu
from renderers.kernels.jit_numba import njit

FORWARD, BACKWARD = "galatea_composite_forward", "galatea_composite_backward"


@njit(inline="always")
def _inputs(frame):
    """means2d, conics, opacities, features, extents, depths: the first six arguments of both calls."""
    n, channels = ffi.argument_dim(frame, 3, 0), ffi.argument_dim(frame, 3, 1)
    return (
        ffi.floats(ffi.argument(frame, 0), (n, 2)),
        ffi.floats(ffi.argument(frame, 1), (n, 3)),
        ffi.floats(ffi.argument(frame, 2), (n,)),
        ffi.floats(ffi.argument(frame, 3), (n, channels)),
        ffi.floats(ffi.argument(frame, 4), (n, 2)),
        ffi.floats(ffi.argument(frame, 5), (n,)),
    )


def _forward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities, features, extents, depths = _inputs(frame)
    height, width = ffi.result_dim(frame, 0, 0), ffi.result_dim(frame, 0, 1)
    image = ffi.floats(ffi.result(frame, 0), (height, width, features.shape[1]))
    final = ffi.floats(ffi.result(frame, 1), (height, width))
    cpu.forward(means, conics, opacities, features, extents, depths, image, final)
    return 0


def _backward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities, features, extents, depths = _inputs(frame)
    height, width = ffi.argument_dim(frame, 6, 0), ffi.argument_dim(frame, 6, 1)
    n, channels = features.shape
    image = ffi.floats(ffi.argument(frame, 6), (height, width, channels))
    final = ffi.floats(ffi.argument(frame, 7), (height, width))
    g_image = ffi.floats(ffi.argument(frame, 8), (height, width, channels))
    g_final = ffi.floats(ffi.argument(frame, 9), (height, width))
    out = ffi.floats(ffi.result(frame, 0), (n, cpu.GEOMETRY + channels))
    cpu.backward(means, conics, opacities, features, extents, depths, image, final, g_image, g_final, out)
    return 0


@functools.cache
def _registered() -> None:
    """Register both handlers, once a process and only when needed."""
    ffi.register(FORWARD, _forward_handler)
    ffi.register(BACKWARD, _backward_handler)


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Image without background and transmittance left; see `reference.composite`."""
    _registered()
    shapes = tuple(jax.ShapeDtypeStruct(s, means2d.dtype) for s in ((*size, features.shape[1]), size))
    call = jax.ffi.ffi_call(FORWARD, shapes, vmap_method="sequential")
    return call(means2d, conics, opacities, features, extents, depths)


def backward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    outputs: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    cotangents: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
) -> tuple[Float[Array, "n 2"], Float[Array, "n 3"], Float[Array, " n"], Float[Array, "n c"], Float[Array, "n 2"]]:
    """Gradients of means2d, conics, opacities and features, and the absolute-valued gradient of means2d."""
    _registered()
    shape = jax.ShapeDtypeStruct((means2d.shape[0], cpu.GEOMETRY + features.shape[1]), means2d.dtype)
    call = jax.ffi.ffi_call(BACKWARD, shape, vmap_method="sequential")
    rows = call(means2d, conics, opacities, features, extents, depths, *outputs, *cotangents)
    mean, conic, opacity, probe, feature = jnp.split(rows, (2, 5, 6, 8), 1)
    return mean, conic, opacity[:, 0], feature, probe
