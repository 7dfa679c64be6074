"""The host compositing kernels as XLA custom calls: handlers, registration, and the JAX functions that call them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.composite import cpu, cpu_tangent
from renderers.kernels.jit_numba import njit

FORWARD, BACKWARD = "galatea_composite_forward", "galatea_composite_backward"
TANGENTS = "galatea_composite_tangents"


@njit(inline="always")
def _inputs(frame):
    """means2d, conics, opacities, features, extents, depths, mask: the first seven arguments of every call."""
    n, channels = ffi.argument_dim(frame, 3, 0), ffi.argument_dim(frame, 3, 1)
    return (
        ffi.floats(ffi.argument(frame, 0), (n, 2)),
        ffi.floats(ffi.argument(frame, 1), (n, 3)),
        ffi.floats(ffi.argument(frame, 2), (n,)),
        ffi.floats(ffi.argument(frame, 3), (n, channels)),
        ffi.floats(ffi.argument(frame, 4), (n, 2)),
        ffi.floats(ffi.argument(frame, 5), (n,)),
        ffi.floats(ffi.argument(frame, 6), (ffi.argument_dim(frame, 6, 0), ffi.argument_dim(frame, 6, 1))),
    )


def _forward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities, features, extents, depths, mask = _inputs(frame)
    height, width = ffi.result_dim(frame, 0, 0), ffi.result_dim(frame, 0, 1)
    image = ffi.floats(ffi.result(frame, 0), (height, width, features.shape[1]))
    final = ffi.floats(ffi.result(frame, 1), (height, width))
    cpu.forward(means, conics, opacities, features, extents, depths, mask, image, final)
    return 0


def _backward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities, features, extents, depths, mask = _inputs(frame)
    height, width = ffi.argument_dim(frame, 7, 0), ffi.argument_dim(frame, 7, 1)
    n, channels = features.shape
    image = ffi.floats(ffi.argument(frame, 7), (height, width, channels))
    final = ffi.floats(ffi.argument(frame, 8), (height, width))
    g_image = ffi.floats(ffi.argument(frame, 9), (height, width, channels))
    g_final = ffi.floats(ffi.argument(frame, 10), (height, width))
    out = ffi.floats(ffi.result(frame, 0), (n, cpu.GEOMETRY + channels))
    cpu.backward(means, conics, opacities, features, extents, depths, mask, image, final, g_image, g_final, out)
    return 0


def _tangents_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities, features, extents, depths, mask = _inputs(frame)
    n, channels = features.shape
    directions, height, width = ffi.result_dim(frame, 0, 0), ffi.result_dim(frame, 0, 1), ffi.result_dim(frame, 0, 2)
    moved = ffi.floats(ffi.argument(frame, 7), (n, directions, cpu_tangent.GEOMETRY + channels))
    images = ffi.floats(ffi.result(frame, 0), (directions, height, width, channels))
    finals = ffi.floats(ffi.result(frame, 1), (directions, height, width))
    cpu_tangent.tangents(means, conics, opacities, features, extents, depths, mask, moved, images, finals)
    return 0


@functools.cache
def _registered() -> None:
    """Register both handlers of reverse mode, once a process and only when needed."""
    ffi.register(FORWARD, _forward_handler)
    ffi.register(BACKWARD, _backward_handler)


@functools.cache
def _tangents_registered() -> None:
    """Register the handler of forward mode, which few programs need: to compile it takes seconds."""
    ffi.register(TANGENTS, _tangents_handler)


def _floats(mask, dtype):
    """A mask as the handlers take it: floats, and no entries where nothing is masked off."""
    return jnp.zeros((0, 0), dtype) if mask is None else mask.astype(dtype)


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Image without background and transmittance left; see `reference.composite`."""
    _registered()
    shapes = tuple(jax.ShapeDtypeStruct(s, means2d.dtype) for s in ((*size, features.shape[1]), size))
    call = jax.ffi.ffi_call(FORWARD, shapes, vmap_method="sequential")
    return call(means2d, conics, opacities, features, extents, depths, _floats(mask, means2d.dtype))


def backward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    mask: Bool[Array, "h w"] | None,
    outputs: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    cotangents: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
) -> tuple[Float[Array, "n 2"], Float[Array, "n 3"], Float[Array, " n"], Float[Array, "n c"], Float[Array, "n 2"]]:
    """Gradients of means2d, conics, opacities and features, and the absolute-valued gradient of means2d."""
    _registered()
    shape = jax.ShapeDtypeStruct((means2d.shape[0], cpu.GEOMETRY + features.shape[1]), means2d.dtype)
    call = jax.ffi.ffi_call(BACKWARD, shape, vmap_method="sequential")
    rows = call(
        means2d, conics, opacities, features, extents, depths, _floats(mask, means2d.dtype), *outputs, *cotangents
    )
    mean, conic, opacity, probe, feature = jnp.split(rows, (2, 5, 6, 8), 1)
    return mean, conic, opacity[:, 0], feature, probe


def tangent(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    mask: Bool[Array, "h w"] | None,
    moved: Float[Array, "n k"],
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Tangents of image and transmittance along a direction; one kernel call for all directions of a `vmap`.

    Args:
      means2d, conics, opacities, features, extents, depths, mask, size: see `forward`.
      moved: the direction, tangents of means2d, conics, opacities and features side by side.
    """
    scene = (means2d, conics, opacities, features, extents, depths, _floats(mask, means2d.dtype))

    @jax.custom_batching.custom_vmap
    def along(scene, moved):
        images, finals = _tangents(scene, moved[:, None], size)
        return images[0], finals[0]

    @along.def_vmap
    def along_many(many, batched, scene, moved):
        if not any(batched[0]):
            return _tangents(scene, jnp.moveaxis(moved, 0, 1), size), (True, True)

        def one(i):  # of many scenes
            return along(
                *jax.tree.map(lambda leaf, varies: leaf[i] if varies else leaf, (scene, moved), tuple(batched))
            )

        return jax.lax.map(one, jnp.arange(many)), (True, True)

    return along(scene, moved)


def _tangents(scene, moved, size):
    """Images [k, h, w, c] and transmittances [k, h, w] along the k directions of moved [n, k, 6 + c]."""
    _tangents_registered()
    directions, channels = moved.shape[1], moved.shape[2] - cpu_tangent.GEOMETRY
    shapes = tuple(jax.ShapeDtypeStruct((directions, *s), moved.dtype) for s in ((*size, channels), size))
    return tuple(jax.ffi.ffi_call(TANGENTS, shapes, vmap_method="sequential")(*scene, moved))
