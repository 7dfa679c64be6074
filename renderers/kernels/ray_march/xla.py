"""The march in plain XLA, for any device: all rays go one step at a time; then each place looks its step up.

Looking up is a binary search in the running counts of the place's ray: nine gathers for each of 2^18 places, where a
scatter would write 4 million steps of 8192 rays.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels.ray_march.reference import cell_of, next_edge


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
    """As `reference.march`."""
    grid = occupied.ravel()

    def step(state, _):
        t, count = state
        after = next_edge(t, cone, shortest, longest)
        middle = 0.5 * (after + t)
        cell, within = cell_of(origins + middle[:, None] * directions, box, occupied.shape)
        count = count + ((middle < ends) & within & grid[cell])
        return (after, count), (t, count)

    none = jnp.zeros_like(starts, jnp.int32)
    (last, wanted), (edges, counts) = lax.scan(step, (starts, none), length=num_steps)
    ray, rank = rays_of_places(wanted, capacity)
    used = ray < len(starts)
    held = jnp.minimum(ray, len(starts) - 1)
    index = _first_above(counts, held, rank)
    start = edges[index, held]
    end = next_edge(start, cone, shortest, longest)
    return jnp.where(used, start, 0), jnp.where(used, end, 0), ray, wanted, last < ends


def rays_of_places(wanted: Int[Array, " r"], capacity: int) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """Ray of each place, r where it is not used, and the place's number among the ray's own."""
    ends = jnp.cumsum(wanted)
    place = jnp.arange(capacity, dtype=jnp.int32)
    # rays that end at or before a place are those that come before its own
    passed = jnp.zeros(capacity, jnp.int32).at[ends].add(1, mode="drop")
    ray = jnp.cumsum(passed)
    first = (ends - wanted).at[ray].get(mode="fill", fill_value=0)
    return ray, place - first


def _first_above(counts, ray, rank):
    """Index of the first step at which the ray's running count exceeds the rank."""
    low = jnp.zeros_like(ray)
    high = jnp.full_like(ray, len(counts) - 1)
    for _ in range(max(1, (len(counts) - 1).bit_length())):
        middle = (low + high) // 2
        above = counts[middle, ray] > rank
        low, high = jnp.where(above, low, middle + 1), jnp.where(above, middle, high)
    return jnp.minimum(low, len(counts) - 1)
