"""Denoising losses: times to train at, weights of the times, the error of a prediction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from generators.diffusion.schedules import Schedule


def stratified_times(key: PRNGKeyArray, count: int) -> Float[Array, " b"]:
    """Times in [0, 1], one in each of `count` equal parts, in order: their mean varies little from batch to batch.

    Variational diffusion models, arXiv 2107.00630, appendix I.1.
    """
    return (jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(key, (count,))) / count


def capped_velocity_weight(schedule: Schedule, t: Float[Array, "*b"], most: float) -> Float[Array, "*b"]:
    """Weight of the squared error of x_0 that makes it that of v, cut off: min(1 / sigma^2, most).

    v = alpha eps - sigma x_0 has the error of x_0 divided by sigma (arXiv 2202.00512); without the cut, the smallest
    noise would count without bound.
    """
    return jnp.minimum(1.0 / jnp.maximum(schedule.sigma(t), 1e-6) ** 2, most)


def weighted_squared_error(
    predicted: Float[Array, "b *n"], target: Float[Array, "b *n"], weights: Float[Array, " b"]
) -> Float[Array, ""]:
    """Mean over the batch of each example's mean squared error times its weight."""
    errors = jnp.mean((predicted - target) ** 2, axis=tuple(range(1, target.ndim)))
    return jnp.mean(weights * errors)
