"""The march for callers: checks, and the choice of the backend."""

import dataclasses
import typing

import jax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.ray_march import reference, xla
from renderers.kernels.transformations import alike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class March:
    """Steps taken, of all rays.

    Attributes:
      starts: distance at which each step starts; 0 in places that are not used.
      ends: distance at which it ends.
      ray_index: its ray, never decreasing; r in places that are not used.
      wanted: steps of each ray, those that found no place included.
      ran_out: rays that had not reached their end after the last step that they may have.
    """

    starts: Float[Array, " m"]
    ends: Float[Array, " m"]
    ray_index: Int[Array, " m"]
    wanted: Int[Array, " r"]
    ran_out: Bool[Array, " r"]


def march(
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    starts: Float[Array, " r"],
    ends: Float[Array, " r"],
    occupied: Bool[Array, "l x y z"],
    box: Float[Array, "2 3"],
    *,
    num_steps: int,
    capacity: int,
    shortest: float,
    longest: float = 1e10,
    cone: float = 0.0,
    backend: Backend | None = None,
) -> March:
    """Steps along rays whose middles lie in occupied cells. No gradient to anything.

    Args:
      origins: of rays.
      directions: unit vectors.
      starts: distance at which each ray's first step starts, at least 0.
      ends: distance that no middle of a step reaches; at most the start for a ray that is to have none.
      occupied: cells of nested boxes, level 0 the finest.
      box: lowest and highest corner of level 0; level l is 2^l times as large about the same centre.
      num_steps: the most that a ray may have, taken or not; static.
      capacity: places for steps taken, of all rays together; static.
      shortest: length of a step, and with `cone` of the shortest; static, as what follows.
      longest: length of the longest step.
      cone: a step is that many times as long as its start is far away, between the two; 0: all have the shortest.
      backend: None takes the platform's default; there are no Pallas kernels.

    Raises:
      ValueError: steps or a capacity that cannot be.
      Unsupported: the backend cannot run here.
    """
    if num_steps < 1 or capacity < 1:
        raise ValueError(f"expected at least one step and one place, got num_steps {num_steps}, capacity {capacity}")
    if not 0 < shortest <= longest:
        raise ValueError(f"expected 0 < shortest step <= longest, got {shortest} and {longest}")
    chosen = choose(backend, dtype=origins.dtype.name, pallas=False)
    origins, directions, starts, ends = lax.stop_gradient(alike(origins, directions, starts, ends))
    given = (origins, directions, starts, ends, occupied, lax.stop_gradient(box))
    options: dict[str, typing.Any] = dict(
        cone=cone, shortest=shortest, longest=longest, num_steps=num_steps, capacity=capacity
    )
    if chosen == "cpu":
        from renderers.kernels.ray_march import cpu_handlers  # Numba is an extra, and takes a second to import

        found = cpu_handlers.march(*given, **options)
    else:
        found = (reference if chosen == "reference" else xla).march(*given, **options)
    first, last, ray, wanted, ran_out = found
    return March(starts=first, ends=last, ray_index=ray, wanted=wanted, ran_out=ran_out)
