"""Repairs of triangle meshes: duplicates, degenerate faces, small parts, orientation, holes. Runs on the host.

Each function takes a Mesh and gives a new one whose texture coordinates, colours and normals still belong to its
vertices and faces. Connectivity is by vertex index: `merge_vertices` first where a file repeats positions.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int
from scipy.sparse import coo_array, csgraph
from scipy.spatial import KDTree

from renderers.meshes.connectivity import half_edges, opposite_half_edges
from renderers.meshes.mesh import Mesh


def clean(mesh: Mesh, *, tolerance: float = 0.0, smallest_share: float = 0.01) -> Mesh:
    """The usual order of repairs: merge, drop degenerate and duplicate faces, drop non-manifold edges and small parts.

    Args:
        mesh: anything.
        tolerance: distance up to which vertices are merged, world units.
        smallest_share: parts of less than this share of the largest part's faces are dropped; 0 keeps all.
    """
    mesh = remove_duplicate_faces(remove_degenerate_faces(merge_vertices(mesh, tolerance=tolerance)))
    mesh = remove_non_manifold_edges(mesh)
    if smallest_share > 0 and len(mesh.faces):
        mesh = keep_large_components(mesh, share=smallest_share)
    return remove_unreferenced(orient_faces(mesh))


def keep_faces(mesh: Mesh, kept: Bool[np.ndarray | Array, " f"]) -> Mesh:
    """Only the marked faces; vertices stay, see `remove_unreferenced`."""
    kept = np.asarray(kept)
    uv_faces = None if mesh.uv_faces is None else mesh.uv_faces[kept]
    return dataclasses.replace(mesh, faces=mesh.faces[kept], uv_faces=uv_faces)


def with_uv_faces(mesh: Mesh) -> Mesh:
    """The same mesh with its texture coordinates indexed apart, so that vertices may be merged or moved."""
    if mesh.uv is None or mesh.uv_faces is not None:
        return mesh
    return dataclasses.replace(mesh, uv_faces=mesh.faces)


def merge_vertices(mesh: Mesh, *, tolerance: float = 0.0) -> Mesh:
    """One vertex for all at one position; texture coordinates stay cut open, colours and normals become the mean.

    Args:
        mesh: anything.
        tolerance: vertices joined by steps of at most this length become one, at their mean; 0 merges equal ones.
    """
    vertices = np.asarray(mesh.vertices)
    if len(vertices) == 0:
        return mesh
    if tolerance > 0:
        pairs = KDTree(vertices).query_pairs(tolerance, output_type="ndarray")
        group = _components(len(vertices), pairs)
    else:
        group = np.unique(vertices + 0.0, axis=0, return_inverse=True)[1].reshape(-1)  # + 0.0 turns -0 into 0
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    counts = np.bincount(group)

    def mean(values):
        values = np.asarray(values)
        sums = np.stack([np.bincount(group, values[:, k], len(counts)) for k in range(values.shape[1])], -1)
        return np.where(counts[:, None] > 1, sums / counts[:, None], values[first]).astype(values.dtype)

    mesh = with_uv_faces(mesh)
    normals = None
    if mesh.normals is not None:
        normals = mean(mesh.normals)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = jnp.asarray(normals / np.where(length > 0, length, 1))
    return dataclasses.replace(
        mesh,
        vertices=jnp.asarray(mean(vertices)),
        faces=jnp.asarray(group[np.asarray(mesh.faces)], jnp.int32),
        vertex_colors=None if mesh.vertex_colors is None else jnp.asarray(mean(mesh.vertex_colors)),
        normals=normals,
    )


def remove_degenerate_faces(mesh: Mesh, *, smallest_area: float = 0.0) -> Mesh:
    """Without faces that repeat a corner or whose area is at most `smallest_area`."""
    faces = np.asarray(mesh.faces)
    distinct = (faces != np.roll(faces, 1, axis=1)).all(1)
    return keep_faces(mesh, distinct & (_areas(mesh) > smallest_area))


def remove_duplicate_faces(mesh: Mesh) -> Mesh:
    """Each set of three vertices at most once, whichever way round; the first stays."""
    _, first = np.unique(np.sort(np.asarray(mesh.faces), axis=1), axis=0, return_index=True)
    kept = np.zeros(len(mesh.faces), bool)
    kept[first] = True
    return keep_faces(mesh, kept)


def remove_unreferenced(mesh: Mesh) -> Mesh:
    """Without vertices and texture coordinates that no face uses."""
    mesh_uv, uv_faces = mesh.uv, mesh.uv_faces
    used, faces = np.unique(np.asarray(mesh.faces), return_inverse=True)
    if mesh_uv is not None and uv_faces is not None:
        used_uv, index = np.unique(np.asarray(uv_faces), return_inverse=True)
        mesh_uv, uv_faces = mesh_uv[used_uv], jnp.asarray(index.reshape(-1, 3), jnp.int32)
    elif mesh_uv is not None:
        mesh_uv = mesh_uv[used]
    return dataclasses.replace(
        mesh,
        vertices=mesh.vertices[used],
        faces=jnp.asarray(faces.reshape(-1, 3), jnp.int32),
        uv=mesh_uv,
        uv_faces=uv_faces,
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[used],
        normals=None if mesh.normals is None else mesh.normals[used],
    )


def face_components(faces: Int[np.ndarray | Array, "f 3"]) -> Int[np.ndarray, " f"]:
    """A number from 0 for each face, equal for faces joined by shared edges; numbered by first face."""
    labels = _components(len(faces), _edge_neighbours(np.asarray(faces)))
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def keep_large_components(mesh: Mesh, *, share: float = 0.01, by: Literal["faces", "area"] = "faces") -> Mesh:
    """Only parts (joined by edges) of at least `share` of the size of the largest; unused vertices are dropped.

    Args:
        mesh: at least one face.
        share: 0.01 drops floaters; 1 keeps the largest part (and its equals).
        by: number of faces, or area.
    """
    labels = face_components(mesh.faces)
    sizes = np.bincount(labels, np.ones(len(labels)) if by == "faces" else _areas(mesh))
    return remove_unreferenced(keep_faces(mesh, (sizes >= share * sizes.max())[labels]))


def remove_non_manifold_edges(mesh: Mesh) -> Mesh:
    """At most two faces an edge: of more, the largest two stay."""
    faces = np.asarray(mesh.faces)
    order = np.argsort(-_areas(mesh), kind="stable")
    ends = np.sort(half_edges(faces[order]).astype(np.int64), axis=1)
    _, edge = np.unique(ends, axis=0, return_inverse=True)
    by_edge = np.argsort(edge, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(edge[by_edge]) > 0])
    rank = np.arange(len(edge)) - np.repeat(starts, np.diff(np.r_[starts, len(edge)]))
    surplus = by_edge[rank >= 2] // 3
    kept = np.ones(len(faces), bool)
    kept[order[surplus]] = False
    return keep_faces(mesh, kept)


def orient_faces(mesh: Mesh) -> Mesh:
    """Neighbouring faces turned the same way round, and each part so that the volume it encloses is positive.

    Open parts are judged by their volume about their own middle, so that bowls point away from where they are hollow. A
    part that has no two sides (a Moebius strip) stays as it is.
    """
    faces = np.asarray(mesh.faces)
    if len(faces) == 0:
        return mesh
    first, second, agree = _oriented_neighbours(faces)
    count = len(faces)
    # every face stands in the graph twice, as it is and turned over: a part with two sides falls into two sheets
    rows = np.r_[first, first + count]
    columns = np.where(
        agree, np.r_[second, second + count].reshape(2, -1), np.r_[second + count, second].reshape(2, -1)
    )
    sheet = _components(2 * count, np.stack([rows, columns.reshape(-1)], -1))
    turned = sheet[:count] > sheet[count:]
    corners = np.asarray(mesh.vertices, np.float64)[np.where(turned[:, None], faces[:, ::-1], faces)]
    part = face_components(faces)
    middle = np.stack([np.bincount(part, corners[..., k].mean(1)) for k in range(3)], -1) / np.bincount(part)[:, None]
    a, b, c = (corners[:, k] - middle[part] for k in range(3))
    inward = np.bincount(part, np.einsum("fd,fd->f", a, np.cross(b, c))) < 0
    two_sided = np.bincount(part, sheet[:count] == sheet[count:]) == 0
    turned = (turned ^ inward[part]) & two_sided[part]

    def turn(index):
        index = np.asarray(index)
        return jnp.asarray(np.where(turned[:, None], index[:, [0, 2, 1]], index), jnp.int32)

    return dataclasses.replace(
        mesh, faces=turn(mesh.faces), uv_faces=None if mesh.uv_faces is None else turn(mesh.uv_faces)
    )


def flip_faces(mesh: Mesh) -> Mesh:
    """Inside out: every face turned over, given normals reversed."""
    return dataclasses.replace(
        mesh,
        faces=mesh.faces[:, jnp.array([0, 2, 1])],
        uv_faces=None if mesh.uv_faces is None else mesh.uv_faces[:, jnp.array([0, 2, 1])],
        normals=None if mesh.normals is None else -mesh.normals,
    )


def _areas(mesh):
    corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]
    return 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)


def _components(count, pairs):
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return csgraph.connected_components(graph, directed=False)[1]


def _edge_neighbours(faces):
    """Pairs of faces that share an edge, also where more than two do: a chain through all of them."""
    ends = np.sort(half_edges(faces).astype(np.int64), axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    same = (np.diff(ends[order], axis=0) == 0).all(1)
    owner = order // 3
    return np.stack([owner[:-1][same], owner[1:][same]], -1)


def _oriented_neighbours(faces):
    """Pairs of faces across manifold edges, and whether they run along the edge in opposite directions (agree)."""
    directed = half_edges(faces)
    other = opposite_half_edges(faces).reshape(-1)
    here = np.flatnonzero(other > np.arange(len(other)))
    agree = directed[here, 0] != directed[other[here], 0]
    return here // 3, other[here] // 3, agree
