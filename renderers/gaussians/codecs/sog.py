"""PlayCanvas SOG version 2: Gaussians as lossless WebP images, in a zip archive (`.sog`) or a folder with meta.json.

Pixel i of every image, row by row, is Gaussian i; what follows the last one is ignored.
    means_l, means_u   low and high bytes of 16-bit v between mins and maxs; position = sign(v) (exp|v| - 1)
    scales, sh0        bytes into codebooks of 256 log-scales and of 256 f_dc; alpha of sh0: opacity after the sigmoid
    quats              alpha - 252 = index of the largest of w x y z; r g b: the others, (b / 255 - 1/2) sqrt 2
    shN_labels         row of a palette, r + 256 g; shN_centroids: palette, 64 rows an image row, a pixel a coefficient,
                       each channel through a codebook of 256
Facts from shared/specs/renderers/file_formats.md section 5.
"""

import io
import json
import math
import os
import pathlib
import re
import zipfile
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from renderers.files import FormatError, read_bytes, write_bytes_atomically
from renderers.gaussians.codecs import smallest_three
from renderers.gaussians.codecs.codebooks import nearest, palette, scalar_codebook
from renderers.gaussians.codecs.columns import (
    Columns,
    from_record,
    logit_from_opacity,
    opacity_from_logit,
    to_record,
    unit_quaternions,
)
from renderers.gaussians.codecs.compressed_ply import morton_order
from renderers.gaussians.gaussians import Gaussians

_MAX_META_BYTES = 16 << 20
_MAX_MEMBER_BYTES = 1 << 30
# 33 million Gaussians, 128 MiB an image.
_MAX_PIXELS = 1 << 25
_PALETTE_COLUMNS = 64
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,127}")


class _Bad(Exception):
    """What is wrong with the file; the caller adds its name."""


def read(path: str | os.PathLike[str]) -> Gaussians:
    """Reads a `.sog` archive, or a folder that holds meta.json and its images.

    Raises:
        FormatError: if the archive or an image is damaged or too large, names lead elsewhere, or meta.json makes no
            sense; version 1 is refused.
    """
    try:
        return to_record(path, _Source(pathlib.Path(path)).columns())
    except (_Bad, RecursionError) as error:
        raise FormatError(f"{os.fspath(path)}: not a readable SOG scene ({str(error)[:160]})") from None


def write(path: str | os.PathLike[str], gaussians: Gaussians) -> None:
    """Writes a `.sog` archive, Gaussians in Morton order.

    Colours and log-scales are quantised to 256 values each, view-dependent colour to a palette.

    Raises:
        FormatError: if a value is not finite or the degree is 4.
        OSError: if the file cannot be written.
    """
    columns = from_record(path, gaussians)
    count, k = len(columns.means), columns.sh.shape[1]
    if k > 16 or count > _MAX_PIXELS:
        raise FormatError(f"cannot write {os.fspath(path)}: SOG holds degree 3 and {_MAX_PIXELS} Gaussians at most")
    order = morton_order(columns.means)
    columns = Columns(*(column[order] for column in columns))
    bent = np.sign(columns.means) * np.log1p(np.abs(columns.means.astype(np.float64)))
    low, high = (bent.min(axis=0), bent.max(axis=0)) if count else (np.zeros(3), np.zeros(3))
    fixed = np.round((bent - low) / np.where(high > low, high - low, 1) * 65535).astype(np.uint16)
    scales, colors = (scalar_codebook(values) for values in (columns.log_scales, columns.sh[:, 0]))
    alpha = np.round(255 * opacity_from_logit(columns.opacity_logits))[:, None]
    pixels = {
        "means_l": fixed & 255,
        "means_u": fixed >> 8,
        "scales": nearest(scales, columns.log_scales),
        "quats": _packed_rotations(columns.quaternions),
        "sh0": np.concatenate([nearest(colors, columns.sh[:, 0]), alpha], axis=1),
    }
    width = max(1, math.ceil(math.sqrt(count)))
    height = max(1, math.ceil(count / width))
    images = {f"{name}.webp": _webp(values, (height, width)) for name, values in pixels.items()}
    meta: dict[str, Any] = {
        "version": 2,
        "count": count,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scales.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": colors.tolist(), "files": ["sh0.webp"]},
    }
    if k > 1 and count:
        meta["shN"] = _write_rest(columns.sh[:, 1:], (height, width), images)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"meta.json": json.dumps(meta).encode(), **images}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    write_bytes_atomically(path, buffer.getvalue())


class _Source:
    """Named files of one scene, from a folder or an archive, each read with a bound on its size."""

    def __init__(self, path: pathlib.Path):
        self._place = path if path.is_dir() else _opened(read_bytes(path))
        try:
            self._meta = json.loads(self._file("meta.json", _MAX_META_BYTES), parse_constant=_refuse_constant)
        except ValueError as error:
            raise _Bad(f"meta.json: {str(error)[:80]}") from None
        version = self._meta.get("version") if isinstance(self._meta, dict) else None
        if version != 2:
            raise _Bad(f"version {str(version)[:20]}; only 2 is read, convert others with @playcanvas/splat-transform")
        count = self._meta.get("count")
        if type(count) is not int or not 0 <= count <= _MAX_PIXELS:
            raise _Bad(f"count {str(count)[:20]}")
        self._count: int = count

    def columns(self) -> Columns:
        """Decodes all images."""
        low, high = self._numbers("means", "mins", 3), self._numbers("means", "maxs", 3)
        lows, highs = (self._pixels("means", index).astype(np.float64) for index in (0, 1))
        bent = low + (high - low) * (256 * highs[:, :3] + lows[:, :3]) / 65535
        sh0 = self._pixels("sh0")
        constant = self._numbers("sh0", "codebook", 256)[sh0[:, :3]]
        with np.errstate(over="ignore"):
            means = np.sign(bent) * np.expm1(np.abs(bent))
        return Columns(
            means=means,
            quaternions=_unpacked_rotations(self._pixels("quats")),
            log_scales=self._numbers("scales", "codebook", 256)[self._pixels("scales")[:, :3]],
            opacity_logits=logit_from_opacity(sh0[:, 3] / 255),
            sh=np.concatenate([constant[:, None], self._rest()], axis=1),
        )

    def _rest(self) -> np.ndarray:
        if "shN" not in self._meta:
            return np.zeros((self._count, 0, 3))
        bands = self._section("shN").get("bands")
        if type(bands) is not int or not 1 <= bands <= 3:
            raise _Bad(f"shN has {str(bands)[:20]} bands")
        num_rest = (bands + 1) ** 2 - 1
        names = self._section("shN").get("files")
        centroids_index = 0
        if isinstance(names, list) and len(names) == 2 and "label" in str(names[0]):
            centroids_index = 1
        centroids = self._image("shN", centroids_index)
        labels = self._pixels("shN", 1 - centroids_index).astype(np.int64)
        rows = labels[:, 0] | labels[:, 1] << 8
        if centroids.shape[1] != _PALETTE_COLUMNS * num_rest:
            raise _Bad(f"the palette is {centroids.shape[1]} pixels wide, expected {_PALETTE_COLUMNS * num_rest}")
        table = centroids[..., :3].reshape(-1, num_rest, 3)
        if rows.max(initial=0) >= len(table):
            raise _Bad(f"a label points to row {rows.max()} of a palette of {len(table)}")
        return self._numbers("shN", "codebook", 256)[table[rows]]

    def _section(self, name: str) -> dict[str, Any]:
        section = self._meta.get(name)
        if not isinstance(section, dict):
            raise _Bad(f"meta.json has no section {name}")
        return section

    def _numbers(self, name: str, key: str, length: int) -> np.ndarray:
        values = self._section(name).get(key)
        if not isinstance(values, list) or len(values) != length:
            raise _Bad(f"{name}.{key} must be a list of {length} numbers")
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise _Bad(f"{name}.{key} must be a list of {length} numbers")
        try:
            numbers = np.array([float(value) for value in values])
        except OverflowError:
            raise _Bad(f"{name}.{key} is not finite") from None
        if not np.isfinite(numbers).all():
            raise _Bad(f"{name}.{key} is not finite")
        return numbers

    def _pixels(self, name: str, index: int = 0) -> np.ndarray:
        image = self._image(name, index)
        if image.shape[0] * image.shape[1] < self._count:
            raise _Bad(f"an image of {name} has {image.shape[0] * image.shape[1]} pixels for {self._count} splats")
        return image.reshape(-1, 4)[: self._count]

    def _image(self, name: str, index: int) -> np.ndarray:
        files = self._section(name).get("files")
        if not isinstance(files, list) or len(files) <= index or not isinstance(files[index], str):
            raise _Bad(f"{name}.files must name {index + 1} images")
        content = self._file(files[index], _MAX_MEMBER_BYTES)
        try:
            with Image.open(io.BytesIO(content), formats=("WEBP", "PNG")) as image:
                # The pixels of one image may not outnumber the splats by much, palettes aside: no bombs.
                if image.width * image.height > max(2 * self._count, 1 << 22):
                    raise _Bad(f"{files[index]} is {image.width} x {image.height} for {self._count} splats")
                return np.asarray(image.convert("RGBA"))
        except _Bad:
            raise
        # Pillow's decoders raise almost anything on damaged files.
        except Exception as error:
            raise _Bad(f"{files[index]}: {str(error)[:80]}") from None

    def _file(self, name: str, limit: int) -> bytes:
        if not _PLAIN_NAME.fullmatch(name):
            raise _Bad(f"the file name {name[:40]!r} is not a plain one")
        if isinstance(self._place, pathlib.Path):
            path = self._place / name
            if path.is_symlink() and not path.resolve().is_relative_to(self._place.resolve()):
                raise _Bad(f"{name} links outside the folder")
            return read_bytes(path, limit)
        try:
            with self._place.open(name) as member:
                content = member.read(limit + 1)
        # zipfile and the four decompressors behind it raise almost anything on damaged members.
        except Exception as error:
            raise _Bad(f"{name}: {str(error)[:80]}") from None
        if len(content) > limit:
            raise _Bad(f"{name} expands to more than {limit} bytes")
        return content


def _opened(content: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    # Damaged directories end in several kinds of errors, NotImplementedError and UnicodeDecodeError among them.
    except Exception as error:
        raise _Bad(f"not a zip archive: {str(error)[:80]}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that can be used")


def _write_rest(rest: np.ndarray, size: tuple[int, int], images: dict[str, bytes]) -> dict[str, Any]:
    count, num_rest, _ = rest.shape
    centroids, labels = palette(rest.reshape(count, -1))
    codebook = scalar_codebook(centroids)
    rows = math.ceil(len(centroids) / _PALETTE_COLUMNS)
    texels = np.zeros((rows * _PALETTE_COLUMNS, num_rest, 3), np.uint8)
    texels[: len(centroids)] = nearest(codebook, centroids).reshape(-1, num_rest, 3)
    images["shN_centroids.webp"] = _webp(texels.reshape(-1, 3), (rows, _PALETTE_COLUMNS * num_rest))
    images["shN_labels.webp"] = _webp(np.stack([labels & 255, labels >> 8, 0 * labels], axis=1), size)
    return {
        "count": len(centroids),
        "bands": {3: 1, 8: 2, 15: 3}[num_rest],
        "codebook": codebook.tolist(),
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }


def _webp(values: np.ndarray, size: tuple[int, int]) -> bytes:
    pixels = np.full((size[0] * size[1], 4), 255, np.uint8)
    pixels[: len(values), : values.shape[1]] = values
    buffer = io.BytesIO()
    # exact: without it the encoder drops the colours of transparent pixels, which are data here.
    Image.fromarray(pixels.reshape(*size, 4)).save(buffer, "webp", lossless=True, exact=True)
    return buffer.getvalue()


def _unpacked_rotations(pixels: np.ndarray) -> np.ndarray:
    largest = pixels[:, 3].astype(np.int64) - 252
    if (largest < 0).any():
        raise _Bad(f"the rotation of splat {int(np.argmin(largest))} has an index of {int(largest.min()) + 252}")
    return smallest_three.join(largest, (pixels[:, :3] / 255 - 0.5) * np.sqrt(2))


def _packed_rotations(quaternions: np.ndarray) -> np.ndarray:
    largest, others = smallest_three.split(unit_quaternions(quaternions.astype(np.float64)))
    levels = np.clip(np.round((others / np.sqrt(2) + 0.5) * 255), 0, 255)
    return np.concatenate([levels, 252.0 + largest[:, None]], axis=1)
