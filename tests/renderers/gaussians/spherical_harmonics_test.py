"""Spherical harmonics against quadrature, scipy, the published table and their addition theorem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import sph_harm_y
from scipy.stats import special_ortho_group

from renderers.cameras.camera import Camera
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.harmonics import MAX_DEGREE, sh_basis
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match

DIRECTIONS = np.random.default_rng(0).normal(size=(50, 3))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)


def _basis(directions, degree=MAX_DEGREE):
    with jax.enable_x64(True):
        return np.asarray(sh_basis(jnp.asarray(directions), degree))


def _camera(center, dtype=np.float64):
    pose = np.eye(4)
    pose[:3, :3] = special_ortho_group.rvs(3, random_state=1)
    pose[:3, 3] = -pose[:3, :3] @ center
    arrays = (pose, np.asarray([50.0, 50.0]), np.asarray([8.0, 8.0]))
    return Camera(*(jnp.asarray(a, dtype) for a in arrays), (16, 16))


def test_orthonormal_on_the_sphere():
    """Gauss-Legendre in z times equal steps in azimuth integrate products of degree 8 exactly."""
    z, weights = np.polynomial.legendre.leggauss(8)
    azimuth = 2 * np.pi * np.arange(16) / 16
    z, azimuth = (a.ravel() for a in np.meshgrid(z, azimuth, indexing="ij"))
    radius = np.sqrt(1 - z**2)
    basis = _basis(np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], 1))
    gram = (basis * np.repeat(weights, 16)[:, None] * (2 * np.pi / 16)).T @ basis
    np.testing.assert_allclose(gram, np.eye(25), atol=1e-14)


def test_equals_scipy_with_the_condon_shortley_phase():
    """Index l^2 + l + m holds sqrt(2) Im Y_l^|m| for m < 0, Y_l^0, and sqrt(2) Re Y_l^m for m > 0."""
    x, y, z = DIRECTIONS.T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    basis = _basis(DIRECTIONS)
    for degree in range(MAX_DEGREE + 1):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), polar, azimuth)
            expected = value.real if order == 0 else np.sqrt(2) * (value.real if order > 0 else value.imag)
            np.testing.assert_allclose(basis[:, degree**2 + degree + order], expected, atol=1e-13)


def test_equals_the_published_table():
    """Constants and signs of the 3DGS files up to degree 3 (specs, gsplat_conventions.md)."""
    x, y, z = DIRECTIONS.T
    expected = [
        0.28209479 + 0 * x,
        *(-0.48860251 * y, 0.48860251 * z, -0.48860251 * x),
        *(1.0925484 * x * y, -1.0925484 * y * z, 0.31539157 * (3 * z * z - 1), -1.0925484 * x * z),
        *(0.54627422 * (x * x - y * y), -0.59004359 * y * (3 * x * x - y * y), 2.8906114 * x * y * z),
        *(-0.45704580 * y * (5 * z * z - 1), 0.37317633 * z * (5 * z * z - 3), -0.45704580 * x * (5 * z * z - 1)),
        *(1.4453057 * z * (x * x - y * y), -0.59004359 * x * (x * x - 3 * y * y)),
    ]
    np.testing.assert_allclose(_basis(DIRECTIONS, 3), np.stack(expected, 1), atol=2e-7)


def test_addition_theorem():
    basis = _basis(DIRECTIONS)
    for degree in range(MAX_DEGREE + 1):
        band = basis[:, degree**2 : (degree + 1) ** 2]
        np.testing.assert_allclose((band**2).sum(1), (2 * degree + 1) / (4 * np.pi), rtol=1e-13)


def _scene(k=25, channels=3, seed=2):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1.5, (9, k, channels)), rng.normal(size=(9, 3)) * 2


@pytest.mark.parametrize("degree", range(MAX_DEGREE + 1))
def test_colours_are_the_sum_over_the_basis_in_the_viewing_direction(degree):
    coefficients, means = _scene()
    center = np.asarray([0.5, -1.0, 2.0])
    direction = (means - center) / np.linalg.norm(means - center, axis=1, keepdims=True)
    basis = _basis(direction)[:, : (degree + 1) ** 2]
    expected = np.maximum(np.einsum("nk,nkc->nc", basis, coefficients[:, : (degree + 1) ** 2]) + 0.5, 0)
    with jax.enable_x64(True):
        found = sh_colors(jnp.asarray(coefficients), jnp.asarray(means), _camera(center), degree)
    assert (expected == 0).any() and (expected > 0.1).any()
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_gradients_equal_central_differences():
    with jax.enable_x64(True):
        coefficients, means = (jnp.asarray(a) for a in _scene(channels=2))
        camera = _camera(np.asarray([0.5, -1.0, 2.0]))

        def colors(coefficients, means, camera):
            return sh_colors(coefficients, means, camera, 4)

        assert_gradients_match(colors, coefficients, means, camera, max_entries=24)


def test_a_gaussian_at_the_camera_has_a_colour_and_finite_gradients():
    coefficients, means = (jnp.asarray(a, jnp.float32) for a in _scene())
    camera = _camera(np.zeros(3), np.float32)
    means = means.at[0].set(0.0).at[1].set(1e-30)
    assert_finite_gradients(lambda c, m: sh_colors(c, m, camera, 4), coefficients, means)


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.4, got 5"):
        sh_basis(jnp.ones((1, 3)), 5)
    with pytest.raises(ValueError, match="needs 16 coefficients a channel, got 9"):
        sh_colors(jnp.zeros((2, 9, 3)), jnp.ones((2, 3)), _camera(np.zeros(3), np.float32), 3)
