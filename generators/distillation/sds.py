"""Score distillation sampling: make a render likely under a diffusion model at all its noise levels."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from generators.diffusion.schedules import Schedule
from generators.distillation.surrogate import Denoise, Distilled, as_loss, clean_estimate, noised, predict
from generators.distillation.timesteps import TimeRange, Weighting, weight


def sds_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    weighting: Weighting = "sds",
    t_range: TimeRange = (0.02, 0.98),
    shared_t: bool = False,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Score distillation: grad = w(t) (eps_hat(z_t, t) - eps) (DreamFusion, arXiv 2209.14988, eq. 3).

    The same in clean images: eps_hat - eps = (alpha / sigma) (z - x_hat), so the render is pulled to the denoiser's
    estimate of it. Its mode is what it finds: expect less variety than samples have, and strong colours at the guidance
    scales that it needs (50 to 100). Of the two conventions of classifier-free guidance only
    `unconditional + s (conditional - unconditional)` is meant here; a scale of 100 counted from the conditional
    prediction, as threestudio's Stable Diffusion branch does, is s = 101.

    Args:
      key: of the timesteps, the noise, and what the denoiser draws; another one every step.
      latents: renders or their codes, in the denoiser's range. Views of one object are neighbours along b.
      denoise: (z_t, t, key) -> eps_hat with guidance applied; t integer timesteps. A constant, never differentiated.
      schedule: alpha(t) and sigma(t) at integer timesteps.
      weighting: w(t), a name or a function of (alpha, sigma), see `timesteps.weight`.
      t_range: lowest and highest timestep as shares of the table; see `annealing` for ranges over a run.
      shared_t: one timestep for the whole batch, for denoisers that see several views at once.
      clip: bound of each element of grad.
      num_timesteps: rows of the schedule's table; None: its `count`, or 1,000.

    Returns:
      The loss, a sum over elements and a mean over the batch whose gradient to the latents is grad / b and whose value
      is 0.5 |grad|^2 / b, and what was done.

    Raises:
      ValueError: no such weighting, a range outside [0, 1], a prediction of another shape.
    """
    key_noise, key_denoise = jax.random.split(key)
    start = noised(key_noise, latents, schedule, t_range, shared_t, num_timesteps)
    predicted = predict(denoise, start.noisy, start.t, key_denoise)
    grad = weight(weighting, start.alpha, start.sigma) * (predicted - start.noise)
    return as_loss(latents, start, grad, clean_estimate(start, predicted), clip)
