"""Tangents by vertex from texture coordinates, for readers that want them beside a normal map."""

import numpy as np
from jaxtyping import Float, Int


def vertex_tangents(
    vertices: Float[np.ndarray, "v 3"],
    normals: Float[np.ndarray, "v 3"],
    uv: Float[np.ndarray, "v 2"],
    faces: Int[np.ndarray, "f 3"],
) -> Float[np.ndarray, "v 4"]:
    """Unit vectors along growing u, orthogonal to the normals, and the sign of the bitangent, which runs along v up.

    A face's tangent is (dv2 e1 - dv1 e2) / (du1 dv2 - du2 dv1) from its edges e and their steps in uv; vertices take
    the sum of their faces' directions, weighted by area in uv, made orthogonal to the normal (Gram-Schmidt).
    """
    corners, maps = vertices[faces].astype(np.float64), uv[faces].astype(np.float64)
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    (du1, dv1), (du2, dv2) = (maps[:, 1] - maps[:, 0]).T, (maps[:, 2] - maps[:, 0]).T
    turn = np.sign(du1 * dv2 - du2 * dv1)[:, None]
    along_u = turn * (dv2[:, None] * e1 - dv1[:, None] * e2)
    along_v = turn * (du1[:, None] * e2 - du2[:, None] * e1)
    tangent, bitangent = np.zeros((len(vertices), 3)), np.zeros((len(vertices), 3))
    for k in range(3):
        np.add.at(tangent, faces[:, k], along_u)
        np.add.at(bitangent, faces[:, k], along_v)
    normals = normals.astype(np.float64)
    tangent -= normals * (normals * tangent).sum(axis=1, keepdims=True)
    length = np.linalg.norm(tangent, axis=1, keepdims=True)
    # where uv has no direction any vector across the normal will do
    axis = np.eye(3)[np.argmin(np.abs(normals), axis=1)]
    other = np.cross(normals, axis)
    lost = length < 1e-12 * max(float(np.abs(vertices).max(initial=1)), 1e-30)
    tangent = np.where(lost, other, tangent)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-30)
    sign = np.where((np.cross(normals, tangent) * bitangent).sum(axis=1) < 0, -1.0, 1.0)
    return np.concatenate([tangent, sign[:, None]], axis=1).astype(np.float32)
