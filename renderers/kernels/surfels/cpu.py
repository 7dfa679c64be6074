"""Compositing of surfels on the host in Numba, float32: tiles in parallel, a tile's rows of 16 pixels as registers.

The arithmetic is that of `xla.py`, the layout that of `kernels/composite/cpu.py`: a pixel that has stopped carries its
transmittance negated, lists are made anew for the backward pass, each intersection writes its own gradient row, and
rows are summed per surfel in list order, so that results do not depend on the number of threads.
"""

import math

import numba as nb
import numpy as np

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
from renderers.kernels.surfels.cpu_tiles import bin_tiles
from renderers.kernels.surfels.reference import LOW_PASS, MEDIAN
from renderers.kernels.tiling import TILE

_THRESHOLD = np.float32(ALPHA_THRESHOLD)
_MAX_ALPHA = np.float32(MAX_ALPHA)
_STOP = np.float32(MIN_TRANSMITTANCE)
_LOW_PASS, _MEDIAN = np.float32(LOW_PASS), np.float32(MEDIAN)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_MIDDLE = np.float32(TILE / 2)
_FARTHEST = np.float32(80)  # sigma beyond which exp(-sigma) is as good as zero and its exponent still fits
_CHECK = 16  # surfels between two looks at whether the whole tile has stopped
_PARTS = 8  # ranges of surfels that gradients are summed over in parallel
GEOMETRY = 15  # columns of a gradient row before the features: M (9), mean (2), opacity, depth, |mean| (2)


@njit(inline="always")
def _spread(i, tiles):
    """A permutation of the tiles that deals neighbours, whose work is alike, to different threads."""
    half = (tiles + 1) // 2
    return 2 * i if i < half else 2 * (i - half) + 1


@njit(inline="always")
def _row_range(reach, top):
    """First and one-past-last row of a tile within a surfel's reach."""
    low = max(np.float32(math.ceil(reach[0] - np.float32(top) - _HALF)), _ZERO)
    high = min(np.float32(math.floor(reach[1] - np.float32(top) - _HALF)), np.float32(TILE - 1))
    return np.int64(low), np.int64(high) + 1


@njit()
def _cross(out, to, a, i, b, j):
    """out[to : to + 3] = a[i : i + 3] x b[j : j + 3]."""
    out[to] = a[i + 1] * b[j + 2] - a[i + 2] * b[j + 1]
    out[to + 1] = a[i + 2] * b[j] - a[i] * b[j + 2]
    out[to + 2] = a[i] * b[j + 1] - a[i + 1] * b[j]


@njit()
def _affine(transforms, i, middle_x, middle_y, m, products, zeta):
    """M of surfel i counted from a tile's middle (m), and zeta = x zeta[0:3] + y zeta[3:6] + zeta[6:9].

    Calculated in float64 (products), in which the shift to the middle loses nothing.
    """
    for k in range(3):
        m[6 + k] = transforms[i, 6 + k]
        m[k] = transforms[i, k] - middle_x * m[6 + k]
        m[3 + k] = transforms[i, 3 + k] - middle_y * m[6 + k]
    _cross(products, 0, m, 3, m, 6)
    _cross(products, 3, m, 6, m, 0)
    _cross(products, 6, m, 0, m, 3)
    for k in range(9):
        zeta[k] = products[k]


@njit(inline="always")
def _along_row(zeta, k, x, y):
    """Component k of zeta at a row of pixels."""
    return x * zeta[k] + (y * zeta[3 + k] + zeta[6 + k])


@njit(inline="always")
def _exponents(u, v, dx, dy):
    """Sigma on the plane and through the low-pass filter."""
    return _HALF * (u * u + v * v), (_HALF * _LOW_PASS) * (dx * dx + dy * dy)


@njit(inline="always")
def _blend(on_plane, filtered, z, opacity, front):
    """Alpha before clamping, after clamping and dropping, weight, and transmittance behind (negated once stopped).

    Where the ray misses the plane (z = 0) u and v are infinite or NaN: comparisons with those are false.
    """
    zero = splat(_ZERO)
    sigma = where_at_least(filtered, on_plane, on_plane, filtered)
    raw = opacity * exp_negative(clamp(sigma, zero, splat(_FARTHEST)))
    alpha = where_greater(raw, splat(_MAX_ALPHA), splat(_MAX_ALPHA), raw)
    alpha = where_at_least(raw, splat(_THRESHOLD), where_greater(absolute(z), zero, alpha, zero), zero)
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
def forward(transforms, means, opacities, features, depths, rectangles, mask, image, planes):
    """Fill the image [h, w, c] and the planes [h, w, 4]: transmittance, depth, distortion, median depth."""
    height, width, channels = image.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    offsets, ids, reach = bin_tiles(transforms, means, opacities, depths, rectangles, rows, columns)
    stride = TILE * (4 + channels)  # a row's planes, then its channels
    for i in nb.prange(rows * columns):
        tile = _spread(i, rows * columns)
        top, left = tile // columns * TILE, tile % columns * TILE
        inside_y, inside_x = min(TILE, height - top), min(TILE, width - left)
        state = np.zeros(TILE * stride, np.float32)
        m, products, zeta = np.empty(9, np.float64), np.empty(9, np.float64), np.empty(9, np.float32)
        middle_x, middle_y = np.float64(left + TILE / 2), np.float64(top + TILE / 2)
        for y in range(TILE):
            for x in range(TILE):
                drawn = y < inside_y and x < inside_x and _drawn(mask, top + y, left + x)
                state[y * stride + x] = _ONE if drawn else -_ONE
        zero, half = splat(_ZERO), splat(_MEDIAN)
        px = ramp() + (_HALF - _MIDDLE)
        for k in range(offsets[tile], offsets[tile + 1]):
            j = ids[k]
            _affine(transforms, j, middle_x, middle_y, m, products, zeta)
            depth = splat(depths[j])
            dx = px - np.float32(means[j, 0] - middle_x)
            mean_y = np.float32(means[j, 1] - middle_y)
            first, last = _row_range(reach[j], top)
            for y in range(first, last):
                at = y * stride
                py = np.float32(y) + (_HALF - _MIDDLE)
                z = _along_row(zeta, 2, px, py)
                per_z = _ONE / z
                u, v = _along_row(zeta, 0, px, py) * per_z, _along_row(zeta, 1, px, py) * per_z
                on_plane, filtered = _exponents(u, v, dx, splat(py - mean_y))
                front, behind_depth = load(state, at), load(state, at + TILE)
                _, _, weight, behind = _blend(on_plane, filtered, z, opacities[j], front)
                store(state, at, behind)
                store(state, at + TILE, behind_depth + weight * depth)
                bend = weight * (depth * (_ONE - front) - behind_depth)
                store(state, at + 2 * TILE, load(state, at + 2 * TILE) + bend)
                median = where_greater(front, half, depth, load(state, at + 3 * TILE))
                median = where_greater(weight, zero, median, load(state, at + 3 * TILE))
                store(state, at + 3 * TILE, median)
                for channel in range(channels):
                    to = at + (4 + channel) * TILE
                    store(state, to, load(state, to) + weight * features[j, channel])
            if (k - offsets[tile]) % _CHECK == _CHECK - 1 and _all_stopped(state, stride):
                break
        for y in range(inside_y):
            for x in range(inside_x):
                at = y * stride + x
                planes[top + y, left + x, 0] = abs(state[at])
                planes[top + y, left + x, 1] = state[at + TILE]
                planes[top + y, left + x, 2] = _TWO * state[at + 2 * TILE]
                planes[top + y, left + x, 3] = state[at + 3 * TILE]
                for channel in range(channels):
                    image[top + y, left + x, channel] = state[at + (4 + channel) * TILE]


@njit(inline="always")
def _load_tile(state, stride, top, left, mask, image, planes, g_image, g_planes):
    """Rows of each pixel's state, as `xla._pixel_terms` has it.

    Transmittance, sum of w v to come, value per depth, its bend by the weight in front, depth times that to come,
    number of the median intersection (none: -1), then the cotangents of the channels.
    """
    height, width, channels = image.shape
    state[:] = _ZERO
    for y in range(TILE):
        for x in range(TILE):
            at, py, px = y * stride + x, top + y, left + x
            state[at + 5 * TILE] = -_ONE
            if py >= height or px >= width or not _drawn(mask, py, px):
                state[at] = -_ONE
                continue
            transmittance, bend = planes[py, px, 0], _TWO * g_planes[py, px, 2]
            to_come = transmittance * g_planes[py, px, 0] + planes[py, px, 1] * g_planes[py, px, 1]
            to_come += planes[py, px, 2] * bend
            for channel in range(channels):
                cotangent = g_image[py, px, channel]
                state[at + (6 + channel) * TILE] = cotangent
                to_come += image[py, px, channel] * cotangent
            state[at] = _ONE
            state[at + TILE] = to_come
            state[at + 2 * TILE] = g_planes[py, px, 1] + bend * (_ONE + transmittance)
            state[at + 3 * TILE] = bend
            state[at + 4 * TILE] = bend * planes[py, px, 1]


@njit(parallel=True, nogil=True, cache=True)
def _sum_by_surfel(ids, per_row, out):
    """Sum the rows of each surfel in list order; each part owns a range of surfels, so that the order is fixed."""
    n, width = out.shape
    for part in nb.prange(_PARTS):
        first, last = n * part // _PARTS, n * (part + 1) // _PARTS
        out[first:last] = _ZERO
        for k in range(ids.shape[0]):
            j = ids[k]
            if first <= j < last:
                for column in range(width):
                    out[j, column] += per_row[k, column]


@njit()
def _transform_gradient(out, at, m, sums, g, products, middle_x, middle_y):
    """Gradient of M, out[at, :9], from that of zeta: sums over pixels of x g (3), y g (3), g (3)."""
    _cross(g, 0, sums, 3, m, 6)
    _cross(products, 0, m, 3, sums, 6)
    _cross(g, 3, m, 6, sums, 0)
    _cross(products, 3, sums, 6, m, 0)
    _cross(g, 6, sums, 0, m, 3)
    _cross(products, 6, m, 0, sums, 3)
    for k in range(9):
        g[k] += products[k]
    for k in range(3):
        out[at, k], out[at, 3 + k] = g[k], g[3 + k]
        out[at, 6 + k] = g[6 + k] - middle_x * g[k] - middle_y * g[3 + k]


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def backward(transforms, means, opacities, features, depths, rectangles, mask, image, planes, g_image, g_planes, out):
    """Fill out [n, 15 + c]: gradients of M (9), mean (2), opacity, depth, |gradient| of the mean (2), features (c)."""
    height, width, channels = image.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    offsets, ids, reach = bin_tiles(transforms, means, opacities, depths, rectangles, rows, columns)
    per_row = np.zeros((ids.shape[0], GEOMETRY + channels), np.float32)
    stride = TILE * (6 + channels)
    for i in nb.prange(rows * columns):
        tile = _spread(i, rows * columns)
        top, left = tile // columns * TILE, tile % columns * TILE
        state = np.empty(TILE * stride, np.float32)
        feature_sums = np.empty(TILE * channels, np.float32)
        m, products, zeta = np.empty(9, np.float64), np.empty(9, np.float64), np.empty(9, np.float32)
        sums, g_transform = np.empty(9, np.float64), np.empty(9, np.float64)
        middle_x, middle_y = np.float64(left + TILE / 2), np.float64(top + TILE / 2)
        _load_tile(state, stride, top, left, mask, image, planes, g_image, g_planes)
        zero, half = splat(_ZERO), splat(_MEDIAN)
        px = ramp() + (_HALF - _MIDDLE)
        for k in range(offsets[tile], offsets[tile + 1]):
            j = ids[k]
            _affine(transforms, j, middle_x, middle_y, m, products, zeta)
            opacity, depth = opacities[j], depths[j]
            number = splat(np.float32(k - offsets[tile]))
            dx = px - np.float32(means[j, 0] - middle_x)
            mean_y = np.float32(means[j, 1] - middle_y)
            sum_m, sum_depth, sum_x, sum_y, sum_ax, sum_ay = zero, zero, zero, zero, zero, zero
            g_0, g_1, g_2, y_0, y_1, y_2 = zero, zero, zero, zero, zero, zero
            feature_sums[:] = _ZERO
            first, last = _row_range(reach[j], top)
            for y in range(first, last):
                at = y * stride
                py = np.float32(y) + (_HALF - _MIDDLE)
                z = _along_row(zeta, 2, px, py)
                per_z = _ONE / z
                u, v = _along_row(zeta, 0, px, py) * per_z, _along_row(zeta, 1, px, py) * per_z
                dy = splat(py - mean_y)
                on_plane, filtered = _exponents(u, v, dx, dy)
                front = load(state, at)
                raw, alpha, weight, behind = _blend(on_plane, filtered, z, opacity, front)
                store(state, at, behind)
                median = where_greater(front, half, number, load(state, at + 5 * TILE))
                store(state, at + 5 * TILE, where_greater(weight, zero, median, load(state, at + 5 * TILE)))

                per_depth, bend, depth_to_come = (
                    load(state, at + 2 * TILE),
                    load(state, at + 3 * TILE),
                    load(state, at + 4 * TILE),
                )
                value = depth_to_come + depth * (per_depth - _TWO * bend * front)
                store(state, at + 4 * TILE, depth_to_come - (_TWO * depth) * (bend * weight))
                sum_depth = sum_depth + weight * (per_depth - bend * (front + front * (_ONE - alpha)))
                for channel in range(channels):
                    g = load(state, at + (6 + channel) * TILE)
                    value = value + g * features[j, channel]
                    store(feature_sums, channel * TILE, load(feature_sums, channel * TILE) + weight * g)
                to_come = load(state, at + TILE) - weight * value
                store(state, at + TILE, to_come)

                # -dL / dsigma: zero where alpha is dropped (alpha = 0), the pixel has stopped, or alpha is clamped
                m_ = alpha * (front * value - to_come / (_ONE - alpha))
                m_ = where_greater(behind, zero, where_greater(raw, splat(_MAX_ALPHA), zero, m_), zero)
                sum_m = sum_m + m_
                by_filter = where_at_least(filtered, on_plane, zero, _LOW_PASS * m_)
                sum_x, sum_y = sum_x + by_filter * dx, sum_y + by_filter * dy
                sum_ax, sum_ay = sum_ax + absolute(by_filter * dx), sum_ay + absolute(by_filter * dy)
                # u, v are finite where the filter's sigma is no smaller; elsewhere the product must not be taken
                by_plane = where_at_least(filtered, on_plane, m_ * per_z, zero)
                by_plane = where_greater(absolute(z), zero, by_plane, zero)
                u, v = where_at_least(filtered, on_plane, u, zero), where_at_least(filtered, on_plane, v, zero)
                by_u, by_v, by_z = by_plane * u, by_plane * v, by_plane * (u * u + v * v)
                g_0, g_1, g_2 = g_0 - by_u, g_1 - by_v, g_2 + by_z
                y_0, y_1, y_2 = y_0 - by_u * py, y_1 - by_v * py, y_2 + by_z * py
            sums[0], sums[1], sums[2] = total(g_0 * px), total(g_1 * px), total(g_2 * px)
            sums[3], sums[4], sums[5] = total(y_0), total(y_1), total(y_2)
            sums[6], sums[7], sums[8] = total(g_0), total(g_1), total(g_2)
            row = per_row[k]
            _transform_gradient(per_row, k, m, sums, g_transform, products, middle_x, middle_y)
            row[9], row[10] = total(sum_x), total(sum_y)
            row[11] = total(sum_m) / opacity if opacity > _ZERO else _ZERO
            row[12] = total(sum_depth)
            row[13], row[14] = total(sum_ax), total(sum_ay)
            for channel in range(channels):
                row[GEOMETRY + channel] = total(load(feature_sums, channel * TILE))
            if (k - offsets[tile]) % _CHECK == _CHECK - 1 and _all_stopped(state, stride):
                break
        for y in range(min(TILE, height - top)):
            for x in range(min(TILE, width - left)):
                median = state[y * stride + 5 * TILE + x]
                if median >= _ZERO:
                    per_row[offsets[tile] + np.int64(median), 12] += g_planes[top + y, left + x, 3]
    _sum_by_surfel(ids, per_row, out)
