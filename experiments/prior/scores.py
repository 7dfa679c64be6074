"""Measures of one generated ring against a caption: its colours, and its distance to the caption's class.

Rings are channels [v, h, w, 8] in [-1, 1], see `experiments.data.blocks.rendering`. All on the host. Where a measure
has a counterpart in the table of shared/specs/generators/small_prior.md, it is defined as there, for base colours in
place of lit ones. Whether the views agree with each other is in `experiments.evaluation.consistency`.
"""

import math
import typing

import numpy as np
from jaxtyping import Float

from experiments.data.blocks.descriptions import COLORS, Description

_PALETTE = np.array(list(COLORS.values()), np.float32)
_SEEN = 0.015  # share of the foreground that a named colour must have
# Channels that tell classes apart: all but depth, whose background is far away
_COMPARED = np.array([1, 1, 1, 1, 1, 1, 0, 1], np.float32) / 7

Ring = Float[np.ndarray, "v h w 8"]


class Nearest(typing.NamedTuple):
    """The render of a class that is nearest to a ring in colour, and how far it is.

    Attributes:
      psnr: of the colours over whole pictures, dB; the background counts.
      alpha_iou: of the silhouettes.
      normal_degrees: mean angle between the normals where both are covered; 90 where nothing is.
      index: of the render.
    """

    psnr: float
    alpha_iou: float
    normal_degrees: float
    index: int


def named_colors(ring: Ring, description: Description) -> tuple[float | None, float | None]:
    """How many of the colours in the caption are seen, and how much of the foreground has one of them.

    Returns:
      The share of named colours that at least 1.5 % of the covered pixels are nearest to, None if none is named; the
      share of covered pixels that are nearest to a named one, None if some part's colour is left open.
    """
    names = list(COLORS)
    wanted = sorted({names.index(part.color) for part in description.parts if part.color})
    if not wanted:
        return None, None
    inside = ring[..., 7] > 0
    coverage = 0.5 * (ring[inside][:, 7:8] + 1.0)
    colors = 0.5 * (ring[inside][:, :3] / coverage + 1.0)
    nearest = np.argmin(np.sum((colors[:, None] - _PALETTE) ** 2, axis=-1), axis=1)
    shares = np.bincount(nearest, minlength=len(names)) / max(1, np.count_nonzero(inside))
    is_open = not all(part.color for part in description.parts)
    is_open |= description.kind == "family" and len(description.parts) == 1
    return float(np.mean(shares[wanted] > _SEEN)), None if is_open else float(np.sum(shares[wanted]))


def nearest_render(ring: Ring, renders: Float[np.ndarray, "n v h w 8"]) -> Nearest:
    """The nearest of a class's renders, see `Nearest`."""
    errors = np.mean((ring[None, ..., :3] - renders[..., :3]) ** 2, axis=(1, 2, 3, 4)) / 4.0
    index = int(np.argmin(errors))
    found = renders[index]
    inside, other = ring[..., 7] > 0, found[..., 7] > 0
    both = inside & other
    iou = np.count_nonzero(both) / max(1, np.count_nonzero(inside | other))
    a, b = ring[both][:, 3:6], found[both][:, 3:6]
    cosines = np.sum(a * b, axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1) + 1e-6)
    angle = np.degrees(np.mean(np.arccos(np.clip(cosines, -1.0, 1.0)))) if both.any() else 90.0
    return Nearest(-10.0 * math.log10(max(float(errors[index]), 1e-10)), float(iou), float(angle), index)


def class_distance(ring: Ring, renders: Float[np.ndarray, "n v h w 8"]) -> float:
    """Mean squared difference of colours, normals and coverage to the nearest of a class's renders."""
    differences = ring[None] - renders
    differences *= differences
    return float(np.min(np.mean(differences, axis=(1, 2, 3)) @ _COMPARED))
