"""PlayCanvas `.compressed.ply`: 16 bytes a Gaussian, quantised between the bounds of its chunk of 256.

Element `chunk`: 12 floats (min and max of the position and of the log-scale, clamped to +-20), in newer files 6 more
(min and max of the colour). Element `vertex`: four uint32, high bits first:
    packed_position  11-10-11 bits of x y z        packed_scale   11-10-11 bits of the log-scales
    packed_rotation  2 bits, index of the largest of w x y z, then 3 x 10 bits of the others, (q / 1023 - 1/2) sqrt 2
    packed_color     8 bits each: red green blue (1/2 + C0 f_dc), opacity after the sigmoid
Element `sh` (optional): uchar f_rest_i, channel-major; byte b stands for 8 ((b + 1/2) / 256 - 1/2).
Facts from shared/specs/renderers/file_formats.md section 4 and the format's public description by PlayCanvas.
"""

import os

import numpy as np

from renderers.files import FormatError, require_finite
from renderers.gaussians.codecs import smallest_three
from renderers.gaussians.codecs.columns import (
    COEFFICIENTS,
    Columns,
    from_record,
    logit_from_opacity,
    opacity_from_logit,
    to_record,
    unit_quaternions,
)
from renderers.gaussians.gaussians import Gaussians
from renderers.harmonics import BAND_0
from renderers.ply import write_ply

CHUNK = 256
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_LOG_SCALE_LIMIT = 20.0
_SH_RANGE = 8.0


# Damaged floats may be signalling NaNs, which warn when they are converted; they are refused at the end.
@np.errstate(invalid="ignore", over="ignore")
def from_elements(path: str | os.PathLike[str], elements: dict[str, np.ndarray]) -> Gaussians:
    """Builds the record from the `chunk`, `vertex` and `sh` elements.

    Raises:
        FormatError: for missing columns, too few chunks, or bounds that are not finite.
    """
    where = os.fspath(path)
    vertex, chunk = elements["vertex"], elements["chunk"]
    if not set(_PACKED) <= set(vertex.dtype.names or ()):
        raise FormatError(f"{where}: expected the packed columns {', '.join(_PACKED)} beside the chunk element")
    if len(chunk) != -(-len(vertex) // CHUNK):
        raise FormatError(f"{where}: {len(vertex)} splats need {-(-len(vertex) // CHUNK)} chunks, got {len(chunk)}")
    row = np.arange(len(vertex)) // CHUNK

    def bounded(fractions: np.ndarray, names: str, suffixes: tuple[str, ...]) -> np.ndarray:
        columns = [f"{bound}_{names}{suffix}" for bound in ("min", "max") for suffix in suffixes]
        missing = [column for column in columns if column not in (chunk.dtype.names or ())]
        if missing:
            raise FormatError(f"{where}: the chunks have no {', '.join(missing)}")
        bounds = np.stack([chunk[column].astype(np.float32) for column in columns], axis=-1).astype(np.float64)
        if len(bounds):
            require_finite(where, "chunk bound", bounds)
        low, high = bounds[row, :3], bounds[row, 3:]
        return low + (high - low) * fractions

    packed = [vertex[name].astype(np.uint32) for name in _PACKED]
    color = np.stack([(packed[3] >> shift) & 255 for shift in (24, 16, 8, 0)], axis=-1) / 255.0
    rgb = color[:, :3]
    if {"min_r", "max_r"} & set(chunk.dtype.names or ()):
        rgb = bounded(rgb, "", ("r", "g", "b"))
    columns = Columns(
        means=bounded(_unpack_11_10_11(packed[0]), "", ("x", "y", "z")),
        quaternions=_unpack_rotation(packed[1]),
        log_scales=bounded(_unpack_11_10_11(packed[2]), "scale_", ("x", "y", "z")),
        opacity_logits=logit_from_opacity(color[:, 3]),
        sh=np.concatenate(
            [((rgb - 0.5) / BAND_0)[:, None], _unpack_sh(where, elements.get("sh"), len(vertex))], axis=1
        ),
    )
    return to_record(path, columns)


def write(path: str | os.PathLike[str], gaussians: Gaussians) -> None:
    """Writes the Gaussians in Morton order, so that chunks are small and the quantisation with them.

    Log-scales are clamped to +-20 and spherical harmonics above degree 0 to +-4, as the format does.

    Raises:
        FormatError: if a value is not finite, or the degree is 4, which the format has no room for.
        OSError: if the file cannot be written.
    """
    columns = from_record(path, gaussians)
    if columns.sh.shape[1] > 16:
        raise FormatError(f"cannot write {os.fspath(path)}: compressed PLY holds degree 3 at most; write .ply instead")
    order = morton_order(columns.means)
    columns = Columns(*(column[order] for column in columns))
    rgb = 0.5 + BAND_0 * columns.sh[:, 0].astype(np.float64)
    log_scales = np.clip(columns.log_scales, -_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT)
    bounds, fractions = zip(*(_chunk_bounds(values) for values in (columns.means, log_scales, rgb)), strict=True)
    alpha = np.round(255 * opacity_from_logit(columns.opacity_logits)).astype(np.uint32)
    color = np.round(255 * fractions[2]).astype(np.uint32)
    packed = (
        _pack_11_10_11(fractions[0]),
        _pack_rotation(columns.quaternions),
        _pack_11_10_11(fractions[1]),
        color[:, 0] << 24 | color[:, 1] << 16 | color[:, 2] << 8 | alpha,
    )
    names = [
        f"{bound}_{kind}{axis}"
        for kind, axes in (("", "xyz"), ("scale_", "xyz"), ("", "rgb"))
        for bound in ("min", "max")
        for axis in axes
    ]
    chunk = np.ascontiguousarray(np.concatenate(bounds, axis=1), np.float32).view([(name, "<f4") for name in names])
    vertex = np.ascontiguousarray(np.stack(packed, axis=1), np.uint32).view([(name, "<u4") for name in _PACKED])
    elements = {"chunk": chunk[:, 0], "vertex": vertex[:, 0]}
    rest = columns.sh[:, 1:].swapaxes(1, 2).reshape(len(vertex), 3 * (columns.sh.shape[1] - 1))
    if rest.shape[1]:
        levels = np.clip(np.floor((rest / _SH_RANGE + 0.5) * 256), 0, 255).astype(np.uint8)
        elements["sh"] = levels.view([(f"f_rest_{i}", "u1") for i in range(rest.shape[1])])[:, 0]
    write_ply(path, elements, comments=("16 bytes a splat, PlayCanvas layout",))


def morton_order(means: np.ndarray) -> np.ndarray:
    """Indices that sort points along the Z-order curve of their bounding box, 21 bits an axis."""
    if not len(means):
        return np.zeros(0, np.int64)
    low, high = means.min(axis=0).astype(np.float64), means.max(axis=0).astype(np.float64)
    cells = ((means - low) / np.where(high > low, high - low, 1) * (2**21 - 1)).astype(np.uint64)
    code = np.zeros(len(means), np.uint64)
    for axis in range(3):
        bits = cells[:, axis]
        # Spreads 21 bits so that two zeros stand between neighbours.
        for shift, mask in (
            (32, 0x1F00000000FFFF),
            (16, 0x1F0000FF0000FF),
            (8, 0x100F00F00F00F00F),
            (4, 0x10C30C30C30C30C3),
            (2, 0x1249249249249249),
        ):
            bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
        code |= bits << np.uint64(axis)
    return np.argsort(code, kind="stable")


def _chunk_bounds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [chunks 6] of each chunk, as stored, and where in them [n 3] the values lie, 0 to 1."""
    starts = np.arange(0, len(values), CHUNK)
    if not len(values):
        return np.zeros((0, 6)), np.zeros((0, 3))
    low = np.minimum.reduceat(values, starts).astype(np.float32).astype(np.float64)
    high = np.maximum.reduceat(values, starts).astype(np.float32).astype(np.float64)
    row = np.arange(len(values)) // CHUNK
    width = np.where(high > low, high - low, 1)[row]
    return np.concatenate([low, high], axis=1), np.clip((values - low[row]) / width, 0, 1)


def _unpack_11_10_11(packed: np.ndarray) -> np.ndarray:
    return np.stack([(packed >> 21) / 2047, (packed >> 11 & 1023) / 1023, (packed & 2047) / 2047], axis=-1)


def _pack_11_10_11(fractions: np.ndarray) -> np.ndarray:
    levels = np.round(fractions * (2047, 1023, 2047)).astype(np.uint32)
    return levels[:, 0] << 21 | levels[:, 1] << 11 | levels[:, 2]


def _unpack_rotation(packed: np.ndarray) -> np.ndarray:
    others = (np.stack([packed >> shift & 1023 for shift in (20, 10, 0)], axis=-1) / 1023 - 0.5) * np.sqrt(2)
    return smallest_three.join((packed >> 30).astype(np.int64), others)


def _pack_rotation(quaternions: np.ndarray) -> np.ndarray:
    largest, others = smallest_three.split(unit_quaternions(quaternions.astype(np.float64)))
    levels = np.clip(np.round((others / np.sqrt(2) + 0.5) * 1023), 0, 1023).astype(np.uint32)
    return largest.astype(np.uint32) << 30 | levels[:, 0] << 20 | levels[:, 1] << 10 | levels[:, 2]


def _unpack_sh(where: str, rows: np.ndarray | None, count: int) -> np.ndarray:
    if rows is None:
        return np.zeros((count, 0, 3))
    names = rows.dtype.names or ()
    if len(rows) != count or len(names) % 3 or len(names) // 3 + 1 not in COEFFICIENTS:
        raise FormatError(f"{where}: expected {count} rows of 9, 24 or 45 sh columns, got {len(rows)} of {len(names)}")
    if any(f"f_rest_{i}" not in names for i in range(len(names))):
        raise FormatError(f"{where}: expected the sh columns f_rest_0 to f_rest_{len(names) - 1}")
    levels = np.stack([rows[f"f_rest_{i}"] for i in range(len(names))], axis=-1).astype(np.float64)
    values = _SH_RANGE * ((levels + 0.5) / 256 - 0.5)
    return values.reshape(count, 3, len(names) // 3).swapaxes(1, 2)
