"""PLY headers: the elements and columns that a file declares, with caps on what a header may be."""

import dataclasses

import numpy as np

MAX_HEADER_LINES = 1000
MAX_LINE_BYTES = 4096

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


class Damaged(Exception):
    """What is wrong with the file; the caller adds its name."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A property of an element: one number a row, or a list of numbers behind its length."""

    name: str
    type: str
    count_type: str | None = None  # the type of the length in front of a list column


@dataclasses.dataclass(frozen=True)
class Element:
    """A table of the file: its name, how many rows the header promises, and its columns in order."""

    name: str
    count: int
    columns: list[Column]

    @property
    def has_lists(self) -> bool:
        """Whether rows may differ in length."""
        return any(column.count_type for column in self.columns)

    def dtype(self, order: str) -> np.dtype:
        """NumPy record of the scalar columns, in byte order `order` (one of "<", ">", "=")."""
        return np.dtype([(c.name, order + c.type) for c in self.columns if c.count_type is None])

    def least_row_bytes(self) -> int:
        """Bytes that a row takes at least, all lists empty."""
        return sum(np.dtype(column.count_type or column.type).itemsize for column in self.columns)


def parse_header(content: bytes) -> tuple[str, list[Element], int]:
    """Reads the header of a PLY file.

    Args:
        content: the whole file.

    Returns:
        The byte order ("<", ">", or "" for text), the elements in file order, and where the body begins.

    Raises:
        Damaged: if the header is not that of a PLY file or is longer than any honest one.
    """
    if not content.startswith((b"ply\n", b"ply\r\n", b"ply \n")):
        raise Damaged("not a PLY file: it must begin with a line `ply`")
    order = None
    elements: list[Element] = []
    offset = content.index(b"\n") + 1
    for number in range(2, MAX_HEADER_LINES + 1):
        end = content.find(b"\n", offset, offset + MAX_LINE_BYTES)
        if end < 0:
            raise Damaged(f"header line {number} does not end within {MAX_LINE_BYTES} bytes")
        words = content[offset:end].decode("latin-1").split()
        offset = end + 1
        match words:
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", kind, _] if kind in _ORDERS:
                order = _ORDERS[kind]
            case ["element", name, count] if count.isascii() and count.isdigit() and len(count) < 19:
                if any(element.name == name for element in elements):
                    raise Damaged(f"header line {number} declares the element {name[:40]} twice")
                elements.append(Element(name, int(count), []))
            case ["property", *column] if elements:
                elements[-1].columns.append(_column(column, elements[-1], number))
            case ["end_header"]:
                if order is None:
                    raise Damaged("the header has no valid `format` line")
                return order, elements, offset
            case _:
                raise Damaged(f"header line {number} cannot be understood: {' '.join(words)[:60]!r}")
    raise Damaged(f"the header has more than {MAX_HEADER_LINES} lines")


def _column(words: list[str], element: Element, number: int) -> Column:
    match words:
        case ["list", count_type, kind, name] if kind in _TYPES and _TYPES.get(count_type, "f")[0] in "iu":
            column = Column(name, _TYPES[kind], _TYPES[count_type])
        case [kind, name] if kind in _TYPES:
            column = Column(name, _TYPES[kind])
        case _:
            raise Damaged(f"header line {number} is not a valid property: {' '.join(words)[:60]!r}")
    if any(other.name == column.name for other in element.columns):
        raise Damaged(f"header line {number} declares the property {column.name[:40]} twice")
    return column
