"""Normals from depth on surfaces whose normals are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera, camera_center, viewing_directions
from renderers.gaussians.surface_normals import depth_to_normals
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match
from tests.renderers.gaussians import scenes

SIZE = (24, 31)
MODELS = ("pinhole", "orthographic", "fisheye")


def _rays(camera):
    """Origins and directions in the camera's frame, float64; depth is the coordinate z."""
    y, x = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5, indexing="ij")
    pixels = np.stack([x, y], -1)
    directions = np.asarray(viewing_directions(camera, jnp.asarray(pixels))[0], np.float64)
    plane = (pixels - np.asarray(camera.principal)) / np.asarray(camera.focal)
    origins = (
        np.concatenate([plane, np.zeros((*SIZE, 1))], -1) if camera.model == "orthographic" else np.zeros((*SIZE, 3))
    )
    return origins, directions


def _camera(model):
    return scenes.camera(model, SIZE, dtype=np.float64)


@pytest.mark.parametrize("model", MODELS)
def test_of_a_plane_are_the_planes(model):
    with jax.enable_x64(True):
        camera = _camera(model)
        origins, directions = _rays(camera)
        normal = np.asarray([0.3, -0.2, -0.933])
        normal /= np.linalg.norm(normal)
        distance = (np.asarray([0.1, 0.2, 3.0]) - origins) @ normal / (directions @ normal)
        depth = (origins + directions * distance[..., None])[..., 2]
        found = np.asarray(depth_to_normals(jnp.asarray(depth), camera))
        in_world = np.asarray(camera.camera_from_world)[:3, :3].T @ normal
        np.testing.assert_allclose(
            found[1:-1, 1:-1], np.broadcast_to(in_world, (SIZE[0] - 2, SIZE[1] - 2, 3)), atol=1e-12
        )
        border = np.ones(SIZE, bool)
        border[1:-1, 1:-1] = False
        assert not found[border].any()


def test_of_a_sphere_point_along_its_radii():
    """The error of central differences is quadratic in the pixel: a quarter at twice the resolution."""

    def worst(scale):
        size = (SIZE[0] * scale, SIZE[1] * scale)
        base = _camera("pinhole")
        camera = Camera(base.camera_from_world, base.focal * scale, base.principal * scale, size)
        y, x = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
        directions = np.asarray(viewing_directions(camera, jnp.asarray(np.stack([x, y], -1)))[0])
        centre, radius = np.asarray([0.1, -0.1, 4.0]), 2.5
        along = directions @ centre
        inside = along**2 - (centre @ centre - radius**2)
        seen = inside > 0.5
        points = directions * (along - np.sqrt(np.maximum(inside, 0.5)))[..., None]
        found = np.asarray(depth_to_normals(jnp.asarray(points[..., 2]), camera)) @ base.camera_from_world[:3, :3].T
        interior = np.zeros(size, bool)
        interior[scale:-scale, scale:-scale] = True
        neighbours = seen & np.roll(seen, 1, 0) & np.roll(seen, -1, 0) & np.roll(seen, 1, 1) & np.roll(seen, -1, 1)
        kept = interior & neighbours
        assert kept.sum() > 300
        return np.abs(found - (points - centre) / radius)[kept].max()

    with jax.enable_x64(True):
        coarse, fine = worst(1), worst(2)
        assert coarse < 5e-3
        assert 3.5 < coarse / fine < 4.5


def test_face_the_camera_and_are_unit_or_zero():
    with jax.enable_x64(True):
        camera = _camera("pinhole")
        depth = jnp.asarray(np.random.default_rng(0).uniform(3.0, 3.02, SIZE)).at[:5, :5].set(0.0)
        found = np.asarray(depth_to_normals(depth, camera))
        lengths = np.linalg.norm(found, axis=-1)
        assert np.allclose(lengths[6:-1, 6:-1], 1.0) and not found[1:4, 1:4].any()
        assert not np.isnan(found).any()
        towards = np.asarray(camera_center(camera)) / np.linalg.norm(camera_center(camera))
        assert (found[6:-1, 6:-1] @ towards > 0).all()


def test_gradients_equal_central_differences_and_are_finite_where_points_coincide():
    with jax.enable_x64(True):
        base = scenes.camera("pinhole", (5, 6), dtype=np.float64)
        depth = jnp.asarray(np.random.default_rng(1).uniform(3.0, 3.3, (5, 6)))

        def normals(depth, pose, focal):
            return depth_to_normals(depth, Camera(pose, focal, base.principal, base.size))

        assert_gradients_match(normals, depth, base.camera_from_world, base.focal, max_entries=12)
        assert_finite_gradients(normals, jnp.zeros((5, 6)), base.camera_from_world, base.focal)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected a depth map of the camera's size \(24, 31\), got \(31, 24\)"):
        depth_to_normals(jnp.ones((31, 24)), scenes.camera(size=SIZE))
