import math

import jax.numpy as jnp
import numpy as np
import pytest

from generators.multiview.pose import camera_axes, cell_rays, with_waves

_ANGLE = math.radians(40.0)


def rigid(rng):
    """A random pose, camera_from_world."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = rotation * np.sign(np.linalg.det(rotation)), rng.normal(size=3)
    return pose


@pytest.fixture
def poses():
    rng = np.random.default_rng(0)
    return jnp.asarray(np.stack([rigid(rng) for _ in range(3)])[None])


def test_rays_pass_through_the_centres_of_cells(poses):
    """A point of the ray, anywhere along it, projects into the middle of the cell and has the ray's moment."""
    cells = 3
    rays = np.asarray(cell_rays(poses, cells, _ANGLE))[0]
    for view, pose in enumerate(np.asarray(poses)[0]):
        center = -pose[:3, :3].T @ pose[:3, 3]
        direction, moment = rays[view, :, :3], rays[view, :, 3:]
        for along in (0.5, 2.0):
            points = center + along * direction
            np.testing.assert_allclose(np.cross(points, direction), moment, atol=2e-5)
            at = points @ pose[:3, :3].T + pose[:3, 3]
            columns_rows = (at[:, :2] / at[:, 2:] / math.tan(_ANGLE / 2) + 1) * cells / 2
            expected = [(column + 0.5, row + 0.5) for row in range(cells) for column in range(cells)]
            np.testing.assert_allclose(columns_rows, expected, atol=1e-4)


def test_pluecker_coordinates_move_with_the_world(poses):
    """Under x' = R x + t a line (d, m) becomes (R d, R m + t x R d), and d m = 0 stays."""
    move = rigid(np.random.default_rng(7))
    rays = np.asarray(cell_rays(poses, 2, _ANGLE))
    moved = cell_rays(jnp.asarray(np.asarray(poses) @ np.linalg.inv(move)), 2, _ANGLE)
    direction = rays[..., :3] @ move[:3, :3].T
    moment = rays[..., 3:] @ move[:3, :3].T + np.cross(move[:3, 3], direction)
    np.testing.assert_allclose(moved, np.concatenate([direction, moment], -1), atol=3e-5)
    np.testing.assert_allclose(np.sum(rays[..., :3] * rays[..., 3:], -1), 0, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(rays[..., :3], axis=-1), 1, atol=1e-6)


def test_axes_are_those_of_the_camera_in_the_world(poses):
    axes = np.asarray(camera_axes(poses)).reshape(3, 3, 3)
    forward = np.linalg.inv(np.asarray(poses)[0])[:, :3, :3] @ np.array([0, 0, 1.0])
    np.testing.assert_allclose(axes[:, 2], forward, atol=1e-5)


def test_waves_stand_beside_the_features():
    found = with_waves(jnp.array([[0.3]]))
    expected = [0.3, math.sin(0.6), math.cos(0.6), math.sin(1.2), math.cos(1.2)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
