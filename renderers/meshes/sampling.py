"""Points on surfaces, uniformly by area."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.spatial import KDTree

from renderers.meshes.mesh import face_areas, face_normals, surface_area

_OVERSAMPLING = 3  # candidates for each even sample


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class SurfaceSamples:
    """Points on a mesh, the face and the weights of each, and the faces' unit normals there."""

    points: Float[Array, "n 3"]
    normals: Float[Array, "n 3"]
    face_index: Int[Array, " n"]
    barycentric: Float[Array, "n 3"]


def sample_surface(
    key: PRNGKeyArray,
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    count: int,
    *,
    stratified: bool = False,
) -> SurfaceSamples:
    """`count` independent points, uniform by area. Jit-able with static `count`.

    Faces by the inverse of the cumulative area, positions in them by the square-root map (Osada et al., "Shape
    distributions", 2002). Points and normals are differentiable in the vertices; which face and which weights are not.
    Where no face has an area all points fall on the first face.

    Args:
        key: random key.
        vertices: positions.
        faces: vertex indices, at least one face.
        count: number of points.
        stratified: one point from each of `count` equal shares of the area, in the order of faces: the number of points
            on every patch is then as even as can be, which lowers the variance of means over the surface.
    """
    choose, place = jax.random.split(key)
    areas = jax.lax.stop_gradient(face_areas(vertices, faces))
    ends = jnp.cumsum(areas)
    uniform = jax.random.uniform(choose, (count,), vertices.dtype)
    if stratified:
        uniform = (jnp.arange(count, dtype=vertices.dtype) + uniform) / count
    # "right": a face of zero area owns no interval; the last face with area ends the last one
    face_index = jnp.searchsorted(ends, uniform * ends[-1], side="right")
    last = jnp.searchsorted(ends, ends[-1], side="left")
    face_index = jnp.minimum(face_index, last).astype(jnp.int32)
    first, second = jax.random.uniform(place, (2, count), vertices.dtype)
    root = jnp.sqrt(first)
    barycentric = jnp.stack([1 - root, root * (1 - second), root * second], axis=-1)
    points = jnp.sum(vertices[faces[face_index]] * barycentric[..., None], axis=-2)
    normals = face_normals(vertices, faces)[face_index]
    return SurfaceSamples(points=points, normals=normals, face_index=face_index, barycentric=barycentric)


_sampled = jax.jit(sample_surface, static_argnames=("count", "stratified"))
_area = jax.jit(surface_area)


def sample_surface_even(
    key: PRNGKeyArray, vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], count: int
) -> SurfaceSamples:
    """At most `count` points that keep their distance from each other. Runs on the host.

    Rejection from three times as many candidates: none nearer than sqrt(area / (3 count)) to one kept before it (what
    trimesh's `sample_surface_even`, and with it ICON's evaluation, does). May return fewer than `count`.
    """
    candidates = _sampled(key, vertices, faces, _OVERSAMPLING * count)
    points = np.asarray(candidates.points, np.float64)
    radius = np.sqrt(float(_area(vertices, faces)) / (_OVERSAMPLING * count))
    kept = np.ones(len(points), bool)
    for index, neighbours in enumerate(KDTree(points).query_ball_point(points, radius)):
        if kept[index]:
            kept[[other for other in neighbours if other > index]] = False
    chosen = np.flatnonzero(kept)[:count]
    return jax.tree.map(lambda values: values[chosen], candidates)
