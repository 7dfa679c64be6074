"""Samplers: steps from a noisy state at one time to a less noisy one at the next, all of one form.

A step takes the `Carry`, the two times, a random key, `denoise(z, t) -> estimate of x_0` and the schedule. Options come
by `functools.partial`: `partial(ddim, eta=0.5)`. `generators.diffusion.sampling.sample` runs them. Notation:
alpha, sigma at `now`, alpha', sigma' at `after`; x is the estimate of x_0, eps = (z - alpha x) / sigma.

No step divides by alpha, so all of them start from pure noise (alpha = 0), and all can end at sigma' = 0, where each
gives its estimate x. Only `now` must have noise, sigma > 0, and `after` some signal, alpha' > 0.

    step            order   calls of denoise
    ddim            1       1       is Euler's method in sigma / alpha, and that of flow matching for `RectifiedFlow`
    euler           1       1       in the angle
    dpm_solver_pp   2       1
    heun            2       2       in the angle
    ddpm            -       1       stochastic, as ddim with eta > 0
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from generators.diffusion.process import Denoiser, factors
from generators.diffusion.schedules import Schedule, log_snr


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Carry:
    """What a sampler hands from step to step.

    Attributes:
      z: the noisy examples now.
      clean: the estimate of x_0 that the step before was made with.
      before: time of that estimate; the present time if there was none.
    """

    z: Float[Array, " b *n"]
    clean: Float[Array, " b *n"]
    before: Num[Array, ""]


@typing.runtime_checkable
class Step(typing.Protocol):
    """One step of a sampler."""

    def __call__(
        self,
        carry: Carry,
        now: Num[Array, ""],
        after: Num[Array, ""],
        key: PRNGKeyArray,
        denoise: Denoiser,
        schedule: Schedule,
    ) -> Carry:
        """The state after the step."""
        ...


def ddim(
    carry: Carry,
    now: Num[Array, ""],
    after: Num[Array, ""],
    key: PRNGKeyArray,
    denoise: Denoiser,
    schedule: Schedule,
    *,
    eta: float | Float[Array, ""] = 0.0,
) -> Carry:
    """DDIM (arXiv 2010.02502, eq. 12 and 16): the same estimates of x_0 and eps, at the next noise level.

    With eta = 0 also the other way, from less noise to more (inversion), where `now` has any.

    Args:
      carry: state.
      now: its time.
      after: time to go to.
      key: of the fresh noise.
      denoise: estimates x_0.
      schedule: of the process.
      eta: how much of the noise is fresh; 0 for none, 1 for as much as in `ddpm`.
    """
    x = denoise(carry.z, now)
    alpha, sigma, alpha_after, sigma_after = _both(carry.z, now, after, schedule)
    noise = (carry.z - alpha * x) / sigma
    if not (isinstance(eta, float) and eta == 0):  # known to be 0: nothing is drawn
        fresh = eta**2 * _fresh_share(alpha, sigma, alpha_after, sigma_after)
        noise = _root(1 - fresh) * noise + _root(fresh) * jax.random.normal(key, noise.shape, noise.dtype)
    return Carry(z=alpha_after * x + sigma_after * noise, clean=x, before=now)


def ddpm(
    carry: Carry,
    now: Num[Array, ""],
    after: Num[Array, ""],
    key: PRNGKeyArray,
    denoise: Denoiser,
    schedule: Schedule,
    *,
    variance: typing.Literal["small", "large"] = "small",
) -> Carry:
    """Ancestral sampling (DDPM, arXiv 2006.11239, eq. 6-7; between any two times arXiv 2107.00630, appendix A).

    Args:
      carry: state.
      now: its time.
      after: time to go to.
      key: of the fresh noise.
      denoise: estimates x_0.
      schedule: of the process.
      variance: of the fresh noise; "small" is exact for data at a single point, "large" for standard normal data, at
        any number of steps. None is added in a step to clean data.
    """
    x = denoise(carry.z, now)
    alpha, sigma, alpha_after, sigma_after = _both(carry.z, now, after, schedule)
    fresh = _fresh_share(alpha, sigma, alpha_after, sigma_after)
    mean = alpha * sigma_after**2 / (alpha_after * sigma**2) * carry.z + alpha_after * fresh * x
    spread = sigma_after if variance == "small" else jnp.where(sigma_after > 0, sigma, 0)
    noise = jax.random.normal(key, carry.z.shape, carry.z.dtype)
    return Carry(z=mean + spread * _root(fresh) * noise, clean=x, before=now)


def dpm_solver_pp(
    carry: Carry, now: Num[Array, ""], after: Num[Array, ""], key: PRNGKeyArray, denoise: Denoiser, schedule: Schedule
) -> Carry:
    """DPM-Solver++ 2M (arXiv 2211.01095, algorithm 2): exact but for x, which is taken as linear in log(alpha / sigma).

    The line goes through the estimates at `now` and at the step before. Where it would have no length or an infinite
    one, in the first step, after a step from pure noise and in a step to clean data, the estimate stays as it is, as in
    DDIM.
    """
    del key
    x = denoise(carry.z, now)
    alpha, sigma, alpha_after, sigma_after = _both(carry.z, now, after, schedule)
    here = log_snr(schedule, now)
    step, last = log_snr(schedule, after) - here, here - log_snr(schedule, carry.before)
    usable = (last > 0) & jnp.isfinite(step)
    slope = jnp.where(usable, 0.5 * jnp.where(usable, step, 0) / jnp.where(usable, last, 1), 0).astype(x.dtype)
    middle = x + slope * (x - carry.clean)
    shrink = sigma_after / sigma
    return Carry(z=shrink * carry.z + (alpha_after - alpha * shrink) * middle, clean=x, before=now)


def euler(
    carry: Carry, now: Num[Array, ""], after: Num[Array, ""], key: PRNGKeyArray, denoise: Denoiser, schedule: Schedule
) -> Carry:
    """Euler's method on the probability flow, in the angle phi = atan2(sigma, alpha) (arXiv 2410.11081, section 3).

    With y = z / hypot(alpha, sigma) it reads dy / dphi = v, for any schedule; v has no singularity at either end.
    """
    del key
    x = denoise(carry.z, now)
    ends = _both(carry.z, now, after, schedule)
    z = _turned(carry.z, _angular_velocity(carry.z, x, *ends[:2]), *ends)
    return Carry(z=jnp.where(ends[3] > 0, z, ends[2] * x), clean=x, before=now)


def heun(
    carry: Carry, now: Num[Array, ""], after: Num[Array, ""], key: PRNGKeyArray, denoise: Denoiser, schedule: Schedule
) -> Carry:
    """Heun's method on the flow of `euler`: the mean of the velocities at both ends of Euler's step; denoises twice.

    A step to clean data is not corrected, as in arXiv 2206.00364, algorithm 1.
    """
    del key
    x = denoise(carry.z, now)
    ends = _both(carry.z, now, after, schedule)
    alpha, sigma, alpha_after, sigma_after = ends
    velocity = _angular_velocity(carry.z, x, alpha, sigma)
    ahead = _turned(carry.z, velocity, *ends)
    # Where there is no noise there is no velocity: the place of the last step is taken, and its result not used
    noisy = sigma_after > 0
    x_ahead = denoise(ahead, jnp.where(noisy.reshape(()), after, now))
    there = jnp.where(noisy, alpha_after, alpha), jnp.where(noisy, sigma_after, sigma)
    z = _turned(carry.z, 0.5 * (velocity + _angular_velocity(ahead, x_ahead, *there)), *ends)
    return Carry(z=jnp.where(noisy, z, alpha_after * x), clean=x, before=now)


def _both(z, now, after, schedule):
    return (*factors(schedule, now, z), *factors(schedule, after, z))


def _fresh_share(alpha, sigma, alpha_after, sigma_after):
    """Share of sigma_after^2 that q(z_after | z_now, x_0) leaves open: 1 - the ratio of the signal-to-noise ratios."""
    ratio = alpha * sigma_after / (alpha_after * sigma)
    return (1 - ratio) * (1 + ratio)


def _angular_velocity(z, x, alpha, sigma):
    radius = jnp.hypot(alpha, sigma)
    return (alpha * z - radius**2 * x) / (sigma * radius)


def _turned(z, velocity, alpha, sigma, alpha_after, sigma_after):
    turn = jnp.arctan2(sigma_after, alpha_after) - jnp.arctan2(sigma, alpha)
    return jnp.hypot(alpha_after, sigma_after) * (z / jnp.hypot(alpha, sigma) + turn * velocity)


def _root(x):
    """Square root of what is 0 or more but for rounding; its slope at 0 is taken as 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
