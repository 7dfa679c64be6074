"""How a run of distillation goes from coarse to fine: ranges of timesteps and numbers over its progress.

Progress is the share of the run that is done, in [0, 1], and may be traced. A range is (low, high) in shares of the
schedule's table, as the losses take it; equal ends mean one fixed timestep.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from generators.distillation.timesteps import TimeRange

Scalar = float | Float[Array, ""]
Count = int | Int[Array, ""] | Float[Array, ""]


def constant(progress: Scalar, t_range: tuple[float, float] = (0.02, 0.98)) -> TimeRange:
    """The same range all along (DreamFusion, arXiv 2209.14988)."""
    del progress
    return t_range


def linear(
    progress: Scalar,
    low: tuple[float, float] = (0.98, 0.02),
    high: tuple[float, float] = (0.98, 0.50),
    until: float = 0.8,
) -> TimeRange:
    """Both ends move in straight lines and then rest. The default is MVDream's (arXiv 2308.16512): all noise at first.

    Args:
      progress: share of the run.
      low: the low end at first and at last.
      high: the high end at first and at last.
      until: progress at which they rest; 8,000 of 10,000 steps in MVDream.
    """
    share = jnp.clip(progress / until, 0.0, 1.0)
    return low[0] + share * (low[1] - low[0]), high[0] + share * (high[1] - high[0])


def hard_drop(
    progress: Scalar,
    before: tuple[float, float] = (0.02, 0.98),
    after: tuple[float, float] = (0.02, 0.50),
    at: float = 0.2,
) -> TimeRange:
    """One range up to a point, another from it on (ProlificDreamer, arXiv 2305.16213: after 5,000 of 25,000 steps)."""
    early = jnp.asarray(progress) < at
    return jnp.where(early, before[0], after[0]), jnp.where(early, before[1], after[1])


def hifa(progress: Scalar, t_range: tuple[float, float] = (0.02, 0.98)) -> TimeRange:
    """One timestep, falling from the high end as the square root of progress (HiFA, arXiv 2305.18766)."""
    low, high = t_range
    t = low + (high - low) * (1.0 - jnp.sqrt(progress))
    return t, t


def dreamgaussian(
    progress: Scalar, t_range: tuple[float, float] = (0.02, 0.98), num_timesteps: int = 1000
) -> TimeRange:
    """One timestep, falling straight from 1 to 0, rounded and held in a range (DreamGaussian, arXiv 2309.16653)."""
    t = jnp.clip(jnp.round((1.0 - progress) * num_timesteps) / num_timesteps, *t_range)
    return t, t


def dreamtime(
    progress: Scalar,
    *,
    upper: tuple[float, float] = (0.8, 0.3),
    lower: tuple[float, float] = (0.5, 0.1),
    t_range: tuple[float, float] = (0.02, 0.98),
    num_timesteps: int = 1000,
) -> TimeRange:
    """One timestep, falling so that each is visited in proportion to a prior (DreamTime, arXiv 2306.12422).

    The prior is 1 from `lower` to `upper` and falls off like a Gaussian outside; the timestep is where the share of the
    prior above it equals the progress.

    Args:
      progress: share of the run.
      upper: where the plateau ends above, and the standard deviation of the tail there, in shares of the table.
      lower: the same below.
      t_range: what the result is held in.
      num_timesteps: rows of the schedule's table.
    """
    t = np.arange(1, num_timesteps + 1) / num_timesteps
    outside = np.maximum(t - upper[0], 0.0) / upper[1] + np.maximum(lower[0] - t, 0.0) / lower[1]
    prior = np.exp(-0.5 * outside**2)
    above = np.cumsum(prior[::-1])[::-1] / np.sum(prior)
    nearest = jnp.argmin(jnp.abs(jnp.asarray(above, jnp.float32) - progress))
    found = jnp.clip(jnp.asarray(t, jnp.float32)[nearest], *t_range)
    return found, found


def scheduled(value: float | Sequence[int | float], step: Count, epoch: Count = 0) -> Scalar:
    """A number that changes over a run, as threestudio writes it.

    `v`: constant. `(v0, v1, end)`: straight from v0 at 0 to v1 at the end. `(start, v0, v1, end)`: from the start, v0
    before it. `(start, v0, v1, end1, v2, end2, ...)`: straight pieces. Held outside. A last end of type int counts
    steps, of type float epochs.

    Args:
      value: see above.
      step: of the run; may be traced.
      epoch: of the run, for ends of type float.

    Raises:
      ValueError: as many numbers as none of these forms has, ends that do not grow, or a number that is not finite.
    """
    if not isinstance(value, Sequence):
        return value
    numbers = (0, *value) if len(value) == 3 else tuple(value)
    if len(numbers) < 4 or len(numbers) % 2 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            "a scheduled number is v, (v0, v1, end), (start, v0, v1, end) or (start, v0, v1, end1, v2, end2, ...), "
            f"got {value}"
        )
    places = (numbers[0], *numbers[3::2])
    values = (numbers[1], *numbers[2::2])
    if any(after <= before for before, after in zip(places[:-1], places[1:], strict=True)):
        raise ValueError(f"the ends of a scheduled number must grow from its start on, got {places} in {value}")
    clock = epoch if isinstance(numbers[-1], float) else step
    knots = jnp.asarray(places, jnp.float32), jnp.asarray(values, jnp.float32)
    return jnp.interp(jnp.asarray(clock, jnp.float32), *knots)
