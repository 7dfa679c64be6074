"""Tile lists on the host: depth order, exact ellipse-tile overlap, counting sort. Numba, float32.

Same lists as `renderers.kernels.tiling` but for tiles that a
Gaussian's box meets and its ellipse does not, which it skips.
"""

import math

import numba as nb
import numpy as np

from renderers.kernels.jit_numba import njit
from renderers.kernels.tiling import TILE

_BITS = 11  # of the key a radix pass sorts by; 3 passes cover a float32
CENTRES = np.float32(0.5)  # distance from a tile's edge to the first point in it that is looked at, a pixel's centre
_TILE = np.float32(TILE)
_PER_TILE = np.float32(1 / TILE)
_ZERO, _HALF, _TWO = np.float32(0), np.float32(0.5), np.float32(2)
_SLACK = np.float32(0.01)  # pixels by which the overlap test errs on the safe side of rounding


@njit(nogil=True, cache=True)
def depth_order(depths, extents):
    """Indices of visible Gaussians (positive extents) from near to far; equal depths keep their order."""
    n = depths.shape[0]
    keys = np.empty(n, np.uint32)
    order = np.empty(n, np.int32)
    count = 0
    bits = depths.view(np.uint32)
    for i in range(n):
        if extents[i, 0] > 0:
            key = bits[i] if depths[i] != 0 else np.uint32(0)  # -0.0 ties with 0.0
            # IEEE floats sort as integers once negative ones are reversed
            keys[count] = ~key if key >> np.uint32(31) else key | np.uint32(0x80000000)
            order[count] = i
            count += 1
    keys, order = keys[:count], order[:count]
    keys_out, order_out = np.empty(count, np.uint32), np.empty(count, np.int32)
    mask = np.uint32((1 << _BITS) - 1)
    for step in range(3):
        shift = np.uint32(step * _BITS)
        histogram = np.zeros((1 << _BITS) + 1, np.int64)
        for i in range(count):
            histogram[((keys[i] >> shift) & mask) + 1] += 1
        for i in range(1 << _BITS):
            histogram[i + 1] += histogram[i]
        for i in range(count):
            digit = (keys[i] >> shift) & mask
            place = histogram[digit]
            histogram[digit] += 1
            keys_out[place], order_out[place] = keys[i], order[i]
        keys, keys_out = keys_out, keys
        order, order_out = order_out, order
    return order


@njit(inline="always")
def _clamp(value, limit):
    return min(max(value, 0), limit)


@njit(nogil=True, cache=True, inline="always")
def tile_span(row, i, means, conics, extents, level, columns, edge):
    """First and one-past-last tile of a row of tiles that the ellipse a dx^2 + 2 b dx dy + c dy^2 = 2 level meets.

    Of a tile counts what is `edge` pixels or more from its sides: CENTRES for pixels, 0 for points anywhere in it.

    The right edge x(dy) = (-b dy + sqrt(2 a level - (ac - b^2) dy^2)) / a is concave, so that its maximum over the
    row's band lies where the ellipse is widest, or at the band's nearer end; the left edge mirrors it.
    """
    a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
    extent_x, extent_y = extents[i, 0], extents[i, 1]
    top = np.float32(row * TILE) - means[i, 1]
    low, high = max(top + edge, -extent_y), min(top + _TILE - edge, extent_y)
    if low > high:  # the band only brushes the ellipse's slack
        low = high = _HALF * (low + high)
    widest = -b / c * extent_x
    right_y, left_y = min(max(widest, low), high), min(max(-widest, low), high)
    det, reach = a * c - b * b, _TWO * a * level
    right = (-b * right_y + math.sqrt(max(reach - det * right_y * right_y, _ZERO))) / a
    left = (-b * left_y - math.sqrt(max(reach - det * left_y * left_y, _ZERO))) / a
    right = min(right, extent_x) + means[i, 0] + _SLACK
    left = max(left, -extent_x) + means[i, 0] - _SLACK
    first = math.ceil((left - _TILE + edge) * _PER_TILE)
    last = math.floor((right - edge) * _PER_TILE) + 1
    return _clamp(first, columns), _clamp(last, columns)


@njit(parallel=True, nogil=True, cache=True)
def _spans(means, conics, opacities, extents, rows, columns, edge):
    """Runs of tiles that each Gaussian meets, one a row of tiles.

    spans[starts[i]:starts[i + 1]] = (first, one past last), in the order of the Gaussians, not of depth: memory is
    read in sequence.
    """
    n = opacities.shape[0]
    first_row, starts = np.empty(n, np.int32), np.zeros(n + 1, np.int64)
    for i in nb.prange(n):
        if extents[i, 0] > 0:
            height = extents[i, 1] + _SLACK
            first_row[i] = _clamp(math.ceil((means[i, 1] - height - _TILE + edge) * _PER_TILE), rows)
            last_row = _clamp(math.floor((means[i, 1] + height - edge) * _PER_TILE) + 1, rows)
            starts[i + 1] = max(last_row - first_row[i], 0)
    starts = np.cumsum(starts)
    spans = np.empty((starts[-1], 2), np.int32)
    for i in nb.prange(n):
        if starts[i + 1] > starts[i]:
            level = math.log(np.float32(255) * opacities[i])
            for at in range(starts[i], starts[i + 1]):
                row = first_row[i] + at - starts[i]
                first, last = tile_span(row, i, means, conics, extents, level, columns, edge)
                spans[at, 0], spans[at, 1] = row * columns + first, row * columns + last
    return starts, spans


@njit(nogil=True, cache=True)
def bin_tiles(means, conics, opacities, extents, depths, rows, columns):
    """Intersections by tile and depth.

    Returns:
      offsets [tiles + 1]: where each tile's run begins.
      ids [m]: Gaussian of each intersection, sorted by tile, then depth.
    """
    starts, spans = _spans(means, conics, opacities, extents, rows, columns, CENTRES)
    offsets = np.zeros(rows * columns + 1, np.int64)
    for at in range(spans.shape[0]):
        for tile in range(spans[at, 0], spans[at, 1]):
            offsets[tile + 1] += 1
    offsets = np.cumsum(offsets)
    fill = offsets.copy()
    ids = np.empty(offsets[-1], np.int32)
    for i in depth_order(depths, extents):
        for at in range(starts[i], starts[i + 1]):
            for tile in range(spans[at, 0], spans[at, 1]):
                ids[fill[tile]] = i
                fill[tile] += 1
    return offsets, ids
