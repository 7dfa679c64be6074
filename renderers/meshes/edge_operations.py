"""Splits, collapses and flips of edges: how a triangulation follows a wanted edge length. Runs on the host.

`rows` hold a row of numbers per vertex: the first three are its position, the others (an optimiser's memory, say)
travel along and are averaged as the position is. Closed manifolds stay closed manifolds of the same genus: a collapse
takes place only under the link condition (Dey et al. 1999, "Topology preserving edge contraction"), a flip only if its
new edge is new. Operations of one call are independent of each other: an edge acts if it is the first in rank among
all that want to act nearby, so that a call is a few passes over arrays.

After Botsch and Kobbelt 2004, "A remeshing approach to multiresolution modeling", and Palfinger 2022, "Continuous
remeshing for inverse rendering".
"""

import numpy as np
from jaxtyping import Float, Int

from renderers.meshes.edge_tables import (
    NONE,
    EdgeTable,
    Ragged,
    are_edges,
    edge_table,
    faces_around,
    neighbors,
    opposite_corners,
)

_LEAST_COSINE = 0.2  # between a face's normal before and after a collapse or flip: it must not turn over
_LEAST_QUALITY = 0.1  # of a triangle, 1 if equilateral: below it the face is to go


def split_long_edges(
    rows: Float[np.ndarray, "v k"], faces: Int[np.ndarray, "f 3"], limits: Float[np.ndarray, " v"]
) -> tuple[Float[np.ndarray, "w k"], Int[np.ndarray, "g 3"]]:
    """Puts a vertex on the middle of every edge that is longer than the mean limit of its ends.

    A face becomes 2, 3 or 4; of the two ways to cut the rest of a face with two long edges the shorter diagonal wins.

    Args:
      rows: positions and what travels along.
      faces: vertex indices.
      limits: length from which edges are split, by vertex.

    Returns:
      Rows, the new ones appended, and faces.
    """
    table = edge_table(faces, len(rows))
    long = _lengths(rows, table.ends) > _between(limits, table.ends)
    if not long.any():
        return rows, faces
    middle = np.where(long, len(rows) + np.cumsum(long) - 1, NONE)
    new = 0.5 * (rows[table.ends[long, 0]] + rows[table.ends[long, 1]])
    rows = np.concatenate([rows, new.astype(rows.dtype)])
    cuts = middle[table.of_half].reshape(-1, 3)
    number = (cuts >= 0).sum(axis=1)
    pieces = [faces[number == 0]]
    pieces += _cut_once(*_turned(faces, cuts, number == 1, np.argmax(cuts >= 0, axis=1)))
    # the edge that stays whole becomes the last one
    pieces += _cut_twice(rows[:, :3], *_turned(faces, cuts, number == 2, np.argmin(cuts >= 0, axis=1) + 1))
    (a, b, c), (ab, bc, ca) = faces[number == 3].T, cuts[number == 3].T
    pieces += [_triangles(a, ab, ca), _triangles(ab, b, bc), _triangles(ca, bc, c), _triangles(ab, bc, ca)]
    return rows, np.concatenate(pieces).astype(faces.dtype)


def collapse_short_edges(
    rows: Float[np.ndarray, "v k"], faces: Int[np.ndarray, "f 3"], limits: Float[np.ndarray, " v"]
) -> tuple[Float[np.ndarray, "w k"], Int[np.ndarray, "g 3"]]:
    """Merges the ends of edges that are shorter than the mean limit of both, shortest first, in their middle.

    So go, by their shortest edge, slivers and faces that are folded over against the normals of their vertices. An edge
    stays if its collapse would change the topology or turn a face over. Border vertices stay on the border.

    Args:
      rows: positions and what travels along.
      faces: vertex indices.
      limits: length below which edges collapse, by vertex.

    Returns:
      Rows and faces; vertices without a face are gone.
    """
    table = edge_table(faces, len(rows))
    lengths = _lengths(rows, table.ends)
    normals = _cross(rows[:, :3], faces)
    edges = table.of_half.reshape(-1, 3)
    bad = _folded(faces, normals, len(rows)) | (_quality(lengths[edges], normals) < _LEAST_QUALITY)
    wanted = lengths < _between(limits, table.ends)
    wanted[edges[bad, np.argmin(lengths[edges[bad]], axis=1)]] = True
    border = np.zeros(len(rows), bool)
    border[table.ends[table.num_faces != 2]] = True
    around = neighbors(table, len(rows))
    candidates = np.flatnonzero(wanted)
    candidates = candidates[_keeps_topology(faces, table, around, border, candidates)]
    merged = _merged_rows(rows, border, table.ends[candidates])
    candidates, merged = _where(
        _turns_no_face_over(rows, faces, normals, bad, table.ends[candidates], merged), candidates, merged
    )
    order = np.argsort(lengths[candidates], kind="stable")
    candidates, merged = candidates[order], merged[order]
    chosen = _independent(table.ends[candidates], len(rows), table.ends)
    (kept, gone), merged = table.ends[candidates[chosen]].T, merged[chosen]
    rows, target = rows.copy(), np.arange(len(rows))
    rows[kept], target[gone] = merged, kept
    return _compact(rows, target[faces])


def flip_edges(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f 3"]:
    """Turns edges to the other diagonal of their two faces where that brings degrees nearer to 6 (4 at the border).

    The sum of `(degree - target)^2` over the four vertices falls with each flip; none turns a face over.
    """
    table = edge_table(faces, len(vertices))
    inner = np.flatnonzero(table.num_faces == 2)
    corners = opposite_corners(faces, table)
    excess = np.bincount(table.ends.reshape(-1), minlength=len(vertices)) - 6
    excess[np.unique(table.ends[table.num_faces != 2])] += 2
    change = 2 + excess[corners[inner]].sum(axis=1) - excess[table.ends[inner]].sum(axis=1)
    inner, change = _where(change < 0, inner, change)
    first, second = table.halves[inner].T
    # along the first face's half-edge from a to b, with c on its left and d on its right
    a, b = faces[first // 3, first % 3], faces[first // 3, (first + 1) % 3]
    c, d = corners[inner].T
    normals = _unit(_cross(vertices, faces))
    one, other = np.stack([a, d, c], axis=1), np.stack([d, b, c], axis=1)
    allowed = (c != d) & ~are_edges(table, np.stack([c, d], axis=1), len(vertices))
    allowed &= faces[second // 3, second % 3] == b  # both faces are oriented alike
    for new in (one, other):
        cross = _cross(vertices, new)
        sides = np.stack([_norm(vertices[new[:, k]] - vertices[new[:, k - 1]]) for k in range(3)], axis=1)
        quality = _quality(sides, cross)
        allowed &= quality > _LEAST_QUALITY
        for old in (first, second):
            allowed &= np.einsum("ij,ij->i", _unit(cross), normals[old // 3]) > _LEAST_COSINE
    order = np.flatnonzero(allowed)
    order = order[np.argsort(change[order], kind="stable")]
    quads = np.stack([a, b, c, d], axis=1)[order]
    chosen = order[_independent(quads, len(vertices), None)]
    faces = faces.copy()
    faces[first[chosen] // 3], faces[second[chosen] // 3] = one[chosen], other[chosen]
    return faces


def _keeps_topology(
    faces: Int[np.ndarray, "f 3"], table: EdgeTable, around: Ragged, border: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """The link condition: the ends share no neighbours but the edge's opposite corners, and those lose no last face."""
    ends, sides = table.ends[candidates], table.num_faces[candidates]
    owner, near = around.of(ends[:, 0])
    number = len(border)
    shared = are_edges(table, np.stack([near, ends[owner, 1]], axis=1), number)
    common = np.bincount(owner[shared], minlength=len(candidates))
    degrees = np.diff(around.starts)
    corners = opposite_corners(faces, table)[candidates]
    enough = (degrees[corners] > np.where(border[corners], 2, 3)) | (corners == NONE)
    across = border[ends].all(axis=1) & (sides == 2)
    return (sides <= 2) & (common == sides) & enough.all(axis=1) & ~across


def _merged_rows(rows, border, ends):
    """What becomes of the ends: their mean, or the end that is on the border if only one is."""
    share = np.where(border[ends[:, 0]] == border[ends[:, 1]], 0.5, border[ends[:, 0]])[:, None].astype(rows.dtype)
    return share * rows[ends[:, 0]] + (1 - share) * rows[ends[:, 1]]


def _turns_no_face_over(rows, faces, normals, bad, ends, merged) -> np.ndarray:
    """Whether the faces that remain around both ends, if they were sound before, keep their side."""
    around = faces_around(faces, len(rows))
    allowed = np.ones(len(ends), bool)
    for end in range(2):
        owner, face = around.of(ends[:, end])
        there = (faces[face] == ends[owner, 1 - end, None]).any(axis=1)
        owner, face = _where(~there & ~bad[face], owner, face)
        moved = faces[face] == ends[owner, end, None]
        corners = np.where(moved[..., None], merged[owner, None, :3], rows[faces[face], :3])
        after = _cross(corners.reshape(-1, 3), np.arange(3 * len(face)).reshape(-1, 3))
        cosine = np.einsum("ij,ij->i", _unit(after), _unit(normals[face]))
        allowed[owner[cosine <= _LEAST_COSINE]] = False
    return allowed


def _independent(groups: Int[np.ndarray, "c n"], num_vertices: int, edges: np.ndarray | None) -> np.ndarray:
    """Positions of groups of vertices, best first, that meet no better one; with edges, that are no neighbours of one.

    Of all groups that touch a vertex (or its neighbours) the best one claims it; who has claimed all of its own acts.
    """
    rank = np.arange(len(groups))
    best = np.full(num_vertices, len(groups))
    np.minimum.at(best, groups.reshape(-1), np.repeat(rank, groups.shape[1]))
    if edges is not None:
        nearby = best.copy()
        np.minimum.at(nearby, edges[:, 0], best[edges[:, 1]])
        np.minimum.at(nearby, edges[:, 1], best[edges[:, 0]])
        best = nearby
    return np.flatnonzero((best[groups] == rank[:, None]).all(axis=1))


def _compact(rows, faces):
    """Without faces that have lost a corner and without vertices that have lost all faces."""
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[whole]
    used = np.zeros(len(rows), bool)
    used[faces] = True
    return rows[used], (np.cumsum(used) - 1)[faces].astype(np.int32)


def _turned(faces, cuts, chosen, first):
    """Corners and cuts of the chosen faces, turned so that their edge number `first` comes first."""
    places = (first[chosen, None] + np.arange(3)) % 3
    return np.take_along_axis(faces[chosen], places, 1).T, np.take_along_axis(cuts[chosen], places, 1).T


def _cut_once(corners, cuts):
    (a, b, c), ab = corners, cuts[0]
    return [_triangles(a, ab, c), _triangles(ab, b, c)]


def _cut_twice(vertices, corners, cuts):
    (a, b, c), (ab, bc, _) = corners, cuts
    straight = _norm(vertices[a] - vertices[bc]) <= _norm(vertices[ab] - vertices[c])
    tip = np.where(straight, a, ab)
    return [_triangles(ab, b, bc), _triangles(a, ab, np.where(straight, bc, c)), _triangles(tip, bc, c)]


def _triangles(a, b, c):
    return np.stack([a, b, c], axis=1)


def _where(condition, *arrays):
    return tuple(array[condition] for array in arrays)


def _lengths(rows, ends):
    return _norm(rows[ends[:, 0], :3] - rows[ends[:, 1], :3])


def _between(limits, ends):
    return 0.5 * (limits[ends[:, 0]] + limits[ends[:, 1]])


def _cross(vertices, faces):
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    u, v = b - a, c - a
    return u[:, [1, 2, 0]] * v[:, [2, 0, 1]] - u[:, [2, 0, 1]] * v[:, [1, 2, 0]]  # a third of np.cross's time


def _unit(vectors):
    return vectors / np.maximum(_norm(vectors), np.finfo(vectors.dtype).tiny)[:, None]


def _norm(vectors):
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))  # a third of np.linalg.norm's time on rows of three


def _quality(lengths, normals):
    """4 sqrt(3) area over the sum of squared edges: 1 for equilateral triangles, 0 for degenerate ones."""
    squares = np.einsum("ij,ij->i", lengths, lengths)
    return 2 * np.sqrt(3.0) * _norm(normals) / np.maximum(squares, np.finfo(squares.dtype).tiny)


def _folded(faces, normals, num_vertices):
    """Whether a face looks against the sum of the normals of its vertices."""
    at_vertices = np.stack(
        [np.bincount(faces.reshape(-1), np.repeat(normals[:, k], 3), num_vertices) for k in range(3)], axis=1
    )
    a, b, c = _unit(at_vertices.astype(normals.dtype))[faces.T]
    return np.einsum("ij,ij->i", a + b + c, normals) < 0
