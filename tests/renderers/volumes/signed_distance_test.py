"""Alphas and densities of signed distances: what a plane, a slanted ray and a thin wall must look like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.volumes import quadrature, signed_distance
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match
from tests.renderers.volumes.compiled import compiled

sd, q = compiled(signed_distance), compiled(quadrature)


@pytest.mark.parametrize("cosine", [-1.0, -0.3])
def test_neus_sees_a_plane_where_it_is(cosine):
    """Unbiased: median, mode and, but for the interval's width, mean of the weights lie on the first hit."""
    edges, hit, sharpness = np.linspace(0, 4, 801)[None], 1.73, 60.0
    middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
    distance = jnp.asarray((hit - middles) * -cosine, jnp.float32)
    alpha = sd.alpha_from_distance(
        distance, jnp.full_like(distance, cosine), jnp.full_like(distance, 4 / 800), jnp.asarray(sharpness)
    )
    weights, _ = q.weights_from_alpha(alpha)
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-5)
    assert abs(middles[0, np.argmax(weights)] - hit) < 0.01
    median = q.median_distance(jnp.asarray(edges, jnp.float32), weights)
    np.testing.assert_allclose(median, hit, atol=0.01)
    np.testing.assert_allclose(q.expected_distance(weights, jnp.asarray(middles, jnp.float32)), hit, atol=0.02)


def test_neus_weights_are_the_logistic_distribution_however_the_ray_is_cut():
    """Telescoping: transmittance is Phi(f(t)) / Phi(f(0)), exactly, for any intervals (eq. 12)."""
    edges = np.sort(np.random.default_rng(0).uniform(0, 2, 20))
    f = jnp.asarray(1.0 - edges, jnp.float32)
    alpha = sd.alpha_between(f[:-1], f[1:], jnp.asarray(8.0))
    transmittance = np.cumprod(1 - np.asarray(alpha))
    phi = 1 / (1 + np.exp(-8.0 * (1.0 - edges)))
    np.testing.assert_allclose(transmittance, phi[1:] / phi[0], rtol=1e-4)


def test_neus_sees_nothing_where_the_ray_leaves():
    f = jnp.linspace(-1, 1, 9)
    assert not sd.alpha_between(f[:-1], f[1:], jnp.asarray(8.0)).any()
    away = sd.alpha_from_distance(f, jnp.full(9, 0.7), jnp.full(9, 0.1), jnp.asarray(8.0))
    assert not away.any()
    annealed = signed_distance.alpha_from_distance(f, jnp.full(9, 0.7), jnp.full(9, 0.1), jnp.asarray(8.0), anneal=0.0)
    assert (annealed > 0).all(), "at the start of training there is a gradient everywhere"


def test_neus_is_finite_far_from_the_surface_and_at_any_sharpness():
    f = jnp.array([-1e3, -1.0, 0.0, 1.0, 1e3])
    for sharpness in (1e-3, 1e6):
        assert_finite_gradients(
            lambda f, s: signed_distance.alpha_from_distance(f, jnp.full(5, -0.5), jnp.full(5, 0.01), s),
            f,
            jnp.asarray(sharpness),
        )
    deep = sd.alpha_from_distance(f[:1], jnp.full(1, -1.0), jnp.full(1, 0.1), jnp.asarray(100.0))
    np.testing.assert_allclose(deep, 1 - np.exp(-10), rtol=1e-4, err_msg="where Phi itself is zero in float32")


def test_volsdf_is_the_laplace_distribution():
    beta, f = 0.1, np.linspace(-1, 1, 20001)
    density = np.asarray(sd.density_from_distance(jnp.asarray(f, jnp.float32), jnp.asarray(beta)))
    slope = np.gradient(-beta * density, f)
    np.testing.assert_allclose(slope[1:-1], np.exp(-np.abs(f) / beta)[1:-1] / (2 * beta), atol=3e-2)
    np.testing.assert_allclose(density[[0, 10000, -1]], [10, 5, 5 * np.exp(-10)], rtol=1e-3)


def test_volsdf_sees_a_plane_as_beta_shrinks():
    edges = jnp.linspace(0, 2, 4001)[None]
    middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
    errors = []
    for beta in (0.04, 0.02, 0.01):
        density = sd.density_from_distance(1.3 - middles, jnp.asarray(beta))
        weights, _ = q.weights_from_density(density, jnp.diff(edges))
        errors.append(abs(float(q.median_distance(edges, weights)[0]) - 1.3))
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.05, err_msg="linear in beta")


def test_gradients_are_differences():
    with jax.enable_x64(True):
        f = jnp.asarray([-0.3, -0.01, 0.02, 0.4])
        assert_gradients_match(
            lambda f, c, s, b: (
                signed_distance.alpha_from_distance(f, c, jnp.full(4, 0.1), s, anneal=0.3),
                signed_distance.density_from_distance(f, b),
            ),
            f,
            jnp.asarray([-0.9, -0.2, 0.3, -0.5]),
            jnp.asarray(12.0),
            jnp.asarray(0.1),
        )
