"""The host kernels of plane sampling as XLA custom calls: handlers, registration, and the sums that call them."""

import functools

import jax
import jax.numpy as jnp
import numba as nb
from jaxtyping import Array, Float

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.jit_numba import njit
from renderers.kernels.plane_sample import cpu

GATHER, SCATTER, CONTRACT = "galatea_planes_gather", "galatea_planes_scatter", "galatea_planes_contract"


@njit(inline="always")
def _matrix(frame, index):
    return ffi.floats(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


@njit(inline="always")
def _flat(frame, index):
    return ffi.floats(ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0),))


@njit(inline="always")
def _sizes(frame):
    return ffi.integers(ffi.argument(frame, 0), (4,))


@njit(inline="always")
def _out(frame):
    return ffi.floats(ffi.result(frame, 0), (ffi.result_dim(frame, 0, 0), ffi.result_dim(frame, 0, 1)))


def _gather_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    cpu.gather(_sizes(frame), _matrix(frame, 1), _matrix(frame, 2), _flat(frame, 3), _out(frame))
    return 0


def _scatter_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    out = ffi.floats(ffi.result(frame, 0), (ffi.result_dim(frame, 0, 0),))
    cpu.scatter(_sizes(frame), _matrix(frame, 1), _matrix(frame, 2), _matrix(frame, 3), out)
    return 0


def _contract_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    cpu.contract(
        _sizes(frame), _matrix(frame, 1), _matrix(frame, 2), _flat(frame, 3), _matrix(frame, 4), _out(frame)
    )  # fmt: skip
    return 0


@functools.cache
def _registered(name: str) -> str:
    """Register a handler, once a process and only when needed: each compiles for seconds the first time."""
    handlers = {GATHER: _gather_handler, SCATTER: _scatter_handler, CONTRACT: _contract_handler}
    ffi.register(name, handlers[name])
    return name


def _call(name, shape, size: tuple[int, int], coordinates, direction, *arrays):
    """`size`: of the planes; samples of all planes go one after the other."""
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    sizes = jnp.asarray([len(coordinates), *size, nb.get_num_threads()], jnp.int32)
    direction = jnp.zeros((0, 2), jnp.float32) if direction is None else direction.reshape(-1, 2)
    called = jax.ffi.ffi_call(_registered(name), result, vmap_method="sequential")
    # custom calls forget the mesh axes that they vary over: adding a zero brings those back
    zero = jnp.zeros_like(coordinates.ravel()[0])
    return called(sizes, coordinates.reshape(-1, 2), direction, *arrays) + zero


def gather(
    planes: Float[Array, "p h w c"],
    coordinates: Float[Array, "p n 2"],
    direction: Float[Array, "p n 2"] | None = None,
) -> Float[Array, "p n c"]:
    """See `xla.gather`."""
    (count, n, _), (*_, height, width, channels) = coordinates.shape, planes.shape
    shape = (count * n, channels)
    return _call(GATHER, shape, (height, width), coordinates, direction, planes.ravel()).reshape(count, n, channels)


def scatter(
    coordinates: Float[Array, "p n 2"],
    cotangents: Float[Array, "p n c"],
    size: tuple[int, int],
    direction: Float[Array, "p n 2"] | None = None,
) -> Float[Array, "p h w c"]:
    """See `xla.scatter`."""
    count, _, channels = cotangents.shape
    shape = (count * size[0] * size[1] * channels,)
    rows = cotangents.reshape(-1, channels)
    return _call(SCATTER, shape, size, coordinates, direction, rows).reshape(count, *size, channels)


def contract(
    planes: Float[Array, "p h w c"],
    coordinates: Float[Array, "p n 2"],
    cotangents: Float[Array, "p n c"],
    direction: Float[Array, "p n 2"] | None = None,
) -> Float[Array, "p n 2"]:
    """See `xla.contract`."""
    count, n, channels = cotangents.shape
    rows = cotangents.reshape(-1, channels)
    moved = _call(CONTRACT, (count * n, 2), planes.shape[1:3], coordinates, direction, planes.ravel(), rows)
    return moved.reshape(count, n, 2)
