"""Volume rendering against closed forms, its laws, its order of convergence, and its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.volumes import quadrature
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match
from tests.renderers.volumes.compiled import compiled

q = compiled(quadrature)


def samples(rays=4, count=12, seed=0):
    rng = np.random.default_rng(seed)
    density = rng.uniform(0, 8, (rays, count)) * (rng.uniform(size=(rays, count)) > 0.2)
    edges = np.sort(rng.uniform(0, 3, (rays, count + 1)), -1)
    return jnp.asarray(density, jnp.float32), jnp.asarray(edges, jnp.float32)


@pytest.mark.parametrize("kind", ["density", "alpha"])
def test_weights_by_the_products_of_the_paper(kind):
    density, edges = samples()
    lengths = jnp.diff(edges)
    alpha = np.asarray(q.alpha_from_density(density, lengths), np.float64)
    weights, transmittance = (
        q.weights_from_density(density, lengths)
        if kind == "density"
        else q.weights_from_alpha(jnp.asarray(alpha, jnp.float32))
    )
    for i in range(alpha.shape[1]):
        in_front = np.prod(1 - alpha[:, :i], -1)
        np.testing.assert_allclose(transmittance[:, i], in_front, rtol=1e-5)
        np.testing.assert_allclose(weights[:, i], in_front * alpha[:, i], rtol=1e-4, atol=1e-7)
    behind = transmittance[:, -1] * (1 - alpha[:, -1])
    np.testing.assert_allclose(weights.sum(-1) + behind, 1, atol=1e-6)


def test_a_slab_of_constant_density_in_closed_form():
    """Opacity 1 - exp(-sigma L); mean distance a + 1/sigma - L / (exp(sigma L) - 1); however it is cut."""
    sigma, a, length = 1.7, 0.6, 1.3
    edges = np.sort(np.concatenate([[0.0], np.linspace(a, a + length, 4001), [3.0]]))[None]
    density = ((edges[:, :-1] >= a) & (edges[:, :-1] < a + length)) * sigma
    edges, density = jnp.asarray(edges, jnp.float32), jnp.asarray(density, jnp.float32)
    weights, _ = q.weights_from_density(density, jnp.diff(edges))
    np.testing.assert_allclose(q.opacity(weights), 1 - np.exp(-sigma * length), rtol=1e-4)
    mean = a + 1 / sigma - length / (np.exp(sigma * length) - 1)
    middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
    np.testing.assert_allclose(q.expected_distance(weights, middles), mean, rtol=1e-3)
    median = a - np.log(1 - 0.5 * (1 - np.exp(-sigma * length))) / sigma
    np.testing.assert_allclose(q.median_distance(edges, weights), median, rtol=1e-3)
    second = 2 / sigma**2 - (length**2 + 2 * length / sigma) / (np.exp(sigma * length) - 1)
    np.testing.assert_allclose(q.distance_variance(weights, middles), second - (mean - a) ** 2, rtol=1e-2)
    whole, _ = q.weights_from_density(jnp.full((1, 1), sigma), jnp.full((1, 1), length))
    np.testing.assert_allclose(whole.sum(), 1 - np.exp(-sigma * length), rtol=1e-6)


def test_the_error_falls_with_the_square_of_the_step():
    """Density and colour vary smoothly: asked in the middles, the sum is of second order."""

    def samples_of(count, places):
        edges = np.concatenate([np.linspace(0, 2, count + 1), np.full(places - count, 2.0)])
        t = 0.5 * (edges[1:] + edges[:-1])
        return 2 + np.sin(5 * t), np.diff(edges), np.cos(3 * t)

    density, lengths, color = samples_of(1 << 16, 1 << 16)
    in_front = np.concatenate([[0.0], np.cumsum(density * lengths)])
    truth = np.sum(-np.diff(np.exp(-in_front)) * color)
    with jax.enable_x64(True):
        rows = [jnp.asarray(np.stack(v)) for v in zip(*(samples_of(n, 128) for n in (16, 32, 64, 128)), strict=True)]
        weights, _ = q.weights_from_density(rows[0], rows[1])
        errors = np.abs(np.asarray(q.composite(weights, rows[2][..., None]))[:, 0] - truth)
    slopes = np.diff(np.log2(errors))
    assert np.abs(slopes + 2).max() < 0.2, slopes


def test_a_sample_cut_in_two_changes_nothing():
    density, edges = samples()
    middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
    finer = jnp.sort(jnp.concatenate([edges, middles], -1), -1)
    whole, _ = q.weights_from_density(density, jnp.diff(edges))
    halves, _ = q.weights_from_density(jnp.repeat(density, 2, -1), jnp.diff(finer))
    np.testing.assert_allclose(halves.reshape(4, -1, 2).sum(-1), whole, atol=1e-6)


def test_an_opaque_background_makes_every_ray_opaque():
    density, edges = samples()
    weights, _ = q.weights_from_density(density * 0.01, jnp.diff(edges), opaque_background=True)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    weights, _ = q.weights_from_alpha(jnp.zeros((1, 3)), opaque_background=True)
    np.testing.assert_array_equal(weights, [[0, 0, 1]])


def test_any_number_of_channels_over_a_background():
    density, edges = samples()
    weights, _ = q.weights_from_density(density, jnp.diff(edges))
    values = jnp.ones((4, 12, 5))
    seen = q.over_background(q.composite(weights, values), q.opacity(weights), jnp.ones(5))
    np.testing.assert_allclose(seen, 1, atol=1e-6, err_msg="white before white is white")
    seen = q.over_background(q.composite(weights, 0 * values), q.opacity(weights), jnp.full((4, 5), 0.5))
    np.testing.assert_allclose(seen, 0.5 * (1 - weights.sum(-1))[:, None] * jnp.ones((4, 5)), atol=1e-6)


@pytest.mark.parametrize("density", [0.0, 1e-30, 1e30, 3e38])
def test_extreme_densities_and_empty_intervals_are_finite_with_their_gradients(density):
    lengths = jnp.array([[0.1, 0.0, 0.2, 0.0]])

    def seen(density, lengths, color):
        weights, transmittance = quadrature.weights_from_density(density, lengths)
        edges = jnp.concatenate([jnp.zeros((1, 1)), jnp.cumsum(lengths, -1)], -1)
        distances = quadrature.median_distance(edges, weights), quadrature.expected_distance(weights, edges[:, 1:])
        return quadrature.composite(weights, color), transmittance, distances

    assert_finite_gradients(seen, jnp.full((1, 4), density), lengths, jnp.ones((1, 4, 3)))


def test_alphas_of_nought_and_one_have_exact_gradients():
    """d/d alpha of the colour, by hand, where a division by 1 - alpha would fail."""
    alpha, color = jnp.array([[0.5, 1.0, 0.25, 0.0]]), jnp.array([[1.0, 2.0, 3.0, 5.0]])
    gradient = jax.grad(lambda a: jnp.sum(quadrature.weights_from_alpha(a)[0] * color))(alpha)
    # C = a0 c0 + (1-a0)(a1 c1 + (1-a1)(a2 c2 + (1-a2) a3 c3))
    np.testing.assert_allclose(gradient, [[1 - 2, 0.5 * (2 - 0.75), 0, 0]], atol=1e-6)


def test_gradients_are_differences():
    density, edges = samples(rays=2, count=5)
    with jax.enable_x64(True):
        density, edges = (jnp.asarray(a, jnp.float64) + 0.1 for a in (density, edges))

        def seen(density, edges):
            weights, transmittance = quadrature.weights_from_density(density, jnp.diff(edges))
            again, _ = quadrature.weights_from_alpha(quadrature.alpha_from_density(density, jnp.diff(edges)))
            return weights, transmittance, again, quadrature.median_distance(edges, weights)

        assert_gradients_match(seen, density, edges)
