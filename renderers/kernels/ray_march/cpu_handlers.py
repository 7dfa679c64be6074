"""The host kernel of the march as an XLA custom call: handler, registration, and the JAX function that calls it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.jit_numba import njit
from renderers.kernels.ray_march import cpu

MARCH = "galatea_ray_march"


@njit(inline="always")
def _matrix(frame, index):
    return ffi.floats(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


@njit(inline="always")
def _vector(frame, index):
    return ffi.floats(ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0),))


@njit(inline="always")
def _cells(frame, index):
    """Four axes of bytes, seen through whole words; those of the last word that are beyond the end are not read."""
    shape = (
        ffi.argument_dim(frame, index, 0),
        ffi.argument_dim(frame, index, 1),
        ffi.argument_dim(frame, index, 2),
        ffi.argument_dim(frame, index, 3),
    )
    count = shape[0] * shape[1] * shape[2] * shape[3]
    words = ffi.integers(ffi.argument(frame, index), ((count + 3) // 4,))
    return words.view(np.uint8)[:count].reshape(shape)


def _march_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    origins, directions, starts, ends = _matrix(frame, 0), _matrix(frame, 1), _vector(frame, 2), _vector(frame, 3)
    grid = _cells(frame, 4)
    box, steps, num_steps = _matrix(frame, 5), _vector(frame, 6), ffi.integers(ffi.argument(frame, 7), (1,))[0]
    m, r = ffi.result_dim(frame, 0, 0), origins.shape[0]
    out_starts, out_ends = ffi.floats(ffi.result(frame, 0), (m,)), ffi.floats(ffi.result(frame, 1), (m,))
    rays, wanted = ffi.integers(ffi.result(frame, 2), (m,)), ffi.integers(ffi.result(frame, 3), (r,))
    ran_out = ffi.integers(ffi.result(frame, 4), (r,))
    cpu.march(
        origins, directions, starts, ends, grid, box, steps, num_steps, out_starts, out_ends, rays, wanted, ran_out
    )
    return 0


@functools.cache
def _registered() -> str:
    """Register the handler, once a process and only when needed: it compiles for seconds the first time."""
    ffi.register(MARCH, _march_handler)
    return MARCH


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
    places, rays = (capacity,), starts.shape
    results = (
        jax.ShapeDtypeStruct(places, jnp.float32),
        jax.ShapeDtypeStruct(places, jnp.float32),
        jax.ShapeDtypeStruct(places, jnp.int32),
        jax.ShapeDtypeStruct(rays, jnp.int32),
        jax.ShapeDtypeStruct(rays, jnp.int32),
    )
    call = jax.ffi.ffi_call(_registered(), results, vmap_method="sequential")
    steps = jnp.asarray([cone, shortest, longest], jnp.float32)
    grid, number = occupied.astype(jnp.uint8), jnp.asarray([num_steps], jnp.int32)
    *outputs, ran_out = call(origins, directions, starts, ends, grid, box, steps, number)
    first, last, ray, wanted = outputs
    return first, last, ray, wanted, ran_out != 0
