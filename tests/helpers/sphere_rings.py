"""Rings of a sphere by its closed form, in the channels of the block world: independent of its renderer."""

import numpy as np

from experiments.data.blocks import rendering
from renderers.cameras.camera import Camera


def cameras(size: int = 32) -> Camera:
    """The canonical ring."""
    return rendering.ring_cameras(0.0, rendering.ELEVATION, views=4, size=size)


def sphere_ring(center, radius: float, color, *, size: int = 32, finer: int = 4) -> np.ndarray:
    """Channels [4, size, size, 8] of a sphere; `color` is called with points [n, 3] and gives [n, 3] in [0, 1]."""
    ring = cameras(size)
    views = []
    for view in range(4):
        pose = np.asarray(ring.camera_from_world[view], np.float64)
        focal = float(ring.focal[view, 0])
        at = (np.arange(size * finer) + 0.5) / finer - size / 2
        rays = np.stack([*np.meshgrid(at / focal, at / focal), np.ones((size * finer,) * 2)], -1)
        middle = pose[:3, :3] @ np.asarray(center, np.float64) + pose[:3, 3]
        a, b, c = (rays**2).sum(-1), rays @ middle, middle @ middle - radius**2
        hit = b**2 - a * c > 0
        along = (b - np.sqrt(np.maximum(b**2 - a * c, 0))) / a
        points = rays * along[..., None]
        normals = (points - middle) / radius
        world = (points - pose[:3, 3]) @ pose[:3, :3]
        colors = color(world.reshape(-1, 3)).reshape(world.shape)
        nearness = (rendering.DISTANCE - points[..., 2]) / rendering.DEPTH_RANGE
        channels = np.concatenate([2 * colors - 1, normals, nearness[..., None] + 1, np.full((*hit.shape, 1), 2.0)], -1)
        channels = (hit[..., None] * channels).reshape(size, finer, size, finer, 8).mean((1, 3))
        channels[..., 6:] -= 1
        views.append(channels)
    return np.stack(views).astype(np.float32)
