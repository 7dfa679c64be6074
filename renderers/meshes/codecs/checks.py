"""What a mesh must be before it is written: arrays that fit each other, finite numbers, indices in range."""

import numpy as np

from renderers.files import FormatError, require_finite
from renderers.meshes.mesh import Mesh


def require_writable(where: str, mesh: Mesh) -> None:
    """Checks a mesh before anything is written.

    Args:
        where: the file, for the message.
        mesh: the mesh.

    Raises:
        FormatError: naming the array that does not fit, and how.
    """
    where = f"cannot write {where}"
    count, faces = len(mesh.vertices), np.asarray(mesh.faces)
    _require_shape(where, "vertices", np.asarray(mesh.vertices), (count, 3))
    _require_shape(where, "faces", faces, (len(faces), 3))
    _require_indices(where, "faces", faces, count)
    for name, widths in (("vertex_colors", (3, 4)), ("normals", (3,))):
        values = getattr(mesh, name)
        if values is not None:
            values = np.asarray(values)
            width = values.shape[1] if values.ndim == 2 and values.shape[1] in widths else widths[0]
            _require_shape(where, name, values, (count, width))
    if mesh.uv is not None:
        rows = count if mesh.uv_faces is None else len(mesh.uv)
        _require_shape(where, "uv", np.asarray(mesh.uv), (rows, 2))
        if mesh.uv_faces is not None:
            _require_shape(where, "uv_faces", np.asarray(mesh.uv_faces), faces.shape)
            _require_indices(where, "uv_faces", np.asarray(mesh.uv_faces), rows)
    if mesh.texture is not None:
        texture = np.asarray(mesh.texture)
        channels = texture.shape[2] if texture.ndim == 3 and texture.shape[2] in (1, 3, 4) else 3
        _require_shape(where, "texture", texture, (*texture.shape[:2], channels))


def _require_shape(where: str, name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise FormatError(f"{where}: expected {name} of shape {shape}, got {values.shape}")
    if values.dtype.kind == "f" and len(values):
        require_finite(where, name.replace("_", " "), values)


def _require_indices(where: str, name: str, faces: np.ndarray, count: int) -> None:
    if faces.size and (faces.min() < 0 or faces.max() >= count):
        raise FormatError(f"{where}: {name} hold {faces.min()} to {faces.max()}, but there are {count} rows")
