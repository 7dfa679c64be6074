"""Niantic's `.spz`: fixed-point columns, compressed. Versions 1 to 4 are read, version 3 is written.

Header (16 bytes): magic "NGSP", u32 version, u32 count, u8 degree, u8 fractional bits, u8 flags, u8. Columns, in order:
    positions  int24 / 2^bits (version 1: float16)       alphas  u8 / 255, after the sigmoid
    colours    f_dc = (u8 / 255 - 1/2) / 0.15            scales  u8 / 16 - 10, logarithms
    rotations  version 1, 2: u8 / 127.5 - 1 for x y z, w >= 0; later u32: 2 bits index of the largest of x y z w, then
               for the others in that order sign and 9 bits magnitude, m / (511 sqrt 2)
    sh         (u8 - 128) / 128, coefficient-major, colour innermost
Versions 1 to 3 are one gzip stream (some writers leave it out). Version 4 has a plain 32-byte header (the last of the
first 16 bytes counts streams, then u32 offset of a table of u64 compressed and raw sizes) and a zstd stream a column.

World axes are x right, y up, z back, while PLY files are y down, z forward: both are turned about x by half a turn.
Facts from shared/specs/renderers/file_formats.md section 3.
"""

import gzip
import io
import itertools
import os
import struct
import zlib

import numpy as np
import zstandard

from renderers.files import FormatError, read_bytes, write_bytes_atomically
from renderers.gaussians.codecs import smallest_three
from renderers.gaussians.codecs.columns import (
    Columns,
    from_record,
    logit_from_opacity,
    opacity_from_logit,
    to_record,
    unit_quaternions,
)
from renderers.gaussians.gaussians import Gaussians

_HEADER = struct.Struct("<4sIIBBBB")
_MAGIC = b"NGSP"
_COLOR_SCALE = 0.15
# No honest file shrinks further; beyond it, the header lies or the stream is a bomb.
_LARGEST_RATIO, _ALWAYS_ALLOWED = 32, 64 << 20
_FLIP = np.array([1.0, -1.0, -1.0])


class _Bad(Exception):
    """What is wrong with the file; the caller adds its name."""


# Damaged floats may be signalling NaNs, which warn when they are converted; they are refused at the end.
@np.errstate(invalid="ignore", over="ignore")
def read(path: str | os.PathLike[str]) -> Gaussians:
    """Reads a `.spz` file into the axes of PLY files.

    Raises:
        FormatError: if the file is damaged, of an unknown version, or expands to more than it honestly can.
    """
    content = read_bytes(path)
    try:
        version, count, degree, bits, blocks = _unpack(content)
    except (_Bad, zlib.error, zstandard.ZstdError, OSError, EOFError, struct.error) as error:
        raise FormatError(f"{os.fspath(path)}: not a readable .spz file ({error})") from None
    positions, alphas, colors, scales, rotations, sh = blocks
    k = (degree + 1) ** 2
    constant = (_bytes(colors, count, 3) / 255 - 0.5) / _COLOR_SCALE
    rest = (_bytes(sh, count, 3 * (k - 1)).reshape(count, k - 1, 3) - 128) / 128
    quaternions = _rotations_of_bytes(rotations) if version < 3 else _rotations_of_words(rotations)
    return to_record(
        path,
        Columns(
            means=_positions(positions, version, bits) * _FLIP,
            quaternions=quaternions * [1, *_FLIP],
            log_scales=_bytes(scales, count, 3) / 16 - 10,
            opacity_logits=logit_from_opacity(_bytes(alphas, count, 1)[:, 0] / 255),
            sh=np.concatenate([constant[:, None], rest], axis=1) * _sh_signs(k)[:, None],
        ),
    )


def write(path: str | os.PathLike[str], gaussians: Gaussians) -> None:
    """Writes version 3, which every reader of the format knows, in the given order.

    Log-scales are clamped to [-10, 5.94] and colours to about -0.44 to 1.44, as the format does; coefficients of band 1
    keep 5 bits, the others 4.

    Raises:
        FormatError: if a value is not finite, the degree is 4, or a position is beyond 2^23.
        OSError: if the file cannot be written.
    """
    columns = from_record(path, gaussians)
    count, k = len(columns.means), columns.sh.shape[1]
    if k > 16:
        raise FormatError(f"cannot write {os.fspath(path)}: .spz holds degree 3 at most; write .ply instead")
    means = columns.means.astype(np.float64) * _FLIP
    largest = float(np.abs(means).max(initial=0))
    bits = 12
    while largest * 2**bits > 2**23 - 1 and bits > 0:
        bits -= 1
    if largest > 2**23 - 1:
        raise FormatError(f"cannot write {os.fspath(path)}: a position is {largest:g}, .spz ends at {2**23 - 1}")
    fixed = np.round(means * 2**bits).astype("<i4")
    sh = columns.sh * _sh_signs(k)[:, None]
    steps = np.where(np.arange(1, k) < 4, 8, 16)[:, None]
    levels = np.round(np.round(sh[:, 1:] * 128 + 128) / steps) * steps
    blocks = (
        np.ascontiguousarray(fixed).view(np.uint8).reshape(count, 3, 4)[..., :3],
        _levels(255 * opacity_from_logit(columns.opacity_logits)),
        _levels(255 * (sh[:, 0] * _COLOR_SCALE + 0.5)),
        _levels(16 * (columns.log_scales + 10)),
        _words_of_rotations(columns.quaternions * np.array([1, *_FLIP], np.float32)),
        _levels(levels),
    )
    degree = {1: 0, 4: 1, 9: 2, 16: 3}[k]
    header = _HEADER.pack(_MAGIC, 3, count, degree, bits, 0, 0)
    packed = header + b"".join(np.ascontiguousarray(block).tobytes() for block in blocks)
    # A fixed time stamp: the same scene gives the same file.
    write_bytes_atomically(path, gzip.compress(packed, mtime=0))


def _unpack(content: bytes) -> tuple[int, int, int, int, list[bytes]]:
    limit = _ALWAYS_ALLOWED + _LARGEST_RATIO * len(content)
    if content[:2] == b"\x1f\x8b":
        stream = zlib.decompressobj(wbits=31)
        start = stream.decompress(content, _HEADER.size)
        version, count, degree, bits, _ = _header(start)
        if version > 3:
            raise _Bad(f"version {version} in a gzip stream")
        sizes = _sizes(version, count, degree, limit)
        body = stream.decompress(stream.unconsumed_tail, sum(sizes)) if sum(sizes) else b""
    else:
        version, count, degree, bits, num_streams = _header(content)
        sizes = _sizes(version, count, degree, limit)
        if version == 4:
            return version, count, degree, bits, _zstd_streams(content, sizes, num_streams)
        body = content[_HEADER.size :]
    if len(body) < sum(sizes):
        raise _Bad(f"{count} splats need {sum(sizes)} bytes, {len(body)} are there")
    ends = itertools.accumulate(sizes)
    return (
        version,
        count,
        degree,
        bits,
        [body[end - size : end] for end, size in zip(ends, sizes, strict=True)],
    )


def _header(content: bytes) -> tuple[int, int, int, int, int]:
    if len(content) < _HEADER.size:
        raise _Bad("it ends inside its header")
    magic, version, count, degree, bits, _, last = _HEADER.unpack_from(content)
    if magic != _MAGIC or not 1 <= version <= 4 or degree > 4 or bits > 23:
        raise _Bad(f"magic {magic!r}, version {version}, degree {degree}, {bits} fractional bits")
    return version, count, degree, bits, last


def _sizes(version: int, count: int, degree: int, limit: int) -> list[int]:
    per_splat = (6 if version == 1 else 9, 1, 3, 3, 3 if version < 3 else 4, 3 * ((degree + 1) ** 2 - 1))
    if count * sum(per_splat) > limit:
        raise _Bad(f"{count} splats cannot fit in a file of this size")
    return [count * size for size in per_splat]


def _zstd_streams(content: bytes, sizes: list[int], num_streams: int) -> list[bytes]:
    (table,) = struct.unpack_from("<I", content, _HEADER.size)
    wanted = [size for size in sizes if size] if sizes[0] else sizes[:num_streams]
    if num_streams < len(wanted) or num_streams > 64 or table + 16 * num_streams > len(content):
        raise _Bad(f"{num_streams} streams, table at byte {table}")
    offset = table + 16 * num_streams
    blocks = []
    for index, size in enumerate(wanted):
        compressed, raw = struct.unpack_from("<QQ", content, table + 16 * index)
        if raw != size or compressed > len(content) - offset:
            raise _Bad(f"stream {index} claims {compressed} bytes for {raw}, {size} are needed")
        chunk = io.BytesIO(content[offset : offset + compressed])
        # Read as a stream: a whole-frame call would believe the size that the frame claims. Window: 128 MiB at most.
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(chunk) as reader:
            block = reader.read(size) if size else b""
        if len(block) != size:
            raise _Bad(f"stream {index} holds {len(block)} bytes, {size} are needed")
        blocks.append(block)
        offset += compressed
    return blocks + [b""] * (len(sizes) - len(blocks))


def _bytes(block: bytes, count: int, width: int) -> np.ndarray:
    return np.frombuffer(block, np.uint8).reshape(count, width).astype(np.float64)


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _positions(block: bytes, version: int, bits: int) -> np.ndarray:
    if version == 1:
        return np.frombuffer(block, "<f2").reshape(-1, 3).astype(np.float64)
    low = np.frombuffer(block, np.uint8).reshape(-1, 3, 3).astype(np.int32)
    # The top byte carries the sign.
    return (low[..., 0] | low[..., 1] << 8 | (low[..., 2] ^ 128) - 128 << 16) / 2.0**bits


def _rotations_of_bytes(block: bytes) -> np.ndarray:
    xyz = np.frombuffer(block, np.uint8).reshape(-1, 3) / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1)))
    return unit_quaternions(np.concatenate([w[:, None], xyz], axis=1))


def _rotations_of_words(block: bytes) -> np.ndarray:
    words = np.frombuffer(block, "<u4")
    fields = np.stack([words >> shift & 1023 for shift in (20, 10, 0)], axis=-1)
    others = (fields & 511) / 511 * np.where(fields >> 9 & 1, -1, 1) * np.sqrt(0.5)
    return smallest_three.join((words >> 30).astype(np.int64), others)[:, [3, 0, 1, 2]]


def _words_of_rotations(quaternions: np.ndarray) -> np.ndarray:
    largest, others = smallest_three.split(unit_quaternions(quaternions.astype(np.float64))[:, [1, 2, 3, 0]])
    magnitude = np.clip(np.round(np.abs(others) * np.sqrt(2) * 511), 0, 511).astype(np.uint32)
    fields = magnitude | (others < 0).astype(np.uint32) << 9
    return (largest.astype(np.uint32) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]).astype("<u4")


def _sh_signs(k: int) -> np.ndarray:
    """What half a turn about x does to real spherical harmonics: each changes sign or does not."""
    signs = []
    for degree in range(5):
        for order in range(-degree, degree + 1):
            signs.append((-1.0) ** (degree + abs(order)) * (1 if order >= 0 else -1))
    return np.array(signs[:k])
