"""Which solids of an object are which part of its description, and which of them tell its front from its back.

For evaluation: whether a thing got its parts in their colours, and whether it got them once. All is worked out from the
description anew, the objects carry no labels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.data.blocks import solids
from experiments.data.blocks.descriptions import COLORS, FAMILIES, Description, Part
from experiments.data.blocks.objects import build
from experiments.data.blocks.rendering import render
from experiments.data.blocks.solids import Assembly
from renderers.cameras.camera import Camera, unproject
from renderers.cameras.rays import pixel_grid

_LABELS = ("red", "green", "blue")  # colours by which solids are told apart, one for each part
_FRONT, _RIGHT, _BACK = 0.0, 0.5 * np.pi, np.pi
# Solids that are on one side only, by their numbers in `objects`, and that side's azimuth
_MARKERS = {
    "snowman": ((3,), _FRONT),  # the nose
    "dog": ((1, 2), _FRONT),  # head and snout
    "house": ((2,), _FRONT),  # the door
    "mug": ((2,), _RIGHT),  # the handle
    "chair": ((1,), _BACK),  # the back
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marker:
    """What of an object is there once, on one side: seen more often around it, it is a Janus face.

    Attributes:
      solids: their numbers in the assembly.
      part: number of the described part that they belong to.
      azimuth: of the cameras that see them from straight ahead, radians; 0 is in front, growing to the right.
    """

    solids: tuple[int, ...]
    part: int
    azimuth: float


def whole(description: Description) -> Description:
    """The description with a family's second part, where that is left unsaid."""
    if description.kind == "family" and len(description.parts) == 1:
        second = Part(shape=FAMILIES[description.parts[0].shape])
        return Description((description.parts[0], second), "with")
    return description


def part_of_solid(description: Description) -> tuple[int, ...]:
    """For each solid of the description's objects the number of the part, in `whole`, that it belongs to."""
    full = whole(description)
    labels = _LABELS[: len(full.parts)]
    parts = tuple(dataclasses.replace(part, color=label) for part, label in zip(full.parts, labels, strict=True))
    # The colours of an object labelled by part; proportions do not matter
    built = build(Description(parts, full.relation), np.random.default_rng(0))
    known = np.array([COLORS[label] for label in labels])
    return tuple(int(np.argmin(np.abs(known - color).sum(axis=1))) for color in built.colors)


def part_colors(description: Description, assembly: Assembly) -> tuple[str, ...]:
    """The colour of each part of `whole` as the object has it, also where the description does not say."""
    known = np.array(list(COLORS.values()))
    of_solid = part_of_solid(description)
    first = [of_solid.index(number) for number in range(len(whole(description).parts))]
    nearest = [int(np.argmin(np.abs(known - assembly.colors[solid]).sum(axis=1))) for solid in first]
    return tuple(list(COLORS)[number] for number in nearest)


def front_marker(description: Description) -> Marker | None:
    """What tells the sides of the description's objects apart; None where nothing by itself does."""
    family = description.parts[0].shape
    if family not in _MARKERS:
        return None
    numbers, azimuth = _MARKERS[family]
    return Marker(solids=numbers, part=part_of_solid(description)[numbers[0]], azimuth=azimuth)


def solids_seen(assembly: Assembly, camera: Camera, *, steps: int = 48) -> Int[Array, "h w"]:
    """The number of the solid that each pixel's centre sees, -1 where it sees none; jit-able.

    Args:
      assembly: one object.
      camera: any model.
      steps: of the sphere tracing.
    """
    pictures = render(assembly, camera, supersampling=1, steps=steps)
    points = unproject(camera, pixel_grid(camera), pictures.depth).reshape(-1, 3)
    nearest = jnp.argmin(jnp.stack(solids.distances(assembly, *points.T)), axis=0).reshape(camera.size)
    return jnp.where(pictures.coverage > 0.5, nearest, -1)


def marker_views(assembly: Assembly, marker: Marker, cameras: Camera, *, steps: int = 48) -> Float[np.ndarray, " v"]:
    """The share of each camera's object pixels that show the marker; 0 where no pixel shows the object.

    Args:
      assembly: one object.
      marker: of its description.
      cameras: stacked along v, such as a ring of many.
      steps: of the sphere tracing.
    """
    seen = np.asarray(_seen_by_all(assembly, cameras, steps))
    shown = np.isin(seen, marker.solids)
    return shown.sum(axis=(1, 2)) / np.maximum((seen >= 0).sum(axis=(1, 2)), 1)


@functools.partial(jax.jit, static_argnames="steps")
def _seen_by_all(assembly, cameras, steps):
    return jax.lax.map(lambda camera: solids_seen(assembly, camera, steps=steps), cameras)
