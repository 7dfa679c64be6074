"""The still life of the demo capture and its light: a ray caster that shares nothing with the renderers under test.

World: metres, +Y up, front +Z, right-handed. Colours are linear until the last line. Rays as in demo_shapes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from experiments.data.demo_shapes import Box, Cylinder, Distances, Rays, Shape, Sphere, Torus

Pattern = Callable[[Rays], Rays]


class Item(NamedTuple):
    """A shape with the colour of its surface (linear, by world position), and how strongly it gleams."""

    shape: Shape
    pattern: Pattern
    gloss: float
    ball: tuple[float, float, float, float]  # rough bounding ball: centre, radius; what its contact shadow is made of


def _srgb(code: str) -> Float32[np.ndarray, " 3"]:
    values = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


_CREAM, _INK, _TEAL, _CORAL, _GOLD, _ROSE, _OAK, _WALNUT, _LEAF = (
    _srgb(code) for code in ("f6ecd9", "1d3c6e", "1f8a8a", "e4572e", "f2b134", "e88fa2", "d9b382", "b98a57", "5f8f4e")
)


def _blend(weight: Distances, first: np.ndarray, second: np.ndarray) -> Rays:
    weight = np.clip(weight, 0, 1)
    return first[:, None] * (1 - weight) + second[:, None] * weight


def _table(points: Rays) -> Rays:
    """Concentric inlay: oak with two walnut rings and a star of wedges in the middle."""
    radius = np.sqrt(points[0] ** 2 + points[2] ** 2)
    angle = np.arctan2(points[0], points[2])
    wedge = (np.floor(angle * (16 / (2 * np.pi))) % 2 == 0) & (radius < 0.96) & (radius > 0.16)
    grain = 0.10 * np.sin(40 * points[0] + 3 * np.sin(5 * points[2]))
    dark = np.where(wedge | ((radius > 1.04) & (radius < 1.10)) | (points[1] < -0.01), 0.85, 0.0)
    return _blend(dark + grain, _OAK, _WALNUT)


def _marble(points: Rays) -> Rays:
    x, y, z = points
    wave = np.sin(13 * y + 3.0 * np.sin(5 * x + 1.3) + 2.2 * np.sin(6 * z + 0.4))
    return _blend(3 * wave + 0.5, _INK, _CREAM)


def _checker(box: Box) -> Pattern:
    def pattern(points: Rays) -> Rays:
        local = box.to_local(points - np.asarray(box.center, np.float32)[:, None])
        # A small push off the faces: cells must not flicker where the surface lies on a cell border.
        cells = np.floor(
            (local * 0.999 + np.asarray(box.half, np.float32)[:, None])
            * (2 / np.asarray(box.half, np.float32)[:, None])
        )
        return _blend((cells.sum(axis=0) % 2).astype(np.float32), _TEAL, _CREAM)

    return pattern


def _ring_stripes(torus: Torus) -> Pattern:
    def pattern(points: Rays) -> Rays:
        local = points - np.asarray(torus.center, np.float32)[:, None]
        axis = np.asarray(torus.axis, np.float32)
        side = np.cross(axis, np.array([0.0, 0.0, 1.0], np.float32))
        side /= np.linalg.norm(side)
        angle = np.arctan2(np.cross(axis, side) @ local, side @ local)
        return _blend((np.floor(angle * (18 / (2 * np.pi))) % 2).astype(np.float32), _CORAL, _CREAM)

    return pattern


def _spiral(points: Rays) -> Rays:
    angle = np.arctan2(points[2] + 0.58, points[0] + 0.02)
    return _blend((np.floor(angle * (4 / (2 * np.pi)) + 7 * points[1]) % 2).astype(np.float32), _CREAM, _ROSE)


def _plain(color: np.ndarray) -> Pattern:
    return lambda points: np.broadcast_to(color[:, None], points.shape)


def _bands(points: Rays) -> Rays:
    return _blend((np.floor(22 * points[1]) % 2).astype(np.float32), _LEAF, _CREAM)


_BOX = Box((0.46, 0.24, -0.16), (0.24, 0.24, 0.24), 0.55)
_LEAN = float(np.hypot(0.35, 0.9))
_RING = Torus((0.02, 0.225, 0.52), (0.30 / _LEAN, 0.9 / _LEAN, float(np.sqrt(0.35**2 - 0.3**2)) / _LEAN), 0.27, 0.095)

ITEMS = (
    Item(Cylinder((0.0, -0.09, 0.0), 1.15, 0.09), _table, 0.05, (0.0, -5.0, 0.0, 0.0)),
    Item(Sphere((-0.47, 0.36, 0.0), 0.36), _marble, 0.55, (-0.47, 0.36, 0.0, 0.36)),
    Item(_BOX, _checker(_BOX), 0.12, (0.46, 0.24, -0.16, 0.3)),
    Item(Sphere((0.46, 0.64, -0.16), 0.16), _plain(_GOLD), 0.6, (0.46, 0.64, -0.16, 0.16)),
    Item(_RING, _ring_stripes(_RING), 0.3, (0.02, 0.12, 0.52, 0.22)),
    Item(Cylinder((-0.02, 0.0, -0.58), 0.14, 0.78), _spiral, 0.15, (-0.02, 0.2, -0.58, 0.2)),
    Item(Sphere((-0.02, 0.88, -0.58), 0.13), _plain(_CORAL), 0.5, (-0.02, 0.88, -0.58, 0.13)),
    Item(Sphere((-0.52, 0.14, 0.62), 0.14), _bands, 0.3, (-0.52, 0.14, 0.62, 0.14)),
    Item(Sphere((0.62, 0.11, 0.48), 0.11), _plain(_ROSE), 0.45, (0.62, 0.11, 0.48, 0.11)),
)

_TO_LIGHT = np.array([0.55, 0.80, 0.45], np.float32) / np.linalg.norm(np.array([0.55, 0.80, 0.45], np.float32))
_LIGHT = np.array([1.00, 0.94, 0.84], np.float32) * np.float32(0.98)
_SKY = np.array([0.44, 0.49, 0.57], np.float32)
_BOUNCE = np.array([0.34, 0.29, 0.24], np.float32)
# Half-width of the sun in radians: four directions, one for each sample of a 2 x 2 pixel, make a soft edge.
_SUN = 0.035


def trace(origin: Float32[np.ndarray, "3 1"], directions: Rays) -> tuple[Distances, np.ndarray]:
    """Distance to the nearest surface and the index of its item, infinity and -1 where there is none."""
    nearest = np.full(directions.shape[1], np.inf, np.float32)
    item = np.full(directions.shape[1], -1)
    for index, candidate in enumerate(ITEMS):
        distance = candidate.shape.enter(origin, directions)
        closer = distance < nearest
        nearest[closer], item[closer] = distance[closer], index
    return nearest, item


def shade(points: Rays, directions: Rays, item: np.ndarray, sample: np.ndarray) -> Rays:
    """sRGB colours in [0, 1] of surface points seen along `directions`.

    Args:
        points: on surfaces.
        directions: of the rays that arrived there.
        item: index into ITEMS.
        sample: 0 to 3, which part of the sun throws the shadow.
    """
    normals, albedo, gloss = np.empty_like(points), np.empty_like(points), np.empty_like(points[0])
    for index in np.unique(item):
        mine = item == index
        normals[:, mine] = ITEMS[index].shape.normals(points[:, mine])
        albedo[:, mine] = ITEMS[index].pattern(points[:, mine])
        gloss[mine] = ITEMS[index].gloss
    facing = np.maximum((normals * _TO_LIGHT[:, None]).sum(axis=0), 0)
    lit = facing * _unshadowed(points + 2e-3 * normals, facing, sample)
    height = (0.5 + 0.5 * normals[1]) * _openness(points, normals, item)
    ambient = _BOUNCE[:, None] * (1 - height) * 0.6 + _SKY[:, None] * height
    halfway = _TO_LIGHT[:, None] - directions
    halfway /= np.maximum(np.linalg.norm(halfway, axis=0), 1e-6)
    gleam = gloss * lit * np.maximum((normals * halfway).sum(axis=0), 0) ** 50
    linear = np.clip(albedo * (ambient + _LIGHT[:, None] * lit) + gleam, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _unshadowed(points: Rays, facing: Distances, sample: np.ndarray) -> Distances:
    side = np.cross(_TO_LIGHT, np.array([0.0, 1.0, 0.0], np.float32))
    side /= np.linalg.norm(side)
    up = np.cross(side, _TO_LIGHT)
    offsets = np.array([[-0.9, -0.4], [0.4, -0.9], [-0.4, 0.9], [0.9, 0.4]], np.float32) * _SUN
    suns = _TO_LIGHT + offsets @ np.stack([side, up]).astype(np.float32)
    suns = (suns / np.linalg.norm(suns, axis=1, keepdims=True)).astype(np.float32)
    visible = np.zeros_like(facing)
    rays = np.flatnonzero(facing > 0)
    origins, directions = points[:, rays], np.ascontiguousarray(suns[sample[rays]].T)
    blocked = np.zeros(len(rays), bool)
    for item in ITEMS:
        blocked |= np.isfinite(item.shape.enter(origins, directions))
    visible[rays] = ~blocked
    return visible


def _openness(points: Rays, normals: Rays, item: np.ndarray) -> Distances:
    """How much of the sky the other items leave free: the exact occlusion by a ball above the horizon, each in turn."""
    openness = np.ones_like(points[0])
    for index, other in enumerate(ITEMS):
        *center, radius = other.ball
        if not radius:
            continue
        x = np.asarray(center, np.float32)[:, None] - points
        squared = np.maximum((x * x).sum(axis=0), np.float32(radius**2))
        cosine = np.clip((normals * x).sum(axis=0) / np.sqrt(squared), 0, 1)
        covered = cosine * np.float32(radius**2) / squared
        openness *= np.where(item == index, 1, 1 - 0.85 * covered)
    return openness
