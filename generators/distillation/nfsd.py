"""Noise-free score distillation: the guided prediction less what a model says of any bad image."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from generators.diffusion.schedules import Schedule
from generators.distillation.surrogate import Denoise, Distilled, as_loss, clean_estimate, noised, predict
from generators.distillation.timesteps import TimeRange, Weighting, table_length, weight


def nfsd_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    negative: Denoise,
    threshold: float = 0.2,
    weighting: Weighting = "sds",
    t_range: TimeRange = (0.02, 0.98),
    shared_t: bool = False,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Noise-free score distillation: grad = w(t) (delta_D + s (eps_text - eps_unc)) (arXiv 2310.17590).

    delta_D is the correction of the image's domain: eps_unc at small noise (t below the threshold), where a prediction
    is all correction, and eps_unc - eps_negative above it, where the prediction for bad images stands for the noise.
    With the guided prediction eps_hat = eps_unc + s (eps_text - eps_unc) that is eps_hat and eps_hat - eps_negative.
    Works at the guidance scale of ordinary sampling, s = 7.5.

    Args:
      key: as for `sds_loss`, and so are those not named here.
      latents: renders or their codes.
      denoise: (z_t, t, key) -> guided eps_hat.
      schedule: alpha(t) and sigma(t) at integer timesteps.
      negative: eps_hat under words for bad images ("unrealistic, blurry, low quality, ...").
      threshold: share of the table below which noise is small; 0.2 is t < 200 of 1,000.
      weighting: w(t).
      t_range: lowest and highest timestep as shares of the table.
      shared_t: one timestep for the whole batch.
      clip: bound of each element of grad.
      num_timesteps: rows of the schedule's table; None: its `count`, or 1,000.

    Returns:
      The loss, whose gradient to the latents is grad / b, and what was done.

    Raises:
      ValueError: no such weighting, a range outside [0, 1], a prediction of another shape.
    """
    key_noise, key_denoise = jax.random.split(key)
    start = noised(key_noise, latents, schedule, t_range, shared_t, num_timesteps)
    predicted = predict(denoise, start.noisy, start.t, key_denoise)
    bad = predict(negative, start.noisy, start.t, key_denoise)
    is_small = (start.t < threshold * table_length(schedule, num_timesteps)).reshape(start.sigma.shape)
    direction = predicted - jnp.where(is_small, 0.0, bad)
    grad = weight(weighting, start.alpha, start.sigma) * direction
    return as_loss(latents, start, grad, clean_estimate(start, predicted), clip)
