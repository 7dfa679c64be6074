"""Tangents of compositing on the host in Numba: all directions in one walk, sharing tiles, exponentials and weights.

With w_i = alpha_i T_i, q_i = d(log alpha_i) and T_{i+1} = T_i - w_i, a direction carries dT and the image:

    dw_i = m_i T_i q_i + alpha_i dT_i,   dT_{i+1} = dT_i - dw_i,   dI = sum_i dw_i f_i + w_i df_i,

m_i is alpha_i where it moves and 0 where it is clamped, dropped or behind a pixel that has stopped: exactly the
transpose of `cpu.backward`. q is a quadratic polynomial of the pixel's offset from the mean, so that a pixel pays two
multiply-adds a direction for it. State and tiles are those of `cpu.forward`.
"""

import numba as nb
import numpy as np

from renderers.kernels.composite.cpu import (
    _CHECK,
    _HALF,
    _MAX_ALPHA,
    _ONE,
    _ZERO,
    _all_stopped,
    _blend,
    _drawn,
    _row_range,
    _spread,
)
from renderers.kernels.composite.cpu_tiles import bin_tiles
from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import load, ramp, splat, store, where_greater
from renderers.kernels.tiling import TILE

GEOMETRY = 6  # columns of a direction's row before the features: mean (2), conic (3), opacity


@njit(inline="always")
def _start_polynomials(moved, opacity, a, b, dx, scratch):
    """For each direction q's part without dy, and its slope in dy, along a row of the tile: two lanes a direction.

    `moved` [k, columns]: a Gaussian's rows.
    """
    relative = _ONE / opacity if opacity > _ZERO else _ZERO
    for d in range(moved.shape[0]):
        row = moved[d]
        level = row[5] * relative + dx * (a * row[0] + b * row[1] - _HALF * row[2] * dx)
        store(scratch, d * 2 * TILE, level)
        store(scratch, d * 2 * TILE + TILE, splat(b * row[0]) - row[3] * dx)


@njit(inline="always")
def _write_tile(state, stride, top, left, images, finals):
    """Copy a tile's pixels out of the state."""
    directions, height, width, channels = images.shape
    for y in range(min(TILE, height - top)):
        for d in range(directions):
            at = y * stride + TILE + d * TILE * (1 + channels)
            for x in range(min(TILE, width - left)):
                finals[d, top + y, left + x] = state[at + x]
                for channel in range(channels):
                    images[d, top + y, left + x, channel] = state[at + TILE + channel * TILE + x]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def tangents(means, conics, opacities, features, extents, depths, mask, moved, images, finals):
    """Fill images [k, h, w, c] and finals [k, h, w], the tangents of image and transmittance.

    `moved` [n, k, 6 + c]: for each Gaussian and direction, tangents of mean (2), conic (3), opacity and features.
    """
    directions, height, width, channels = images.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    offsets, ids = bin_tiles(means, conics, opacities, extents, depths, rows, columns)
    each = TILE * (1 + channels)  # of a row's state: a direction's transmittance, then its channels
    stride = TILE + directions * each
    for i in nb.prange(rows * columns):
        tile = _spread(i, rows * columns)
        top, left = tile // columns * TILE, tile % columns * TILE
        state, scratch = np.zeros(TILE * stride, np.float32), np.empty(directions * 2 * TILE, np.float32)
        for y in range(TILE):
            for x in range(TILE):
                inside = top + y < height and left + x < width and _drawn(mask, top + y, left + x)
                state[y * stride + x] = _ONE if inside else -_ONE
        zero = splat(_ZERO)
        for k in range(offsets[tile], offsets[tile + 1]):
            j = ids[k]
            a, b, c, opacity = conics[j, 0], conics[j, 1], conics[j, 2], opacities[j]
            mean_y = means[j, 1] - np.float32(top) - _HALF
            dx = ramp() - (means[j, 0] - np.float32(left) - _HALF)
            from_x, cross = _HALF * a * (dx * dx), b * dx
            _start_polynomials(moved[j], opacity, a, b, dx, scratch)
            first, last = _row_range(mean_y, extents[j, 1])
            for y in range(first, last):
                dy = np.float32(y) - mean_y
                front = load(state, y * stride)
                raw, alpha, weight, behind = _blend(from_x + cross * dy + _HALF * c * dy * dy, opacity, front)
                store(state, y * stride, behind)
                alpha = where_greater(behind, zero, alpha, zero)
                m = where_greater(raw, splat(_MAX_ALPHA), zero, weight)
                for d in range(directions):
                    # dsigma / dmean_y has the part c dy, which the slope along the row leaves to this
                    slope = load(scratch, d * 2 * TILE + TILE) + (c * moved[j, d, 1] - _HALF * moved[j, d, 4] * dy)
                    q = load(scratch, d * 2 * TILE) + slope * dy
                    at = y * stride + TILE + d * each
                    dfront = load(state, at)
                    dweight = m * q + alpha * dfront
                    store(state, at, dfront - dweight)
                    for channel in range(channels):
                        to = at + TILE + channel * TILE
                        step = dweight * features[j, channel] + weight * moved[j, d, GEOMETRY + channel]
                        store(state, to, load(state, to) + step)
            if (k - offsets[tile]) % _CHECK == _CHECK - 1 and _all_stopped(state, stride):
                break
        _write_tile(state, stride, top, left, images, finals)
