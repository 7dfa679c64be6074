"""Tiny captures for the tests of field fits."""

import numpy as np

from experiments.data.capture_record import Capture


def ball_capture(*, views: int = 6, size: tuple[int, int] = (24, 32), radius: float = 0.5, distortion=None) -> Capture:
    """A red-to-green ball about (1, 0, 2) with exact silhouettes, seen from all sides at a distance of 3."""
    height, width = size
    focal, principal = 1.4 * height, np.array([0.5 * width, 0.5 * height])
    center = np.array([1.0, 0.0, 2.0])
    poses, images = [], []
    for view in range(views):
        sine, turn = 0.9 * (1 - (2 * view + 1) / views), view * np.pi * (3 - 5**0.5)  # spread by the golden angle
        backward = np.array([np.cos(turn) * np.sqrt(1 - sine**2), sine, np.sin(turn) * np.sqrt(1 - sine**2)])
        right = np.cross([0.0, 1.0, 0.0], backward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, -np.cross(backward, right), -backward])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ (center + 3 * backward)
        rows, columns = np.mgrid[:height, :width] + 0.5
        local = np.stack([(columns - principal[0]) / focal, (rows - principal[1]) / focal, np.ones(size)], -1)
        directions = local / np.linalg.norm(local, axis=-1, keepdims=True) @ rotation
        along = -3 * directions @ backward
        closest = np.linalg.norm(3 * backward + along[..., None] * directions, axis=-1)
        hit = closest < radius
        point = 3 * backward + (along - np.sqrt(np.maximum(radius**2 - closest**2, 0)))[..., None] * directions
        image = np.zeros((*size, 4), np.uint8)
        image[..., 0] = np.where(hit, 128 + 120 * point[..., 0] / radius, 0)
        image[..., 1] = np.where(hit, 128 + 120 * point[..., 1] / radius, 0)
        image[..., 3] = 255 * hit
        poses.append(pose)
        images.append(image)
    return Capture(
        names=tuple(f"{i:03d}.png" for i in range(views)),
        images=tuple(images),
        camera_from_world=np.stack(poses),
        focal=np.full((views, 2), focal),
        principal=np.tile(principal, (views, 1)),
        distortion=distortion,
        white_background=True,
    )
