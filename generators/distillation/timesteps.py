"""Which timesteps a distillation step looks at, and how much each of them weighs."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from generators.diffusion.schedules import Schedule

Scalar = float | Float[Array, ""]
# Lowest and highest timestep as shares of the table; the same twice is one fixed timestep.
TimeRange = tuple[Scalar, Scalar]
WeightingName = Literal["sds", "uniform", "fantasia3d", "fantasia3d_1", "ism"]
# Of (alpha, sigma).
WeightingFunction = Callable[[Float[Array, "*b"], Float[Array, "*b"]], Float[Array, "*b"]]
Weighting = WeightingName | WeightingFunction


def table_length(schedule: Schedule, num_timesteps: int | None = None) -> int:
    """Timesteps of a schedule: what is given, else the `count` of its table, else 1,000 as published models have."""
    return int(getattr(schedule, "count", 1000) if num_timesteps is None else num_timesteps)


def draw_timesteps(
    key: PRNGKeyArray, count: int, t_range: TimeRange, *, shared_t: bool = False, num_timesteps: int = 1000
) -> Int[Array, " b"]:
    """Timesteps, uniform from floor(T low) to floor(T high), both included and at most T - 1.

    Args:
      key: unused where both ends of the range agree.
      count: of timesteps, b.
      t_range: (low, high) in [0, 1]; may be traced, as annealings are.
      shared_t: one timestep for all, as denoisers of several views at once need it (MVDream, arXiv 2308.16512).
      num_timesteps: T, rows of the schedule's table.

    Raises:
      ValueError: the range is not an ordered pair in [0, 1] (where it is known before tracing).
    """
    low, high = t_range
    if isinstance(low, float | int) and isinstance(high, float | int) and not 0.0 <= low <= high <= 1.0:
        raise ValueError(f"t_range must be (low, high) with 0 <= low <= high <= 1, got ({low}, {high})")
    # The nudge undoes the rounding of products such as 0.57 * 1000 = 569.99..., which floor would take a step down.
    ends = (jnp.floor(num_timesteps * jnp.asarray(end, jnp.float32) + 1e-3) for end in (low, high))
    first, last = (jnp.clip(end, 0, num_timesteps - 1).astype(jnp.int32) for end in ends)
    drawn = jax.random.randint(key, (1 if shared_t else count,), first, last + 1, jnp.int32)
    return jnp.broadcast_to(drawn, (count,))


def weight(weighting: Weighting, alpha: Float[Array, "*b"], sigma: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """w(t), the factor of (eps_hat - eps).

    sds: sigma^2 (DreamFusion, arXiv 2209.14988). uniform: 1. fantasia3d: alpha sigma^2, and fantasia3d_1: 1 / sigma^2
    (arXiv 2303.13873). ism: sigma / alpha (LucidDreamer, arXiv 2311.11284), which turns the product into z - x_hat.

    Raises:
      ValueError: no such weighting.
    """
    if callable(weighting):
        return weighting(alpha, sigma)
    match weighting:
        case "sds":
            return sigma**2
        case "uniform":
            return jnp.ones_like(sigma)
        case "fantasia3d":
            return alpha * sigma**2
        case "fantasia3d_1":
            return 1.0 / sigma**2
        case "ism":
            return sigma / alpha
    raise ValueError(f"weighting must be a function or one of {', '.join(get_args(WeightingName))}, got {weighting!r}")


def fantasia3d_2(progress: Scalar, switch: float = 0.2) -> WeightingFunction:
    """Fantasia3D's weighting for realistic textures: fantasia3d up to a share of the run, fantasia3d_1 after it.

    Args:
      progress: share of the run that is done, in [0, 1]; may be traced.
      switch: the last share with the first weighting.
    """

    def weighting(alpha, sigma):
        early, late = weight("fantasia3d", alpha, sigma), weight("fantasia3d_1", alpha, sigma)
        return jnp.where(progress <= switch, early, late)

    return weighting
