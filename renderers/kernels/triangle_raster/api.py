"""Visible faces and the surface seen, for callers: chooses the backend and defines derivatives once."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from renderers.kernels import tiling
from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.transformations import alike, one_by_one
from renderers.kernels.triangle_raster import reference, xla
from renderers.kernels.triangle_raster import surface as jnp_surface
from renderers.kernels.triangle_raster.reference import EMPTY, Projection


def visible_faces(
    points: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    rays: Float[Array, "h w 3"],
    boxes: Int[Array, "f 4"],
    near: Float[Array, ""] | float,
    *,
    projection: Projection = "perspective",
    capacity: int | None = None,
    backend: Backend | None = None,
) -> tuple[Int[Array, "h w"], Int[Array, ""]]:
    """Index of the face that each pixel sees, -1 where there is none; and intersections dropped for want of capacity.

    Not differentiable: indices. Both sides of a face are seen. A face without area as its pixel sees it is not hit.

    Args:
      points: camera frame, metres.
      faces: rows of `points`; faces with an index outside are dropped.
      rays: of the pixels, by projection: (dx, dy, 1) that meets z = 1 at (dx, dy); (X, Y, any), parallel to z; or unit
        vectors. A pixel whose ray is NaN sees nothing.
      boxes: first pixel (x, y) and one past the last (x, y) of each face. They must hold every pixel whose ray hits the
        face; an empty one drops the face.
      near: hits nearer than this are not seen; metres, along z or, of spherical rays, along the ray.
      projection: which of the three forms rays have.
      capacity: bound on (face, tile) intersections. None: counted and rounded up to a power of two outside a trace,
        `xla.default_capacity` inside one. The reference and cpu backends need none.
      backend: None takes the platform's default.

    Raises:
      Unsupported: the backend cannot run here.
    """
    chosen = choose(backend, dtype=points.dtype.name, pallas=("pallas_gpu",))
    size = (rays.shape[0], rays.shape[1])
    none_dropped = jnp.zeros((), jnp.int32)
    if len(faces) == 0 or len(points) == 0:
        return jnp.full(size, EMPTY, jnp.int32), none_dropped
    near = jnp.asarray(near, points.dtype)
    points, rays, near = lax.stop_gradient((points, rays, near))
    faces = faces.astype(jnp.int32)
    known = jnp.all((faces >= 0) & (faces < len(points)), 1, keepdims=True)
    limits = jnp.asarray([[size[1], size[0], size[1], size[0]]], jnp.int32)
    faces, boxes = jnp.where(known, faces, 0), jnp.where(known, jnp.clip(boxes, 0, limits), 0).astype(jnp.int32)
    if chosen == "reference":
        return reference.visible_faces(points, faces, rays, boxes, near, projection), none_dropped
    # loops over a tile's faces carry what starts from rays: under `shard_map` it must vary like all that it meets
    varying = (jnp.zeros_like(array.ravel()[0]).astype(rays.dtype) for array in (points, faces, boxes, near))
    rays = rays + sum(varying)
    if chosen == "cpu":
        from renderers.kernels.triangle_raster import cpu_handlers  # Numba is an extra, and takes a second to import

        # custom calls forget the mesh axes that they vary over: adding a zero brings those back
        index = cpu_handlers.visible_faces(points, faces, rays, boxes, near, projection)
        return index + jnp.zeros_like(rays[0, 0, 0], jnp.int32), none_dropped
    if capacity is None:
        capacity = _capacity(boxes, size)
    lists = xla.face_lists(boxes, size, capacity)
    if chosen == "pallas_gpu":
        from renderers.kernels.triangle_raster import pallas_gpu  # Pallas takes a second to import

        return pallas_gpu.visible_faces(points, faces, rays, lists, near, projection), lists.overflow

    def walk(points, faces, rays, lists, near):
        return xla.visible_faces(points, faces, rays, lists, near, projection)

    return one_by_one(walk)(points, faces, rays, lists, near), lists.overflow


def _capacity(boxes, size) -> int:
    if isinstance(boxes, Tracer):
        return xla.default_capacity(len(boxes), size)
    return tiling.next_capacity(int(_count(boxes, size)))


_count = jax.jit(xla.count_intersections, static_argnums=1)


def surface(
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    index: Int[Array, "h w"],
    rays: Float[Array, "h w 3"],
    pose: Float[Array, "3 4"],
    *,
    projection: Projection = "perspective",
    backend: Backend | None = None,
) -> tuple[Float[Array, "h w 3"], Float[Array, "h w"], Float[Array, "h w 3"]]:
    """Barycentric coordinates, camera z, and world normal of the point of its face that each pixel sees.

    Differentiable in vertices, rays and pose, reverse mode (the backends other than cpu: both modes). All zero where
    nothing is seen. See `surface.ray_barycentrics` for slivers.

    Args:
      vertices: world frame.
      faces: rows of vertices.
      index: face of each pixel, as `visible_faces` found it; -1 is none.
      rays, projection: as for `visible_faces`, finite.
      pose: the upper rows of camera_from_world.
      backend: None takes the platform's default; what is no kernel is plain jnp.

    Raises:
      Unsupported: the backend cannot run here.
    """
    chosen = choose(backend, dtype=vertices.dtype.name, pallas=("pallas_gpu",))
    index, faces = _in_range(index, faces, len(vertices))
    if len(faces) == 0 or len(vertices) == 0:
        nothing = jnp.zeros_like(rays)
        return nothing, nothing[..., 0], nothing
    if chosen != "cpu":
        return jnp_surface.surface(vertices, faces, index, rays, pose, projection)
    return _host_surface(projection, *alike(vertices, rays, pose), faces, index)


def blend(
    values: Float[Array, "v c"],
    faces: Int[Array, "f 3"],
    index: Int[Array, "h w"],
    barycentric: Float[Array, "h w 3"],
    *,
    backend: Backend | None = None,
) -> Float[Array, "h w c"]:
    """Values at the corners of each pixel's face, each in its share; zero where nothing is seen.

    Differentiable in values and barycentric, reverse mode (the backends other than cpu: both modes).

    Args:
      values: of whatever `faces` index.
      faces: row i is for face i of `index`.
      index: face of each pixel; -1 is none.
      barycentric: shares of the three corners.
      backend: None takes the platform's default; what is no kernel is plain jnp.

    Raises:
      Unsupported: the backend cannot run here.
    """
    chosen = choose(backend, dtype=values.dtype.name, pallas=("pallas_gpu",))
    index, faces = _in_range(index, faces, len(values))
    if len(faces) == 0 or values.size == 0:
        return jnp.zeros((*index.shape, values.shape[1]), values.dtype)
    if chosen != "cpu":
        return jnp_surface.blend(values, faces, index, barycentric)
    return _host_blend(*alike(values, barycentric), faces, index)


def _in_range(index, faces, count):
    index = jnp.where((index >= 0) & (index < len(faces)), index, EMPTY).astype(jnp.int32)
    return index, jnp.clip(faces, 0, max(count - 1, 0)).astype(jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _host_surface(projection, vertices, rays, pose, faces, index):
    return _host_surface_forward(projection, vertices, rays, pose, faces, index)[0]


def _host_surface_forward(projection, vertices, rays, pose, faces, index):
    from renderers.kernels.triangle_raster import cpu_handlers

    zero = jnp.zeros_like(vertices[0, 0])  # see `visible_faces`
    outputs = cpu_handlers.surface(vertices, faces, index, rays, pose, projection)
    return tuple(output + zero for output in outputs), (vertices, rays, pose, faces, index)


def _host_surface_backward(projection, residuals, cotangents):
    from renderers.kernels.triangle_raster import cpu_handlers

    vertices, rays, pose, faces, index = residuals
    zero = jnp.zeros_like(vertices[0, 0])
    gradients = cpu_handlers.surface_gradients(vertices, faces, index, rays, pose, projection, cotangents)
    return *(gradient + zero for gradient in gradients), None, None


_host_surface.defvjp(_host_surface_forward, _host_surface_backward)


@jax.custom_vjp
def _host_blend(values, barycentric, faces, index):
    return _host_blend_forward(values, barycentric, faces, index)[0]


def _host_blend_forward(values, barycentric, faces, index):
    from renderers.kernels.triangle_raster import cpu_handlers

    image = cpu_handlers.blend(values, faces, index, barycentric)
    return image + jnp.zeros_like(values[0, 0]), (values, barycentric, faces, index)


def _host_blend_backward(residuals, cotangent):
    from renderers.kernels.triangle_raster import cpu_handlers

    values, barycentric, faces, index = residuals
    zero = jnp.zeros_like(values[0, 0])
    gradients = cpu_handlers.blend_gradients(values, faces, index, barycentric, cotangent)
    return *(gradient + zero for gradient in gradients), None, None


_host_blend.defvjp(_host_blend_forward, _host_blend_backward)
