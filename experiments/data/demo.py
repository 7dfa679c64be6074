"""The demo capture: a small still life photographed on the fly, so that every command works without data.

Deterministic in the seed; about 3 seconds for 32 views of 160 x 160 on two cores.
"""

import concurrent.futures
import math
import os

import numpy as np
from jaxtyping import Float

from experiments.data.capture_record import Capture
from experiments.data.demo_scene import shade, trace

# Samples a pixel along each axis. The sun's four parts are dealt out over each 2 x 2 of them.
_SAMPLES = 2
_RADIUS = 3.1
_TARGET = (0.0, 0.22, 0.0)
_FIELD_OF_VIEW = math.radians(48)
_LOWEST, _HIGHEST = math.radians(6), math.radians(62)


def demo_capture(size: tuple[int, int] = (160, 160), views: int = 32, seed: int = 0, num_points: int = 3000) -> Capture:
    """Photographs the demo scene from a hemisphere of cameras.

    Args:
        size: (height, width) of each image.
        views: number of cameras.
        seed: moves the cameras a little and picks the initial points; the scene is always the same.
        num_points: points on visible surfaces with their colours, as structure from motion would find them.

    Returns:
        Opaque images on white. World: metres, +Y up, front +Z.
    """
    rng = np.random.default_rng(seed)
    poses = _hemisphere(rng, views)
    height, width = size
    focal = 0.5 * min(size) / math.tan(0.5 * _FIELD_OF_VIEW)
    wanted = np.diff(np.linspace(0, num_points, views + 1).astype(int))
    rngs = rng.spawn(views)
    with concurrent.futures.ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:
        shots = list(pool.map(lambda i: _photograph(poses[i], focal, size, rngs[i], int(wanted[i])), range(views)))
    images, points, colors = zip(*shots, strict=True)
    return Capture(
        names=tuple(f"{index:04d}.png" for index in range(views)),
        images=images,
        camera_from_world=poses,
        focal=np.full((views, 2), focal),
        principal=np.tile([0.5 * width, 0.5 * height], (views, 1)),
        points=np.concatenate(points).astype(np.float64),
        point_colors=np.concatenate(colors),
        white_background=True,
        notes=("procedural still life, made on the fly",),
    )


def _hemisphere(rng: np.random.Generator, views: int) -> Float[np.ndarray, "v 4 4"]:
    """Cameras spread evenly by area over a belt of the upper hemisphere, looking at the still life."""
    index = np.arange(views) + 0.5
    low, high = math.sin(_LOWEST), math.sin(_HIGHEST)
    # The golden angle turns neighbours in height far apart; every 8th view stays spread out too.
    heights = low + (high - low) * ((index * (math.sqrt(5) - 1) / 2) % 1)
    azimuth = 2 * math.pi * index / views + rng.normal(0, 0.03, views)
    poses = np.tile(np.eye(4), (views, 1, 1))
    for pose, sine, angle in zip(poses, heights, azimuth, strict=True):
        cosine = math.sqrt(1 - sine * sine)
        backward = np.array([cosine * math.sin(angle), sine, cosine * math.cos(angle)])
        right = np.cross([0.0, 1.0, 0.0], backward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, -np.cross(backward, right), -backward])
        pose[:3, :3] = rotation
        pose[:3, 3] = -rotation @ (np.array(_TARGET) + _RADIUS * backward)
    return poses


def _photograph(
    camera_from_world: Float[np.ndarray, "4 4"],
    focal: float,
    size: tuple[int, int],
    rng: np.random.Generator,
    num_points: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image uint8 [h w 3], and some of the surface points that it shows with their colours."""
    height, width = size
    rotation, translation = camera_from_world[:3, :3], camera_from_world[:3, 3]
    rows, columns = np.mgrid[: height * _SAMPLES, : width * _SAMPLES]
    x = ((columns + 0.5) / _SAMPLES - 0.5 * width) / focal
    y = ((rows + 0.5) / _SAMPLES - 0.5 * height) / focal
    directions = rotation.T @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    directions = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
    origin = (-rotation.T @ translation)[:, None].astype(np.float32)
    distance, item = trace(origin, directions)
    hits = np.flatnonzero(item >= 0)
    points = origin + distance[hits] * directions[:, hits]
    sample = (2 * (rows % 2) + columns % 2).ravel()[hits]
    colors = shade(points, directions[:, hits], item[hits], sample)
    image = np.ones((3, x.size), np.float32)
    image[:, hits] = colors
    blocks = image.reshape(3, height, _SAMPLES, width, _SAMPLES).mean(axis=(2, 4))
    pixels = np.round(255 * blocks.transpose(1, 2, 0)).astype(np.uint8)
    chosen = rng.permutation(len(hits))[:num_points]
    return pixels, points[:, chosen].T, np.round(255 * colors[:, chosen].T).astype(np.uint8)
