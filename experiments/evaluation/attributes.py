"""Which of a caption's words an object got right: relation, binding of colours, shapes, sizes, colours of parts.

Words about form are told by retrieval: an object has them if its views are nearer to a render of the caption's class
than to any of the classes that differ in that word alone (`experiments.prior.classes`). Colours are told part by part:
of the points of the surface that are nearest to a part of the most similar exact object, most must be nearest to the
colour that the caption gives it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from experiments.data.blocks import geometry, parts
from experiments.data.blocks.descriptions import COLORS, Description
from experiments.data.blocks.solids import Assembly
from experiments.evaluation.geometry_scores import Samples, nearest_colors
from experiments.prior import scores
from experiments.prior.classes import ClassRenders, as_channels

RETRIEVED = 16  # renders of a class, to tell it from others
ASPECTS = ("relation", "binding", "shape", "size", "color")  # all that is told, in the order of tables
_OPPOSITES = {"small": "large", "large": "small", "flat": "tall", "tall": "flat"}


def told_apart(
    rings: Sequence[scores.Ring],
    description: Description,
    negatives: Iterable[tuple[str, Description]],
    renders: ClassRenders,
) -> list[dict[str, bool]]:
    """For each ring and aspect whether it is nearer to the caption's class than to all that differ in that aspect.

    Args:
      rings: of canonical cameras.
      description: the caption's.
      negatives: aspects and descriptions that differ in them, see `classes.hard_negatives`.
      renders: of the classes.
    """
    own = as_channels(renders(description, RETRIEVED))
    distances = [scores.class_distance(ring, own) for ring in rings]
    told: list[dict[str, bool]] = [{} for _ in rings]
    for aspect, other in negatives:
        wrong = as_channels(renders(other, RETRIEVED))
        for ring, row, distance in zip(rings, told, distances, strict=True):
            row[aspect] = distance < scores.class_distance(ring, wrong) and row.get(aspect, True)
    return told


def opposite_sizes(description: Description) -> Iterator[tuple[str, Description]]:
    """Descriptions in which one word for a size or an aspect is turned into its opposite."""
    for i, part in enumerate(description.parts):
        for field in ("size", "aspect"):
            if said := getattr(part, field):
                other = dataclasses.replace(part, **{field: _OPPOSITES[said]})
                yield (
                    "size",
                    Description((*description.parts[:i], other, *description.parts[i + 1 :]), description.relation),
                )


def parts_colored(surface: Samples, description: Description, exact: Assembly) -> float | None:
    """Share of the parts with a said colour that have it; None if none is said.

    Args:
      surface: points of the object with colours.
      description: the caption's.
      exact: the object of the class that is most like it, by which points belong to parts.
    """
    if not any(part.color for part in description.parts):
        return None
    of_solid = np.array(parts.part_of_solid(description))
    part = of_solid[geometry.nearest_solids(exact, surface.points)]
    color = nearest_colors(surface.colors)
    right = []
    for number, said in enumerate(description.parts):
        if said.color:
            seen = color[part == number]
            right.append(len(seen) > 0 and int(np.bincount(seen).argmax()) == list(COLORS).index(said.color))
    return float(np.mean(right))
