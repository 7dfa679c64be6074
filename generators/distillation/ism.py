"""Distillation against inferred noise: the render is inverted to a noisy image, not drowned in random noise."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from generators.diffusion.process import factors
from generators.diffusion.schedules import Schedule
from generators.distillation.surrogate import Denoise, Distilled, Noised, as_loss, clean_estimate, predict
from generators.distillation.timesteps import TimeRange, Weighting, draw_timesteps, table_length, weight


def ism_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    unconditional: Denoise,
    delta: int | Int[Array, ""] = 25,
    steps: int = 5,
    stride: int = 200,
    noise_offset: float | Float[Array, ""] = 0.0,
    weighting: Weighting = "ism",
    t_range: TimeRange = (0.02, 0.5),
    shared_t: bool = False,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Interval score matching: grad = w(t) (eps_hat(z_t, t) - eps_unc(z_s, s)), s = t - delta (arXiv 2311.11284).

    z_s is the render inverted by DDIM with the unconditional prediction, z_t one more such step of `delta`: consistent
    targets and fine detail where SDS averages over noise. The two predictions must come of different conditions: with
    one ideal denoiser for both, inversion follows its own trajectory and grad vanishes for every render.

    Args:
      key: as for `sds_loss`, and so are those not named here.
      latents: renders or their codes.
      denoise: (z_t, t, key) -> guided eps_hat (guidance 7.5 in the paper).
      schedule: alpha(t) and sigma(t) at integer timesteps.
      unconditional: eps_hat without the condition, or under a negative one.
      delta: timesteps of the last step; the paper anneals 100 -> 25. May be traced.
      steps: of the inversion before it, at most; those that a small t does not need are not computed if no one in the
        batch does.
      stride: timesteps of each of these; what they do not span is one jump with plain noise.
      noise_offset: standard deviation of a further noise that is constant over each channel (0.1 in the paper).
      weighting: w(t).
      t_range: lowest and highest timestep as shares of the table; 0.98 at first in the paper.
      shared_t: one timestep for the whole batch.
      clip: bound of each element of grad.
      num_timesteps: rows of the schedule's table; None: its `count`, or 1,000.

    Returns:
      The loss, whose gradient to the latents is grad / b, and what was done; its noise is eps_unc(z_s, s).

    Raises:
      ValueError: no such weighting, a range outside [0, 1], a prediction of another shape.
    """
    key_t, key_noise, key_offset, key_inversion, key_denoise = jax.random.split(key, 5)
    rows = table_length(schedule, num_timesteps)
    t = draw_timesteps(key_t, len(latents), t_range, shared_t=shared_t, num_timesteps=rows)
    before = jnp.maximum(t - delta, 0)
    noise = jax.random.normal(key_noise, latents.shape, latents.dtype)
    offset = jax.random.normal(key_offset, (len(latents), 1, 1, latents.shape[-1]), latents.dtype)
    noise = noise + noise_offset * offset
    first = jnp.maximum(before - steps * stride, 0)
    z = inverted(key_inversion, latents, noise, unconditional, schedule, (first, before), stride, steps)
    own = predict(unconditional, z, before, key_denoise)
    alpha, sigma = factors(schedule, t, latents)
    noisy = _ddim(z, own, factors(schedule, before, latents), (alpha, sigma))
    start = Noised(t=t, alpha=alpha, sigma=sigma, noise=own, noisy=noisy)
    predicted = predict(denoise, noisy, t, key_denoise)
    grad = weight(weighting, alpha, sigma) * (predicted - own)
    return as_loss(latents, start, grad, clean_estimate(start, predicted), clip)


def sdi_loss(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    *,
    inverse: Denoise,
    steps: int = 10,
    eta: float = 0.3,
    weighting: Weighting = "ism",
    t_range: TimeRange = (0.02, 0.98),
    shared_t: bool = False,
    clip: float | Float[Array, ""] | None = None,
    num_timesteps: int | None = None,
) -> tuple[Float[Array, ""], Distilled]:
    """Score distillation via inversion: SDS against the noise that DDIM inversion finds (arXiv 2405.15891).

    grad = w(t) (eps_hat(z_t, t) - eps) with z_t the render inverted to t in equal steps and
    eps = (z_t - alpha z) / sigma.

    Args:
      key: as for `sds_loss`, and so are those not named here.
      latents: renders or their codes.
      denoise: (z_t, t, key) -> guided eps_hat.
      schedule: alpha(t) and sigma(t) at integer timesteps.
      inverse: eps_hat to invert with; the paper guides it with scale -7.5, away from the condition.
      steps: of the inversion, from timestep 0.
      eta: fresh noise in the noise after each step, in [0, 1]; sqrt(1 - eta^2) of the inferred noise stays. 0 makes z_t
        a function of z.
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
    key_t, key_inversion, key_denoise = jax.random.split(key, 3)
    rows = table_length(schedule, num_timesteps)
    t = draw_timesteps(key_t, len(latents), t_range, shared_t=shared_t, num_timesteps=rows)
    stride, path = -(-t // steps), (jnp.zeros_like(t), t)
    noiseless = jnp.zeros_like(latents)
    noisy = inverted(key_inversion, latents, noiseless, inverse, schedule, path, stride, steps, eta)
    alpha, sigma = factors(schedule, t, latents)
    noise = (noisy - alpha * jax.lax.stop_gradient(latents)) / sigma
    start = Noised(t=t, alpha=alpha, sigma=sigma, noise=noise, noisy=noisy)
    predicted = predict(denoise, noisy, t, key_denoise)
    grad = weight(weighting, alpha, sigma) * (predicted - noise)
    return as_loss(latents, start, grad, clean_estimate(start, predicted), clip)


def inverted(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    denoise: Denoise,
    schedule: Schedule,
    path: tuple[Int[Array, " b"], Int[Array, " b"]],
    stride: int | Int[Array, " b"],
    steps: int,
    eta: float = 0.0,
) -> Float[Array, "b h w c"]:
    """DDIM run backwards (arXiv 2010.02502, eq. 13): a clean image to the noisy one that would be denoised to it.

    Args:
      key: of what the denoiser draws, and of fresh noise.
      latents: clean.
      noise: put on them at the first timestep.
      denoise: (z_t, t, key) -> eps_hat.
      schedule: alpha(t) and sigma(t) at integer timesteps.
      path: first and last timesteps.
      stride: timesteps of a step; the last one is shorter. `steps` strides must reach the end.
      steps: at most; none is computed once the whole batch has arrived.
      eta: fresh noise in the noise after each step, see `sdi_loss`.
    """
    first, last = path
    alpha, sigma = factors(schedule, first, latents)
    z = alpha * jax.lax.stop_gradient(latents) + sigma * noise

    def step(i, now, z):
        after = jnp.minimum(now + stride, last)
        key_denoise, key_fresh = jax.random.split(jax.random.fold_in(key, i))
        predicted = predict(denoise, z, now, key_denoise)
        ends = factors(schedule, now, latents), factors(schedule, after, latents)
        moved = _ddim(z, predicted, *ends)
        if eta:
            kept = moved - ends[1][1] * predicted
            fresh = jax.random.normal(key_fresh, z.shape, z.dtype)
            moved = kept + ends[1][1] * ((1.0 - eta**2) ** 0.5 * predicted + eta * fresh)
        return after, jnp.where((after > now).reshape(-1, 1, 1, 1), moved, z)

    def maybe_step(carry, i):
        now, z = carry
        return jax.lax.cond(jnp.all(now >= last), lambda: (now, z), lambda: step(i, now, z)), None

    (_, z), _ = jax.lax.scan(maybe_step, (first, z), jnp.arange(steps))
    return jax.lax.stop_gradient(z)


def _ddim(z, predicted, now, after):
    """The deterministic step between two noise levels (alpha, sigma), in either direction."""
    return after[0] * (z - now[1] * predicted) / now[0] + after[1] * predicted
