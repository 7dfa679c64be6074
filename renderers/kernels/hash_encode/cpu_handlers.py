"""The host kernels of the encoding as XLA custom calls: handlers, registration, and the three sums that call them."""

import functools

import jax
import jax.numpy as jnp
import numba as nb
import numpy as np
from jaxtyping import Array, Float

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.hash_encode import cpu
from renderers.kernels.hash_encode.levels import HashLevels
from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import WIDTH

GATHER, SCATTER, CONTRACT = "galatea_hash_gather", "galatea_hash_scatter", "galatea_hash_contract"


@njit(inline="always")
def _matrix(frame, index):
    return ffi.floats(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


@njit(inline="always")
def _flat(frame, index):
    size = ffi.argument_dim(frame, index, 0) * ffi.argument_dim(frame, index, 1)
    return ffi.floats(ffi.argument(frame, index), (size,))


@njit(inline="always")
def _levels(frame, index):
    return ffi.integers(ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), 6))


@njit(inline="always")
def _threads(frame, index):
    return ffi.integers(ffi.argument(frame, index), (1,))[0]


def _gather_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    out = ffi.floats(ffi.result(frame, 0), (ffi.result_dim(frame, 0, 0), ffi.result_dim(frame, 0, 1)))
    cpu.gather(_matrix(frame, 3), _flat(frame, 4), _levels(frame, 0), _matrix(frame, 1), _threads(frame, 2), out)
    return 0


def _scatter_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    out = ffi.floats(ffi.result(frame, 0), (ffi.result_dim(frame, 0, 0) * ffi.result_dim(frame, 0, 1),))
    cpu.scatter(_matrix(frame, 3), _matrix(frame, 4), _levels(frame, 0), _matrix(frame, 1), _threads(frame, 2), out)
    return 0


def _contract_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    out = ffi.floats(ffi.result(frame, 0), (3, ffi.result_dim(frame, 0, 1)))
    cpu.contract(
        _matrix(frame, 3), _flat(frame, 4), _matrix(frame, 5), _levels(frame, 0), _matrix(frame, 1),
        _threads(frame, 2), out,
    )  # fmt: skip
    return 0


@functools.cache
def _registered(name: str) -> str:
    """Register a handler, once a process and only when needed: each compiles for seconds the first time."""
    handlers = {GATHER: _gather_handler, SCATTER: _scatter_handler, CONTRACT: _contract_handler}
    ffi.register(name, handlers[name])
    return name


def _call(name, shape, levels: HashLevels, direction, *arrays):
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    kinds = zip(levels.resolutions, levels.offsets, levels.sizes, levels.dense, strict=True)
    columns = np.array([[*resolution, *rest] for resolution, *rest in kinds], np.int32)
    direction = jnp.zeros((3, 0), jnp.float32) if direction is None else _columns(direction)
    threads = jnp.full(1, nb.get_num_threads(), jnp.int32)
    called = jax.ffi.ffi_call(_registered(name), result, vmap_method="sequential")
    # custom calls forget the mesh axes that they vary over: adding a zero brings those back
    return called(jnp.asarray(columns), direction, threads, *arrays) + jnp.zeros_like(arrays[0].ravel()[0])


def _columns(points: Float[Array, "n 3"]) -> Float[Array, "3 m"]:
    """Each axis by itself, padded to whole registers."""
    return jnp.pad(points.T, ((0, 0), (0, -len(points) % WIDTH)))


def gather(
    points: Float[Array, "n 3"],
    table: Float[Array, "t f"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "n lf"]:
    """See `xla.gather`."""
    shape = (len(points), levels.num_levels * table.shape[1])
    return _call(GATHER, shape, levels, direction, _columns(points), table)


def scatter(
    points: Float[Array, "n 3"],
    cotangents: Float[Array, "n lf"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "t f"]:
    """See `xla.scatter`."""
    shape = (levels.num_rows, cotangents.shape[1] // levels.num_levels)
    return _call(SCATTER, shape, levels, direction, _columns(points), cotangents)


def contract(
    points: Float[Array, "n 3"],
    table: Float[Array, "t f"],
    cotangents: Float[Array, "n lf"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "n 3"]:
    """See `xla.contract`."""
    columns = _columns(points)
    moved = _call(CONTRACT, columns.shape, levels, direction, columns, table, cotangents)
    return moved[:, : len(points)].T
