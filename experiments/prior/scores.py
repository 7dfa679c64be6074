"""Measures of one generated ring: its colours, its distance to a caption's class, whether its views agree.

Rings are channels [v, h, w, 8] in [-1, 1], see `experiments.data.blocks.rendering`; poses are camera_from_world
[v, 4, 4] of the ring's cameras. All on the host. Where a measure has a counterpart in the table of
shared/specs/generators/small_prior.md, it is defined as there, for base colours in place of lit ones.
"""

import functools
import math
import typing

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.data.blocks.descriptions import COLORS, Description
from experiments.data.blocks.rendering import DEPTH_RANGE, DISTANCE, FIELD_OF_VIEW

_PALETTE = np.array(list(COLORS.values()), np.float32)
_SEEN = 0.015  # share of the foreground that a named colour must have
_SOLID = 0.6  # coverage channel of pixels that are well inside
_SLACK = 0.12  # nearness, 8 cm: by how much a point may be in front of the surface of another view
_SAME = 0.05  # metres between a point and the surface of another view that are taken for one
# Channels that tell classes apart: all but depth, whose background is far away
_COMPARED = np.array([1, 1, 1, 1, 1, 1, 0, 1], np.float32) / 7
_OFFSETS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]

Ring = Float[np.ndarray, "v h w 8"]
Poses = Float[np.ndarray, "v 4 4"]


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


def hull_iou(ring: Ring, poses: Poses) -> float:
    """Mean IoU of the silhouettes with those of the solid that they carve out of a cube of one metre; 1: they agree."""
    size, covered = ring.shape[1], ring[..., 7] > 0
    seen = _cube_pixels(np.asarray(poses, np.float32).tobytes(), len(poses), size)
    kept = np.all([view[row, column] for view, (row, column) in zip(covered, seen, strict=True)], axis=0)
    found = []
    for view, (row, column) in zip(covered, seen, strict=True):
        hull = np.zeros((size, size), bool)
        hull[row[kept], column[kept]] = True
        found.append(np.count_nonzero(hull & view) / max(1, np.count_nonzero(hull | view)))
    return float(np.mean(found))


def depth_agreement(ring: Ring, poses: Poses) -> float:
    """Share of the points that the depths give, of all views, which no view contradicts.

    A view contradicts a point that it sees background through, or that lies clearly in front of its own surface; the
    most favourable of 3 x 3 pixels counts.
    """
    size = ring.shape[1]
    near, inside = _nearness(ring), ring[..., 7]
    points = np.concatenate([_lifted(ring[v], poses[v])[0] for v in range(len(ring))])
    if not len(points):
        return 0.0
    contradicted = np.zeros(len(points), bool)
    for v, pose in enumerate(poses):
        row, column, depth, _ = _project(points, pose, size, border=1)
        surface = np.max([near[v, row + y, column + x] for y, x in _OFFSETS], axis=0)
        covered = np.max([inside[v, row + y, column + x] for y, x in _OFFSETS], axis=0) > 0
        contradicted |= ~covered | ((DISTANCE - depth) / DEPTH_RANGE > surface + _SLACK)
    return float(1.0 - np.mean(contradicted))


def reprojection_error(ring: Ring, poses: Poses) -> float:
    """Mean squared difference of the colours of points to those that other views show where the points fall on them.

    Points are the pixels well inside of every view, lifted by their depth; one falls on another view's surface if it is
    within 5 cm of it, and its colour, in [0, 1], is compared with that of the nearest pixel. NaN where none does.
    """
    size, near = ring.shape[1], _nearness(ring)
    coverage = np.clip(0.5 * (ring[..., 7:8] + 1.0), 1e-3, None)
    colors = np.clip(0.5 * (ring[..., :3] / coverage + 1.0), 0.0, 1.0)
    errors = []
    for v in range(len(ring)):
        points, solid = _lifted(ring[v], poses[v])
        for w in range(len(ring)):
            if w == v:
                continue
            row, column, depth, within = _project(points, poses[w], size)
            same = within & (ring[w, row, column, 7] > _SOLID)
            same &= np.abs(DISTANCE - near[w, row, column] * DEPTH_RANGE - depth) < _SAME
            errors.append((colors[v][solid][same] - colors[w, row[same], column[same]]) ** 2)
    squared = np.concatenate(errors)
    return float(np.mean(squared)) if squared.size else float("nan")


@functools.lru_cache(maxsize=4)
def _cube_pixels(poses: bytes, views: int, size: int) -> list[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """Row and column in each view of points that fill the cube, two along a pixel's side at 32 pixels."""
    side = (np.arange(2 * size, dtype=np.float32) + 0.5) / (2 * size) - 0.5
    points = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    cameras = np.frombuffer(poses, np.float32).reshape(views, 4, 4)
    return [_project(points, pose, size)[:2] for pose in cameras]


def _nearness(ring: Ring) -> Float[np.ndarray, "v h w"]:
    """Nearness of the surface alone, the background's share of a pixel taken out."""
    coverage = 0.5 * (ring[..., 7] + 1.0)
    return (ring[..., 6] + 1.0 - coverage) / np.clip(coverage, 0.05, None)


def _lifted(view: Float[np.ndarray, "h w 8"], pose) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, "h w"]]:
    """World points of the pixels of one view that are well inside, and which those are."""
    size, solid = len(view), view[..., 7] > _SOLID
    offsets = math.tan(0.5 * FIELD_OF_VIEW) * ((np.arange(size) + 0.5) / size * 2.0 - 1.0)
    x, y = np.meshgrid(offsets, offsets)
    depth = DISTANCE - _nearness(view[None])[0] * DEPTH_RANGE
    points = depth[solid][:, None] * np.stack([x[solid], y[solid], np.ones(np.count_nonzero(solid))], axis=-1)
    return (points - pose[:3, 3]) @ pose[:3, :3], solid


def _project(
    points: Float[np.ndarray, "n 3"], pose: Float[np.ndarray, "4 4"], size: int, border: int = 0
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Row, column and depth of points in a view, and whether they fall into it; others get the nearest pixel."""
    at = points @ pose[:3, :3].T + pose[:3, 3]
    pixels = (at[:, :2] / (at[:, 2:] * math.tan(0.5 * FIELD_OF_VIEW)) + 1.0) * 0.5 * size
    within = np.all((pixels >= 0) & (pixels < size), axis=1)
    clipped = np.clip(pixels.astype(int), border, size - 1 - border)
    return clipped[:, 1], clipped[:, 0], at[:, 2], within
