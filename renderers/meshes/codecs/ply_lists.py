"""PLY bodies with their list columns: the tables of a file, as scalar columns and ragged lists."""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from renderers.ply_header import Column, Damaged, Element, parse_header


class Ragged(NamedTuple):
    """Lists of different lengths, one after the other."""

    values: np.ndarray
    counts: Int[np.ndarray, " r"]


class Table(NamedTuple):
    """One element of the file: its scalar columns, and its lists, by name."""

    count: int
    scalars: dict[str, np.ndarray]
    lists: dict[str, Ragged]


def read_tables(content: bytes) -> tuple[dict[str, Table], list[str]]:
    """Every element of a PLY file by name, and its comments.

    Raises:
        Damaged: if it is not a PLY file, is cut short, or its header promises more than the file can hold.
    """
    order, elements, offset = parse_header(content)
    lines = content[:offset].decode("latin-1").splitlines()
    comments = [line.partition(" ")[2].strip() for line in lines if line.startswith("comment ")]
    if order == "":
        return _text_tables(content[offset:], elements), comments
    tables = {}
    for element in elements:
        least = element.count * element.least_row_bytes()
        if least > len(content) - offset:
            raise Damaged(
                f"{element.count} rows of {element.name[:40]} need {least} bytes, {len(content) - offset} are left"
            )
        if element.columns:
            tables[element.name], offset = _binary_table(content, offset, element, order)
    return tables, comments


def _binary_table(content: bytes, offset: int, element: Element, order: str) -> tuple[Table, int]:
    """Reads rows at offsets that each column finds for itself, as if all lists were as long as those of the first row.

    Where they are not, rows are walked one by one.
    """
    fields, count = element.columns, element.count
    if not element.has_lists:
        rows = np.frombuffer(content, element.dtype(order), count, offset)
        scalars = {c.name: rows[c.name].astype(rows.dtype[c.name].newbyteorder("=")) for c in fields}
        return Table(count, scalars, {}), offset + rows.nbytes
    if count == 0:
        return _gathered(
            content, np.zeros((0, len(fields)), np.int64), np.zeros((0, len(fields)), np.int64), fields, order
        ), offset
    first, lengths, end = _walk(content, offset, element, order)
    stride = end - offset
    starts = first + stride * np.arange(count)[:, None]
    all_lengths = np.broadcast_to(lengths, (count, len(fields)))
    if stride * count <= len(content) - offset:
        if _have_lengths(content, starts, lengths, fields, order):
            return _gathered(content, starts, all_lengths, fields, order), offset + stride * count
    starts, all_lengths = np.zeros((count, len(fields)), np.int64), np.zeros((count, len(fields)), np.int64)
    for row in range(count):
        starts[row], all_lengths[row], offset = _walk(content, offset, element, order)
    return _gathered(content, starts, all_lengths, fields, order), offset


def _walk(content: bytes, offset: int, element: Element, order: str) -> tuple[list[int], list[int], int]:
    """Where the columns of the row at `offset` begin (behind their lengths), how long they are, where the row ends."""
    starts, lengths = [], []
    for column in element.columns:
        length = 1
        if column.count_type is not None:
            size = int(column.count_type[1])
            if offset + size > len(content):
                raise Damaged(f"the file ends inside the element {element.name[:40]}")
            length = int.from_bytes(
                content[offset : offset + size], "big" if order == ">" else "little", signed=column.count_type[0] == "i"
            )
            if length < 0:
                raise Damaged(f"a list of {element.name[:40]} has a negative length")
            offset += size
        starts.append(offset)
        lengths.append(length)
        offset += length * int(column.type[1])
    if offset > len(content):
        raise Damaged(f"the file ends inside the element {element.name[:40]}")
    return starts, lengths, offset


def _have_lengths(content: bytes, starts: np.ndarray, lengths: list[int], columns: list[Column], order: str) -> bool:
    """Whether the lists that begin at `starts` all have the lengths given, one a column."""
    counted = [(i, column.count_type) for i, column in enumerate(columns) if column.count_type is not None]
    before = [(starts[:, i] - int(kind[1]), kind, lengths[i]) for i, kind in counted]
    return all(bool((_take(content, at, order + kind) == length).all()) for at, kind, length in before)


def _gathered(content: bytes, starts: np.ndarray, lengths: np.ndarray, columns: list[Column], order: str) -> Table:
    """Columns from where they lie."""
    scalars, lists = {}, {}
    for i, column in enumerate(columns):
        start, length, kind = starts[:, i], lengths[:, i], order + column.type
        if column.count_type is None:
            scalars[column.name] = _take(content, start, kind)
            continue
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        items = _take(content, np.repeat(start, length) + int(column.type[1]) * within, kind)
        lists[column.name] = Ragged(items, np.array(length))
    return Table(len(starts), scalars, lists)


def _take(content: bytes, at: np.ndarray, kind: str) -> np.ndarray:
    """Numbers that begin at the given bytes, in native byte order."""
    dtype = np.dtype(kind)
    raw = np.frombuffer(content, np.uint8)[at[:, None] + np.arange(dtype.itemsize)]
    return np.ascontiguousarray(raw).view(dtype)[:, 0].astype(dtype.newbyteorder("="))


def _text_tables(body: bytes, elements: list[Element]) -> dict[str, Table]:
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    tables, start = {}, 0
    for element in elements:
        stop = start + element.count
        if stop > len(lines):
            raise Damaged(f"{element.count} rows of {element.name[:40]} were promised, {len(lines) - start} are there")
        if element.columns:
            tables[element.name] = _text_table(lines[start:stop], element)
        start = stop
    return tables


def _text_table(lines: list[bytes], element: Element) -> Table:
    lengths = np.array([len(line.split()) for line in lines], np.int64)
    values = _parsed(lines, element)
    if values.size != lengths.sum():
        raise Damaged(f"the rows of {element.name[:40]} hold something that is not a number")
    end = np.cumsum(lengths)
    at = end - lengths
    scalars, lists = {}, {}
    for column in element.columns:
        if (at >= end).any():
            raise Damaged(f"row {int(np.argmax(at >= end))} of {element.name[:40]} is too short")
        first = values[at]
        at = at + 1
        if column.count_type is None:
            scalars[column.name] = _typed(first, column.type, element, column.name)
            continue
        if not ((first >= 0) & (first <= end - at) & (first == np.floor(first))).all():
            raise Damaged(f"a list of {element.name[:40]} has a length that its row does not have")
        counts = first.astype(np.int64)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        items = values[np.repeat(at, counts) + within]
        lists[column.name] = Ragged(_typed(items, column.type, element, column.name), counts)
        at = at + counts
    return Table(element.count, scalars, lists)


def _parsed(lines: list[bytes], element: Element) -> np.ndarray:
    if not lines:
        return np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(b" ".join(lines).decode("ascii"), np.float64, sep=" ")
        except (ValueError, DeprecationWarning):
            raise Damaged(f"the rows of {element.name[:40]} hold something that is not a number") from None


def _typed(values: np.ndarray, kind: str, element: Element, name: str) -> np.ndarray:
    dtype = np.dtype(kind)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = (values >= limits.min) & (values <= limits.max) & (values == np.floor(values))
        if not fits.all():
            raise Damaged(f"row {int(np.argmin(fits))} of {element.name[:40]}: {name[:40]} is not of its type {dtype}")
    with np.errstate(over="ignore"):
        return values.astype(dtype)
