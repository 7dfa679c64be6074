"""The three sums of plane sampling on the host in Numba, float32: sixteen channels in a vector register.

Gathering sums share out the samples among threads. In the scattering sum the threads own rows of texels in turn, and
each goes through all samples in their order: no atomics, and results that do not depend on the number of threads. A
direction without rows means that the weights themselves are asked for. Planes are flat.
"""

import numba as nb
import numpy as np

from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import WIDTH, load, splat, store, total

PLANES, HEIGHT, WIDE, THREADS = range(4)  # entries of the sizes
_BLOCK = 1024  # samples
_ZERO, _HALF, _ONE, _TWO = (np.float32(v) for v in (0, 0.5, 1, 2))
_OPTIONS = dict(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
_PARALLEL = dict(parallel=True, nogil=True, cache=True, error_model="numpy")


@njit(**_PARALLEL)
def gather(sizes, coordinates, direction, texels, out):
    """Fill out [p n, c] with features, or their derivatives along `direction` [p n, 2]."""
    blocks = (out.shape[0] + _BLOCK - 1) // _BLOCK
    for block in nb.prange(blocks):
        _gather_block(sizes, coordinates, direction, texels, out, block * _BLOCK)


@njit(**_PARALLEL)
def scatter(sizes, coordinates, direction, cotangents, out):
    """Fill the planes `out`: the transpose of `gather` as a function of the planes."""
    threads, size = sizes[THREADS], out.shape[0]
    for part in nb.prange(threads):
        _clear(out, size * part // threads, size * (part + 1) // threads)
    for part in nb.prange(threads):
        _scatter_part(sizes, coordinates, direction, cotangents, out, part)


@njit(**_PARALLEL)
def contract(sizes, coordinates, direction, texels, cotangents, out):
    """Fill out [p n, 2] with gradients by the coordinates of <cotangents, gather(...)>."""
    blocks = (out.shape[0] + _BLOCK - 1) // _BLOCK
    for block in nb.prange(blocks):
        _contract_block(sizes, coordinates, direction, texels, cotangents, out, block * _BLOCK)


@njit(inline="always")
def _texel(coordinate, count):
    """First of the two texels about a coordinate along an axis of `count`, and the position beyond its centre."""
    position = ((coordinate + _ONE) * np.float32(count) - _ONE) * _HALF
    stop = np.float32(count + 1)
    position = -_TWO if position < -_TWO else (stop if position > stop else position)
    first = np.floor(position) if position >= -_TWO else -_TWO  # what is not a number lies outside
    return np.int64(first), position - first


@njit(inline="always")
def _cell(sizes, coordinates, i, n):
    """Texel (x, y), row of the first texel among all planes' rows, and the fractions."""
    x, fx = _texel(coordinates[i, 0], sizes[WIDE])
    y, fy = _texel(coordinates[i, 1], sizes[HEIGHT])
    return x, y, (i // n) * np.int64(sizes[HEIGHT]) + y, fx, fy


@njit(inline="always")
def _weights(sizes, fx, fy, direction, i):
    """Bilinear weights, x fastest, or their derivatives along a direction."""
    x0, y0 = _ONE - fx, _ONE - fy
    if direction.shape[0] == 0:
        return x0 * y0, fx * y0, x0 * fy, fx * fy
    u = direction[i, 0] * (_HALF * np.float32(sizes[WIDE]))
    v = direction[i, 1] * (_HALF * np.float32(sizes[HEIGHT]))
    return -u * y0 - v * x0, u * y0 - v * fx, v * x0 - u * fy, u * fy + v * fx


@njit(inline="always")
def _corner(sizes, x, y, row, corner, channels):
    """Where a texel begins among all, negative outside the plane."""
    x, down = x + (corner & 1), corner >> 1
    if x < 0 or x >= sizes[WIDE] or y + down < 0 or y + down >= sizes[HEIGHT]:
        return np.int64(-1)
    return ((row + down) * np.int64(sizes[WIDE]) + x) * channels


@njit(inline="always")
def _add_scaled(out, to, weight, values, at, channels):
    """out[to ...] += weight * values[at ...]."""
    lanes = channels // WIDTH * WIDTH
    for k in range(0, lanes, WIDTH):
        store(out, to + k, load(out, to + k) + weight * load(values, at + k))
    for k in range(lanes, channels):
        out.flat[to + k] += weight * values.flat[at + k]


@njit(inline="always")
def _inner(a, at, b, to, channels):
    lanes, summed, rest = channels // WIDTH * WIDTH, splat(_ZERO), _ZERO
    for k in range(0, lanes, WIDTH):
        summed = summed + load(a, at + k) * load(b, to + k)
    for k in range(lanes, channels):
        rest += a.flat[at + k] * b.flat[to + k]
    return total(summed) + rest


@njit(**_OPTIONS)
def _clear(out, first, last):
    for i in range(first, last):
        out[i] = _ZERO


@njit(**_OPTIONS)
def _gather_block(sizes, coordinates, direction, texels, out, begin):
    count, channels = out.shape
    n = count // sizes[PLANES]
    for i in range(begin, min(begin + _BLOCK, count)):
        x, y, row, fx, fy = _cell(sizes, coordinates, i, n)
        weights = _weights(sizes, fx, fy, direction, i)
        for k in range(channels):
            out[i, k] = _ZERO * weights[0]  # not a number where the coordinates are not
        for corner in range(4):
            at = _corner(sizes, x, y, row, corner, channels)
            if at >= 0:
                _add_scaled(out, i * channels, weights[corner], texels, at, channels)


@njit(**_OPTIONS)
def _scatter_part(sizes, coordinates, direction, cotangents, out, part):
    count, channels = cotangents.shape
    n, parts = count // sizes[PLANES], sizes[THREADS]
    for i in range(count):
        x, y, row, fx, fy = _cell(sizes, coordinates, i, n)
        upper, lower = (row + parts) % parts == part, (row + 1 + parts) % parts == part
        if not (upper or lower):
            continue
        weights = _weights(sizes, fx, fy, direction, i)
        for corner in range(4):
            if upper if corner < 2 else lower:
                to = _corner(sizes, x, y, row, corner, channels)
                if to >= 0:
                    _add_scaled(out, to, weights[corner], cotangents, i * channels, channels)


@njit(inline="always")
def _value(sizes, x, y, row, corner, texels, cotangents, i):
    channels = cotangents.shape[1]
    at = _corner(sizes, x, y, row, corner, channels)
    return _inner(texels, at, cotangents, i * channels, channels) if at >= 0 else _ZERO


@njit(**_OPTIONS)
def _contract_block(sizes, coordinates, direction, texels, cotangents, out, begin):
    count = cotangents.shape[0]
    n = count // sizes[PLANES]
    steep_x, steep_y = _HALF * np.float32(sizes[WIDE]), _HALF * np.float32(sizes[HEIGHT])
    for i in range(begin, min(begin + _BLOCK, count)):
        x, y, row, fx, fy = _cell(sizes, coordinates, i, n)
        d0 = _value(sizes, x, y, row, 0, texels, cotangents, i)
        d1 = _value(sizes, x, y, row, 1, texels, cotangents, i)
        d2 = _value(sizes, x, y, row, 2, texels, cotangents, i)
        d3 = _value(sizes, x, y, row, 3, texels, cotangents, i)
        if direction.shape[0] == 0:
            out[i, 0] = steep_x * ((_ONE - fy) * (d1 - d0) + fy * (d3 - d2))
            out[i, 1] = steep_y * ((_ONE - fx) * (d2 - d0) + fx * (d3 - d1))
        else:
            mixed = steep_x * steep_y * (d3 - d2 - d1 + d0)
            out[i, 0], out[i, 1] = mixed * direction[i, 1], mixed * direction[i, 0]
