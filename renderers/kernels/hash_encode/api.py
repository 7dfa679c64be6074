"""Hash encoding for callers: chooses the backend and defines its derivatives once."""

import dataclasses
import functools
import typing
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.hash_encode import reference, xla
from renderers.kernels.hash_encode.levels import HashLevels
from renderers.kernels.transformations import alike


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Static choices of a call."""

    backend: Backend
    levels: HashLevels


def hash_encode(
    points: Float[Array, "n 3"],
    table: Float[Array, "t f"],
    levels: HashLevels,
    *,
    level_weights: Float[Array, " l"] | None = None,
    active_levels: int | None = None,
    derivative: Literal["reverse", "forward"] = "reverse",
    backend: Backend | None = None,
) -> Float[Array, "n lf"]:
    """Features of points, interpolated in each level's lattice (arXiv 2201.05989, section 3).

    Differentiable in points, table and level weights, twice: losses on the gradient by the points (eikonal,
    orientation) have gradients too. The encoding is continuous and its gradient by the points jumps between cells:
    the second derivatives are those inside the cells.

    Args:
      points: in the unit cube; others are moved to its nearest point and have no gradient. On the border the gradient
        is that of the inside. A point that is not a number has features that are not.
      table: rows of all levels, one after the other (`levels.num_rows`), any number of features.
      levels: lattices, static; see `levels.hash_levels`.
      level_weights: factors of the levels' features, for training from coarse to fine without compiling again.
      active_levels: static; finer levels than this many are zero and cost nothing. None: all.
      derivative: "reverse" for `jax.grad`, to the second order (the third with xla; reference: any); "forward" for
        `jax.jvp`, differentiated by JAX, with the xla and reference backends. None of the two modes serves the other.
      backend: None takes the platform's default. On cpu results do not depend on the number of threads; on GPUs the
        table's gradient depends on the order of additions unless XLA is told to be deterministic. No pallas_tpu.

    Returns:
      Features of the coarsest level first: column level * f + feature.

    Raises:
      ValueError: sizes that do not fit.
      Unsupported: the backend cannot run here.
    """
    if derivative == "forward" and backend is None:
        backend = "xla"
    chosen = choose(backend, dtype=table.dtype.name, pallas=("pallas_gpu",))
    if table.shape[0] != levels.num_rows:
        raise ValueError(f"expected a table of {levels.num_rows} rows for these levels, got {table.shape[0]}")
    if points.dtype != table.dtype:
        raise ValueError(f"expected points and table of one dtype, got {points.dtype} and {table.dtype}; convert one")
    if table.size >= 1 << 31:
        raise ValueError(f"expected a table of fewer than 2^31 numbers, got {table.shape}; use fewer or coarser levels")
    total, active = levels.num_levels, levels.num_levels if active_levels is None else active_levels
    if not 0 <= active <= total:
        raise ValueError(f"expected active_levels in 0..{total}, got {active}")
    n, width = len(points), table.shape[1]
    if active == 0 or n == 0 or width == 0:
        return jnp.zeros((n, total * width), table.dtype)
    used = levels.first(active)
    features = _features(points, table[: used.num_rows], used, derivative, chosen)
    if level_weights is not None:
        features = features * jnp.repeat(level_weights[:active].astype(features.dtype), width)[None]
    return jnp.pad(features, ((0, 0), (0, (total - active) * width)))


def _features(points, table, levels, derivative, backend) -> jax.Array:
    if backend == "reference":
        return reference.hash_encode(points, table, levels)
    if derivative == "forward":
        if backend != "xla":
            raise ValueError(f"forward mode is for backends xla and reference, got {backend!r}")
        return xla.gather(points, table, levels)
    return typing.cast(jax.Array, _encode(_Plan(backend, levels), *alike(points, table)))


def _sums(plan: _Plan):
    """The module that has gather, scatter and contract."""
    if plan.backend == "cpu":
        from renderers.kernels.hash_encode import cpu_handlers  # Numba is an extra, and takes a second to import

        return cpu_handlers
    if plan.backend == "pallas_gpu":
        from renderers.kernels.hash_encode import pallas_gpu  # Pallas takes a second to import

        return pallas_gpu
    return xla


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _encode(plan, points, table):
    return _sums(plan).gather(points, table, plan.levels)


def _encode_forward(plan, points, table):
    return _encode(plan, points, table), (points, table)


def _encode_backward(plan, residuals, g):
    points, table = residuals
    # two calls, so that XLA drops the one that nobody asks for
    return _points_gradient(plan, points, table, g), _table_gradient(plan, points, g)


_encode.defvjp(_encode_forward, _encode_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _points_gradient(plan, points, table, g):
    return _sums(plan).contract(points, table, g, plan.levels)


def _points_gradient_forward(plan, points, table, g):
    return _points_gradient(plan, points, table, g), (points, table, g)


def _points_gradient_backward(plan, residuals, direction):
    points, table, g = residuals
    sums, levels = _sums(plan), plan.levels
    return (
        sums.contract(points, table, g, levels, direction),
        sums.scatter(points, g, levels, direction),
        sums.gather(points, table, levels, direction),
    )


_points_gradient.defvjp(_points_gradient_forward, _points_gradient_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _table_gradient(plan, points, g):
    return _sums(plan).scatter(points, g, plan.levels)


def _table_gradient_forward(plan, points, g):
    return _table_gradient(plan, points, g), (points, g)


def _table_gradient_backward(plan, residuals, u):
    points, g = residuals
    return _points_gradient(plan, points, u, g), _encode(plan, points, u)


_table_gradient.defvjp(_table_gradient_forward, _table_gradient_backward)
