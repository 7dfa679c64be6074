"""Shapes of records: checked here, since a record's constructor must accept anything that jax rebuilds it with."""

import dataclasses
import types
import typing

import jaxtyping
from beartype.door import is_bearable


def assert_record(record) -> None:
    """Every field agrees with its annotation, names of axes meaning the same size in all fields.

    Reads the jaxtyping annotations of the dataclass; `X | None` accepts None; nested records are checked in turn,
    each with its own names.
    """
    with jaxtyping.jaxtyped("context"):
        for field in dataclasses.fields(record):
            _check(type(record).__name__, field.name, getattr(record, field.name), field.type)
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            assert_record(value)


def _check(owner, name, value, annotation):
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    for option in options:
        if option is type(None):
            if value is None:
                return
        elif is_bearable(value, option):
            return
    shape = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else repr(value)
    expected = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise AssertionError(f"{owner}.{name} must be {expected}, got {shape}")


def _is_union(annotation):
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
