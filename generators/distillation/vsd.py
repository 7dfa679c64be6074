"""Variational score distillation: renders as samples of a distribution that a second network keeps up with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from generators.diffusion.schedules import Schedule
from generators.distillation.surrogate import Denoise, Distilled, as_loss, clean_estimate, noised, predict
from generators.distillation.timesteps import TimeRange, Weighting, weight


def vsd_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    particles: Denoise,
    weighting: Weighting = "sds",
    t_range: TimeRange = (0.02, 0.98),
    shared_t: bool = False,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Variational score distillation: grad = w(t) (eps_hat - eps_particles) (ProlificDreamer, arXiv 2305.16213).

    eps_particles is the score of the renders themselves, so that their distribution, not each of them, is drawn to the
    model's: at rest it is a sample and not the mode. With a single render and a perfect second network it is SDS.

    Args:
      key: as for `sds_loss`, and so are those not named here.
      latents: renders or their codes.
      denoise: (z_t, t, key) -> guided eps_hat of the frozen model (guidance 7.5 in the paper).
      schedule: alpha(t) and sigma(t) at integer timesteps.
      particles: eps_hat of the network that `particle_loss` trains on the renders, as a rule a low-rank adaptation that
        also knows the camera. A constant here.
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
    own = predict(particles, start.noisy, start.t, key_denoise)
    grad = weight(weighting, start.alpha, start.sigma) * (predicted - own)
    return as_loss(latents, start, grad, clean_estimate(start, predicted), clip)


def particle_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    particles: Denoise,
    schedule: Schedule,
    *,
    shared_t: bool = False,
    num_timesteps: int | None = None,
) -> Float[Array, ""]:
    """Mean squared error of the second network of `vsd_loss` on the renders, at timesteps from the whole table.

    Differentiable in what `particles` closes over, and in that only: the renders are constants here.

    Args:
      key: of the timesteps, the noise, and what the network draws.
      latents: renders or their codes.
      particles: (z_t, t, key) -> eps_hat.
      schedule: alpha(t) and sigma(t) at integer timesteps.
      shared_t: one timestep for the whole batch.
      num_timesteps: rows of the schedule's table; None: its `count`, or 1,000.
    """
    key_noise, key_denoise = jax.random.split(key)
    start = noised(key_noise, latents, schedule, (0.0, 1.0), shared_t, num_timesteps)
    return jnp.mean((particles(start.noisy, start.t, key_denoise) - start.noise) ** 2)
