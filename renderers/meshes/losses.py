"""What keeps a mesh in shape while its vertices follow images: smoothness of position and normal, even edges.

All functions are differentiable in the vertices and take the connectivity (`connectivity.unique_edges`,
`connectivity.adjacent_faces`) as arrays, so that they compile once for a topology. `weights` leaves out rows that only
fill up a buffer: the mean is `sum(w * error) / sum(w)`, 0 where all weights are 0.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from renderers.meshes.mesh import face_normals, vertex_normals

_SMALLEST_SQUARE = 1e-30  # of a length or a doubled area: below it there is no direction to differentiate along


def uniform_laplacian(vertices: Float[Array, "v 3"], edges: Int[Array | np.ndarray, "e 2"]) -> Float[Array, "v 3"]:
    """`(D - A) x`: the sum of the differences `x_i - x_j` to all neighbours j, unnormalised. An edge counts once."""
    difference = vertices[edges[:, 0]] - vertices[edges[:, 1]]
    return jnp.zeros_like(vertices).at[edges[:, 0]].add(difference).at[edges[:, 1]].add(-difference)


def cotangent_laplacian(vertices: Float[Array, "v 3"], faces: Int[Array | np.ndarray, "f 3"]) -> Float[Array, "v 3"]:
    """`sum_j (cot a_ij + cot b_ij) (x_i - x_j) / 2`: the gradient of the surface area, twice the mean curvature normal.

    The angles a, b are those opposite the edge ij (Meyer et al. 2003, "Discrete differential-geometry operators",
    eq. 8, without its division by the area around the vertex). A face without area contributes nothing.
    """
    faces = jnp.asarray(faces)
    corners = vertices[faces]
    result = jnp.zeros_like(vertices)
    for k in range(3):
        here, following, opposite = corners[:, k], corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]
        one, other = here - opposite, following - opposite
        area = _length(jnp.cross(one, other))
        cotangent = jnp.where(area > 0.0, jnp.sum(one * other, -1) / jnp.where(area > 0.0, area, 1.0), 0.0)
        pull = 0.5 * cotangent[:, None] * (here - following)
        result = result.at[faces[:, k]].add(pull).at[faces[:, (k + 1) % 3]].add(-pull)
    return result


def laplacian_loss(
    vertices: Float[Array, "v 3"],
    edges: Int[Array | np.ndarray, "e 2"],
    *,
    weights: Float[Array, " v"] | None = None,
) -> Float[Array, ""]:
    """Mean length of the uniform Laplacian, `|sum_j (x_i - x_j)|`, as in threestudio (`Mesh.laplacian`).

    In units of length; zero where every vertex is the mean of its neighbours. The gradient is zero at such a vertex.
    """
    return _mean(_length(uniform_laplacian(vertices, edges)), weights)


def cotangent_laplacian_loss(
    vertices: Float[Array, "v 3"],
    faces: Int[Array | np.ndarray, "f 3"],
    *,
    weights: Float[Array, " v"] | None = None,
) -> Float[Array, ""]:
    """Mean length of the cotangent Laplacian: zero on planes however they are triangulated, unlike the uniform one."""
    return _mean(_length(cotangent_laplacian(vertices, faces)), weights)


def face_normal_consistency(
    vertices: Float[Array, "v 3"],
    faces: Int[Array | np.ndarray, "f 3"],
    adjacent: Int[Array | np.ndarray, "p 2"],
    *,
    weights: Float[Array, " p"] | None = None,
) -> Float[Array, ""]:
    """Mean of `1 - cos` of the angle between adjacent faces, as in PyTorch3D (`mesh_normal_consistency`).

    In [0, 2]; zero on planes. Pairs with a face that has no area count as zero.
    """
    normals = face_normals(vertices, jnp.asarray(faces))
    return _mean(_turn(normals[adjacent[:, 0]], normals[adjacent[:, 1]]), weights)


def vertex_normal_consistency(
    vertices: Float[Array, "v 3"],
    faces: Int[Array | np.ndarray, "f 3"],
    edges: Int[Array | np.ndarray, "e 2"],
    *,
    weights: Float[Array, " e"] | None = None,
) -> Float[Array, ""]:
    """Mean over edges of `1 - cos` between the normals of both ends, as in threestudio (`Mesh.normal_consistency`).

    In [0, 2]; zero on planes. Edges with a vertex that has no normal count as zero.
    """
    normals = vertex_normals(vertices, jnp.asarray(faces))
    return _mean(_turn(normals[edges[:, 0]], normals[edges[:, 1]]), weights)


def edge_lengths(vertices: Float[Array, "v 3"], edges: Int[Array | np.ndarray, "e 2"]) -> Float[Array, " e"]:
    """Lengths of edges; an edge of length zero has gradient zero."""
    return _length(vertices[edges[:, 0]] - vertices[edges[:, 1]])


def edge_length_loss(
    vertices: Float[Array, "v 3"],
    edges: Int[Array | np.ndarray, "e 2"],
    *,
    target: Float[Array, ""] | float = 0.0,
    weights: Float[Array, " e"] | None = None,
) -> Float[Array, ""]:
    """Mean squared deviation of edge lengths from a target, in units of length squared (PyTorch3D, `mesh_edge_loss`).

    Target 0 shrinks, and so holds together what no image sees.
    """
    return _mean((edge_lengths(vertices, edges) - target) ** 2, weights)


def edge_length_variance(
    vertices: Float[Array, "v 3"],
    edges: Int[Array | np.ndarray, "e 2"],
    *,
    weights: Float[Array, " e"] | None = None,
) -> Float[Array, ""]:
    """Variance of the edge lengths, in units of length squared: zero where all are equal, whatever their length."""
    lengths = edge_lengths(vertices, edges)
    return _mean((lengths - _mean(lengths, weights)) ** 2, weights)


def _length(vectors):
    squared = jnp.sum(vectors * vectors, axis=-1)
    some = squared > _SMALLEST_SQUARE
    return jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0)


def _turn(a, b):
    """1 - cos between unit vectors, 0 where one of them is zero."""
    both = (jnp.sum(a * a, -1) > 0.5) & (jnp.sum(b * b, -1) > 0.5)
    return jnp.where(both, 1.0 - jnp.sum(a * b, axis=-1), 0.0)


def _mean(values, weights):
    if weights is None:
        return jnp.mean(values)
    total = jnp.sum(weights)
    return jnp.sum(values * weights) / jnp.where(total > 0.0, total, 1.0)
