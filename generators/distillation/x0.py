"""Multi-view reconstruction: regress a ring of renders to the denoiser's clean estimate of them."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from generators.diffusion.guidance import rescaled
from generators.diffusion.schedules import Schedule
from generators.distillation.surrogate import Denoise, Distilled, as_loss, clean_estimate, noised, predict
from generators.distillation.timesteps import TimeRange


def x0_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    conditional: Denoise | None = None,
    views: int = 4,
    rescale: float | Float[Array, ""] = 0.5,
    t_range: TimeRange = (0.02, 0.98),
    shared_t: bool = True,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Multi-view x_0 reconstruction: 0.5 |z - x_hat|^2 / b, the estimate a constant (MVDream, arXiv 2308.16512).

    Without rescaling it is `sds_loss` with weights sigma / alpha (its weighting "ism"). Rescaling undoes part of what
    strong guidance does to contrast: the guided estimate of a ring is multiplied so that its standard deviation becomes
    that of the conditional one (arXiv 2305.08891, eq. 15-16, but on x_0 and over a whole ring).

    Args:
      key: as for `sds_loss`, and so are those not named here.
      latents: renders or their codes; the views of a ring are neighbours along b.
      denoise: (z_t, t, key) -> guided eps_hat.
      schedule: alpha(t) and sigma(t) at integer timesteps.
      conditional: eps_hat under the condition, without guidance; None: no rescaling.
      views: of a ring; b is a multiple of it.
      rescale: share of the rescaled estimate in the mean of both, in [0, 1].
      t_range: lowest and highest timestep as shares of the table.
      shared_t: one timestep for the whole batch.
      clip: bound of each element of z - x_hat.
      num_timesteps: rows of the schedule's table; None: its `count`, or 1,000.

    Returns:
      The loss, whose gradient to the latents is (z - x_hat) / b, and what was done.

    Raises:
      ValueError: estimates are rescaled and the batch is not made of whole rings, a range outside [0, 1], a prediction
        of another shape.
    """
    key_noise, key_denoise = jax.random.split(key)
    start = noised(key_noise, latents, schedule, t_range, shared_t, num_timesteps)
    clean = clean_estimate(start, predict(denoise, start.noisy, start.t, key_denoise))
    if conditional is not None:
        plain = clean_estimate(start, predict(conditional, start.noisy, start.t, key_denoise))
        clean = rescaled(clean, plain, rescale, group=views)
    return as_loss(latents, start, latents - clean, clean, clip)
