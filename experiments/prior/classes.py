"""What a caption leaves open and what it rules out: objects of its class, rendered, and the captions hardest to confuse
it with.

The nearest of many renders of a class tells how far a sample is from being an object of that class; that it is nearer
to its own class than to one with another relation, swapped colours or another shape tells that the words were heard.
"""

import dataclasses
import hashlib
import inspect
import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from experiments import keys, workdir
from experiments.data.blocks import objects, rendering, solids
from experiments.data.blocks.descriptions import (
    FAMILIES,
    HELD_OUT_FAMILY,
    RELATIONS,
    SHAPES,
    STRETCHED,
    Description,
    Part,
    caption,
)
from experiments.errors import InputError, NoRoomError
from experiments.prior.rings import render_objects

Aspect = Literal["relation", "binding", "shape"]
# Relations said from the other part: "a under b" is "b on top of a".
_MIRRORED = {"under": "on top of", "right of": "left of", "behind": "in front of"}


class ClassRenders:
    """Renders of objects of captions' classes from the canonical ring, kept on disk.

    Args:
      size: pixels along a side.
      folder: of the files, one a class; None keeps nothing.
    """

    def __init__(self, size: int, folder: pathlib.Path | None) -> None:
        self._size = size
        self._folder = None if folder is None else folder / f"{_world_version()}-{size}"

    def __call__(self, description: Description, count: int) -> UInt8[np.ndarray, "n 4 h w 8"]:
        """The first `count` objects of the class, as `rendering.to_bytes` stores channels."""
        path = None if self._folder is None else self._folder / f"{caption(description).replace(' ', '_')}.npz"
        found = None if path is None else self._read(path)
        if found is None or len(found) < count:
            found = self.render(description, count, "class")
            if path is not None:
                _write(path, found)
        return found[:count]

    def render(self, description: Description, count: int, stream: str) -> UInt8[np.ndarray, "n 4 h w 8"]:
        """Objects of the class; another stream, other objects."""
        name = f"{stream} {caption(description)}"
        built = [objects.build(description, keys.host_rng(0, name, i)) for i in range(count)]
        azimuths, elevations = np.zeros(count, np.float32), np.full(count, rendering.ELEVATION, np.float32)
        return render_objects(built, azimuths, elevations, size=self._size)

    def _read(self, path: pathlib.Path):
        """What is on disk; None if that is nothing, or damaged."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                views = stored["views"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return views if views.dtype == np.uint8 and views.shape[1:] == (4, self._size, self._size, 8) else None


def cache_folder() -> pathlib.Path:
    """Where class renders are kept: below the user's folder for caches."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base).absolute() / "galatea3d" / "class_renders"


def hard_negatives(description: Description) -> Iterator[tuple[Aspect, Description]]:
    """Descriptions that differ in one respect and that no object of this one satisfies.

    Pairs: every other relation, swapped colours, every other shape of either part. Towers: colours moved on by one,
    every other shape of each part. Families: swapped colours, every other family. Singles: every other shape.
    """
    for aspect, other in _varied(description):
        if not may_agree(description, other):
            yield aspect, other


def _varied(description: Description) -> Iterator[tuple[Aspect, Description]]:
    parts, relation = description.parts, description.relation
    if description.kind == "pair":
        for other in RELATIONS:
            yield "relation", Description(parts, other)
    if len(parts) > 1:
        colors = [part.color for part in parts]
        moved = [*colors[1:], colors[0]]
        swapped = (dataclasses.replace(part, color=color) for part, color in zip(parts, moved, strict=True))
        yield "binding", Description(tuple(swapped), relation)
    if description.kind == "family":
        for family in FAMILIES:
            if family != HELD_OUT_FAMILY:
                named = (dataclasses.replace(part, shape=s) for part, s in zip(parts, (family, FAMILIES[family])))  # noqa: B905
                yield "shape", Description(tuple(named), relation)
        return
    for i, part in enumerate(parts):
        for shape in SHAPES:
            aspect = part.aspect if shape in STRETCHED else ""
            other = dataclasses.replace(part, shape=shape, aspect=aspect)
            yield "shape", Description((*parts[:i], other, *parts[i + 1 :]), relation)


def may_agree(a: Description, b: Description) -> bool:
    """Whether one object can satisfy both: the same relation, and no part of which they say different things."""
    a, b = _from_one_side(a), _from_one_side(b)
    if a.relation != b.relation or len(a.parts) != len(b.parts):
        return False
    return all(_partsmay_agree(p, q) for p, q in zip(a.parts, b.parts, strict=True))


def _partsmay_agree(p: Part, q: Part) -> bool:
    same_form = (p.shape, p.size, p.aspect) == (q.shape, q.size, q.aspect)
    return same_form and (p.color == q.color or not p.color or not q.color)


def _from_one_side(description: Description) -> Description:
    if description.relation in _MIRRORED:
        return Description(description.parts[::-1], _MIRRORED[description.relation])
    return description


def as_channels(stored: UInt8[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """Channels of stored bytes, on the host."""
    return (stored.astype(np.float32) - 128.0) / 127.0


def _world_version() -> str:
    """Changes with the code that objects and their pictures come from."""
    sources = [inspect.getsource(module) for module in (objects, solids, rendering)]
    return hashlib.sha256("".join(sources).encode()).hexdigest()[:12]


def _write(path: pathlib.Path, views: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, views=views)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workdir.write_bytes_atomic(path, buffer.getvalue())
    except (InputError, NoRoomError, OSError):
        return  # A cache that cannot be written costs time, never the run.
