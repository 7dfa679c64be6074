"""What operations with hand-written derivatives need under `jax.shard_map` and `jax.vmap`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap


def alike(*arrays: Any) -> tuple[jax.Array, ...]:
    """The same arrays, all varying over the same mesh axes, as a hand-written derivative under `shard_map` needs.

    Adding a constant zero that varies like every array lets JAX insert (and, backwards, sum over) the missing axes.
    """
    zero = sum(jnp.zeros_like(array.ravel()[0]) for array in arrays)
    return tuple(array + zero for array in arrays)


def one_by_one(walk: Callable) -> Callable:
    """The same walk over tile lists, scene after scene under `jax.vmap`.

    A batched loop whose scenes end at different turns would keep each one's sums by copying all of them every turn.
    """
    return sequential_vmap(walk)
