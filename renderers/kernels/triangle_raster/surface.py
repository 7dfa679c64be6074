"""The point of a face that a pixel sees, in closed form: barycentric coordinates, depth, normal, blended values.

Plain jnp, for any device and float dtype, differentiated by JAX. Which face is seen is taken as given. Arrays are one
coordinate each, [h, w], and sums are written out: on CPUs that is several times faster than small matrices.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels.triangle_raster.reference import Projection, Vector, components, sheared

_SMALLEST_LENGTH_SQUARED = 1e-30  # of a normal before it is scaled: a face without area, as in `meshes.mesh`


def corners_of(
    values: Float[Array, "v c"], faces: Int[Array, "f 3"], index: Int[Array, "h w"]
) -> Float[Array, "3 c h w"]:
    """Values at the three corners of the face that each pixel sees; 0 where it sees none."""
    found = values[faces[jnp.maximum(index, 0)]]
    return jnp.moveaxis(jnp.where((index >= 0)[..., None, None], found, 0), (0, 1), (2, 3))


def ray_barycentrics(
    corners: Sequence[Vector], ray: Vector, hit: Bool[Array, "h w"], projection: Projection
) -> tuple[Float[Array, "h w"], Float[Array, "h w"], Float[Array, "h w"]]:
    """Barycentric coordinates of the hits, nonnegative with sum one; zero, with zero gradient, where `hit` is False.

    On a triangle that its ray sees edge on, to rounding, they are a third each with zero gradient. Rounding that
    carries a hit across an edge is cut off without a trace in the gradient.

    Args:
      corners: of the triangle at each pixel, camera frame; finite where there is no hit.
      ray: of each pixel; may be anything where there is no hit.
      hit: where there is a triangle.
      projection: of the rays.
    """
    ray = jnp.where(hit, ray[0], 0.0), jnp.where(hit, ray[1], 0.0), jnp.where(hit, ray[2], 1.0)
    plane = []
    for corner, (x, y) in zip(corners, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), strict=True):
        px, py, _ = sheared(corner, ray, projection)
        plane += [jnp.where(hit, px, x), jnp.where(hit, py, y)]
    largest = lax.stop_gradient(jnp.abs(plane[0]))
    for coordinate in plane[1:]:
        largest = jnp.maximum(largest, lax.stop_gradient(jnp.abs(coordinate)))
    scale = 1 / jnp.where(largest > 0, largest, 1.0)  # keeps the products of small triangles from vanishing
    ax, ay, bx, by, cx, cy = (coordinate * scale for coordinate in plane)
    weights = (bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx)
    total = weights[0] + weights[1] + weights[2]
    solid = jnp.abs(total) > jnp.finfo(total.dtype).eps ** 2
    total = jnp.where(solid, total, 1.0)
    shares = [jnp.where(solid, weight / total, 1 / 3) for weight in weights]
    inside = [jnp.maximum(lax.stop_gradient(share), 0.0) for share in shares]
    whole = inside[0] + inside[1] + inside[2]
    a, b, c = (share + (kept / whole - lax.stop_gradient(share)) for share, kept in zip(shares, inside, strict=True))
    return jnp.where(hit, a, 0.0), jnp.where(hit, b, 0.0), jnp.where(hit, c, 0.0)


def in_camera_frame(corners: Float[Array, "3 3 h w"], pose: Float[Array, "3 4"]) -> list[Vector]:
    """Corners [3, xyz, h, w] in the camera's frame, x, y and z of each."""
    return [tuple(r[0] * x + r[1] * y + r[2] * z + r[3] for r in pose) for x, y, z in corners]


def surface(
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    index: Int[Array, "h w"],
    rays: Float[Array, "h w 3"],
    pose: Float[Array, "3 4"],
    projection: Projection,
) -> tuple[Float[Array, "h w 3"], Float[Array, "h w"], Float[Array, "h w 3"]]:
    """Barycentric coordinates, camera z, and the face's unit normal in the world; all zero where nothing is seen."""
    hit = index >= 0
    world = corners_of(vertices, faces, index)
    corners = [
        (jnp.where(hit, x, 0.0), jnp.where(hit, y, 0.0), jnp.where(hit, z, 0.0))
        for x, y, z in in_camera_frame(world, pose)
    ]
    a, b, c = ray_barycentrics(corners, components(rays), hit, projection)
    depth = a * corners[0][2] + b * corners[1][2] + c * corners[2][2]
    return jnp.stack([a, b, c], -1), depth, _normals(world)


def blend(
    values: Float[Array, "v c"], faces: Int[Array, "f 3"], index: Int[Array, "h w"], barycentric: Float[Array, "h w 3"]
) -> Float[Array, "h w c"]:
    """Values at the corners, each in its share; zero where nothing is seen."""
    a, b, c = corners_of(values, faces, index)
    u, v, w = components(barycentric)
    return jnp.moveaxis(a * u[None] + b * v[None] + c * w[None], 0, -1)


def _normals(world):
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = world
    (ux, uy, uz), (vx, vy, vz) = (bx - ax, by - ay, bz - az), (cx - ax, cy - ay, cz - az)
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    squared = x * x + y * y + z * z
    some = squared > _SMALLEST_LENGTH_SQUARED
    # the inner where keeps the square root's infinite derivative away from lengths of zero
    length: Any = jnp.sqrt(jnp.where(some, squared, 1.0))
    return jnp.stack([jnp.where(some, v / length, 0.0) for v in (x, y, z)], -1)
