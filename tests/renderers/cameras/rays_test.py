"""Rays: they hit the pixels that they come from, and their cones add up to the solid angle of the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera, project
from renderers.cameras.pose import se3_exp
from renderers.cameras.rays import camera_rays, footprint_radii, pixel_grid, ray_points
from tests.helpers.close import assert_close
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match
from tests.helpers.records import assert_record

LENSES = {
    "pinhole": ("pinhole", None),
    "orthographic": ("orthographic", None),
    "fisheye": ("fisheye", None),
    "pinhole-opencv": ("pinhole", [0.05, -0.08, -1e-3, 2e-4]),
    "fisheye-kb": ("fisheye", [-0.02, 0.005, -0.001, 0.0002]),
}
SIZE = (9, 12)
_camera_rays = jax.jit(camera_rays)


def make_camera(name, dtype=jnp.float32):
    model, distortion = LENSES[name]
    return Camera(
        se3_exp(jnp.asarray([0.3, -0.5, 0.2, 0.1, -0.4, 2.0], dtype)),
        jnp.asarray([10.0, 11.0], dtype),
        jnp.asarray([6.2, 4.4], dtype),
        SIZE,
        model,
        None if distortion is None else jnp.asarray(distortion, dtype),
    )


@pytest.mark.parametrize("name", LENSES)
def test_points_on_a_ray_project_to_its_pixel(name):
    with jax.enable_x64(True):
        camera = make_camera(name, jnp.float64)
        rays = _camera_rays(camera)
        assert_record(rays)
        assert rays.valid.all()
        assert_close(jnp.linalg.norm(rays.directions, axis=-1), np.ones(SIZE), atol=1e-14)
        rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
        for distance in (0.5, 1e4):
            pixels, _ = project(camera, ray_points(rays, jnp.full(SIZE, distance)))
            # gsplat's epsilon in the fisheye is 1e-7 m: f * 1e-7 / 0.5 pixels, nothing far away.
            tolerance = 4e-6 if camera.model == "fisheye" and distance < 1.0 else 1e-9
            assert_close(pixels, np.stack([columns, rows], -1), atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["orthographic", "pinhole-opencv"])
def test_a_subset_of_pixels_gives_the_same_rays(name):
    camera = make_camera(name)
    everything, some = _camera_rays(camera), _camera_rays(camera, pixel_grid(camera)[2:5, 7])
    for whole, part in zip(jax.tree.leaves(everything), jax.tree.leaves(some), strict=True):
        np.testing.assert_allclose(part, whole[2:5, 7], atol=1e-6)


def test_cones_of_a_pinhole_fill_the_solid_angle_of_its_pyramid():
    with jax.enable_x64(True):
        a, b = 0.7, 0.4
        height, width = 80, 120
        focal = jnp.asarray([width / (2 * a), height / (2 * b)])
        camera = Camera(jnp.eye(4), focal, jnp.asarray([width / 2, height / 2]), (height, width))
        pixel_areas = 3.0 * _camera_rays(camera).radii ** 2  # radius = 2 / sqrt(12) width
        expected = 4.0 * np.arcsin(a * b / np.sqrt((1 + a * a) * (1 + b * b)))
        np.testing.assert_allclose(jnp.sum(pixel_areas), expected, rtol=1e-4)  # midpoint rule, 1 / 80^2


@pytest.mark.parametrize("coefficients", [None, (-0.02, 0.005)])
def test_cones_of_a_fisheye_fill_its_cap_whatever_the_lens(coefficients):
    with jax.enable_x64(True):
        size = 300
        distortion = None if coefficients is None else jnp.asarray(coefficients)
        camera = Camera(
            jnp.eye(4), jnp.full(2, 90.0), jnp.full(2, size / 2), (size, size), "fisheye", distortion=distortion
        )
        rays = _camera_rays(camera)
        inside = rays.directions[..., 2] > np.cos(1.2)
        expected = 2.0 * np.pi * (1.0 - np.cos(1.2))
        np.testing.assert_allclose(jnp.sum(3.0 * rays.radii**2, where=inside), expected, rtol=3e-3)  # jagged rim
        assert np.all(rays.base_radii == 0.0)


def test_an_orthographic_ray_is_a_cylinder_of_the_pixels_size():
    rays = _camera_rays(make_camera("orthographic"))
    width = np.sqrt(1 / 10.0 * 1 / 11.0)
    for distance in (0.0, 5.0):
        radii = footprint_radii(rays, jnp.full(SIZE, distance))
        np.testing.assert_allclose(radii, 2 / np.sqrt(12) * width, rtol=1e-5)


@pytest.mark.slow
def test_pixels_past_the_fold_are_marked_and_finite():
    camera = Camera(jnp.eye(4), jnp.full(2, 4.0), jnp.full(2, 8.0), (16, 16), distortion=jnp.asarray([-0.3]))
    rays = _camera_rays(camera)
    assert not rays.valid[0, 0] and rays.valid[8, 8]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rays))
    assert_finite_gradients(lambda c: camera_rays(c).directions, camera)


@pytest.mark.parametrize("name", LENSES)
def test_gradients_of_rays_to_the_camera(name):
    with jax.enable_x64(True):
        camera = make_camera(name, jnp.float64)
        pixels = jnp.asarray([[1.5, 2.5], [10.0, 7.3]])
        outputs = lambda c, p: (camera_rays(c, p).origins, camera_rays(c, p).directions)  # noqa: E731
        assert_gradients_match(outputs, camera, pixels, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", LENSES)
def test_float32_stays_float32_under_x64(name):
    with jax.enable_x64(True):
        rays = jax.eval_shape(camera_rays, make_camera(name, jnp.float32))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(rays)} == {"float32", "bool"}


def test_vmap_over_cameras():
    views = [make_camera("pinhole"), make_camera("pinhole")]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)
    rays = jax.jit(jax.vmap(camera_rays))(stacked)
    np.testing.assert_allclose(rays.directions[1], _camera_rays(views[1]).directions, atol=1e-6)
