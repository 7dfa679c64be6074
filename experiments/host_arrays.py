"""Arrays on their way between the devices, the host and the other processes: bit for bit, by dotted name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments import finite


def host_copies(state: Any) -> dict[str, np.ndarray]:
    """Copies every leaf of a pytree to the host, gathering those that are sharded over processes.

    Every process must call this if a leaf is sharded. The copies share no memory with the state, whose buffers the next
    step may overwrite.

    Returns:
        Dotted name to array.

    Raises:
        TypeError: a leaf is a typed PRNG key, or two leaves have the same name.
    """
    named = [(finite.leaf_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]]
    for name, leaf in named:
        if jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.extended):
            raise TypeError(f"{name} is a PRNG key; keep keys out of the state, derive them from the seed and the step")
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            leaf.copy_to_host_async()
    copies = {name: _host_copy(leaf) for name, leaf in named}
    if len(copies) < len(named):
        raise TypeError("two arrays of the state have the same dotted name; rename one")
    return copies


def place(array: np.ndarray, like: Any) -> jax.Array:
    """Puts an array that every process holds on the devices: by the sharding of `like`, or on the default device."""
    sharding = getattr(like, "sharding", None)
    if sharding is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def text_from_process_0(text: str) -> str:
    """The text that process 0 passes, on every process; the others' argument is not used."""
    if jax.process_count() == 1:
        return text
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    padded = np.zeros(size, np.uint8)
    if jax.process_index() == 0:
        padded[:] = data
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().decode() if size else ""


def dtype_named(name: str) -> np.dtype:
    """The type called `float32`, `bool`, `bfloat16`, ..."""
    return np.dtype(getattr(jnp, name, name))  # bfloat16 and its kind are known to jax only.


def _host_copy(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    # On the CPU the plain conversion would be a view of the device's memory.
    return np.array(leaf, copy=True)
