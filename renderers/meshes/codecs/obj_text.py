"""The statements of Wavefront .obj text as arrays: vertices, faces by their corners, materials by name."""

import re
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from renderers.ply_header import Damaged

_MAX_CORNERS = 1 << 16  # of one polygon
_FORMS = (
    (1, re.compile(rb"(?:-?\d{1,10} )*")),
    (2, re.compile(rb"(?:-?\d{1,10}/-?\d{1,10} )*")),
    (3, re.compile(rb"(?:-?\d{1,10}/-?\d{1,10}/-?\d{1,10} )*")),
)
_CORNER = re.compile(rb"(-?\d{1,10})(?:/(-?\d{1,10})?(?:/(-?\d{1,10})?)?)?")
_ABSENT = -1


class ObjText(NamedTuple):
    """What an .obj file states; absent texture corners and normals are -1."""

    vertices: Float[np.ndarray, "v 3"]
    colors: Float[np.ndarray, "v 3"] | None
    uv: Float[np.ndarray, "t 2"]
    normals: Float[np.ndarray, "n 3"]
    corners: Int[np.ndarray, "c 3"]  # vertex, uv, normal
    counts: Int[np.ndarray, " p"]  # corners of each polygon
    materials: Int[np.ndarray, " p"]  # index into names, of each polygon
    names: list[str]  # of materials; the first is that of faces before any `usemtl`
    libraries: list[str]


def parse(content: bytes) -> ObjText:
    """Reads the statements v, vt, vn, f, usemtl and mtllib; all others (groups, smoothing, lines) are stepped over.

    Raises:
        Damaged: naming the statement that is not understood, or the first index or number that is out of range.
    """
    rows: dict[bytes, list[bytes]] = {b"v": [], b"vt": [], b"vn": []}
    faces: list[bytes] = []
    seen: list[tuple[int, int, int]] = []
    materials: list[int] = []
    names, libraries, numbers, current = [""], [], {"": 0}, 0
    v, vt, vn = rows.values()
    for line in content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").replace(b"\r", b"\n").split(b"\n"):
        words = line.split(None, 1)
        if len(words) < 2:
            continue
        keyword, rest = words
        if keyword in rows:
            rows[keyword].append(rest)
        elif keyword == b"f":
            faces.append(rest)
            seen.append((len(v), len(vt), len(vn)))
            materials.append(current)
        elif keyword == b"usemtl":
            name = rest.split(b"#")[0].strip().decode("utf-8", "replace")
            current = numbers.setdefault(name, len(numbers))
            names += [name] if current == len(names) else []
        elif keyword == b"mtllib":
            libraries.append(rest.strip().decode("utf-8", "replace"))
    vertices, colors = _positions(v)
    corners, counts = _corners(faces, seen)
    uv = _numbers(vt, "texture coordinate", (2, 1, 3))[0]
    normals = _numbers(vn, "normal", (3,), finite=False)[0]
    for column, (what, rows_there) in enumerate((("vertex", vertices), ("uv", uv), ("normal", normals))):
        low = 0 if column == 0 else _ABSENT
        bad = (corners[:, column] < low) | (corners[:, column] >= len(rows_there))
        if bad.any():
            polygon = int(np.searchsorted(np.cumsum(counts), int(np.argmax(bad)), side="right"))
            raise Damaged(f"face {polygon + 1} names a {what} that is not among the {len(rows_there)} there are")
    return ObjText(vertices, colors, uv, normals, corners, counts, np.array(materials, np.int64), names, libraries)


def _positions(lines: list[bytes]) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions, and colours where every vertex has them (x y z r g b, or x y z w r g b); weights w are ignored."""
    values, width = _numbers(lines, "vertex", (3, 4, 6, 7), keep=7)
    colors = values[:, width - 3 :].clip(0, 1) if width >= 6 else None
    return np.ascontiguousarray(values[:, :3]), colors


def _numbers(lines: list[bytes], what: str, widths: tuple[int, ...], keep: int = 0, finite: bool = True):
    """Finite float32 numbers of lines; those of the narrowest line if they differ in how many they have.

    Args:
        lines: texts of numbers.
        what: for messages.
        widths: how many numbers a line may have; the first is the number of columns wanted.
        keep: columns to return at most, if not the wanted ones.
        finite: whether NaN and infinity are refused.
    """
    if not lines:
        return np.zeros((0, widths[0]), np.float32), widths[0]
    lengths = np.array([len(line.split()) for line in lines])
    bad = ~np.isin(lengths, widths)
    if bad.any():
        row = int(np.argmax(bad))
        raise Damaged(f"{what} {row + 1} has {lengths[row]} numbers, expected {' or '.join(map(str, widths))}")
    width = int(lengths.min())
    if lengths.max() != width:
        lines = [b" ".join(line.split()[:width]) for line in lines]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            values = np.fromstring(b" ".join(lines).decode("ascii"), np.float64, sep=" ")
        except (ValueError, DeprecationWarning):
            values = np.zeros(0)
    if values.size != width * len(lines):
        raise Damaged(f"the coordinates of a {what} hold something that is not a number")
    values = values.reshape(len(lines), width)
    bad = ~(np.abs(values) < 3e38).all(axis=1)
    if finite and bad.any():
        raise Damaged(f"{what} {int(np.argmax(bad)) + 1} has a number that is not finite")
    if width < widths[0]:
        values = np.pad(values, ((0, 0), (0, widths[0] - width)))
    with np.errstate(over="ignore"):
        return values[:, : max(keep, widths[0])].astype(np.float32), width


def _corners(faces: list[bytes], seen: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Zero-based indices of all corners, and how many each face has."""
    if not faces:
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    if any(b"#" in face for face in faces):
        faces = [face.split(b"#")[0] for face in faces]
    words = [face.split() for face in faces]
    counts = np.array([len(face) for face in words])
    if counts.max() > _MAX_CORNERS:
        raise Damaged(f"face {int(np.argmax(counts)) + 1} has {counts.max()} corners")
    text = b"".join(word + b" " for face in words for word in face)
    given = np.zeros((int(counts.sum()), 3), np.int64)
    for columns, form in _FORMS:
        if form.fullmatch(text):
            values = np.fromstring(text.replace(b"/", b" ").decode("ascii"), np.int64, sep=" ")
            given[:, :columns] = values.reshape(-1, columns)
            break
    else:
        for row, word in enumerate(word for face in words for word in face):
            corner = _CORNER.fullmatch(word)
            if corner is None:
                raise Damaged(f"a face has the corner {word[:30].decode('ascii', 'replace')!r}")
            given[row] = [int(group) if group else 0 for group in corner.groups()]
    # positive indices count from one, negative ones back from the statement; zero is not an index
    before = np.repeat(np.array(seen), counts, axis=0) if (given < 0).any() else np.zeros(3, np.int64)
    return np.where(given > 0, given - 1, np.where(given < 0, np.maximum(before + given, -2), _ABSENT)), counts
