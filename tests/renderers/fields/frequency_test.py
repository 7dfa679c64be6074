"""Positional and integrated encodings: definition, limits, Monte Carlo, and windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.fields.frequency import (
    FrequencyEncoding,
    IntegratedEncoding,
    band_windows,
    icosahedral_basis,
    integrated_encoding,
    lifted_gaussian,
    positional_encoding,
)


def test_the_columns_by_hand():
    found = positional_encoding(jnp.asarray([[0.5, -0.25]]), 2, pi=True, identity=True)[0]
    root = np.sqrt(0.5)
    expected = [0.5, -0.25, 1, -root, 0, root, 0, -1, -1, 0]  # x; sin, cos of pi x; of 2 pi x
    np.testing.assert_allclose(found, expected, atol=1e-6)
    plain = positional_encoding(jnp.asarray([[0.5, -0.25]]) * jnp.pi, 2)
    np.testing.assert_allclose(plain[0], expected[2:], atol=1e-6)
    shifted = positional_encoding(jnp.asarray([[0.5, -0.25]]) * jnp.pi, 1, first_band=1)
    np.testing.assert_allclose(shifted[0], expected[6:], atol=1e-6)


def test_modules_say_how_many_features_they_have():
    points = jnp.ones((2, 5, 3))
    for module in (FrequencyEncoding(10), FrequencyEncoding(4, identity=False), FrequencyEncoding(0)):
        assert module(points).shape == (2, 5, module.num_features)
    for module in (IntegratedEncoding(16), IntegratedEncoding(3, directions=2)):
        assert module(points, jnp.ones((2, 5, 3, 3))).shape == (2, 5, module.num_features)


def test_a_gaussian_without_width_is_its_mean_and_a_wide_one_is_nothing():
    mean = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    sharp = integrated_encoding(mean, jnp.zeros_like(mean), 6)
    np.testing.assert_array_equal(sharp, positional_encoding(mean, 6))
    np.testing.assert_allclose(integrated_encoding(mean, jnp.full_like(mean, 100.0), 6), 0, atol=1e-20)


def test_integrated_encoding_is_the_mean_over_samples():
    """Along lifted directions of a full covariance; 3 standard errors of 200,000 samples."""
    rng = np.random.default_rng(0)
    mean, root = rng.normal(size=3), 0.4 * rng.normal(size=(3, 3))
    samples, basis = mean + rng.normal(size=(200_000, 3)) @ root.T, icosahedral_basis(1)
    lifted = lifted_gaussian(jnp.asarray(mean), jnp.asarray(root @ root.T), jnp.asarray(basis))
    angles = (samples @ basis.T)[:, None] * np.array([[1.0], [2.0]])
    expected = np.concatenate([np.sin(angles), np.cos(angles)], -1).mean(0).ravel()
    np.testing.assert_allclose(integrated_encoding(*lifted, 2), expected, atol=3 / np.sqrt(200_000))


@pytest.mark.parametrize(("subdivisions", "count"), [(1, 6), (2, 21), (3, 46)])
def test_icosahedral_directions_are_unit_distinct_and_isotropic(subdivisions, count):
    basis = icosahedral_basis(subdivisions)
    assert basis.shape == (count, 3)
    np.testing.assert_allclose(np.linalg.norm(basis, axis=1), 1, atol=1e-12)
    assert np.abs(basis @ basis.T - np.diag(np.diag(basis @ basis.T))).max() < 1 - 1e-3
    np.testing.assert_allclose(basis.T @ basis, np.eye(3) * count / 3, atol=1e-9)


def test_windows_open_one_band_after_the_other():
    np.testing.assert_allclose(band_windows(0.0, 4), 0, atol=1e-7)
    np.testing.assert_allclose(band_windows(1.0, 4), 1, atol=1e-6)
    np.testing.assert_allclose(band_windows(0.375, 4), [1, 0.5, 0, 0], atol=1e-6)
    points = jnp.full((1, 3), 0.3)
    half = positional_encoding(points, 4, identity=True, windows=jax.jit(band_windows, static_argnums=1)(0.375, 4))
    factors = np.concatenate([np.ones(3), np.repeat([1, 0.5, 0, 0], 6)])
    np.testing.assert_allclose(
        half[0], np.asarray(positional_encoding(points, 4, identity=True)[0]) * factors, atol=1e-6
    )
