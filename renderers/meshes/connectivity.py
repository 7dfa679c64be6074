"""What touches what in a triangle mesh: edges, and the vertex opposite each edge. Host-side, on integer arrays,
but for `traced_opposite_vertices`.

Edge k of a face (0, 1, 2) joins its corners k and (k + 1) % 3; its opposite corner is (k + 2) % 3.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

BOUNDARY = -1
"""Where there is no vertex or face on the other side of an edge."""


def half_edges(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "e 2"]:
    """The three directed edges of every face, face by face."""
    faces = np.asarray(faces)
    return np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)


def unique_edges(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "e 2"]:
    """Undirected edges, each once, smaller index first, in lexicographic order."""
    return np.unique(np.sort(half_edges(faces), axis=1), axis=0)


def opposite_half_edges(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f 3"]:
    """Index into `half_edges` of the edge of the neighbouring face, by face and edge; BOUNDARY where there is none.

    An edge of more than two faces pairs them in order of their indices: the last of an odd number has no partner.
    """
    faces = np.asarray(faces)
    ends = np.sort(half_edges(faces).astype(np.int64), axis=1)
    keys = ends[:, 0] * (int(faces.max(initial=0)) + 1) + ends[:, 1]
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    starts = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
    counts = np.diff(np.r_[starts, len(keys)])
    place = np.arange(len(keys)) - np.repeat(starts, counts)
    partner = place ^ 1  # 0 with 1, 2 with 3, ...
    paired = partner < np.repeat(counts, counts)
    opposite = np.full(len(keys), BOUNDARY, np.int32)
    opposite[order[paired]] = order[(np.repeat(starts, counts) + partner)[paired]]
    return opposite.reshape(-1, 3)


def opposite_vertices(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f 3"]:
    """The vertex across each edge of each face, in the neighbouring face; BOUNDARY at borders.

    What silhouettes are found by: an edge is on the outline if the two faces' other corners lie on one side of it.
    """
    faces = np.asarray(faces)
    other = opposite_half_edges(faces)
    corner = np.roll(faces, -2, axis=1).reshape(-1)  # opposite corner of edge k is corner k + 2
    return np.where(other >= 0, corner[np.maximum(other, 0)], BOUNDARY).astype(np.int32)


def adjacent_faces(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "p 2"]:
    """Pairs of faces that share an edge, each pair once, smaller index first."""
    other = opposite_half_edges(faces).reshape(-1)
    pairs = np.stack([np.arange(len(other)) // 3, other // 3], axis=1)[other >= 0]
    return pairs[pairs[:, 0] < pairs[:, 1]]


def boundary_edges(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "e 2"]:
    """Directed edges that belong to one face only; none if the mesh is watertight."""
    return half_edges(faces)[opposite_half_edges(faces).reshape(-1) < 0]


def is_watertight(faces: Int[np.ndarray, "f 3"]) -> bool:
    """Whether every edge has exactly two faces, which run along it in opposite directions."""
    directed = half_edges(faces)
    if len(directed) == 0:
        return False
    _, counts = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    return bool((counts == 2).all()) and len(np.unique(directed, axis=0)) == len(directed)


def euler_characteristic(faces: Int[np.ndarray, "f 3"]) -> int:
    """V - E + F over used vertices: 2 for a sphere, 0 for a torus."""
    return len(np.unique(faces)) - len(unique_edges(faces)) + len(faces)


def traced_opposite_vertices(faces: Int[Array, "f 3"]) -> Int[Array, "f 3"]:
    """`opposite_vertices` under `jax.jit`: by a stable sort of all edges, O(f log f) at every call."""
    count = 3 * len(faces)
    if count == 0:
        return jnp.zeros((0, 3), jnp.int32)
    start, end = faces.reshape(-1), jnp.roll(faces, -1, axis=1).reshape(-1)
    low, high = jnp.minimum(start, end), jnp.maximum(start, end)
    place = jnp.arange(count, dtype=jnp.int32)
    low, high, edge = lax.sort((low, high, place), num_keys=2, is_stable=True)
    begins = (low != jnp.roll(low, 1)) | (high != jnp.roll(high, 1)) | (place == 0)
    first = lax.cummax(jnp.where(begins, place, 0))
    partner = first + ((place - first) ^ 1)  # 0 with 1, 2 with 3, ... of the edges alike
    within = jnp.minimum(partner, count - 1)
    paired = (partner < count) & (first[within] == first)
    other = jnp.zeros(count, jnp.int32).at[edge].set(jnp.where(paired, edge[within], BOUNDARY), unique_indices=True)
    corner = jnp.roll(faces, -2, axis=1).reshape(-1)
    return jnp.where(other >= 0, corner[jnp.maximum(other, 0)], BOUNDARY).astype(jnp.int32).reshape(-1, 3)
