"""antimatter15's `.splat`: 32 bytes a Gaussian and no header.

A record is 3 floats position, 3 floats standard deviation (linear), 4 bytes RGBA (1/2 + C0 f_dc; opacity after the
sigmoid), 4 bytes quaternion wxyz as round(128 q + 128). No view-dependent colour. Records are sorted by opacity times
volume, so that a file cut short still shows something. Facts from shared/specs/renderers/file_formats.md section 2.
"""

import os

import numpy as np

from renderers.files import FormatError, read_bytes, write_bytes_atomically
from renderers.gaussians.codecs.columns import (
    Columns,
    from_record,
    logit_from_opacity,
    opacity_from_logit,
    to_record,
    unit_quaternions,
)
from renderers.gaussians.gaussians import Gaussians
from renderers.harmonics import BAND_0

_RECORD = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quaternions", "u1", 4)])
# Flat Gaussians may store a zero; its logarithm must stay finite.
_SMALLEST_SCALE = 1e-10


# Damaged floats may be signalling NaNs, which warn when they are converted; they are refused at the end.
@np.errstate(invalid="ignore", over="ignore")
def read(path: str | os.PathLike[str]) -> Gaussians:
    """Reads a `.splat` file as degree 0.

    Raises:
        FormatError: if the size is no multiple of 32 bytes, or a number is not finite, or a scale negative.
    """
    content = read_bytes(path)
    if len(content) % _RECORD.itemsize:
        raise FormatError(f"{os.fspath(path)}: {len(content)} bytes are no whole number of 32-byte splats")
    rows = np.frombuffer(content, _RECORD)
    if (rows["scales"] < 0).any():
        first = int(np.argmax((rows["scales"] < 0).any(axis=1)))
        raise FormatError(f"{os.fspath(path)}: row {first} has a negative scale; this is not a .splat file")
    color = rows["rgba"].astype(np.float64) / 255
    return to_record(
        path,
        Columns(
            means=rows["means"],
            quaternions=unit_quaternions((rows["quaternions"].astype(np.float64) - 128) / 128),
            log_scales=np.log(np.maximum(rows["scales"].astype(np.float64), _SMALLEST_SCALE)),
            opacity_logits=logit_from_opacity(color[:, 3]),
            sh=((color[:, :3] - 0.5) / BAND_0)[:, None],
        ),
    )


def write(path: str | os.PathLike[str], gaussians: Gaussians) -> None:
    """Writes a `.splat` file, the most visible Gaussians first; view-dependent colour is dropped.

    Raises:
        FormatError: if a value is not finite, or a scale overflows float32.
        OSError: if the file cannot be written.
    """
    columns = from_record(path, gaussians)
    opacity = opacity_from_logit(columns.opacity_logits)
    # In logarithms: products of tiny scales would all be zero.
    order = np.argsort(-(np.log(np.maximum(opacity, 1e-30)) + columns.log_scales.sum(axis=1)), kind="stable")
    columns = Columns(*(column[order] for column in columns))
    if len(order) and columns.log_scales.max() > np.log(np.finfo(np.float32).max):
        raise FormatError(f"cannot write {os.fspath(path)}: a scale is larger than float32 holds")
    rows = np.zeros(len(order), _RECORD)
    rows["means"], rows["scales"] = columns.means, np.exp(columns.log_scales)
    rgba = np.concatenate([0.5 + BAND_0 * columns.sh[:, 0], opacity[order, None]], axis=1)
    rows["rgba"] = np.clip(np.round(255 * rgba), 0, 255)
    rows["quaternions"] = np.clip(np.round(128 * unit_quaternions(columns.quaternions) + 128), 0, 255)
    write_bytes_atomically(path, rows.tobytes())
