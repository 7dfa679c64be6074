"""The host surfel kernels as XLA custom calls: handlers, registration, and the JAX functions that call them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.jit_numba import njit
from renderers.kernels.surfels import cpu

FORWARD, BACKWARD = "galatea_surfels_forward", "galatea_surfels_backward"
_INPUTS = 7  # transforms, means2d, opacities, features, depths, rectangles, mask: the first arguments of every call


@njit(inline="always")
def _inputs(frame):
    n, channels = ffi.argument_dim(frame, 3, 0), ffi.argument_dim(frame, 3, 1)
    return (
        ffi.floats(ffi.argument(frame, 0), (n, 9)),
        ffi.floats(ffi.argument(frame, 1), (n, 2)),
        ffi.floats(ffi.argument(frame, 2), (n,)),
        ffi.floats(ffi.argument(frame, 3), (n, channels)),
        ffi.floats(ffi.argument(frame, 4), (n,)),
        ffi.floats(ffi.argument(frame, 5), (n, 4)),
        ffi.floats(ffi.argument(frame, 6), (ffi.argument_dim(frame, 6, 0), ffi.argument_dim(frame, 6, 1))),
    )


def _forward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    transforms, means, opacities, features, depths, rectangles, mask = _inputs(frame)
    height, width = ffi.result_dim(frame, 0, 0), ffi.result_dim(frame, 0, 1)
    image = ffi.floats(ffi.result(frame, 0), (height, width, features.shape[1]))
    planes = ffi.floats(ffi.result(frame, 1), (height, width, 4))
    cpu.forward(transforms, means, opacities, features, depths, rectangles, mask, image, planes)
    return 0


def _backward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    transforms, means, opacities, features, depths, rectangles, mask = _inputs(frame)
    height, width = ffi.argument_dim(frame, _INPUTS, 0), ffi.argument_dim(frame, _INPUTS, 1)
    n, channels = features.shape
    image = ffi.floats(ffi.argument(frame, _INPUTS), (height, width, channels))
    planes = ffi.floats(ffi.argument(frame, _INPUTS + 1), (height, width, 4))
    g_image = ffi.floats(ffi.argument(frame, _INPUTS + 2), (height, width, channels))
    g_planes = ffi.floats(ffi.argument(frame, _INPUTS + 3), (height, width, 4))
    out = ffi.floats(ffi.result(frame, 0), (n, cpu.GEOMETRY + channels))
    cpu.backward(
        transforms, means, opacities, features, depths, rectangles, mask, image, planes, g_image, g_planes, out
    )
    return 0


@functools.cache
def _registered() -> None:
    """Register both handlers, once a process and only when needed."""
    ffi.register(FORWARD, _forward_handler)
    ffi.register(BACKWARD, _backward_handler)


def _floats(mask, dtype):
    """A mask as the handlers take it: floats, and no entries where nothing is masked off."""
    return jnp.zeros((0, 0), dtype) if mask is None else mask.astype(dtype)


def forward(
    transforms: Float[Array, "n 3 3"],
    means2d: Float[Array, "n 2"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    depths: Float[Array, " n"],
    rectangles: Float[Array, "n 4"],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 4"]]:
    """Image without background; transmittance, depth, distortion and median depth. See `reference.composite`."""
    _registered()
    dtype = means2d.dtype
    shapes = tuple(jax.ShapeDtypeStruct((*size, width), dtype) for width in (features.shape[1], 4))
    call = jax.ffi.ffi_call(FORWARD, shapes, vmap_method="sequential")
    rows = transforms.reshape(-1, 9)
    image, planes = call(rows, means2d, opacities, features, depths, rectangles, _floats(mask, dtype))
    return image, planes


def backward(
    transforms: Float[Array, "n 3 3"],
    means2d: Float[Array, "n 2"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    depths: Float[Array, " n"],
    rectangles: Float[Array, "n 4"],
    mask: Bool[Array, "h w"] | None,
    outputs: tuple[Float[Array, "h w c"], Float[Array, "h w 4"]],
    cotangents: tuple[Float[Array, "h w c"], Float[Array, "h w 4"]],
) -> tuple[Array, ...]:
    """Gradients of transforms, means2d, opacities, features and depths, and the absolute-valued one of means2d."""
    _registered()
    dtype, n = means2d.dtype, means2d.shape[0]
    shape = jax.ShapeDtypeStruct((n, cpu.GEOMETRY + features.shape[1]), dtype)
    call = jax.ffi.ffi_call(BACKWARD, shape, vmap_method="sequential")
    inputs = (transforms.reshape(-1, 9), means2d, opacities, features, depths, rectangles, _floats(mask, dtype))
    rows = call(*inputs, *outputs, *cotangents)
    transform, mean, opacity, depth, probe, feature = jnp.split(rows, (9, 11, 12, 13, 15), 1)
    return transform.reshape(n, 3, 3), mean, opacity[:, 0], feature, depth[:, 0], probe
