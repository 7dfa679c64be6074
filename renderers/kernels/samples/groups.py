"""Samples gathered by tile, and tile lists for the tiles that hold some: what the walk in `xla.py` runs over.

Pure XLA, static shapes, no gradient. A group is up to p samples of one tile. The tiles of m samples fill at most
min(m, tiles + m / p) groups, which bounds the work for any distribution of the samples.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels import tiling
from renderers.kernels.tiling import TILE, TileLists


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Groups:
    """Samples to walk together.

    Attributes:
      tiles: Int["g"], the tile that each group lies in, row-major.
      x, y: Float["g p"], positions in pixels.
      drawn: Bool["g p"], False for samples masked off and for places that hold none.
    """

    tiles: Int[Array, " g"]
    x: Float[Array, "g p"]
    y: Float[Array, "g p"]
    drawn: Bool[Array, "g p"]


def inside(positions: Float[Array, "m 2"], size: tuple[int, int]) -> Bool[Array, " m"]:
    """Whether samples lie in the image; not so where they are not finite."""
    x, y = positions[:, 0], positions[:, 1]
    return (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])


def tile_of(positions: Float[Array, "m 2"], drawn: Bool[Array, " m"], size: tuple[int, int]) -> Int[Array, " m"]:
    """Tile of each sample; the number of tiles for samples outside the image, and for those not drawn."""
    rows, columns = tiling.grid(size)
    held = drawn & inside(positions, size)
    column, row = (jnp.where(held, positions[:, axis] / TILE, 0.0).astype(jnp.int32) for axis in (0, 1))
    return jnp.where(held, row * columns + column, rows * columns)


def used_tiles(tile: Int[Array, " m"], size: tuple[int, int]) -> Bool[Array, " t"]:
    """Which tiles hold samples, given each one's tile."""
    rows, columns = tiling.grid(size)
    return jnp.zeros(rows * columns, bool).at[tile].set(True, mode="drop")


def default_width(count: int, size: tuple[int, int]) -> int:
    """Samples a group: about the mean of a tile, a power of two.

    Wider groups share loads of Gaussians and sum gradients before they are scattered, but walk places that hold no
    sample: 4,096 random ones of a full HD image, half a sample a tile, took 337 ms by one and 606 ms by eight (xla on
    2 busy cores).
    """
    rows, columns = tiling.grid(size)
    return min(TILE * TILE, 1 << max(count // (rows * columns), 1).bit_length() - 1)


def sample_groups(
    positions: Float[Array, "m 2"], tile: Int[Array, " m"], size: tuple[int, int], width: int
) -> tuple[Groups, Int[Array, " m"]]:
    """Groups of `width` samples, and the place (group * width + lane) of each sample; past the end if it has none."""
    m = len(positions)
    rows, columns = tiling.grid(size)
    tiles = rows * columns
    count = min(m, tiles + m // width)
    order = jnp.argsort(tile, stable=True)
    of = tile[order]
    index = jnp.arange(m, dtype=jnp.int32)
    begins = jnp.concatenate([jnp.ones(1, bool), of[1:] != of[:-1]])
    lane = (index - lax.cummax(jnp.where(begins, index, 0))) % width
    group = jnp.cumsum(lane == 0).astype(jnp.int32) - 1
    place = jnp.where(of < tiles, group * width + lane, count * width)
    x, y = (
        jnp.zeros(count * width, positions.dtype).at[place].set(positions[order, axis], mode="drop") for axis in (0, 1)
    )
    drawn = jnp.zeros(count * width, bool).at[place].set(True, mode="drop")
    groups = Groups(
        tiles=jnp.zeros(count, jnp.int32).at[place // width].set(of, mode="drop"),
        x=x.reshape(count, width),
        y=y.reshape(count, width),
        drawn=drawn.reshape(count, width),
    )
    return groups, jnp.zeros(m, jnp.int32).at[order].set(place)


def count_intersections(
    means2d: Float[Array, "n 2"], extents: Float[Array, "n 2"], used: Bool[Array, " t"], size: tuple[int, int]
) -> Int[Array, ""]:
    """Number of intersections with used tiles, which sets the capacity that lists need."""
    first, span = tiling.tile_boxes(means2d, extents, size)
    return jnp.sum(_used_above(_used_table(used, size), first, span, first[:, 1] + span[:, 1]))


def default_capacity(num_gaussians: int, num_samples: int, size: tuple[int, int]) -> int:
    """Bound used inside a trace when none is given: as for a whole image, and never more than a Gaussian a sample."""
    return min(tiling.default_capacity(num_gaussians, size), tiling.next_capacity(num_gaussians * num_samples))


def bin_used_tiles(
    means2d: Float[Array, "n 2"],
    extents: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    used: Bool[Array, " t"],
    size: tuple[int, int],
    capacity: int,
) -> TileLists:
    """`tiling.bin_gaussians` with empty lists for the tiles not used; their intersections take no room.

    The used tiles of a row of tiles have consecutive numbers among all used ones. So an intersection finds its row of
    tiles by bisection of the count above it, and its tile by its number.
    """
    n = means2d.shape[0]
    rows, columns = tiling.grid(size)
    tiles = rows * columns
    order = jnp.argsort(depths, stable=True).astype(jnp.int32)
    first, span = (v[order] for v in tiling.tile_boxes(means2d, extents, size))
    table = _used_table(used, size)
    count = _used_above(table, first, span, first[:, 1] + span[:, 1])
    start = jnp.cumsum(count) - count
    total = start[-1] + count[-1]

    slot = jnp.arange(capacity, dtype=jnp.int32)
    marks = (
        jnp.zeros(capacity, jnp.int32)
        .at[jnp.where(count > 0, start, capacity)]
        .max(jnp.arange(n, dtype=jnp.int32), mode="drop")
    )
    rank = lax.cummax(marks)
    nth, first, span = slot - start[rank], first[rank], span[rank]  # the Gaussian's nth used tile

    def halve(bounds):
        low, high = bounds
        middle = (low + high) // 2
        above = _used_above(table, first, span, middle) <= nth
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    bounds = (first[:, 1], first[:, 1] + jnp.maximum(span[:, 1], 1))
    row, _ = lax.while_loop(lambda bounds: jnp.any(bounds[1] - bounds[0] > 1), halve, bounds)
    number_of_tile = jnp.cumsum(used.astype(jnp.int32)) - used.astype(jnp.int32)  # used tiles before each
    before = number_of_tile[jnp.minimum(row, rows - 1) * columns + jnp.minimum(first[:, 0], columns - 1)]
    at = before + nth - _used_above(table, first, span, row)
    (tile_of_number,) = jnp.nonzero(used, size=tiles, fill_value=0)
    tile = jnp.where(slot < total, tile_of_number[jnp.clip(at, 0, tiles - 1)].astype(jnp.int32), tiles)
    return tiling.sorted_lists(tile, rank, order, tiles, jnp.maximum(total - capacity, 0))


def _used_table(used, size):
    """Number of used tiles above and to the left of each corner of the tile grid, [rows + 1, columns + 1]."""
    counts = used.reshape(tiling.grid(size)).astype(jnp.int32)
    return jnp.pad(jnp.cumsum(jnp.cumsum(counts, 0), 1), ((1, 0), (1, 0))).astype(jnp.int32)


def _used_above(table, first, span, row):
    """Used tiles of each box in its rows of tiles before `row`."""
    left, right, top = first[:, 0], first[:, 0] + span[:, 0], first[:, 1]
    return table[row, right] - table[row, left] - table[top, right] + table[top, left]
