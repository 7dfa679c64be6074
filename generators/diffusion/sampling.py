"""The loop of every sampler: one scan over pairs of neighbouring times."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from generators.diffusion.process import Denoiser
from generators.diffusion.samplers import Carry, Step
from generators.diffusion.schedules import Schedule


def sample(
    key: PRNGKeyArray,
    noise: Float[Array, " b *n"],
    denoise: Denoiser,
    schedule: Schedule,
    times: Num[Array, " k"],
    step: Step,
) -> Float[Array, " b *n"]:
    """Examples at the last time: clean if that is without noise, as in `generators.diffusion.time_grids`.

    Differentiable and jit-able, with `denoise` closed over.

    Args:
      key: of the fresh noise of stochastic steps.
      noise: the state at the first time. Standard normal where sigma is 1 or the schedule preserves variance; examples
        with noise added (`process.add_noise`) to start from them.
      denoise: (z [b *n], t []) to an estimate of x_0, guidance and clipping included; see `process.clean_denoiser`.
      schedule: of the process.
      times: k of them, falling, integers for a table.
      step: of `generators.diffusion.samplers`.
    """
    return sample_path(key, noise, denoise, schedule, times, step)[0]


def sample_path(
    key: PRNGKeyArray,
    noise: Float[Array, " b *n"],
    denoise: Denoiser,
    schedule: Schedule,
    times: Num[Array, " k"],
    step: Step,
) -> tuple[Float[Array, " b *n"], Float[Array, " k-1 b *n"]]:
    """`sample`, and the estimates of x_0 that each of its steps was made with: the sample as it takes shape."""

    def advance(carry, xs):
        now, after, step_key = xs
        carry = step(carry, now, after, step_key, denoise, schedule)
        return carry, carry.clean

    keys = jax.random.split(key, len(times) - 1)
    start = Carry(z=noise, clean=jnp.zeros_like(noise), before=times[0])
    last, estimates = jax.lax.scan(advance, start, (times[:-1], times[1:], keys))
    return last.z, estimates


def clipped(denoise: Denoiser, *, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """Estimates of x_0 kept in the range of the data, as large guidance scales need."""
    return lambda z, t: jnp.clip(denoise(z, t), low, high)
