"""PLY container: text and binary files of named elements with typed columns, read and written as NumPy records.

Every variant of the format is read: ASCII, little and big endian, LF and CRLF headers, comments, columns of any scalar
type in any order, elements before and after the wanted one, list columns (skipped). A header is believed only after
its counts are checked against the size of the file. Layout: Greg Turk, "The PLY Polygon File Format" (1994).
"""

import os

import numpy as np
from jaxtyping import Float, UInt8

from renderers.files import FormatError, read_bytes, require_finite, write_bytes_atomically
from renderers.ply_header import Damaged, parse_header
from renderers.ply_rows import read_ascii, read_binary

_NAMES = {"i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint", "f4": "float"} | {
    "f8": "double"
}


def read_ply(path: str | os.PathLike[str], wanted: frozenset[str] = frozenset({"vertex"})) -> dict[str, np.ndarray]:
    """Reads the wanted elements of a PLY file as structured arrays, one row an instance, list columns left out.

    Args:
        path: the file.
        wanted: names of the elements to return; the others are stepped over.

    Returns:
        The wanted elements that the file has, by name; fields are named as in the file and in native byte order.

    Raises:
        FormatError: if the file is not a PLY file, is cut short, or its header promises more than the file can hold.
    """
    content = read_bytes(path)
    try:
        order, elements, offset = parse_header(content)
        last = max((i for i, element in enumerate(elements) if element.name in wanted), default=-1)
        read = read_ascii if order == "" else read_binary
        return read(content, offset, elements[: last + 1], wanted, order)
    except Damaged as error:
        raise FormatError(f"{os.fspath(path)}: {error}") from None


def write_ply(path: str | os.PathLike[str], elements: dict[str, np.ndarray], comments: tuple[str, ...] = ()) -> None:
    """Writes structured arrays as the elements of a little-endian binary PLY file, atomically.

    Args:
        path: the file.
        elements: structured arrays without nested fields, by element name, in the order of writing.
        comments: lines for the header.

    Raises:
        OSError: if the file cannot be written; an older file then stays as it was.
    """
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    body = []
    for name, rows in elements.items():
        lines.append(f"element {name} {len(rows)}")
        lines += [f"property {_NAMES[rows.dtype[field].str[1:]]} {field}" for field in rows.dtype.names or ()]
        body.append(rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())
    header = "\n".join([*lines, "end_header", ""]).encode("ascii")
    write_bytes_atomically(path, header + b"".join(body))


def read_points_ply(path: str | os.PathLike[str]) -> tuple[Float[np.ndarray, "p 3"], UInt8[np.ndarray, "p 3"] | None]:
    """Reads a point cloud: positions in the file's own frame and unit, and sRGB colours where the file has them.

    Args:
        path: a PLY file with a `vertex` element that has x, y, z, and perhaps red, green, blue (integers 0-255, or
            floats 0-1).

    Raises:
        FormatError: if the file is damaged, has no positions, or a position is not finite.
    """
    where = os.fspath(path)
    vertex = read_ply(path).get("vertex")
    if vertex is None or not {"x", "y", "z"} <= set(vertex.dtype.names or ()):
        raise FormatError(f"{where}: expected a `vertex` element with x, y, z")
    with np.errstate(over="ignore", invalid="ignore"):
        xyz = np.stack([vertex[name].astype(np.float64) for name in "xyz"], axis=-1)
    require_finite(where, "position", xyz)
    fields = [f for f in (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
              if set(f) <= set(vertex.dtype.names or ())]  # fmt: skip
    if not fields:
        return xyz, None
    colors = np.stack([vertex[name].astype(np.float64) for name in fields[0]], axis=-1)
    if vertex.dtype[fields[0][0]].kind == "f":
        require_finite(where, "colour", colors)
        colors = colors * 255.0
    return xyz, np.clip(np.round(colors), 0, 255).astype(np.uint8)
