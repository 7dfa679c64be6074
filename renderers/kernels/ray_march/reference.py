"""The march, dense: every ray has all steps, and those that are taken are then picked out."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def next_edge(t: Float[Array, "*r"], cone: float, shortest: float, longest: float) -> Float[Array, "*r"]:
    """Where the step that starts at t ends."""
    return t + jnp.clip(t * cone, shortest, longest)


def cell_of(
    points: Float[Array, "*n 3"], box: Float[Array, "2 3"], shape: tuple[int, ...]
) -> tuple[Int[Array, "*n"], Bool[Array, "*n"]]:
    """Number of the cell that holds each point, in the finest level that does, and whether any level does.

    Args:
      points: world units.
      box: lowest and highest corner of level 0.
      shape: (levels, x, y, z) cells.
    """
    levels, *counts = shape
    center, half = (jnp.broadcast_to(v, points.shape) for v in (0.5 * (box[0] + box[1]), 0.5 * (box[1] - box[0])))
    relative = (points - center) / half
    size = jnp.max(jnp.abs(relative), -1)
    level = jnp.zeros(size.shape, jnp.int32)
    for finer in range(levels - 1):
        level += size > 2.0**finer
    fraction = relative * (0.5**level)[..., None].astype(relative.dtype) * 0.5 + 0.5
    cell = level
    for axis, count in enumerate(counts):
        place = jnp.floor(fraction[..., axis] * count)  # compared before it is cast: far away it fits no integer
        cell = cell * count + jnp.clip(place, 0, count - 1).astype(jnp.int32)
    return cell, size <= 2.0 ** (levels - 1)


def march(
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    starts: Float[Array, " r"],
    ends: Float[Array, " r"],
    occupied: Bool[Array, "l x y z"],
    box: Float[Array, "2 3"],
    *,
    cone: float,
    shortest: float,
    longest: float,
    num_steps: int,
    capacity: int,
) -> tuple[Float[Array, " m"], Float[Array, " m"], Int[Array, " m"], Int[Array, " r"], Bool[Array, " r"]]:
    """Starts, ends and rays of the steps taken; how many each ray wants; and whether its steps ran out before its end.

    Rays in order, steps of a ray front to back, places without one last (ray r, zeros); what exceeds the capacity is
    dropped from the back.
    """

    def step(t, _):
        after = next_edge(t, cone, shortest, longest)
        return after, after

    _, edges = lax.scan(step, starts, length=num_steps)
    edges = jnp.concatenate([starts[:, None], edges.T], 1)
    middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
    cell, within = cell_of(origins[:, None] + middles[..., None] * directions[:, None], box, occupied.shape)
    taken = (middles < ends[:, None]) & within & occupied.ravel()[cell]
    (place,) = jnp.nonzero(taken.ravel(), size=capacity, fill_value=taken.size)
    ray = place // num_steps

    def pick(values):
        return values.ravel().at[place].get(mode="fill", fill_value=0)

    wanted = jnp.sum(taken, 1, dtype=jnp.int32)
    return pick(edges[:, :-1]), pick(edges[:, 1:]), ray.astype(jnp.int32), wanted, edges[:, -1] < ends
