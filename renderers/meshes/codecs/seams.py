"""One set of indices for positions and texture coordinates, as glTF wants it: vertices repeated at seams of uv."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from renderers.meshes.mesh import Mesh


class Unified(NamedTuple):
    """A mesh with uv by vertex.

    Attributes:
      source: which vertex of the original each vertex is.
      faces: indices of the new vertices.
      uv: by new vertex, v up.
    """

    source: Int[np.ndarray, " v"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "v 2"] | None


def unified(mesh: Mesh) -> Unified:
    """Repeats a vertex for each different uv it has; the mesh itself if none has more than one."""
    vertices, faces = len(mesh.vertices), np.asarray(mesh.faces).astype(np.int64)
    if mesh.uv is None or mesh.uv_faces is None:
        return Unified(np.arange(vertices), faces, None if mesh.uv is None else np.asarray(mesh.uv))
    uv, uv_faces = np.asarray(mesh.uv), np.asarray(mesh.uv_faces).astype(np.int64)
    values, same = np.unique(uv, axis=0, return_inverse=True)
    pairs, inverse = np.unique(faces * max(len(values), 1) + same.reshape(-1)[uv_faces], return_inverse=True)
    source, which = pairs // max(len(values), 1), pairs % max(len(values), 1)
    if len(np.unique(source)) == len(source):
        whole = np.zeros((vertices, 2), uv.dtype)
        whole[source] = values[which]
        return Unified(np.arange(vertices), faces, whole)
    return Unified(source, inverse.reshape(-1, 3), values[which])
