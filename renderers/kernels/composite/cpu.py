"""Compositing on the host in Numba, float32: tiles in parallel, a tile's rows of 16 pixels as vector registers.

The arithmetic is that of `xla.py`. A pixel that has stopped carries its transmittance negated, which keeps every later
test false. The tile lists are made anew for the backward pass: that costs a tenth of what follows, and no capacity has
to be fixed. Each intersection writes its own gradient row, then rows are summed per Gaussian in list order: results do
not depend on the number of threads. `cpu_handlers.py` makes these functions known to XLA.
"""

import math

import numba as nb
import numpy as np

from renderers.kernels.composite.cpu_tiles import bin_tiles
from renderers.kernels.composite.reference import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE
from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import (
    absolute,
    any_positive,
    clamp,
    exp_negative,
    load,
    ramp,
    splat,
    store,
    total,
    where_at_least,
    where_greater,
)
from renderers.kernels.tiling import TILE

_THRESHOLD = np.float32(ALPHA_THRESHOLD)
_MAX_ALPHA = np.float32(MAX_ALPHA)
_STOP = np.float32(MIN_TRANSMITTANCE)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_FARTHEST = np.float32(80)  # sigma beyond which exp(-sigma) is as good as zero and its exponent still fits
_CHECK = 16  # Gaussians between two looks at whether the whole tile has stopped
_PARTS = 8  # ranges of Gaussians that gradients are summed over in parallel
GEOMETRY = 8  # columns of a gradient row before the features: mean (2), conic (3), opacity, |mean| (2)


@njit(inline="always")
def _spread(i, tiles):
    """A permutation of the tiles that deals neighbours, whose work is alike, to different threads."""
    half = (tiles + 1) // 2
    return 2 * i if i < half else 2 * (i - half) + 1


@njit(inline="always")
def _row_range(mean_y, extent_y):
    """First and one-past-last row of a tile within the Gaussian's extent."""
    low = max(np.float32(math.ceil(mean_y - extent_y - np.float32(0.01))), _ZERO)
    high = min(np.float32(math.floor(mean_y + extent_y + np.float32(0.01))), np.float32(TILE - 1))
    return np.int64(low), np.int64(high) + 1


@njit(inline="always")
def _blend(sigma, opacity, front):
    """Alpha before clamping, after clamping and dropping, weight, and transmittance behind (negated once stopped)."""
    zero = splat(_ZERO)
    raw = opacity * exp_negative(clamp(sigma, zero, splat(_FARTHEST)))
    alpha = where_greater(raw, splat(_MAX_ALPHA), splat(_MAX_ALPHA), raw)
    alpha = where_at_least(raw, splat(_THRESHOLD), where_at_least(sigma, zero, alpha, zero), zero)
    behind = front * (_ONE - alpha)
    stop = splat(_STOP)
    weight = where_greater(behind, stop, alpha * front, zero)
    return raw, alpha, weight, where_greater(behind, stop, behind, _ZERO - absolute(front))


@njit(inline="always")
def _all_stopped(state, stride):
    for y in range(TILE):
        if any_positive(load(state, y * stride)):
            return False
    return True


@njit(inline="always")
def _drawn(mask, y, x):
    """Whether a pixel is not masked off; a mask without entries masks nothing."""
    return mask.shape[0] == 0 or mask[y, x] > _ZERO


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def forward(means, conics, opacities, features, extents, depths, mask, image, final):
    """Fill the image [h, w, c] and the final transmittance [h, w]."""
    height, width, channels = image.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    offsets, ids = bin_tiles(means, conics, opacities, extents, depths, rows, columns)
    stride = TILE * (1 + channels)  # a row's transmittance, then its channels
    for i in nb.prange(rows * columns):
        tile = _spread(i, rows * columns)
        top, left = tile // columns * TILE, tile % columns * TILE
        inside_y, inside_x = min(TILE, height - top), min(TILE, width - left)
        state = np.zeros(TILE * stride, np.float32)
        for y in range(TILE):
            for x in range(TILE):
                drawn = y < inside_y and x < inside_x and _drawn(mask, top + y, left + x)
                state[y * stride + x] = _ONE if drawn else -_ONE
        for k in range(offsets[tile], offsets[tile + 1]):
            j = ids[k]
            mean_y = means[j, 1] - np.float32(top) - _HALF
            dx = ramp() - (means[j, 0] - np.float32(left) - _HALF)
            from_x, cross = _HALF * conics[j, 0] * (dx * dx), conics[j, 1] * dx
            first, last = _row_range(mean_y, extents[j, 1])
            for y in range(first, last):
                at = y * stride
                dy = np.float32(y) - mean_y
                sigma = from_x + cross * dy + _HALF * conics[j, 2] * dy * dy
                _, _, weight, behind = _blend(sigma, opacities[j], load(state, at))
                store(state, at, behind)
                for channel in range(channels):
                    to = at + TILE + channel * TILE
                    store(state, to, load(state, to) + weight * features[j, channel])
            if (k - offsets[tile]) % _CHECK == _CHECK - 1 and _all_stopped(state, stride):
                break
        for y in range(inside_y):
            for x in range(inside_x):
                final[top + y, left + x] = abs(state[y * stride + x])
                for channel in range(channels):
                    image[top + y, left + x, channel] = state[y * stride + TILE + channel * TILE + x]


@njit(inline="always")
def _load_tile(state, stride, top, left, mask, image, final, g_image, g_final):
    """Rows of transmittance, of the output's inner product with its cotangents still to come (all),
    and of cotangents.
    """
    height, width, channels = image.shape
    state[:] = _ZERO
    for y in range(TILE):
        for x in range(TILE):
            at = y * stride + x
            if top + y >= height or left + x >= width or not _drawn(mask, top + y, left + x):
                state[at] = -_ONE
                continue
            state[at] = _ONE
            to_come = final[top + y, left + x] * g_final[top + y, left + x]
            for channel in range(channels):
                cotangent = g_image[top + y, left + x, channel]
                state[at + 2 * TILE + channel * TILE] = cotangent
                to_come += image[top + y, left + x, channel] * cotangent
            state[at + TILE] = to_come


@njit(parallel=True, nogil=True, cache=True)
def _sum_by_gaussian(ids, per_row, out):
    """Sum the rows of each Gaussian in list order; each part owns a range of Gaussians, so that the order is fixed."""
    n, width = out.shape
    for part in nb.prange(_PARTS):
        first, last = n * part // _PARTS, n * (part + 1) // _PARTS
        out[first:last] = _ZERO
        for k in range(ids.shape[0]):
            j = ids[k]
            if first <= j < last:
                for column in range(width):
                    out[j, column] += per_row[k, column]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def backward(means, conics, opacities, features, extents, depths, mask, image, final, g_image, g_final, out):
    """Fill out [n, 8 + c]: gradients of mean (2), conic (3), opacity, |gradient| of the mean (2), features (c)."""
    height, width, channels = image.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    offsets, ids = bin_tiles(means, conics, opacities, extents, depths, rows, columns)
    per_row = np.zeros((ids.shape[0], GEOMETRY + channels), np.float32)
    stride = TILE * (2 + channels)
    for i in nb.prange(rows * columns):
        tile = _spread(i, rows * columns)
        top, left = tile // columns * TILE, tile % columns * TILE
        state = np.empty(TILE * stride, np.float32)
        feature_sums = np.empty(TILE * channels, np.float32)
        _load_tile(state, stride, top, left, mask, image, final, g_image, g_final)
        zero = splat(_ZERO)
        for k in range(offsets[tile], offsets[tile + 1]):
            j = ids[k]
            a, b, c, opacity = conics[j, 0], conics[j, 1], conics[j, 2], opacities[j]
            mean_y = means[j, 1] - np.float32(top) - _HALF
            dx = ramp() - (means[j, 0] - np.float32(left) - _HALF)
            from_x, cross = _HALF * a * (dx * dx), b * dx
            sum_m, sum_my, sum_myy, sum_ax, sum_ay = zero, zero, zero, zero, zero
            feature_sums[:] = _ZERO
            first, last = _row_range(mean_y, extents[j, 1])
            for y in range(first, last):
                at = y * stride
                dy = np.float32(y) - mean_y
                front = load(state, at)
                raw, alpha, weight, behind = _blend(from_x + cross * dy + _HALF * c * dy * dy, opacity, front)
                value = zero
                for channel in range(channels):
                    g = load(state, at + 2 * TILE + channel * TILE)
                    value = value + g * features[j, channel]
                    store(feature_sums, channel * TILE, load(feature_sums, channel * TILE) + weight * g)
                to_come = load(state, at + TILE) - weight * value
                store(state, at + TILE, to_come)
                store(state, at, behind)
                # -dL / dsigma: zero where alpha is dropped (alpha = 0), the pixel has stopped, or alpha is clamped
                m = alpha * (front * value - to_come / (_ONE - alpha))
                m = where_greater(behind, zero, where_greater(raw, splat(_MAX_ALPHA), zero, m), zero)
                sum_m = sum_m + m
                sum_my = sum_my + m * dy
                sum_myy = sum_myy + m * (dy * dy)
                sum_ax = sum_ax + absolute(m * (a * dx + b * dy))
                sum_ay = sum_ay + absolute(m * (cross + c * dy))
            # a column of the tile has one dx: its moments are taken once a Gaussian
            row = per_row[k]
            moment_x, moment_y = total(sum_m * dx), total(sum_my)
            row[0], row[1] = a * moment_x + b * moment_y, b * moment_x + c * moment_y
            row[2], row[3], row[4] = -_HALF * total(sum_m * dx * dx), -total(sum_my * dx), -_HALF * total(sum_myy)
            row[5] = total(sum_m) / opacity if opacity > _ZERO else _ZERO
            row[6], row[7] = total(sum_ax), total(sum_ay)
            for channel in range(channels):
                row[GEOMETRY + channel] = total(load(feature_sums, channel * TILE))
            if (k - offsets[tile]) % _CHECK == _CHECK - 1 and _all_stopped(state, stride):
                break
    _sum_by_gaussian(ids, per_row, out)
