"""The host kernels at samples as XLA custom calls: handlers, registration, and the JAX functions that call them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels import ffi_numba as ffi
from renderers.kernels.jit_numba import njit
from renderers.kernels.samples import cpu, cpu_contributions

FORWARD, BACKWARD = "galatea_samples_forward", "galatea_samples_backward"
BY_GAUSSIAN, BY_SAMPLE = "galatea_contributions_by_gaussian", "galatea_contributions_by_sample"


@njit(inline="always")
def _argument(frame, index):
    """A matrix."""
    return ffi.floats(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


@njit(inline="always")
def _vector(frame, index):
    return ffi.floats(ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0),))


@njit(inline="always")
def _samples(frame):
    """means2d, conics, opacities, features, extents, depths, positions, drawn, size: what both passes begin with."""
    return (
        _argument(frame, 0),
        _argument(frame, 1),
        _vector(frame, 2),
        _argument(frame, 3),
        _argument(frame, 4),
        _vector(frame, 5),
        _argument(frame, 6),
        _vector(frame, 7),
        ffi.integers(ffi.argument(frame, 8), (2,)),
    )


def _forward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities, features, extents, depths, positions, drawn, size = _samples(frame)
    m = positions.shape[0]
    values = ffi.floats(ffi.result(frame, 0), (m, features.shape[1]))
    final = ffi.floats(ffi.result(frame, 1), (m,))
    cpu.forward(means, conics, opacities, features, extents, depths, positions, drawn, size, values, final)
    return 0


def _backward_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities, features, extents, depths, positions, drawn, size = _samples(frame)
    values, final, g_values, g_final = _argument(frame, 9), _vector(frame, 10), _argument(frame, 11), _vector(frame, 12)
    out = ffi.floats(ffi.result(frame, 0), (means.shape[0], cpu.GEOMETRY + features.shape[1]))
    moved = ffi.floats(ffi.result(frame, 1), (positions.shape[0], 2))
    cpu.backward(
        means, conics, opacities, features, extents, depths, positions, drawn, size,
        values, final, g_values, g_final, out, moved,
    )  # fmt: skip
    return 0


def _by_gaussian_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities = _argument(frame, 0), _argument(frame, 1), _vector(frame, 2)
    extents, depths, mask, importance = _argument(frame, 3), _vector(frame, 4), _argument(frame, 5), _argument(frame, 6)
    n = means.shape[0]
    totals, largest = ffi.floats(ffi.result(frame, 0), (n,)), ffi.floats(ffi.result(frame, 1), (n,))
    pixels = ffi.integers(ffi.result(frame, 2), (n,))
    cpu_contributions.by_gaussian(
        means, conics, opacities, extents, depths, mask, importance, totals, largest, pixels
    )  # fmt: skip
    return 0


def _by_sample_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    means, conics, opacities = _argument(frame, 0), _argument(frame, 1), _vector(frame, 2)
    extents, depths, positions, drawn = _argument(frame, 3), _vector(frame, 4), _argument(frame, 5), _vector(frame, 6)
    options = ffi.integers(ffi.argument(frame, 7), (3,))
    m, k = positions.shape[0], ffi.result_dim(frame, 1, 1)
    counts, ids = ffi.integers(ffi.result(frame, 0), (m,)), ffi.integers(ffi.result(frame, 1), (m, k))
    weights = ffi.floats(ffi.result(frame, 2), (m, k))
    cpu_contributions.by_sample(
        means, conics, opacities, extents, depths, positions, drawn, options, counts, ids, weights
    )  # fmt: skip
    return 0


@functools.cache
def _registered(name: str) -> str:
    """Register a handler, once a process and only when needed: each compiles for seconds the first time."""
    handlers = {
        FORWARD: _forward_handler,
        BACKWARD: _backward_handler,
        BY_GAUSSIAN: _by_gaussian_handler,
        BY_SAMPLE: _by_sample_handler,
    }
    ffi.register(name, handlers[name])
    return name


def _call(name, *results):
    shapes = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results)
    return jax.ffi.ffi_call(_registered(name), shapes, vmap_method="sequential")


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    positions: Float[Array, "m 2"],
    drawn: Bool[Array, " m"],
    size: tuple[int, int],
) -> tuple[Float[Array, "m c"], Float[Array, " m"]]:
    """Values without background and transmittance left."""
    m = len(positions)
    call = _call(FORWARD, ((m, features.shape[1]), jnp.float32), ((m,), jnp.float32))
    inputs = (means2d, conics, opacities, features, extents, depths, positions)
    return call(*inputs, drawn.astype(jnp.float32), jnp.asarray(size, jnp.int32))


def backward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    positions: Float[Array, "m 2"],
    drawn: Bool[Array, " m"],
    size: tuple[int, int],
    outputs: tuple[Float[Array, "m c"], Float[Array, " m"]],
    cotangents: tuple[Float[Array, "m c"], Float[Array, " m"]],
) -> tuple[Float[Array, "..."], ...]:
    """Gradients of means2d, conics, opacities, features, the absolute-valued one of means2d, and of the positions."""
    inputs = (means2d, conics, opacities, features, extents, depths, positions)
    n, channels = features.shape
    call = _call(BACKWARD, ((n, cpu.GEOMETRY + channels), jnp.float32), ((len(positions), 2), jnp.float32))
    sizes = jnp.asarray(size, jnp.int32)
    rows, moved = call(*inputs, drawn.astype(jnp.float32), sizes, *outputs, *cotangents)
    mean, conic, opacity, probe, feature = jnp.split(rows, (2, 5, 6, 8), 1)
    return mean, conic, opacity[:, 0], feature, probe, moved


def by_gaussian(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    mask: Bool[Array, "h w"] | None,
    importance: Float[Array, "h w"],
) -> tuple[Float[Array, " n"], Float[Array, " n"], Int[Array, " n"]]:
    """Sum and largest of importance times weight, and number of pixels blended into, of each Gaussian."""
    n = len(opacities)
    call = _call(BY_GAUSSIAN, ((n,), jnp.float32), ((n,), jnp.float32), ((n,), jnp.int32))
    given = jnp.zeros((0, 0), jnp.float32) if mask is None else mask.astype(jnp.float32)
    return call(means2d, conics, opacities, extents, depths, given, importance)


def by_sample(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    positions: Float[Array, "m 2"],
    drawn: Bool[Array, " m"],
    size: tuple[int, int],
    k: int,
    by_weight: bool,
) -> tuple[Int[Array, " m"], Int[Array, "m k"], Float[Array, "m k"]]:
    """Number of Gaussians blended into each sample, and k of them with their weights."""
    m = len(positions)
    call = _call(BY_SAMPLE, ((m,), jnp.int32), ((m, k), jnp.int32), ((m, k), jnp.float32))
    options = jnp.asarray([*size, by_weight], jnp.int32)
    inputs = (means2d, conics, opacities, extents, depths, positions)
    return call(*inputs, drawn.astype(jnp.float32), options)
