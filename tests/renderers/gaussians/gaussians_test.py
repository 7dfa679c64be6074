"""Splats made from points: scales by brute-force neighbours, colours and opacities that activate to what was asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import from_points, sh_degree
from renderers.gaussians.spherical_harmonics import sh_colors
from tests.helpers.records import assert_record

RNG = np.random.default_rng(0)
POINTS, COLORS = RNG.normal(size=(40, 3)), RNG.uniform(size=(40, 3))


def test_scales_are_the_root_mean_square_of_three_neighbour_distances():
    gaussians = from_points(POINTS, COLORS, scale_factor=0.7)
    assert_record(gaussians)
    distances = np.linalg.norm(POINTS[:, None] - POINTS[None], axis=-1)
    nearest = np.sort(distances, axis=1)[:, 1:4]
    expected = 0.7 * np.sqrt((nearest**2).mean(1))
    np.testing.assert_allclose(np.exp(gaussians.log_scales), np.repeat(expected[:, None], 3, 1), rtol=1e-5)


@pytest.mark.parametrize("degree", [0, 3])
def test_activates_to_the_colours_and_opacity_given(degree):
    gaussians = from_points(POINTS, COLORS, degree=degree, opacity=0.25)
    camera = Camera(jnp.eye(4), jnp.ones(2), jnp.ones(2), (2, 2))
    assert sh_degree(gaussians) == degree
    np.testing.assert_allclose(sh_colors(gaussians.sh, gaussians.means, camera, degree), COLORS, atol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(gaussians.opacity_logits), 0.25, rtol=1e-6)
    np.testing.assert_array_equal(gaussians.means, POINTS.astype(np.float32))


def test_coincident_points_stay_finite():
    points = np.concatenate([np.zeros((6, 3)), POINTS])
    gaussians = from_points(points, np.zeros((46, 3)))
    scales = np.exp(np.asarray(gaussians.log_scales[:6]))
    assert (scales > 0).all() and (scales < 1e-5).all()
    assert np.isfinite(from_points(np.zeros((5, 3)), np.zeros((5, 3))).log_scales).all()


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="at least 4 points.*got 3"):
        from_points(POINTS[:3], COLORS[:3])
