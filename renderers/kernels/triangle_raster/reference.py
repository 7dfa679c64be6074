"""The definition: every face at every pixel, one face after the other."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

Projection = Literal["perspective", "parallel", "spherical"]
Vector = tuple[Any, Any, Any]  # x, y, z, arrays of any shape that broadcast
EMPTY = -1
"""Index of no face."""


def sheared(corner: Vector, ray: Vector, projection: Projection) -> Vector:
    """Point p of a corner in the plane across the ray, and what the nearness of hits is interpolated from.

    Args:
      corner: camera frame.
      ray: (dx, dy, 1), (X, Y, any) or a unit vector, by projection.
      projection: see the package.
    """
    (x, y, z), (dx, dy, dz) = corner, ray
    if projection == "perspective":
        return x - dx * z, y - dy * z, z
    if projection == "parallel":
        return x - dx, y - dy, z
    along = jnp.abs(dz) >= jnp.maximum(jnp.abs(dx), jnp.abs(dy))
    across = jnp.abs(dx) >= jnp.abs(dy)

    def cyclic(x, y, z):
        """(x, y, z), (y, z, x) or (z, x, y): the axis of the ray's largest component last."""
        first = jnp.where(along, x, jnp.where(across, y, z))
        second = jnp.where(along, y, jnp.where(across, z, x))
        return first, second, jnp.where(along, z, jnp.where(across, x, y))

    (x, y, z), (dx, dy, dz) = cyclic(x, y, z), cyclic(dx, dy, dz)
    return x - dx / dz * z, y - dy / dz * z, z / dz


def hit_depth(corners: Sequence[Vector], ray: Vector, near: Any, projection: Projection) -> Any:
    """Nearness of the point where a ray meets a face; infinite where it does not, or not beyond `near`."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (sheared(corner, ray, projection) for corner in corners)
    left, right = (bx * cy, cx * ay, ax * by), (by * cx, cy * ax, ay * bx)
    forward = (left[0] >= right[0]) & (left[1] >= right[1]) & (left[2] >= right[2])
    backward = (left[0] <= right[0]) & (left[1] <= right[1]) & (left[2] <= right[2])
    a, b, c = (jnp.abs(one - other) for one, other in zip(left, right, strict=True))
    total = a + b + c
    depth = (a * az + b * bz + c * cz) / jnp.where(total > 0, total, 1)
    return jnp.where((forward | backward) & (total > 0) & (depth > near), depth, jnp.inf)  # NaN compares false


def components(vectors: Float[Array, "*n 3"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"], Float[Array, "*n"]]:
    """Vectors along the last axis as x, y and z."""
    return vectors[..., 0], vectors[..., 1], vectors[..., 2]


def visible_faces(
    points: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    rays: Float[Array, "h w 3"],
    boxes: Int[Array, "f 4"],
    near: Float[Array, ""],
    projection: Projection,
) -> Int[Array, "h w"]:
    """Index of the face that each pixel sees, -1 where there is none; O(f h w). See `api.visible_faces`.

    Of the boxes only those without a pixel count: they drop a face.
    """
    drawn = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    ray = components(rays)

    def visit(nearest, face):
        depth, index = nearest
        corners, number, drawn = face
        found = hit_depth([components(corner) for corner in corners], ray, near, projection)
        found = jnp.where(drawn, found, jnp.inf)
        return (jnp.minimum(found, depth), jnp.where(found < depth, number, index)), None

    numbers = jnp.arange(len(faces), dtype=jnp.int32)
    start = (jnp.full_like(ray[0], jnp.inf), jnp.full_like(ray[0], EMPTY, jnp.int32))
    (_, index), _ = lax.scan(visit, start, (points[faces], numbers, drawn))
    return index
