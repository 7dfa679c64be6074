"""Classifier score distillation: only the direction in which the condition changes the prediction."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from generators.diffusion.schedules import Schedule
from generators.distillation.surrogate import Denoise, Distilled, as_loss, clean_estimate, noised, predict
from generators.distillation.timesteps import TimeRange, Weighting, weight


def csd_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    unconditional: Denoise,
    negative: Denoise | None = None,
    negative_weight: float | Float[Array, ""] = 1.0,
    weighting: Weighting = "sds",
    t_range: TimeRange = (0.02, 0.98),
    shared_t: bool = False,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Classifier score distillation: grad = w(t) (eps_hat - eps_unconditional) (arXiv 2310.19415).

    This is -sigma times the score of the implicit classifier p(condition | z_t), the part of SDS that guidance
    multiplies: SDS at scale s is w (eps_unconditional - eps) + s CSD, so CSD is SDS / s for large s, without the noisy
    residual. It asks for what the condition adds to the unconditional model and nothing else: where that model already
    takes the condition as met (all images that it considers are of the class), grad vanishes whatever the render is.

    Args:
      key: as for `sds_loss`, and so are those not named here.
      latents: renders or their codes.
      denoise: (z_t, t, key) -> eps_hat under the condition. Guided with scale s it makes grad s times as large.
      schedule: alpha(t) and sigma(t) at integer timesteps.
      unconditional: eps_hat without the condition.
      negative: eps_hat under what the render should not be, pushed away from: adds
        `negative_weight w (eps_unconditional - eps_negative)`.
      negative_weight: of that term; the paper anneals it to 0.
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
    key_noise, key_denoise, key_negative = jax.random.split(key, 3)
    start = noised(key_noise, latents, schedule, t_range, shared_t, num_timesteps)
    # One key for both: what a denoiser draws must not enter the difference.
    predicted = predict(denoise, start.noisy, start.t, key_denoise)
    without = predict(unconditional, start.noisy, start.t, key_denoise)
    direction = predicted - without
    if negative is not None:
        direction += negative_weight * (without - predict(negative, start.noisy, start.t, key_negative))
    grad = weight(weighting, start.alpha, start.sigma) * direction
    return as_loss(latents, start, grad, clean_estimate(start, predicted), clip)
