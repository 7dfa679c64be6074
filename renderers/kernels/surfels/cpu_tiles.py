"""Tile lists of surfels on the host: what each can reach within its box, depth order, counting sort. Numba.

The lists are those of `renderers.kernels.tiling` but for tiles of the box in which alpha stays below 1/255 at every
pixel, which are skipped; so are such rows of pixels. Bounds are calculated in float64: those of a thin surfel far from
the image's corner are small differences of large squares.
"""

import math

import numba as nb
import numpy as np

from renderers.kernels.composite.cpu_tiles import depth_order
from renderers.kernels.jit_numba import njit
from renderers.kernels.surfels.reference import LOW_PASS
from renderers.kernels.tiling import TILE

_SLACK = 0.05  # pixels, and share of a half width, by which bounds err on the safe side of float32's rounding
_FARTHEST = 1e9  # pixels; bounds farther off than this are as good as none


@njit(inline="always")
def _bounds(w, row, mean, level):
    """Lowest and highest coordinate at which sigma can be level / 2 or less.

    That is the low-pass filter's disc and the image of the circle of radius sqrt(level) on the plane, which is an
    ellipse if the circle lies wholly in front of the camera, else unbounded. (arXiv 2403.17888, section 4.2.)
    """
    disc = math.sqrt(level / LOW_PASS)
    low, high = mean - disc, mean + disc
    d = level * (w[0] * w[0] + w[1] * w[1]) - w[2] * w[2]
    if not (w[2] > 0 and d < -1e-6 * w[2] * w[2]):
        return -_FARTHEST, _FARTHEST
    origin = row[2] / w[2]
    a0, a1 = row[0] - origin * w[0], row[1] - origin * w[1]
    f = level / d
    shift = f * (a0 * w[0] + a1 * w[1])
    half = math.sqrt(max(shift * shift - f * (a0 * a0 + a1 * a1), 0.0))
    half += _SLACK * (1 + half)
    return min(low - _SLACK, origin + shift - half), max(high + _SLACK, origin + shift + half)


@njit(inline="always")
def _within(low, high, first, last):
    """Tiles of first .. last whose pixel centres lie in low .. high."""
    first = max(first, np.int64(math.ceil((max(low, -_FARTHEST) - (TILE - 0.5)) / TILE)))
    return first, max(first, min(last, np.int64(math.floor((min(high, _FARTHEST) - 0.5) / TILE)) + 1))


@njit(parallel=True, nogil=True, cache=True)
def _reaches(transforms, means, opacities, rectangles):
    """What each surfel can reach: tiles (first and one past last, across and down), rows of pixels, 1 if any."""
    n = opacities.shape[0]
    tiles, rows, shown = np.zeros((n, 4), np.int32), np.zeros((n, 2), np.float32), np.zeros((n, 1), np.float32)
    for i in nb.prange(n):
        level = 2 * math.log(max(np.float64(opacities[i]), 1e-30) * 255) + 1e-5
        if level < 0 or rectangles[i, 2] <= rectangles[i, 0]:
            continue
        m = np.empty(9, np.float64)
        for k in range(9):
            m[k] = transforms[i, k]
        left, right = _bounds(m[6:9], m[0:3], np.float64(means[i, 0]), level)
        top, bottom = _bounds(m[6:9], m[3:6], np.float64(means[i, 1]), level)
        tiles[i, 0], tiles[i, 2] = _within(left, right, np.int64(rectangles[i, 0]), np.int64(rectangles[i, 2]))
        tiles[i, 1], tiles[i, 3] = _within(top, bottom, np.int64(rectangles[i, 1]), np.int64(rectangles[i, 3]))
        rows[i, 0], rows[i, 1] = max(top, -_FARTHEST), min(bottom, _FARTHEST)
        if tiles[i, 2] > tiles[i, 0] and tiles[i, 3] > tiles[i, 1]:
            shown[i, 0] = np.float32(1)
    return tiles, rows, shown


@njit(nogil=True, cache=True)
def bin_tiles(transforms, means, opacities, depths, rectangles, rows, columns):
    """List the surfels of each tile from near to far.

    Args:
      transforms, means, opacities, depths: see `reference.composite`, transforms as rows of nine.
      rectangles: see `reference.tile_rectangles`.
      rows, columns: tiles down and across.

    Returns:
      offsets [tiles + 1]: where each tile's run begins.
      ids [m]: surfel of each intersection, sorted by tile, then depth.
      reach [n, 2]: first and last pixel coordinate down the image between which a surfel may be seen.
    """
    tiles, reach, shown = _reaches(transforms, means, opacities, rectangles)
    offsets = np.zeros(rows * columns + 1, np.int64)
    for i in range(shown.shape[0]):
        for y in range(tiles[i, 1], tiles[i, 3]):
            for x in range(tiles[i, 0], tiles[i, 2]):
                offsets[y * columns + x + 1] += 1
    offsets = np.cumsum(offsets)
    fill = offsets.copy()
    ids = np.empty(offsets[-1], np.int32)
    for i in depth_order(depths, shown):
        for y in range(tiles[i, 1], tiles[i, 3]):
            for x in range(tiles[i, 0], tiles[i, 2]):
                ids[fill[y * columns + x]] = i
                fill[y * columns + x] += 1
    return offsets, ids, reach
