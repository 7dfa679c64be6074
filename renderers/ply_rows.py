"""PLY bodies: rows of declared elements from binary and text, list columns stepped over."""

import math
import warnings

import numpy as np

from renderers.ply_header import Damaged, Element


def read_binary(
    content: bytes, offset: int, elements: list[Element], wanted: frozenset[str], order: str
) -> dict[str, np.ndarray]:
    """Reads the wanted elements of a binary body that begins at `offset`; raises Damaged where it is too short."""
    found = {}
    for element in elements:
        least = element.count * element.least_row_bytes()
        if least > len(content) - offset:
            raise Damaged(
                f"{element.count} rows of {element.name[:40]} need {least} bytes, {len(content) - offset} are left"
            )
        if element.has_lists:
            rows, offset = _read_ragged(content, offset, element, order, keep=element.name in wanted)
        else:
            rows = np.frombuffer(content, element.dtype(order), element.count, offset) if element.columns else None
            offset += least
        if element.name in wanted and rows is not None:
            found[element.name] = rows.astype(rows.dtype.newbyteorder("="), copy=False)
    return found


def _read_ragged(
    content: bytes, offset: int, element: Element, order: str, keep: bool
) -> tuple[np.ndarray | None, int]:
    """Steps over rows with lists; first as if all lists were as long as those of the first row, then one by one."""
    if element.count == 0:
        return (np.zeros(0, element.dtype(order)) if keep else None), offset
    lengths, _ = _row_extent(content, offset, element, order)
    fields = []
    for i, column in enumerate(element.columns):
        if column.count_type:
            fields += [(f"{i} length", order + column.count_type)]
            fields += [(f"{i} items", f"V{lengths[i] * np.dtype(column.type).itemsize}")] if lengths[i] else []
        else:
            fields += [(f"{i}", order + column.type)]
    row_bytes = sum(np.dtype(kind).itemsize for _, kind in fields)
    # NumPy counts the bytes of a record in 31 bits.
    if row_bytes < 2**31 and row_bytes * element.count <= len(content) - offset:
        uniform = np.dtype(fields)
        rows = np.frombuffer(content, uniform, element.count, offset)
        if all((rows[f"{i} length"] == lengths[i]).all() for i in lengths):
            scalars = np.zeros(element.count, element.dtype(order)) if keep else None
            for i, column in enumerate(element.columns):
                if scalars is not None and column.count_type is None:
                    scalars[column.name] = rows[f"{i}"]
            return scalars, offset + uniform.itemsize * element.count
    scalars = np.zeros(element.count, element.dtype(order)) if keep else None
    for row in range(element.count):
        start = offset
        lengths, offset = _row_extent(content, offset, element, order)
        for i, column in enumerate(element.columns if keep else ()):
            size = np.dtype(column.count_type or column.type).itemsize
            if scalars is not None and column.count_type is None:
                scalars[column.name][row] = np.frombuffer(content, order + column.type, 1, start)[0]
            start += size + lengths.get(i, 0) * np.dtype(column.type).itemsize
    return scalars, offset


def _row_extent(content: bytes, offset: int, element: Element, order: str) -> tuple[dict[int, int], int]:
    lengths = {}
    for i, column in enumerate(element.columns):
        size = np.dtype(column.count_type or column.type).itemsize
        if offset + size > len(content):
            raise Damaged(f"the file ends inside the element {element.name[:40]}")
        if column.count_type:
            lengths[i] = int.from_bytes(
                content[offset : offset + size],
                "big" if order == ">" else "little",
                signed=column.count_type[0] == "i",
            )
            if lengths[i] < 0:
                raise Damaged(f"a list of {element.name[:40]} has a negative length")
            offset += lengths[i] * np.dtype(column.type).itemsize
        offset += size
    if offset > len(content):
        raise Damaged(f"the file ends inside the element {element.name[:40]}")
    return lengths, offset


def read_ascii(
    content: bytes, offset: int, elements: list[Element], wanted: frozenset[str], order: str
) -> dict[str, np.ndarray]:
    """Reads the wanted elements of a text body, one row a line; raises Damaged where it is short or not numeric."""
    lines = [line for line in content[offset:].split(b"\n") if not line.isspace() and line]
    found, start = {}, 0
    for element in elements:
        stop = start + element.count
        if stop > len(lines):
            raise Damaged(f"{element.count} rows of {element.name[:40]} were promised, {len(lines) - start} are there")
        if element.name in wanted and element.columns:
            found[element.name] = _ascii_rows(lines[start:stop], element)
        start = stop
    return found


def _ascii_rows(lines: list[bytes], element: Element) -> np.ndarray:
    if element.has_lists:
        lines = [_without_lists(line.split(), element) for line in lines]
    dtype = element.dtype("=")
    names = dtype.names or ()
    width = len(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            text = b" ".join(lines).decode("ascii")
            values = np.fromstring(text, dtype=np.float64, sep=" ") if text.strip() else np.zeros(0)
        except (ValueError, DeprecationWarning):
            raise Damaged(f"the rows of {element.name[:40]} hold something that is not a number") from None
    if values.size != element.count * width:
        raise Damaged(
            f"{element.count} rows of {element.name[:40]} need {element.count * width} numbers, got {values.size}"
        )
    values = values.reshape(element.count, width)
    rows = np.zeros(element.count, dtype)
    for i, name in enumerate(names):
        if dtype[name].kind in "iu":
            limits = np.iinfo(dtype[name])
            fits = (values[:, i] >= limits.min) & (values[:, i] <= limits.max) & (values[:, i] % 1 == 0)
            if not fits.all():
                raise Damaged(f"row {int(np.argmin(fits))} of {element.name[:40]}: {name[:40]} is not a {dtype[name]}")
        with np.errstate(over="ignore"):
            rows[name] = values[:, i]
    return rows


def _without_lists(words: list[bytes], element: Element) -> bytes:
    kept, at = [], 0
    for column in element.columns:
        if at >= len(words):
            raise Damaged(f"a row of {element.name[:40]} is too short")
        if column.count_type is None:
            kept.append(words[at])
        elif not words[at].isdigit() or len(words[at]) > math.ceil(math.log10(2**32)):
            raise Damaged(f"a list of {element.name[:40]} has a length that is not a whole number")
        else:
            at += int(words[at])
        at += 1
    if at > len(words):
        raise Damaged(f"a row of {element.name[:40]} is too short")
    return b" ".join(kept)
