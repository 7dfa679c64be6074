"""The host kernels as XLA custom calls: handlers, registration, and the JAX functions that call them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.jit_numba import njit
from renderers.kernels.triangle_raster import cpu, cpu_surface
from renderers.kernels.triangle_raster.reference import Projection

VISIBLE = "galatea_visible_faces"
SURFACE, SURFACE_GRADIENTS = "galatea_mesh_surface", "galatea_mesh_surface_gradients"
BLEND, BLEND_GRADIENTS = "galatea_mesh_blend", "galatea_mesh_blend_gradients"
_CODES = {"perspective": cpu.PERSPECTIVE, "parallel": cpu.PARALLEL, "spherical": cpu.SPHERICAL}


@njit(inline="always")
def _floats(frame, index):
    """A matrix of float32."""
    return ffi.floats(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


@njit(inline="always")
def _integers(frame, index):
    """A matrix of int32."""
    return ffi.integers(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


def _visible_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    height, width = ffi.result_dim(frame, 0, 0), ffi.result_dim(frame, 0, 1)
    rays = ffi.floats(ffi.argument(frame, 2), (height, width, 3))
    near, code = ffi.floats(ffi.argument(frame, 4), (1,))[0], ffi.integers(ffi.argument(frame, 5), (1,))[0]
    seen = ffi.integers(ffi.result(frame, 0), (height, width))
    cpu.visible_faces(_floats(frame, 0), _integers(frame, 1), rays, _integers(frame, 3), near, code, seen)
    return 0


@njit(inline="always")
def _image(frame, index, channels):
    """An image of float32 with its pixels flat."""
    pixels = ffi.argument_dim(frame, index, 0) * ffi.argument_dim(frame, index, 1)
    return ffi.floats(ffi.argument(frame, index), (pixels, channels))


@njit(inline="always")
def _out_image(frame, index, channels):
    pixels = ffi.result_dim(frame, index, 0) * ffi.result_dim(frame, index, 1)
    return ffi.floats(ffi.result(frame, index), (pixels, channels))


@njit(inline="always")
def _out_matrix(frame, index):
    return ffi.floats(ffi.result(frame, index), (ffi.result_dim(frame, index, 0), ffi.result_dim(frame, index, 1)))


@njit(inline="always")
def _indices(frame, index):
    """An image of int32, flat."""
    pixels = ffi.argument_dim(frame, index, 0) * ffi.argument_dim(frame, index, 1)
    return ffi.integers(ffi.argument(frame, index), (pixels,))


def _surface_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    vertices, faces, index, rays = _floats(frame, 0), _integers(frame, 1), _indices(frame, 2), _image(frame, 3, 3)
    pose, code = _floats(frame, 4), ffi.integers(ffi.argument(frame, 5), (1,))[0]
    depth = ffi.floats(ffi.result(frame, 1), (index.shape[0],))
    share, normal = _out_image(frame, 0, 3), _out_image(frame, 2, 3)
    cpu_surface.surface(vertices, faces, index, rays, pose, code, share, depth, normal)
    return 0


def _surface_gradients_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    vertices, faces, index, rays = _floats(frame, 0), _integers(frame, 1), _indices(frame, 2), _image(frame, 3, 3)
    pose, code = _floats(frame, 4), ffi.integers(ffi.argument(frame, 5), (1,))[0]
    g_share, g_normal = _image(frame, 6, 3), _image(frame, 8, 3)
    g_depth = ffi.floats(ffi.argument(frame, 7), (index.shape[0],))
    g_vertices, g_rays, g_pose = _out_matrix(frame, 0), _out_image(frame, 1, 3), _out_matrix(frame, 2)
    cpu_surface.surface_gradients(
        vertices, faces, index, rays, pose, code, g_share, g_depth, g_normal, g_vertices, g_rays, g_pose
    )
    return 0


def _blend_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    values, faces, index, share = _floats(frame, 0), _integers(frame, 1), _indices(frame, 2), _image(frame, 3, 3)
    cpu_surface.blend(values, faces, index, share, _out_image(frame, 0, values.shape[1]))
    return 0


def _blend_gradients_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    values, faces, index, share = _floats(frame, 0), _integers(frame, 1), _indices(frame, 2), _image(frame, 3, 3)
    g_image = _image(frame, 4, values.shape[1])
    cpu_surface.blend_gradients(
        values, faces, index, share, g_image, _out_matrix(frame, 0), _out_image(frame, 1, 3)
    )  # fmt: skip
    return 0


@functools.cache
def _registered(name: str) -> str:
    """Register a handler, once a process and only when needed: each compiles for seconds the first time."""
    handlers = {
        VISIBLE: _visible_handler,
        SURFACE: _surface_handler,
        SURFACE_GRADIENTS: _surface_gradients_handler,
        BLEND: _blend_handler,
        BLEND_GRADIENTS: _blend_gradients_handler,
    }
    ffi.register(name, handlers[name])
    return name


def _call(name, *results):
    shapes = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results)
    return jax.ffi.ffi_call(_registered(name), shapes, vmap_method="sequential")


def visible_faces(
    points: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    rays: Float[Array, "h w 3"],
    boxes: Int[Array, "f 4"],
    near: Float[Array, ""],
    projection: Projection,
) -> Int[Array, "h w"]:
    """Index of the face that each pixel sees, -1 where there is none."""
    call = _call(VISIBLE, (rays.shape[:2], jnp.int32))
    (index,) = call(points, faces, rays, boxes, near[None], jnp.asarray([_CODES[projection]], jnp.int32))
    return index


def surface(
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    index: Int[Array, "h w"],
    rays: Float[Array, "h w 3"],
    pose: Float[Array, "3 4"],
    projection: Projection,
) -> tuple[Float[Array, "h w 3"], Float[Array, "h w"], Float[Array, "h w 3"]]:
    """Barycentric coordinates, depth and normal; see `surface.surface`."""
    image, float32 = index.shape, jnp.float32
    call = _call(SURFACE, ((*image, 3), float32), (image, float32), ((*image, 3), float32))
    return tuple(call(vertices, faces, index, rays, pose, jnp.asarray([_CODES[projection]], jnp.int32)))


def surface_gradients(
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    index: Int[Array, "h w"],
    rays: Float[Array, "h w 3"],
    pose: Float[Array, "3 4"],
    projection: Projection,
    cotangents: tuple[Float[Array, "h w 3"], Float[Array, "h w"], Float[Array, "h w 3"]],
) -> tuple[Float[Array, "v 3"], Float[Array, "h w 3"], Float[Array, "3 4"]]:
    """Gradients of vertices, rays and pose."""
    call = _call(SURFACE_GRADIENTS, *((array.shape, jnp.float32) for array in (vertices, rays, pose)))
    code = jnp.asarray([_CODES[projection]], jnp.int32)
    return tuple(call(vertices, faces, index, rays, pose, code, *cotangents))


def blend(
    values: Float[Array, "v c"], faces: Int[Array, "f 3"], index: Int[Array, "h w"], barycentric: Float[Array, "h w 3"]
) -> Float[Array, "h w c"]:
    """Values at the corners, each in its share; see `surface.blend`."""
    (image,) = _call(BLEND, ((*index.shape, values.shape[1]), jnp.float32))(values, faces, index, barycentric)
    return image


def blend_gradients(
    values: Float[Array, "v c"],
    faces: Int[Array, "f 3"],
    index: Int[Array, "h w"],
    barycentric: Float[Array, "h w 3"],
    cotangent: Float[Array, "h w c"],
) -> tuple[Float[Array, "v c"], Float[Array, "h w 3"]]:
    """Gradients of values and barycentric."""
    call = _call(BLEND_GRADIENTS, (values.shape, jnp.float32), (barycentric.shape, jnp.float32))
    return tuple(call(values, faces, index, barycentric, cotangent))
