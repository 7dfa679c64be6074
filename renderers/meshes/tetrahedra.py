"""Marching tetrahedra: a surface from signed distances on a tetrahedral grid, differentiable and of static shape.

Shen et al., "Deep marching tetrahedra", NeurIPS 2021. Convention: a signed distance is negative inside, and normals
point to where it is positive. The grid's edges are listed once, so that the surface's vertices live in one slot for
each of the e edges and its triangles in two slots for each of the t tetrahedra, of which masks say which are there; a
triangle that is not there has three equal corners and neither area nor normal. Gradients flow through the crossings
    p = p_a + s_a / (s_a - s_b) (p_b - p_a)
into distances and node positions; which edges cross is constant.
"""

import dataclasses
import itertools
import typing
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from renderers.meshes.mesh import Mesh

_CORNER_PAIRS = tuple(itertools.combinations(range(4), 2))  # the six edges of a tetrahedron
_REFERENCE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])  # positively oriented


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class TetrahedralGrid:
    """A box filled with tetrahedra that share whole faces.

    Attributes:
        nodes: positions, world units.
        tetrahedra: positively oriented, `(b - a) x (c - a) . (d - a) > 0`.
        edges: every edge once.
        tetrahedron_edges: the edges of each tetrahedron, in the order of corner pairs 01 02 03 12 13 23.
        border: nodes on the faces of the box.
        spacing: sides of the grid's cubes.
    """

    nodes: Float[Array, "g 3"]
    tetrahedra: Int[Array, "t 4"]
    edges: Int[Array, "e 2"]
    tetrahedron_edges: Int[Array, "t 6"]
    border: Bool[Array, " g"]
    spacing: Float[Array, " 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class SlottedSurface:
    """Triangles in slots; only the masked ones are there. `compact` leaves out the others.

    Attributes:
        vertices: one for each edge of the grid, zero where the surface does not cross it.
        vertex_mask: edges that the surface crosses.
        faces: two for each tetrahedron; three zeros where there is none.
        face_mask: triangles that are there.
    """

    vertices: Float[Array, "e 3"]
    vertex_mask: Bool[Array, " e"]
    faces: Int[Array, "f 3"]
    face_mask: Bool[Array, " f"]


def tetrahedral_grid(
    resolution: int, box: Float[np.ndarray | Array, "2 3"], *, kind: Literal["bcc", "kuhn"] = "bcc"
) -> TetrahedralGrid:
    """A grid of `resolution` cubes a side. Runs on the host.

    Args:
        resolution: cubes along each side of the box.
        box: lower and upper corner.
        kind: "bcc" has the corners and centres of the cubes as nodes and 12 near-regular tetrahedra a cube (Labelle and
            Shewchuk, "Isosurface stuffing", 2007); "kuhn" the corners only and 6 tetrahedra around the main diagonal.
    """
    if resolution < 1:
        raise ValueError(f"a tetrahedral grid needs a resolution of at least 1, got {resolution}")
    low, high = np.asarray(box, np.float64)
    if not (high > low).all():
        raise ValueError(f"a box is its lower and its upper corner, got {low.tolist()} and {high.tolist()}")
    places, tetrahedra = (_bcc if kind == "bcc" else _kuhn)(resolution)
    a, b, c, d = (places[tetrahedra[:, k]] for k in range(4))
    turned = np.einsum("td,td->t", np.cross(b - a, c - a), d - a) < 0
    tetrahedra[turned] = tetrahedra[turned][:, [0, 1, 3, 2]]
    ends = np.sort(tetrahedra[:, np.array(_CORNER_PAIRS)].reshape(-1, 2), axis=1)
    keys, inverse = np.unique(ends[:, 0] * len(places) + ends[:, 1], return_inverse=True)
    return TetrahedralGrid(
        nodes=jnp.asarray(low + places / resolution * (high - low), jnp.float32),
        tetrahedra=jnp.asarray(tetrahedra, jnp.int32),
        edges=jnp.asarray(np.stack([keys // len(places), keys % len(places)], -1), jnp.int32),
        tetrahedron_edges=jnp.asarray(inverse.reshape(-1, 6), jnp.int32),
        border=jnp.asarray(((places == 0) | (places == resolution)).any(-1)),
        spacing=jnp.asarray((high - low) / resolution, jnp.float32),
    )


def _cubes(n):
    """Corner places of n^3 cubes, the index of a corner from its place, and the lower corners of all cubes."""
    corners = np.stack(np.meshgrid(*3 * (np.arange(n + 1),), indexing="ij"), -1).reshape(-1, 3)
    cubes = np.stack(np.meshgrid(*3 * (np.arange(n),), indexing="ij"), -1).reshape(-1, 3)
    return corners, np.array([(n + 1) ** 2, n + 1, 1]), cubes


def _kuhn(n):
    """Every monotone path from a cube's lower to its upper corner is a tetrahedron; mirror images meet face to face."""
    corners, strides, cubes = _cubes(n)
    paths = [
        np.cumsum([np.zeros(3, int), *np.eye(3, dtype=int)[list(order)]], 0)
        for order in itertools.permutations(range(3))
    ]
    return corners.astype(float), np.concatenate([(cubes[:, None] + path) @ strides for path in paths])


def _bcc(n):
    """An edge of a cube's face and the centres of the two cubes beside that face; half of that at the border."""
    corners, strides, cubes = _cubes(n)
    center_strides, first_center = np.array([n * n, n, 1]), len(corners)
    centers, parts = cubes @ center_strides + first_center, []
    for axis in range(3):
        u, v = np.eye(3, dtype=int)[[(axis + 1) % 3, (axis + 2) % 3]]
        ring = np.stack([0 * u, u, u + v, v])
        for side in (0, 1):
            square = (cubes[:, None] + ring + side * np.eye(3, dtype=int)[axis]) @ strides
            outer = cubes[:, axis] == (n - 1 if side else 0)
            parts += [np.c_[centers, square[:, [0, a, a + 1]]][outer] for a in (1, 2)]
        inner = cubes[:, axis] < n - 1  # square is now the upper face
        pairs = np.c_[centers, centers + center_strides[axis]][inner]
        parts += [np.c_[pairs, square[inner][:, [k, (k + 1) % 4]]] for k in range(4)]
    return np.concatenate([corners, cubes + 0.5]).astype(float), np.concatenate(parts)


def triangle_table() -> Int[np.ndarray, "16 2 3"]:
    """Edges at whose crossings the triangles have their corners, for each sign pattern; -1 where there is no triangle.

    Bit k of a pattern says that corner k is positive. Found, not written down: the crossed edges of a reference
    tetrahedron are put in order around the polygon that they make, seen from the positive side.
    """
    table = np.full((16, 2, 3), -1, np.int32)
    middles = _REFERENCE[np.array(_CORNER_PAIRS)].mean(1)
    for pattern in range(1, 15):
        positive = np.array([bool(pattern >> k & 1) for k in range(4)])
        crossed = np.array([e for e, (a, b) in enumerate(_CORNER_PAIRS) if positive[a] != positive[b]])
        up = _REFERENCE[positive].mean(0) - _REFERENCE[~positive].mean(0)
        arms = middles[crossed] - middles[crossed].mean(0)
        across = arms[0] - arms[0] @ up / (up @ up) * up
        around = np.argsort(np.arctan2(arms @ np.cross(up, across) / np.linalg.norm(up), arms @ across))
        polygon = crossed[around]
        for k in range(len(polygon) - 2):
            table[pattern, k] = polygon[[0, k + 1, k + 2]]
    return table


def marching_tetrahedra(
    nodes: Float[Array, "g 3"], distances: Float[Array, " g"], grid: TetrahedralGrid
) -> SlottedSurface:
    """The surface of distance zero, jit-able; a node at exactly zero counts as inside.

    Two triangles a tetrahedron at most. Open where the inside reaches the border of the grid: see `closed`.

    Args:
        nodes: positions, `grid.nodes` or `deformed(grid, offsets)`.
        distances: signed, negative inside; any field that changes sign at the surface will do.
        grid: its connectivity.
    """
    positive = distances > 0
    a, b = grid.edges[:, 0], grid.edges[:, 1]
    crossed = positive[a] != positive[b]
    gap = distances[a] - distances[b]
    share = jnp.where(crossed, distances[a], 0.5) / jnp.where(crossed, gap, 1.0)
    vertices = jnp.where(crossed[:, None], nodes[a] + share[:, None] * (nodes[b] - nodes[a]), 0.0)
    pattern = jnp.sum(positive[grid.tetrahedra] * jnp.array([1, 2, 4, 8], jnp.int32)[None], axis=-1)
    local = jnp.asarray(triangle_table())[pattern].reshape(-1, 6)
    there = local.reshape(-1, 3)[:, 0] >= 0
    faces = jnp.take_along_axis(grid.tetrahedron_edges, jnp.maximum(local, 0), axis=1).reshape(-1, 3)
    faces = jnp.where(there[:, None], faces, 0).astype(jnp.int32)
    return SlottedSurface(vertices=vertices, vertex_mask=crossed, faces=faces, face_mask=there)


def deformed(grid: TetrahedralGrid, offsets: Float[Array, "g 3"], *, limit: float = 0.11) -> Float[Array, "g 3"]:
    """Nodes moved by `limit * spacing * tanh(offsets)`.

    The narrowest tetrahedra, those at the border of a BCC grid of cubes, are spacing / sqrt(6) wide, so that a limit
    below 1 / sqrt(72) = 0.118 inverts none whatever the offsets; others go up to 0.5 and rely on the losses.
    """
    return grid.nodes + limit * grid.spacing[None] * jnp.tanh(offsets)


def closed(grid: TetrahedralGrid, distances: Float[Array, " g"]) -> Float[Array, " g"]:
    """Distances that are positive on the border of the grid, so that the surface is watertight."""
    smallest = 1e-3 * jnp.min(grid.spacing).astype(distances.dtype)
    return jnp.where(grid.border, jnp.maximum(distances, smallest), distances)


def sphere_distances(
    nodes: Float[Array, "g 3"], center: Float[Array, " 3"], radius: float | Float[Array, ""]
) -> Float[Array, " g"]:
    """Signed distances of a sphere, to start from."""
    return jnp.linalg.norm(nodes - center[None], axis=-1) - radius


def sign_change_loss(distances: Float[Array, " g"], edges: Int[Array, "e 2"]) -> Float[Array, ""]:
    """Mean over crossed edges of how much each end's sign denies the other's; drives floaters and inner shells away.

    Binary cross-entropy of sigmoid(s_a) with [s_b > 0] plus that of sigmoid(s_b) with [s_a > 0] (nvdiffrec, Eq. 2);
    0 without crossings.
    """
    a, b = distances[edges[:, 0]], distances[edges[:, 1]]
    crossed = (a > 0) != (b > 0)
    # cross-entropy of sigmoid(x) with a label is softplus(-x) for 1 and softplus(x) for 0
    each = jax.nn.softplus(jnp.where(b > 0, -a, a)) + jax.nn.softplus(jnp.where(a > 0, -b, b))
    return jnp.sum(jnp.where(crossed, each, 0.0)) / jnp.maximum(jnp.sum(crossed), 1)


def compact(surface: SlottedSurface) -> Mesh:
    """The triangles and vertices that are there. Runs on the host.

    Vertices are shared along the grid's edges, so a surface that does not touch the border is watertight.

    Raises:
        ValueError: no triangle.
    """
    faces = np.asarray(surface.faces)[np.asarray(surface.face_mask)]
    if len(faces) == 0:
        raise ValueError("no surface: the distances have one sign on the whole grid")
    used, index = np.unique(faces, return_inverse=True)
    return Mesh(jnp.asarray(surface.vertices)[used], jnp.asarray(index.reshape(-1, 3), jnp.int32))
