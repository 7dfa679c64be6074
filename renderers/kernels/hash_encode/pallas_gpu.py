"""The sums of the encoding on GPUs: Pallas kernels of the Triton backend, one program a level and a block of points.

Rows, weights and the sum over eight vertices stay in registers: what moves is the table's sectors and the result. The
sum into the table is XLA's scatter (`xla.scatter`), atomic additions on a GPU as a kernel of ours would make: its
result depends on their order, unless XLA_FLAGS holds --xla_gpu_deterministic_ops=true. CPUs run the same kernels
interpreted, which is how they are checked without a device.
"""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from renderers.kernels.composite.pallas_gpu_tiles import compiled_or_interpreted, struct
from renderers.kernels.hash_encode.levels import PRIMES, HashLevels
from renderers.kernels.hash_encode.xla import scatter as scatter

_BLOCK = 256  # points of a program, two a thread
_WARPS = 4
_NX, _NY, _, _OFFSET, _MASK, _DENSE, _COLUMNS = range(7)
_ZERO, _ONE = np.float32(0), np.float32(1)  # plain numbers would be float64 in kernels under `jax_enable_x64`
_SIGNED = tuple(np.uint32(prime).astype(np.int32) for prime in PRIMES)  # products wrap to the same bits
_CORNERS = tuple(itertools.product((0, 1), repeat=3))


def gather(
    points: Float[Array, "n 3"],
    table: Float[Array, "t f"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "n lf"]:
    """See `xla.gather`."""
    arrays = (_numbers(levels), table.reshape(-1), *_axes(points), *(() if direction is None else _axes(direction)))
    call = functools.partial(_gather, count=levels.num_levels, width=table.shape[1])
    features = compiled_or_interpreted(call, *arrays)  # [l, f, m]
    return jnp.moveaxis(features, 2, 0)[: len(points)].reshape(len(points), -1)


def contract(
    points: Float[Array, "n 3"],
    table: Float[Array, "t f"],
    cotangents: Float[Array, "n lf"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "n 3"]:
    """See `xla.contract`."""
    by_level = jnp.moveaxis(cotangents.reshape(len(points), levels.num_levels, -1), 0, 2)
    by_level = jnp.pad(by_level, ((0, 0), (0, 0), (0, -len(points) % _BLOCK)))
    arrays = (_numbers(levels), table.reshape(-1), by_level, *_axes(points))
    call = functools.partial(_contract, count=levels.num_levels, width=table.shape[1])
    moved = compiled_or_interpreted(call, *arrays, *(() if direction is None else _axes(direction)))  # [l, 3, m]
    return moved.sum(0).T[: len(points)]


def _numbers(levels: HashLevels):
    """What kernels read of the levels, one after the other."""
    rows = zip(levels.resolutions, levels.offsets, levels.sizes, levels.dense, strict=True)
    columns = [[*resolution, offset, size - 1, dense] for resolution, offset, size, dense in rows]
    return jnp.asarray(np.array(columns, np.int32).reshape(-1))


def _axes(points: Float[Array, "n 3"]):
    """Each coordinate by itself, padded to whole blocks."""
    padded = jnp.pad(points, ((0, -len(points) % _BLOCK), (0, 0)))
    return padded[:, 0], padded[:, 1], padded[:, 2]


def _gather(numbers, table, *axes, count, width, interpret):
    def hash_gather(numbers_ref, table_ref, *refs):
        *axes, out_ref = refs
        level = pl.program_id(1)
        cells = [_cell(ref[...], numbers_ref, level, axis) for axis, ref in enumerate(axes[:3])]
        direction = [ref[...] for ref in axes[3:]]
        sums = [jnp.zeros_like(cells[0][1]) for _ in range(width)]
        for corner in _CORNERS:
            row = _row(cells, corner, numbers_ref, level) * np.int32(width)
            weight = _weight(cells, corner, direction)
            for k in range(width):
                sums[k] = sums[k] + weight * table_ref[row + np.int32(k)]
        for k in range(width):
            out_ref[k, :] = sums[k]

    return _call(hash_gather, (numbers, table), axes, (), (count, width), interpret)


def _contract(numbers, table, cotangents, *axes, count, width, interpret):
    def hash_contract(numbers_ref, table_ref, cotangents_ref, *refs):
        *axes, out_ref = refs
        level = pl.program_id(1)
        cells = [_cell(ref[...], numbers_ref, level, axis) for axis, ref in enumerate(axes[:3])]
        direction = [ref[...] for ref in axes[3:]]
        given = [cotangents_ref[k, :] for k in range(width)]
        moved = [jnp.zeros_like(cells[0][1]) for _ in range(3)]
        for corner in _CORNERS:
            row = _row(cells, corner, numbers_ref, level) * np.int32(width)
            value = jnp.zeros_like(moved[0])
            for k in range(width):
                value = value + given[k] * table_ref[row + np.int32(k)]
            for axis in range(3):
                moved[axis] = moved[axis] + _slope(cells, corner, axis, direction) * value
        for axis in range(3):
            out_ref[axis, :] = moved[axis]

    return _call(hash_contract, (numbers, table), axes, (cotangents,), (count, 3), interpret)


def _call(kernel, whole, axes, by_level, shape, interpret):
    """A program for each block of points and level; `shape`: levels and rows a level of the output."""
    count, rows = shape
    m = axes[0].shape[0]

    def of_level(rows):
        return pl.BlockSpec((None, rows, _BLOCK), lambda block, level: (level, 0, block))

    return pl.pallas_call(
        kernel,
        grid=(m // _BLOCK, count),
        in_specs=[pl.no_block_spec] * len(whole)
        + [of_level(array.shape[1]) for array in by_level]
        + [pl.BlockSpec((_BLOCK,), lambda block, level: (block,))] * len(axes),
        out_specs=of_level(rows),
        out_shape=struct((count, rows, m), *whole, *by_level, *axes),
        compiler_params=plgpu.CompilerParams(num_warps=_WARPS, num_stages=1),
        interpret=interpret,
        name=kernel.__name__,
    )(*whole, *by_level, *axes)


def _number(numbers_ref, level, column):
    return numbers_ref[level * np.int32(_COLUMNS) + np.int32(column)]


def _cell(x, numbers_ref, level, axis):
    """Cells of coordinates, positions within them, and the derivative of those (0 outside the cube)."""
    vertices = _number(numbers_ref, level, axis)
    scale = (vertices - 1).astype(jnp.float32)
    position = jnp.where(x < _ZERO, _ZERO, jnp.where(x > _ONE, _ONE, x)) * scale
    # what is not a number is in cell 0, and stays so
    cell = jnp.minimum(jnp.where(position > _ZERO, position, _ZERO).astype(jnp.int32), vertices - 2)
    return cell, position - cell.astype(jnp.float32), jnp.where((x >= _ZERO) & (x <= _ONE), scale, _ZERO)


def _row(cells, corner, numbers_ref, level):
    x, y, z = (cell + np.int32(side) for (cell, *_), side in zip(cells, corner, strict=True))
    nx, ny = _number(numbers_ref, level, _NX), _number(numbers_ref, level, _NY)
    hashed = (x ^ (y * _SIGNED[1]) ^ (z * _SIGNED[2])) & _number(numbers_ref, level, _MASK)
    row = jnp.where(_number(numbers_ref, level, _DENSE) > 0, x + nx * (y + ny * z), hashed)
    return row + _number(numbers_ref, level, _OFFSET)


def _along(cells, corner, axis):
    fraction = cells[axis][1]
    return fraction if corner[axis] else _ONE - fraction


def _steep(cells, corner, axis):
    return cells[axis][2] if corner[axis] else -cells[axis][2]


def _weight(cells, corner, direction):
    """Trilinear weight of a vertex, or its derivative along a direction."""
    if not direction:
        return _along(cells, corner, 0) * _along(cells, corner, 1) * _along(cells, corner, 2)
    first, second, third = (direction[axis] * _slope(cells, corner, axis, ()) for axis in range(3))
    return first + second + third


def _slope(cells, corner, axis, direction):
    """Derivative of `_weight` by a coordinate."""
    a, b = (other for other in range(3) if other != axis)
    first = _steep(cells, corner, axis)
    if not direction:
        return first * _along(cells, corner, a) * _along(cells, corner, b)
    towards_a = direction[a] * _steep(cells, corner, a) * _along(cells, corner, b)
    return first * (towards_a + direction[b] * _steep(cells, corner, b) * _along(cells, corner, a))
