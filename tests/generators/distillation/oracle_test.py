import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.distillation.oracle import (
    gaussian_posterior_mean,
    posterior_mean,
    posterior_noise,
    posterior_score,
    posterior_weights,
)
from tests.generators.distillation.worlds import TABLE, arrays, smooth_images


def bayes(noisy, clean_set, alpha, sigma, log_weights):
    """Weights and mean by Bayes' rule, one picture at a time, in float64."""
    noisy, clean_set = np.asarray(noisy, np.float64), np.asarray(clean_set, np.float64)
    weights, means = [], []
    for z, a, s in zip(noisy, alpha, sigma, strict=True):
        exponents = np.array([-np.sum((z - a * x) ** 2) / (2 * s**2) for x in clean_set]) + log_weights
        p = np.exp(exponents - exponents.max())
        weights.append(p / p.sum())
        means.append(np.tensordot(weights[-1], clean_set, 1))
    return np.array(weights), np.array(means)


def example(sigma, count=6, size=12):
    """Noisy pictures of a set between whose members the noise leaves a choice."""
    base = smooth_images(1, size)
    spread = min(3.0 * sigma / np.sqrt(base.size), 1.0)
    images = jnp.repeat(base, count, axis=0) + spread * arrays((count, *base.shape[1:]), 2)
    alpha = float(np.sqrt(1 - sigma**2))
    return alpha * images[:3] + sigma * arrays((3, *base.shape[1:]), 3), images, alpha


@pytest.mark.parametrize("sigma", [0.003, 0.05, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("size", [4, 60])
def test_the_mean_is_that_of_bayes_rule(sigma, size):
    """In float32, also where the exponents are a thousand times the differences that count (60 x 60, sigma 0.003)."""
    noisy, images, alpha = example(sigma, size=size)
    log_weights = jnp.log(jnp.arange(1.0, 7.0))
    weights, mean = bayes(noisy, images, [alpha] * 3, [sigma] * 3, np.log(np.arange(1.0, 7.0)))
    assert np.max(np.sort(weights, axis=1)[:, :-1]) > 1e-3  # there is a choice
    # The pictures themselves are rounded to 6e-8, which moves exponents by sqrt(n) 6e-8 spread / sigma^2.
    atol = 2e-5 + 1e-6 / sigma
    np.testing.assert_allclose(posterior_weights(noisy, images, alpha, sigma, log_weights), weights, atol=atol)
    if size == 4:
        found = posterior_mean(noisy, images, alpha, sigma, log_weights)
        np.testing.assert_allclose(found, mean, atol=2e-6 + atol * np.ptp(images, axis=0).max())


@pytest.mark.slow
def test_each_picture_of_a_batch_has_its_own_level():
    images = smooth_images(5)
    t = jnp.array([30, 400, 970])
    alpha, sigma = TABLE.alpha(t), TABLE.sigma(t)
    noisy = 0.8 * images[:3] + 0.3 * arrays(images[:3].shape)
    _, mean = bayes(noisy, images, np.asarray(alpha), np.asarray(sigma), np.zeros(5))
    np.testing.assert_allclose(posterior_mean(noisy, images, alpha, sigma), mean, atol=1e-5)
    a, s = (np.asarray(v)[:, None, None, None] for v in (alpha, sigma))
    noise = posterior_noise(noisy, images, alpha, sigma)
    np.testing.assert_allclose(noise, (np.asarray(noisy) - a * mean) / s, atol=1e-4)


def test_the_score_is_the_slope_of_the_log_density():
    """log p(z) = logsumexp of the exponents: its derivative by jax, and by central differences, in float64."""
    with jax.enable_x64(True):
        noisy, images, alpha = example(0.4, size=4)
        noisy, images, sigma = noisy.astype(jnp.float64), images.astype(jnp.float64), 0.4
        log_weights = jnp.log(jnp.arange(1.0, 7.0))

        @jax.jit
        def log_density(z):
            exponents = -jnp.sum((z[None] - alpha * images) ** 2, axis=(1, 2, 3)) / (2 * sigma**2)
            return jax.scipy.special.logsumexp(exponents + log_weights)

        slope = jax.vmap(jax.grad(log_density))(noisy)
        score = jax.jit(posterior_score)(noisy, images, alpha, sigma, log_weights)
        np.testing.assert_allclose(score, slope, atol=1e-11)
        step = jnp.zeros(noisy.shape[1:]).at[1, 2, 0].set(1e-5)
        central = (log_density(noisy[0] + step) - log_density(noisy[0] - step)) / 2e-5
        np.testing.assert_allclose(score[0, 1, 2, 0], central, rtol=1e-6)


def test_the_derivative_of_the_mean_is_the_posterior_covariance():
    """Tweedie of second order: d mean / d z = alpha / sigma^2 Cov(x_0 | z)."""
    noisy, images, alpha = example(0.4, size=2)
    n = noisy[:1].size
    jacobian = jax.jit(jax.jacrev(lambda z: posterior_mean(z, images, alpha, 0.4)))(noisy[:1]).reshape(n, n)
    weights, mean = bayes(noisy[:1], images, [alpha], [0.4], np.zeros(6))
    centred = np.asarray(images).reshape(6, n) - mean.reshape(1, n)
    covariance = alpha / 0.4**2 * np.einsum("k,ki,kj->ij", weights[0], centred, centred)
    np.testing.assert_allclose(jacobian, covariance, atol=1e-5 * np.max(np.abs(covariance)))
    assert np.max(np.abs(covariance)) > 0.05


def test_pure_noise_tells_nothing_and_no_noise_everything():
    images = smooth_images(5)
    noise = arrays(images.shape)
    prior = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.15, 0.25]))
    mean = jnp.tensordot(jnp.exp(prior), images, 1)
    np.testing.assert_allclose(posterior_mean(noise, images, 0.0, 1.0, prior), jnp.stack([mean] * 5), atol=1e-6)
    np.testing.assert_array_equal(posterior_mean(images + 1e-3 * noise, images, 1.0, 0.0), images)


def test_a_picture_of_no_weight_is_not_there():
    images = smooth_images(5)
    weights = jnp.array([-jnp.inf, 0.0, 0.0, -jnp.inf, -jnp.inf])
    for sigma in (0.01, 0.6, 0.99):
        alpha = (1 - sigma**2) ** 0.5
        noisy = alpha * images + sigma * arrays(images.shape, 4)
        found = posterior_mean(noisy, images, alpha, sigma, weights)
        np.testing.assert_allclose(found, posterior_mean(noisy, images[1:3], alpha, sigma), atol=1e-6)


def test_a_normal_prior_agrees_with_quadrature():
    x = np.linspace(-12, 12, 40001)
    mean, variance, alpha, sigma = 0.5, 0.8, 0.7, 0.6
    for z in (-2.0, 0.1, 3.0):
        density = np.exp(-((x - mean) ** 2) / (2 * variance) - (z - alpha * x) ** 2 / (2 * sigma**2))
        expected = np.sum(x * density) / np.sum(density)
        found = gaussian_posterior_mean(jnp.full((1, 1), z), jnp.full(1, mean), jnp.full(1, variance), alpha, sigma)
        np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)
