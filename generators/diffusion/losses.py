"""Denoising losses: times to train at, weights of the times, the error of a prediction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from generators.diffusion import process
from generators.diffusion.process import Denoiser, Prediction
from generators.diffusion.schedules import Schedule


def stratified_times(key: PRNGKeyArray, count: int) -> Float[Array, " b"]:
    """Times in [0, 1], one in each of `count` equal parts, in order: their mean varies little from batch to batch.

    Variational diffusion models, arXiv 2107.00630, appendix I.1.
    """
    return (jnp.arange(count, dtype=jnp.float32) + jax.random.uniform(key, (count,))) / count


def stratified_timesteps(key: PRNGKeyArray, count: int, timesteps: int) -> Int[Array, " b"]:
    """Timesteps 0 .. T-1 of a table, all equally likely, as evenly spread over the batch as `stratified_times`."""
    return jnp.minimum((timesteps * stratified_times(key, count)).astype(jnp.int32), timesteps - 1)


def logit_normal_times(
    key: PRNGKeyArray, count: int, *, mean: float = 0.0, deviation: float = 1.0
) -> Float[Array, " b"]:
    """Times in (0, 1) whose logit is normal, most of them at middling noise (arXiv 2403.03206, eq. 19); stratified."""
    # Rounding may bring a uniform number to an end of [0, 1], where the quantile is infinite
    uniform = jnp.clip(stratified_times(key, count), 1e-6, 1 - 1e-6)
    return jax.nn.sigmoid(mean + deviation * jax.scipy.special.ndtri(uniform))


def capped_velocity_weight(schedule: Schedule, t: Float[Array, "*b"], most: float) -> Float[Array, "*b"]:
    """Weight of the squared error of x_0 that makes it that of v, cut off: min(1 / sigma^2, most).

    v = alpha eps - sigma x_0 has the error of x_0 divided by sigma (arXiv 2202.00512); without the cut, the smallest
    noise would count without bound.
    """
    return jnp.minimum(1.0 / jnp.maximum(schedule.sigma(t), 1e-6) ** 2, most)


def error_weight(
    schedule: Schedule, t: Num[Array, "*b"], counted: Prediction, predicted: Prediction, most: float = float("inf")
) -> Float[Array, "*b"]:
    """Weight of the squared error of one prediction that makes it that of another, cut off.

    With z given, an error d of x_0 is one of -alpha / sigma d of eps, -(alpha^2 + sigma^2) / sigma d of v,
    -(alpha + sigma) / sigma d of the flow and alpha / sigma^2 d of the score. The result is
    min(w(counted), most) / w(predicted) with w the square of that factor:

        counted = "noise", most = 5     min-SNR-5 for any prediction (arXiv 2303.09556, eq. 8)
        counted = "velocity"            SNR + 1 on x_0 (arXiv 2202.00512)
        counted = predicted             1, the plain error

    Finite at both ends unless eps or the score is predicted (alpha = 0) or x_0 is and nothing is cut off (sigma = 0).

    Args:
      schedule: of the process.
      t: times.
      counted: the prediction whose error is to count.
      predicted: the one that the network makes.
      most: largest weight in terms of x_0.
    """
    if counted == predicted and most == float("inf"):
        return jnp.ones_like(schedule.alpha(t))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    factor = {
        "clean": sigma,
        "noise": alpha,
        "velocity": alpha**2 + sigma**2,
        "flow": alpha + sigma,
        "score": alpha / jnp.where(sigma > 0, sigma, 1e-6),
    }
    if predicted == "clean":
        return jnp.minimum((factor[counted] / jnp.maximum(sigma, 1e-6)) ** 2, most)
    # The common division by sigma^2 is left out, so that the ratio has a value where there is no noise
    capped = factor[counted] ** 2 if most == float("inf") else jnp.minimum(factor[counted] ** 2, most * sigma**2)
    return capped / factor[predicted] ** 2


def weighted_squared_error(
    predicted: Float[Array, " b *n"], target: Float[Array, " b *n"], weights: Float[Array, " b"]
) -> Float[Array, ""]:
    """Mean over the batch of each example's mean squared error times its weight."""
    errors = jnp.mean((predicted - target) ** 2, axis=tuple(range(1, target.ndim)))
    return jnp.mean(weights * errors)


def denoising_loss(
    predict: Denoiser,
    clean: Float[Array, " b *n"],
    noise: Float[Array, " b *n"],
    t: Num[Array, " b"],
    schedule: Schedule,
    kind: Prediction,
    weights: Float[Array, " b"],
) -> Float[Array, ""]:
    """The weighted error of what a network says of noisy examples.

    Args:
      predict: (z [b *n], t [b]) to a prediction of the kind.
      clean: examples x_0.
      noise: eps, standard normal.
      t: time of each example.
      schedule: of the process.
      kind: what the network predicts.
      weights: of the examples, see `error_weight`.
    """
    predicted = predict(process.add_noise(clean, noise, t, schedule), t)
    return weighted_squared_error(predicted, process.target(kind, clean, noise, t, schedule), weights)
