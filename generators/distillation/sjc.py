"""Score Jacobian chaining: score distillation told in the variance-exploding form."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from generators.diffusion.schedules import Schedule
from generators.distillation.surrogate import Denoise, Distilled, as_loss, noised, predict
from generators.distillation.timesteps import TimeRange


def sjc_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    variance_reduced: bool = True,
    t_range: TimeRange = (0.01, 0.97),
    shared_t: bool = False,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Score Jacobian chaining: grad = -(D(z + s n; s) - z) / s with s = sigma / alpha (arXiv 2212.00774).

    D(y; s) = y - s eps_hat(y / sqrt(1 + s^2)) is the denoiser at noise level s. In exact numbers this is `sds_loss`
    with uniform weights on the same noise, scale 1; without variance reduction the noise is not subtracted, the score
    is taken at the perturbed image, and grad is eps_hat alone: the same in expectation, with more variance.

    Args:
      key: as for `sds_loss`, and so are those not named here.
      latents: renders or their codes.
      denoise: (z_t, t, key) -> guided eps_hat.
      schedule: one that preserves variance, alpha^2 + sigma^2 = 1.
      variance_reduced: whether the drawn noise is subtracted.
      t_range: lowest and highest timestep as shares of the table.
      shared_t: one timestep for the whole batch.
      clip: bound of each element of grad.
      num_timesteps: rows of the schedule's table; None: its `count`, or 1,000.

    Returns:
      The loss, whose gradient to the latents is grad / b, and what was done.

    Raises:
      ValueError: a range outside [0, 1], a prediction of another shape.
    """
    key_noise, key_denoise = jax.random.split(key)
    start = noised(key_noise, latents, schedule, t_range, shared_t, num_timesteps)
    constant = jax.lax.stop_gradient(latents)
    level = start.sigma / start.alpha
    perturbed = constant + level * start.noise
    predicted = predict(denoise, perturbed / jnp.sqrt(1.0 + level**2), start.t, key_denoise)
    denoised = perturbed - level * predicted
    grad = -(denoised - (constant if variance_reduced else perturbed)) / level
    return as_loss(latents, start, grad, denoised, clip)
