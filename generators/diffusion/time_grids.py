"""The times that a sampler visits: falling, one more than steps, the last without noise.

`uniform_times` and `karras_times` are for continuous schedules, `trailing_timesteps`, `leading_timesteps` and
`karras_timesteps` for tables, where -1 is clean data.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from generators.diffusion.schedules import Schedule, Table, log_snr, time_of_log_snr, timestep_of_log_snr


def uniform_times(steps: int, *, first: float = 1.0, last: float = 0.0) -> Float[Array, " k"]:
    """Equal steps from noise to data; less than 1 as the first to start from examples with noise added."""
    return jnp.linspace(first, last, steps + 1)


def karras_levels(steps: int, *, least: float, most: float, rho: float = 7.0) -> Float[Array, " steps"]:
    """Noise levels sigma / alpha at equal steps of their rho-th root (arXiv 2206.00364, eq. 5), falling."""
    return jnp.linspace(most ** (1 / rho), least ** (1 / rho), steps) ** rho


def karras_times(
    schedule: Schedule, steps: int, *, least: float = 0.002, most: float = 80.0, rho: float = 7.0
) -> Float[Array, " k"]:
    """Times of `karras_levels`, then 0. Levels that the schedule never has become its nearer end.

    Args:
      schedule: continuous.
      steps: their number.
      least: lowest noise level before 0.
      most: highest noise level, where `sample` starts.
      rho: 7 takes shorter steps where there is little noise, 1 equal ones.
    """
    times = time_of_log_snr(schedule, -2 * jnp.log(karras_levels(steps, least=least, most=most, rho=rho)))
    return jnp.append(times, 0.0)


def karras_timesteps(table: Table, steps: int, *, rho: float = 7.0) -> Int[Array, " k"]:
    """Timesteps of a table nearest to `karras_levels` over its whole range of finite noise levels, then -1."""
    levels = jnp.exp(-0.5 * log_snr(table, jnp.arange(table.count)))
    finite = levels[jnp.isfinite(levels)]
    wanted = karras_levels(steps, least=float(finite[0]), most=float(finite[-1]), rho=rho)
    return jnp.append(timestep_of_log_snr(table, -2 * jnp.log(wanted)), -1)


def trailing_timesteps(count: int, steps: int) -> Int[Array, " k"]:
    """Timesteps counted from the last: 999, 979 .. 19, then -1, for 50 of 1000 (arXiv 2305.08891, table 2).

    They start at the highest noise, as a table with zero terminal signal-to-noise needs.

    Raises:
      ValueError: not 1 to `count` steps.
    """
    _check(count, steps)
    return jnp.asarray([*(np.round(count - count / steps * np.arange(steps)).astype(int) - 1), -1])


def leading_timesteps(count: int, steps: int, *, offset: int = 1) -> Int[Array, " k"]:
    """Timesteps counted from the first: 981, 961 .. 1, then -1, for 50 of 1000 (Stable Diffusion's and MVDream's DDIM).

    Args:
      count: of the table, T.
      steps: their number.
      offset: the lowest timestep visited.

    Raises:
      ValueError: not 1 to `count` steps, or an offset that leads out of the table.
    """
    _check(count, steps)
    stride = count // steps
    if not 0 <= offset < count - stride * (steps - 1):
        raise ValueError(f"{steps} steps of {stride} from timestep {offset} leave a table of {count}")
    return jnp.asarray([*(stride * np.arange(steps)[::-1] + offset), -1])


def _check(count, steps):
    if not 1 <= steps <= count:
        raise ValueError(f"a table of {count} timesteps has 1 to {count} steps, not {steps}")
