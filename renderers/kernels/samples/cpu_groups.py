"""Samples sorted by tile, and lists of the tiles that hold some, on the host. Numba, float32."""

import math

import numpy as np

from renderers.kernels.composite.cpu_tiles import _spans, depth_order
from renderers.kernels.jit_numba import njit
from renderers.kernels.tiling import TILE

_ANYWHERE = np.float32(0)  # samples lie anywhere in a tile, not at its pixels' centres only


@njit(nogil=True, cache=True)
def samples_by_tile(positions, drawn, height, width):
    """Drawn samples inside the image, by tile.

    Returns:
      offsets [tiles + 1]: where each tile's run begins.
      samples [inside]: indices sorted by tile, in the order given within one.
    """
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    tiles = rows * columns
    tile_of = np.empty(positions.shape[0], np.int32)
    offsets = np.zeros(tiles + 1, np.int64)
    for i in range(positions.shape[0]):
        x, y = positions[i, 0], positions[i, 1]
        tile_of[i] = tiles
        if x >= 0 and y >= 0 and x < width and y < height and drawn[i] > 0:  # a NaN compares false
            tile_of[i] = math.floor(y / TILE) * columns + math.floor(x / TILE)
            offsets[tile_of[i] + 1] += 1
    offsets = np.cumsum(offsets)
    fill = offsets.copy()
    samples = np.empty(offsets[-1], np.int32)
    for i in range(positions.shape[0]):
        if tile_of[i] < tiles:
            samples[fill[tile_of[i]]] = i
            fill[tile_of[i]] += 1
    return offsets, samples


@njit(nogil=True, cache=True)
def bin_used_tiles(means, conics, opacities, extents, depths, rows, columns, used_offsets):
    """`cpu_tiles.bin_tiles` for the tiles whose run in `used_offsets` is not empty; the others' lists are empty."""
    starts, spans = _spans(means, conics, opacities, extents, rows, columns, _ANYWHERE)
    offsets = np.zeros(rows * columns + 1, np.int64)
    meeting = np.zeros_like(extents)  # extents of the Gaussians that meet a used tile: only those are sorted
    for i in range(opacities.shape[0]):
        for at in range(starts[i], starts[i + 1]):
            for tile in range(spans[at, 0], spans[at, 1]):
                if used_offsets[tile + 1] > used_offsets[tile]:
                    offsets[tile + 1] += 1
                    meeting[i] = extents[i]
    offsets = np.cumsum(offsets)
    fill = offsets.copy()
    ids = np.empty(offsets[-1], np.int32)
    for i in depth_order(depths, meeting):
        for at in range(starts[i], starts[i + 1]):
            for tile in range(spans[at, 0], spans[at, 1]):
                if used_offsets[tile + 1] > used_offsets[tile]:
                    ids[fill[tile]] = i
                    fill[tile] += 1
    return offsets, ids
