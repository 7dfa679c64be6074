"""Named random streams from one seed: nothing is stored, so a resumed run draws what the unbroken one would have drawn.

A stream is named for its use ("sds", "init", "pixel jitter"); its key at a step is a function of (seed, name, step).
"""

import functools
import zlib

import jax
import numpy as np
from jaxtyping import Array, Int, Key


def key(seed: int, stream: str, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """The jax key of a stream at a step.

    Args:
        seed: the run's `--seed`, 0 .. 2^32 - 1.
        stream: name of the use; its CRC-32 is folded in, which is the same on every machine and Python.
        step: step number below 2^32; may be traced.

    Returns:
        A typed threefry key, whatever `jax_default_prng_impl` says.
    """
    root = jax.random.key(_checked_seed(seed), impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(root, np.uint32(_name_hash(stream))), step)


def host_rng(seed: int, stream: str, step: int = 0) -> np.random.Generator:
    """A numpy generator for work on the host: its own stream for each (seed, name, step).

    Philox is counter-based: seed and name form the key, the step the counter's top word, so that streams of different
    steps meet only after 2^192 draws.
    """
    return np.random.Generator(_philox(seed, stream, step))


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch number `epoch` visits `n` items: a read-only permutation of 0 .. n-1, int64.

    It sorts raw 64-bit Philox output, which numpy promises to keep across versions, unlike `Generator.permutation`.
    """
    if n < 1:
        raise ValueError(f"an epoch needs at least one item, got {n}")
    return _epoch_order(_checked_seed(seed), epoch, n)


def index_at(seed: int, step: int, n: int) -> int:
    """The item at position `step` of an endless sequence of shuffled epochs over `n` items."""
    epoch, position = divmod(step, n)
    return int(epoch_order(seed, epoch, n)[position])


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    order = np.argsort(_philox(seed, "epoch order", epoch).random_raw(n), kind="stable")
    order.flags.writeable = False
    return order


def _philox(seed: int, stream: str, step: int) -> np.random.Philox:
    if not 0 <= step < 2**64:
        raise ValueError(f"step must be 0 .. 2^64 - 1, got {step}")
    return np.random.Philox(
        key=np.array([_checked_seed(seed), _name_hash(stream)], np.uint64),
        counter=np.array([0, 0, 0, step], np.uint64),
    )


def _name_hash(stream: str) -> int:
    return zlib.crc32(stream.encode("utf-8"))


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be 0 .. 2^32 - 1, got {seed}")
    return int(seed)
