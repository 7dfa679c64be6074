"""Fewer triangles for the same shape: quadric decimation and vertex clustering. Runs on the host."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from renderers.meshes.cleanup import (
    face_components,
    keep_faces,
    remove_degenerate_faces,
    remove_duplicate_faces,
    remove_unreferenced,
    with_uv_faces,
)
from renderers.meshes.distances import closest_points
from renderers.meshes.mesh import Mesh


def simplify(mesh: Mesh, target_faces: int, *, keep_boundary: bool = True, aggressiveness: float = 7.0) -> Mesh:
    """At most about `target_faces` faces, by edge collapses of least quadric error (Garland and Heckbert, 1997).

    Colours and texture coordinates are carried over from the nearest points of the original surface, chart by chart, so
    that no triangle spans a seam of the texture; its borders shift a little, so a finely cut texture is better baked
    anew (`unwrapping`, `baking.transfer_texture`). Given normals are dropped.

    Args:
        mesh: vertices shared by neighbouring faces (`cleanup.merge_vertices`).
        target_faces: number of faces to reach; a mesh with fewer comes back as it is.
        keep_boundary: leave every border edge untouched; the target may then be missed.
        aggressiveness: 0 slow and careful, 10 fast; careful ones may miss the target.

    Raises:
        ValueError: a target below 4.
    """
    import fast_simplification

    if target_faces < 4:
        raise ValueError(f"target_faces must be at least 4 (a tetrahedron), got {target_faces}")
    if len(mesh.faces) <= target_faces:
        return mesh
    found = fast_simplification.simplify(
        np.array(mesh.vertices, np.float64),  # copies: it takes no read-only arrays
        np.array(mesh.faces, np.int32),
        target_count=target_faces,
        agg=aggressiveness,
        preserve_border=keep_boundary,
    )
    simple = Mesh(jnp.asarray(found[0], jnp.float32), jnp.asarray(found[1], jnp.int32))
    return transfer_attributes(mesh, remove_unreferenced(remove_degenerate_faces(simple)))


def cluster_vertices(mesh: Mesh, cell: float) -> Mesh:
    """All vertices in one cell of a grid become one, at their mean (Rossignac and Borrel, 1993).

    Fast, for any soup of triangles; may join parts that come close. Colours and texture coordinates as in `simplify`.

    Args:
        mesh: anything.
        cell: side of the grid's cells, world units.
    """
    if not cell > 0:
        raise ValueError(f"the side of a cell must be positive, got {cell}")
    vertices = np.asarray(mesh.vertices, np.float64)
    places = np.floor((vertices - vertices.min(0)) / cell).astype(np.int64)
    _, group = np.unique(places, axis=0, return_inverse=True)
    group = group.reshape(-1)
    means = np.stack([np.bincount(group, vertices[:, k]) for k in range(3)], -1) / np.bincount(group)[:, None]
    simple = Mesh(jnp.asarray(means, jnp.float32), jnp.asarray(group[np.asarray(mesh.faces)], jnp.int32))
    simple = remove_unreferenced(remove_duplicate_faces(remove_degenerate_faces(simple)))
    return transfer_attributes(mesh, simple)


def transfer_attributes(source: Mesh, target: Mesh) -> Mesh:
    """The target's shape with colours, texture coordinates, texture and material of the nearest points of the source.

    Texture coordinates of a face's corners all come from the chart that is nearest to the face's middle.
    """
    target = dataclasses.replace(target, texture=source.texture, material=source.material)
    if source.vertex_colors is not None and len(target.vertices):
        found = closest_points(target.vertices, source.vertices, source.faces)
        corners = np.asarray(source.vertex_colors)[np.asarray(source.faces)[found.face_index]]
        colors = np.einsum("nk,nkc->nc", found.barycentric, corners)
        target = dataclasses.replace(target, vertex_colors=jnp.asarray(colors, jnp.float32))
    if source.uv is not None and len(target.faces):
        uv, uv_faces = _transfer_uv(with_uv_faces(source), target)
        target = dataclasses.replace(target, uv=jnp.asarray(uv, jnp.float32), uv_faces=jnp.asarray(uv_faces, jnp.int32))
    return target


def _transfer_uv(source, target):
    charts = face_components(source.uv_faces)
    vertices, faces = np.asarray(target.vertices, np.float64), np.asarray(target.faces)
    chart_of_face = charts[closest_points(vertices[faces].mean(1), source.vertices, source.faces).face_index]
    uv, uv_faces, start = [], np.zeros_like(faces), 0
    for chart in np.unique(chart_of_face):
        here = keep_faces(source, charts == chart)
        mine = chart_of_face == chart
        used, index = np.unique(faces[mine], return_inverse=True)
        found = closest_points(vertices[used], here.vertices, here.faces)
        corners = np.asarray(source.uv)[np.asarray(here.uv_faces)[found.face_index]]
        uv.append(np.einsum("nk,nkc->nc", found.barycentric, corners))
        uv_faces[mine] = index.reshape(-1, 3) + start
        start += len(used)
    return np.concatenate(uv), uv_faces
