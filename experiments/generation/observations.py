"""What a ring of pictures says of a surface: points with normals and colours, and where there is nothing.

Channels are those of `experiments.data.blocks.rendering`: pixels hold means of what they see, so at edges their normals
are shorter than one, and their depths lie between two surfaces. Such pixels count for less.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from experiments.data.blocks import rendering
from renderers.cameras.camera import Camera

_LEAST_COVERAGE = 0.3  # of pixels that give a point
_SHORTEST, _WHOLE = 0.5, 0.9  # lengths of mean normals without and with full trust
_CLEAR = 0.9  # length of the mean normal of a pixel that sees one surface
_DEEPER = 0.3  # metres by which an outline may lie deeper than the pixel beside it
_FINER = 4  # times that outlines are drawn finer than pixels
_RIM = 4  # pixels around the picture in which an outline's distance is still known


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurfacePoints:
    """Points of a surface as pixels see them, world frame.

    Attributes:
      points: metres.
      normals: outward, unit length.
      colors: display-referred base colours in [0, 1].
      weights: trust in them, in [0, 1].
      views: which picture each comes from.
      facing: cosine between the normal and the direction to the camera.
    """

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    colors: Float[np.ndarray, "n 3"]
    weights: Float[np.ndarray, " n"]
    views: Int[np.ndarray, " n"]
    facing: Float[np.ndarray, " n"]


def coverage_of(ring: Float[np.ndarray, "v h w 8"]) -> Float[np.ndarray, "v h w"]:
    """Share of each pixel that the object covers, in [0, 1]."""
    return np.clip(0.5 * (ring[..., 7] + 1.0), 0.0, 1.0)


def depths_of(ring: Float[np.ndarray, "v h w 8"]) -> Float[np.ndarray, "v h w"]:
    """Camera z of what pixels see, metres; meaningless where they see little."""
    coverage = coverage_of(ring)
    nearness = ring[..., 6] + (1.0 - coverage)
    return rendering.DISTANCE - rendering.DEPTH_RANGE * nearness / np.maximum(coverage, 1e-3)


def surface_points(ring: Float[np.ndarray, "v h w 8"], cameras: Camera) -> SurfacePoints:
    """A point for each pixel that sees the object well.

    Args:
      ring: channels in [-1, 1].
      cameras: of the pictures, pinhole, stacked.
    """
    coverage, depth = coverage_of(ring), depths_of(ring)
    normal = ring[..., 3:6] / np.maximum(coverage, 1e-3)[..., None]
    color = 0.5 * (ring[..., :3] / np.maximum(coverage, 1e-3)[..., None] + 1.0)
    length = np.linalg.norm(normal, axis=-1)
    view, row, column = np.nonzero((coverage > _LEAST_COVERAGE) & (length > 0.5 * _SHORTEST))
    at = (view, row, column)
    focal, principal = (np.asarray(part, np.float64)[view] for part in (cameras.focal, cameras.principal))
    pose = np.asarray(cameras.camera_from_world, np.float64)[view]
    ray = np.ones((len(view), 3))
    ray[:, :2] = (np.stack([column, row], -1) + 0.5 - principal) / focal
    unit = normal[at] / length[at][:, None]
    facing = -(unit * ray).sum(-1) / np.linalg.norm(ray, axis=-1)
    trust = np.clip((length[at] - _SHORTEST) / (_WHOLE - _SHORTEST), 0, 1)
    trust *= np.clip((coverage[at] - 0.2) / 0.7, 0, 1) * (facing > 0.02)
    return SurfacePoints(
        points=np.einsum("nji,nj->ni", pose[:, :3, :3], ray * depth[at][:, None] - pose[:, :3, 3]),
        normals=np.einsum("nji,nj->ni", pose[:, :3, :3], unit),
        colors=np.clip(color[at], 0, 1),
        weights=trust,
        views=view,
        facing=facing,
    )


class Emptiness:
    """Where a ring says that there is nothing: beyond an outline, in front of what is seen, below the ground.

    Args:
      ring: channels in [-1, 1].
      cameras: of the pictures, stacked.
      ground: height below which there is nothing, metres.
      slack: metres by which outlines may be missed: they are known to a part of a pixel.
    """

    def __init__(self, ring: Float[np.ndarray, "v h w 8"], cameras: Camera, *, ground: float, slack: float) -> None:
        self._cameras, self._ground, self._slack = cameras, ground, slack
        self._outlines = [_outline_distance(picture) for picture in coverage_of(ring)]
        covered = coverage_of(ring) > 0.5
        length = np.linalg.norm(ring[..., 3:6], axis=-1, keepdims=True)
        # Pixels that see one surface carve in front of its plane; others, whose depth lies between two surfaces, only
        # in front of the nearest that is seen around them
        self._clear = covered & (length[..., 0] > _CLEAR)
        self._normals = ring[..., 3:6] / np.maximum(length, 1e-6)
        self._depths = depths_of(ring)
        near = np.stack([ndimage.minimum_filter(one, 3) for one in np.where(covered, self._depths, np.inf)])
        self._near = np.where(covered, near, -np.inf)

    def __call__(self, nodes: Float[np.ndarray, "*n 3"], spacing: float) -> Float[np.ndarray, "*n"]:
        """Least distances to the surface at nodes, metres: of `smooth_distance`."""
        bound = self._ground - nodes[..., 1]
        for k, outline in enumerate(self._outlines):
            pose = np.asarray(self._cameras.camera_from_world[k], np.float64)
            focal, principal = (np.asarray(part[k]) for part in (self._cameras.focal, self._cameras.principal))
            seen = nodes @ pose[:3, :3].T + pose[:3, 3]
            rays = seen / seen[..., 2:]
            column, row = (rays[..., i] * focal[i] + principal[i] for i in (0, 1))
            fine = [(place + _RIM) * _FINER - 0.5 for place in (row, column)]
            beyond = ndimage.map_coordinates(outline, fine, order=1, mode="nearest") * seen[..., 2] / focal[0]
            bound = np.maximum(bound, beyond - self._slack)
            height, width = self._cameras.size
            at = (k, *(np.clip(np.floor(p).astype(int), 0, n - 1) for p, n in ((row, height), (column, width))))
            middle = np.stack([(at[2] + 0.5 - principal[0]) / focal[0], (at[1] + 0.5 - principal[1]) / focal[1]], -1)
            foot = np.concatenate([middle, np.ones_like(middle[..., :1])], -1) * self._depths[at][..., None]
            above = ((seen - foot) * self._normals[at]).sum(-1)
            above = np.where(self._clear[at], above, self._near[at] - seen[..., 2])
            bound = np.where(above > spacing, np.maximum(bound, spacing), bound)
        return bound


def ground_height(ring: Float[np.ndarray, "v h w 8"], cameras: Camera) -> float:
    """Height of the lowest place that outlines show, world frame, metres: what stands on something ends there.

    The lower ends of the columns of pixels, to a part of a pixel, at the depth of what is seen there. Where the surface
    turns under, the outline lies deeper than the pixel above it, by what a circle through both says.
    """
    coverage, depth = coverage_of(ring), depths_of(ring)
    covered = coverage > 0.5
    low = []
    for view, mask in enumerate(covered):
        column = np.flatnonzero(mask.any(0))
        if not len(column):
            continue
        row = len(mask) - 1 - np.argmax(mask[::-1, column], axis=0)
        below = np.where(row + 1 < len(mask), coverage[view, np.minimum(row + 1, len(mask) - 1), column], 0.0)
        end = row + coverage[view, row, column] + below  # covered parts of the last pixel and of the one below it
        pose = np.asarray(cameras.camera_from_world[view], np.float64)
        focal, principal = np.asarray(cameras.focal[view]), np.asarray(cameras.principal[view])
        ray = np.stack([(column + 0.5 - principal[0]) / focal[0], (end - principal[1]) / focal[1], np.ones(len(row))])
        seen = depth[view, row, column]
        normal = (
            ring[view, row, column, 3:6]
            / np.maximum(np.linalg.norm(ring[view, row, column, 3:6], axis=-1), 1e-6)[:, None]
        )
        under = normal @ pose[:3, 1] < -0.3
        facing = np.clip(-(normal * ray.T).sum(-1) / np.linalg.norm(ray, axis=0), 0.05, 0.9)
        inward = np.maximum(end - row - 0.5, 0.0) * seen / focal[1]
        curved = under * inward * facing / (1 - np.sqrt(1 - facing**2))
        at = pose[:3, :3].T @ (ray * (seen + np.minimum(curved, _DEEPER)) - pose[:3, 3:])
        low.append(at[1])
    return float(np.percentile(np.concatenate(low), 2)) if low else -np.inf


def _outline_distance(coverage: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "k l"]:
    """Distance in pixels from the outline at half coverage, positive outside, on a finer picture with a rim."""
    fine = np.asarray(ndimage.zoom(np.pad(coverage, _RIM), _FINER, order=1, grid_mode=True, mode="nearest"))
    inside = np.asarray(fine > 0.5)
    if not inside.any():
        return np.full(fine.shape, np.float64(max(fine.shape)))
    far, deep = (np.asarray(ndimage.distance_transform_edt(side)) for side in (~inside, inside))
    return np.where(inside, 0.5 - deep, far - 0.5) / _FINER
