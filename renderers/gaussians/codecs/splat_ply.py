"""3DGS `.ply`: one `vertex` element, a float column for every stored parameter, addressed by name.

Columns: x y z | f_dc_0..2 | f_rest_0..3K-1 channel-major (all red, then green, then blue) | opacity (logit) |
scale_0..2 (natural log) | rot_0..3 (wxyz, any length). K = 0, 3, 8, 15 or 24. Kerbl et al. (arXiv 2308.04079), in the
layout of its code. Other writers drop the normals, add columns, or use other scalar types; all are read.
"""

import os

import numpy as np

from renderers.files import FormatError
from renderers.gaussians.codecs.columns import COEFFICIENTS, Columns, from_record, to_record
from renderers.gaussians.gaussians import Gaussians
from renderers.harmonics import BAND_0
from renderers.ply import write_ply

# A flat Gaussian (2DGS files hold two scales): a third standard deviation of 1e-10 world units.
_FLAT_LOG_SCALE = np.log(1e-10)


def from_vertex(path: str | os.PathLike[str], vertex: np.ndarray) -> Gaussians:
    """Builds the record from the rows of a `vertex` element.

    Raises:
        FormatError: for a missing column, a number of f_rest columns that is no degree, or values that are not finite.
    """
    names = set(vertex.dtype.names or ())

    def stack(*columns: str) -> np.ndarray:
        missing = [column for column in columns if column not in names]
        if missing:
            raise FormatError(
                f"{os.fspath(path)}: expected 3D Gaussian splats, but the vertices have no {', '.join(missing)}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            return np.stack([vertex[column].astype(np.float32) for column in columns], axis=-1)

    num_rest = sum(f"f_rest_{i}" in names for i in range(len(names)))
    if num_rest % 3 or num_rest // 3 + 1 not in COEFFICIENTS:
        raise FormatError(f"{os.fspath(path)}: expected 0, 9, 24, 45 or 72 f_rest columns, got {num_rest}")
    if "f_dc_0" not in names and {"red", "green", "blue"} <= names:
        constant = (stack("red", "green", "blue") / np.float32(255) - np.float32(0.5)) / np.float32(BAND_0)
    else:
        constant = stack("f_dc_0", "f_dc_1", "f_dc_2")
    rest = stack(*(f"f_rest_{i}" for i in range(num_rest))) if num_rest else np.zeros((len(vertex), 0), np.float32)
    if "scale_2" in names:
        log_scales = stack("scale_0", "scale_1", "scale_2")
    else:
        log_scales = np.pad(stack("scale_0", "scale_1"), ((0, 0), (0, 1)), constant_values=_FLAT_LOG_SCALE)
    columns = Columns(
        means=stack("x", "y", "z"),
        quaternions=stack("rot_0", "rot_1", "rot_2", "rot_3"),
        log_scales=log_scales,
        opacity_logits=stack("opacity")[:, 0],
        sh=np.concatenate([constant[:, None], rest.reshape(len(vertex), 3, num_rest // 3).swapaxes(1, 2)], axis=1),
    )
    return to_record(path, columns)


def write(path: str | os.PathLike[str], gaussians: Gaussians) -> None:
    """Writes the original column order, zero normals included, so that the strictest readers accept the file.

    Raises:
        FormatError: if a value is not finite.
        OSError: if the file cannot be written.
    """
    columns = from_record(path, gaussians)
    rest = columns.sh[:, 1:].swapaxes(1, 2).reshape(len(columns.means), 3 * (columns.sh.shape[1] - 1))
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(rest.shape[1])]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    table = np.concatenate(
        [
            *(columns.means, np.zeros_like(columns.means), columns.sh[:, 0], rest),
            *(columns.opacity_logits[:, None], columns.log_scales, columns.quaternions),
        ],
        axis=1,
        dtype=np.float32,
    )
    rows = np.ascontiguousarray(table).view([(name, "<f4") for name in names])[:, 0]
    write_ply(path, {"vertex": rows})
