"""Whether the views of a ring show one object: by reprojected colours, by depths, by silhouettes.

Rings are channels [v, h, w, 8] in [-1, 1], see `experiments.data.blocks.rendering`; poses are camera_from_world
[v, 4, 4] of their cameras, which have that module's field of view and square pictures. All on the host.
"""

import functools
import math
import typing

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.data.blocks import rendering
from experiments.data.blocks.rendering import FIELD_OF_VIEW
from experiments.generation.observations import coverage_of, depths_of

_SOLID = 0.9  # coverage of pixels that are lifted
_SHOWN = 0.5  # of places where they are looked up
_SAME = 0.01  # of the depth, by which a point may miss another view's surface and be taken for one of it
_SLACK = 0.08  # metres by which a point may be in front of the surface of another view
_NOTHING = 0.5  # colour of the background that a point is compared with where another view shows nothing
_LEAST_ERROR = 1e-5  # mean squared; differences below are those of rendering, and one perfect ring would be a mean
_OFFSETS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]

Ring = Float[np.ndarray, "v h w 8"]
Poses = Float[np.ndarray, "v 4 4"]


class Reprojection(typing.NamedTuple):
    """How well what a ring's points look like agrees with what other views show where they fall.

    Attributes:
      psnr: of base colours in [0, 1], dB, at most 50; NaN where no two views share a point.
      l1: mean absolute difference; NaN as above.
      overlap: share of the points, counted once for each other view, that are on that view's surface.
      contradicted: share of those that should be seen there and are not.
    """

    psnr: float
    l1: float
    overlap: float
    contradicted: float


def canonical_poses() -> Poses:
    """Those of the canonical ring."""
    return ring_poses(4)


def ring_poses(views: int, elevation: float = rendering.ELEVATION) -> Poses:
    """Those of `rendering.ring_cameras` at azimuth 0."""
    return np.asarray(rendering.ring_cameras(0.0, elevation, views=views, size=1).camera_from_world)


def reprojection(ring: Ring, poses: Poses) -> Reprojection:
    """Colours of points, lifted by a view's depth, against those of every other view where they fall.

    Every pixel that the object fills is lifted and projected into the other views, whose colours and depths are
    interpolated there between four pixels, by how far each is covered. Compared is what lies on the other's surface,
    within 1 % of the depth (Reproj-consistency of shared/specs/generators/evaluation.md, section 5), and what the other
    view contradicts, as in `depth_agreement`, with whatever is there; points behind something are left out, and so are
    those within a pixel of an outline, which no view decides. Without the contradictions views that share no surface
    at all would be the most consistent ones.

    Exact renders do not reach 50 dB: colours are mixed within pixels, and views a quarter of a turn apart share what
    both see at a slant. For one object of each of `prior.evaluation.FIXED_PROMPTS`, on the canonical ring at 32 pixels:
    33.6 dB in the mean, 30.7 in the median; with one view turned by 10 degrees 30.4 and 29.0; with views of four
    objects of one caption 24.5 and 18.1.
    """
    size, depth, coverage = ring.shape[1], depths_of(ring), coverage_of(ring)
    premultiplied = np.concatenate(
        [0.5 * (ring[..., :3] + coverage[..., None]), (depth * coverage)[..., None], coverage[..., None]], axis=-1
    )
    errors, asked, missed = [np.zeros((0, 3))], 0, 0
    for v in range(len(ring)):
        points, solid = _lifted(depth[v], coverage[v], poses[v])
        colors = premultiplied[v, solid][:, :3] / coverage[v, solid][:, None]
        for w in range(len(ring)):
            if w == v:
                continue
            pixels, distance = _projected(points, poses[w], size)
            seen, within = _interpolated(premultiplied[w], pixels)
            share = np.maximum(seen[:, 4], 1e-3)[:, None]
            same = within & (seen[:, 4] > _SHOWN) & (np.abs(seen[:, 3] / share[:, 0] - distance) < _SAME * distance)
            wrong = ~same & _contradicted(depth[w], coverage[w], pixels, distance)
            errors.append(colors[same] - seen[same, :3] / share[same])
            errors.append(colors[wrong] - seen[wrong, :3] - _NOTHING * (1.0 - seen[wrong, 4:]))
            asked, missed = asked + len(points), missed + int(np.count_nonzero(wrong))
    found = np.concatenate(errors)
    if not len(found):
        return Reprojection(float("nan"), float("nan"), 0.0, 0.0)
    psnr = -10.0 * math.log10(max(float(np.mean(found**2)), _LEAST_ERROR))
    return Reprojection(
        psnr, float(np.mean(np.abs(found))), float(len(found) - missed) / asked, float(missed) / len(found)
    )


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
    size, depth, coverage = ring.shape[1], depths_of(ring), coverage_of(ring)
    parts = [_lifted(depth[v], coverage[v], poses[v])[0] for v in range(len(ring))]
    points = np.concatenate(parts)
    if not len(points):
        return 0.0
    contradicted = np.zeros(len(points), bool)
    for v, pose in enumerate(poses):
        contradicted |= _contradicted(depth[v], coverage[v], *_projected(points, pose, size))
    return float(1.0 - np.mean(contradicted))


def _contradicted(
    depth: Float[np.ndarray, "h w"],
    coverage: Float[np.ndarray, "h w"],
    pixels: Float[np.ndarray, "n 2"],
    distance: Float[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """Whether a view shows nothing, or only what is clearly farther away, in all of 3 x 3 pixels around points."""
    column, row = np.clip(pixels.astype(int), 1, len(depth) - 2).T
    covered = np.stack([coverage[row + y, column + x] for y, x in _OFFSETS])
    near = np.stack([depth[row + y, column + x] for y, x in _OFFSETS])
    surface = np.min(np.where(covered > 0.25, near, np.inf), axis=0)
    return (covered.max(axis=0) <= 0.25) | (distance < surface - _SLACK)


@functools.lru_cache(maxsize=4)
def _cube_pixels(poses: bytes, views: int, size: int) -> list[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """Row and column in each view of points that fill the cube, two along a pixel's side at 32 pixels."""
    side = (np.arange(2 * size, dtype=np.float32) + 0.5) / (2 * size) - 0.5
    points = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    found = []
    for pose in np.frombuffer(poses, np.float32).reshape(views, 4, 4):
        column, row = np.clip(_projected(points, pose, size)[0].astype(int), 0, size - 1).T
        found.append((row, column))
    return found


def _lifted(
    depth: Float[np.ndarray, "h w"], coverage: Float[np.ndarray, "h w"], pose: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, "h w"]]:
    """World points of the pixels of one view that are well inside, and which those are."""
    size, solid = len(depth), coverage > _SOLID
    offsets = math.tan(0.5 * FIELD_OF_VIEW) * ((np.arange(size) + 0.5) / size * 2.0 - 1.0)
    x, y = np.meshgrid(offsets, offsets)
    points = depth[solid][:, None] * np.stack([x[solid], y[solid], np.ones(np.count_nonzero(solid))], axis=-1)
    return (points - pose[:3, 3]) @ pose[:3, :3], solid


def _projected(
    points: Float[np.ndarray, "n 3"], pose: Float[np.ndarray, "4 4"], size: int
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Column and row of points in a view, pixel centres at +0.5, and their depth."""
    at = points @ pose[:3, :3].T + pose[:3, 3]
    return (at[:, :2] / (at[:, 2:] * math.tan(0.5 * FIELD_OF_VIEW)) + 1.0) * 0.5 * size, at[:, 2]


def _interpolated(
    image: Float[np.ndarray, "h w c"], pixels: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, "n c"], Bool[np.ndarray, " n"]]:
    """Values between the centres of four pixels, and whether all four are in the picture."""
    size = len(image)
    first = np.floor(pixels - 0.5).astype(int)
    within = np.all((first >= 0) & (first < size - 1), axis=1)
    column, row = np.clip(first, 0, size - 2).T
    x, y = (pixels - 0.5 - first)[:, :1], (pixels - 0.5 - first)[:, 1:]
    above = image[row, column] * (1 - x) + image[row, column + 1] * x
    below = image[row + 1, column] * (1 - x) + image[row + 1, column + 1] * x
    return above * (1 - y) + below * y, within
