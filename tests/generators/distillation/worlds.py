"""Denoisers that are known exactly: of a normal distribution, and of a finite set of images."""

import jax
import jax.numpy as jnp
import numpy as np

from generators.diffusion.process import factors
from generators.diffusion.schedules import scaled_linear
from generators.distillation.oracle import gaussian_posterior_mean, posterior_noise

TABLE = scaled_linear()
KEY = jax.random.key(5, impl="unsafe_rbg")  # compiles in a fraction of the time


def normal(mean, variance):
    """eps of N(mean, variance), each element for itself: sigma (z - alpha mean) / (alpha^2 variance + sigma^2)."""

    def denoise(z, t, key):
        alpha, sigma = factors(TABLE, t, z)
        return sigma * (z - alpha * mean) / (alpha**2 * variance + sigma**2)

    return denoise


def one_of(images, log_weights=None):
    """eps of a picture drawn from a set."""
    return lambda z, t, key: posterior_noise(z, images, TABLE.alpha(t), TABLE.sigma(t), log_weights)


def broad(images):
    """eps of a normal distribution with the mean and the variance of a whole set."""
    mean, variance = jnp.broadcast_to(images.mean(), images[0].shape), jnp.broadcast_to(images.var(), images[0].shape)

    def denoise(z, t, key):
        alpha, sigma = factors(TABLE, t, z)
        clean = gaussian_posterior_mean(z, mean, variance, TABLE.alpha(t), TABLE.sigma(t))
        return (z - alpha * clean) / sigma

    return denoise


def smooth_images(count, size=12, channels=3):
    """Pictures in [-1, 1] with soft stripes of different directions and colours."""
    rng = np.random.default_rng(count)
    y, x = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    waves, phases = 8 * rng.normal(size=(count, 1, 1, channels, 2)), 6 * rng.uniform(size=(count, 1, 1, channels))
    grid = np.stack([x, y], axis=-1)[None, :, :, None]
    return jnp.asarray(0.9 * np.sin(np.sum(waves * grid, axis=-1) + phases), jnp.float32)


def arrays(shape=(8, 4, 4, 3), seed=1):
    """Latents of no particular kind; of one shape as a rule, so that operations compile once."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
