"""The three sums of the encoding on the host in Numba, float32.

Level after level, so that one level's rows are in the cache at a time, and a chunk of points after another: rows and
weights in vector registers first, with the rows' cache lines asked for, then the rows themselves. That halves the time,
which is all latency. Gathering sums share out the points among threads. The scattering sum gives each level, or each of
several interleaved parts of its rows, to one thread, which adds the points up in their order: no atomics, and results
that do not depend on the number of threads.

Points, directions and their gradients are transposed and padded to whole registers: [3, m], m >= n. A direction without
columns means that the weights themselves are asked for. Tables are flat.
"""

import numba as nb
import numpy as np

from renderers.kernels.hash_encode.cpu_lanes import floor, prefetch, store_dense, store_hashed
from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import WIDTH, load, splat, store, where_at_least, where_greater

NX, NY, NZ, OFFSET, SIZE, DENSE = range(6)  # columns of the array of levels
_CHUNK = 64  # points whose rows are on their way at a time: 512 cache lines, two thirds of the first-level cache
_NEAR = 1 << 13  # numbers of a level that are in the first-level cache anyway
_OWNED = 10  # log2 of the neighbouring numbers that one part of a level owns: threads share no cache lines
_ZERO, _ONE = np.float32(0), np.float32(1)
_OPTIONS = dict(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
_PARALLEL = dict(parallel=True, nogil=True, cache=True, error_model="numpy")


@njit(**_PARALLEL)
def gather(points, table, levels, direction, threads, out):
    """Fill out [n, l f] with features, or their derivatives along `direction`."""
    chunks = (out.shape[0] + _CHUNK - 1) // _CHUNK
    parts = min(threads, chunks)
    for part in nb.prange(parts):
        _gather_range(points, table, levels, direction, out, chunks * part // parts, chunks * (part + 1) // parts)


@njit(**_PARALLEL)
def scatter(points, cotangents, levels, direction, threads, out):
    """Fill the table `out`: the transpose of `gather` as a function of the table."""
    count, size = levels.shape[0], out.shape[0]
    for part in nb.prange(threads):
        _clear(out, size * part // threads, size * (part + 1) // threads)
    parts = (threads + count - 1) // count
    order = _dealt(count * parts, threads)
    for task in nb.prange(count * parts):
        _scatter_part(points, cotangents, levels, direction, out, order[task] % count, order[task] // count, parts)


@njit(**_PARALLEL)
def contract(points, table, cotangents, levels, direction, threads, out):
    """Fill out [3, m] with gradients by the points of <cotangents, gather(...)>."""
    chunks = (cotangents.shape[0] + _CHUNK - 1) // _CHUNK
    parts = min(threads, chunks)
    for part in nb.prange(parts):
        _contract_range(
            points, table, cotangents, levels, direction, out, chunks * part // parts, chunks * (part + 1) // parts
        )


@njit(inline="always")
def _cell(points, axis, at, vertices):
    """Cells of sixteen coordinates, positions within them, and the derivative of those (0 outside the cube)."""
    zero, one = splat(_ZERO), splat(_ONE)
    x, scale = load(points, axis * points.shape[1] + at), splat(np.float32(vertices - 1))
    clamped = where_greater(zero, x, zero, x)  # in this order what is not a number stays so
    position = where_greater(clamped, one, one, clamped) * scale
    cell = floor(where_greater(position, zero, position, zero))
    last = splat(np.float32(vertices - 2))
    cell = where_greater(cell, last, last, cell)
    slope = where_at_least(x, zero, where_at_least(one, x, scale, zero), zero)
    return cell, position - cell, slope


@njit(inline="always")
def _cells(points, at, level):
    x, fx, sx = _cell(points, 0, at, level[NX])
    y, fy, sy = _cell(points, 1, at, level[NY])
    z, fz, sz = _cell(points, 2, at, level[NZ])
    return (x, y, z), (fx, fy, fz), (sx, sy, sz)


@njit(inline="always")
def _store_rows(cell, level, table, rows, at, width):
    """Where the eight vertices' rows begin in the table; their cache lines are asked for."""
    x, y, z = cell
    if level[DENSE]:
        store_dense(rows, at, x, y, z, level[NX], level[NY], level[OFFSET], width)
    else:
        store_hashed(rows, at, x, y, z, np.int32(level[SIZE] - 1), level[OFFSET], width)
    if level[SIZE] * width > _NEAR:
        for corner in range(8):
            for lane in range(WIDTH):
                prefetch(table, np.uint64(rows[corner * _CHUNK + at + lane]))


@njit(inline="always")
def _store_weights(weights, at, f):
    """Trilinear weights of the eight vertices, x fastest."""
    x, y, z = f
    x0, y0, z0 = _ONE - x, _ONE - y, _ONE - z
    a, b, c, d = y0 * z0, y * z0, y0 * z, y * z
    _store8(weights, at, (x0 * a, x * a, x0 * b, x * b, x0 * c, x * c, x0 * d, x * d))


@njit(inline="always")
def _store_directed(weights, at, f, s, direction, point):
    """Derivatives of the weights along a direction."""
    m = direction.shape[1]
    u, v, w = load(direction, point) * s[0], load(direction, m + point) * s[1], load(direction, 2 * m + point) * s[2]
    x, y, z = f
    x0, y0, z0 = _ONE - x, _ONE - y, _ONE - z
    a, b, c, d = y0 * z0, y * z0, y0 * z, y * z
    da, db, dc, dd = _ZERO - v * z0 - w * y0, v * z0 - w * y, w * y0 - v * z, v * z + w * y
    _store8(
        weights,
        at,
        (x0 * da - u * a, x * da + u * a, x0 * db - u * b, x * db + u * b,
         x0 * dc - u * c, x * dc + u * c, x0 * dd - u * d, x * dd + u * d),
    )  # fmt: skip


@njit(inline="always")
def _store8(array, at, values):
    store(array, at, values[0])
    store(array, at + _CHUNK, values[1])
    store(array, at + 2 * _CHUNK, values[2])
    store(array, at + 3 * _CHUNK, values[3])
    store(array, at + 4 * _CHUNK, values[4])
    store(array, at + 5 * _CHUNK, values[5])
    store(array, at + 6 * _CHUNK, values[6])
    store(array, at + 7 * _CHUNK, values[7])


@njit(**_OPTIONS)
def _prepare(points, table, direction, first, last, level, rows, weights, width):
    """Rows and weights of the chunk of points first .. last."""
    along = direction.shape[1] > 0
    for at in range(0, last - first, WIDTH):
        cell, f, s = _cells(points, first + at, level)
        _store_rows(cell, level, table, rows, at, np.int32(width))
        if along:
            _store_directed(weights, at, f, s, direction, first + at)
        else:
            _store_weights(weights, at, f)


@njit(inline="always")
def _sum8(weights, rows, table, i, k):
    total = weights[i] * table[rows[i] + k]
    for corner in range(1, 8):
        total += weights[corner * _CHUNK + i] * table[rows[corner * _CHUNK + i] + k]
    return total


@njit(**_OPTIONS)
def _gather_range(points, table, levels, direction, out, first_chunk, last_chunk):
    rows, weights = np.zeros(8 * _CHUNK, np.uint32), np.zeros(8 * _CHUNK, np.float32)
    count = levels.shape[0]
    n, width = out.shape[0], out.shape[1] // count
    for which in range(count):
        for chunk in range(first_chunk, last_chunk):
            first, last = chunk * _CHUNK, min(chunk * _CHUNK + _CHUNK, n)
            _prepare(points, table, direction, first, last, levels[which], rows, weights, width)
            for i in range(last - first):
                if width == 2:  # of a width that is known the compiler makes straight code
                    out[first + i, 2 * which] = _sum8(weights, rows, table, i, np.uint64(0))
                    out[first + i, 2 * which + 1] = _sum8(weights, rows, table, i, np.uint64(1))
                else:
                    for k in range(width):
                        out[first + i, width * which + k] = _sum8(weights, rows, table, i, np.uint64(k))


@njit(**_OPTIONS)
def _clear(out, first, last):
    for i in range(first, last):
        out[i] = _ZERO


@njit(**_OPTIONS)
def _dealt(count, threads):
    """Tasks dealt out like cards: neighbours, which are alike, go to different threads, each of which takes a run."""
    order, at = np.empty(count, np.int64), 0
    for thread in range(threads):
        for task in range(thread, count, threads):
            order[at] = task
            at += 1
    return order


@njit(**_OPTIONS)
def _scatter_part(points, cotangents, levels, direction, out, which, part, parts):
    rows, weights = np.zeros(8 * _CHUNK, np.uint32), np.zeros(8 * _CHUNK, np.float32)
    n, width = cotangents.shape[0], cotangents.shape[1] // levels.shape[0]
    for first in range(0, n, _CHUNK):
        last = min(first + _CHUNK, n)
        _prepare(points, out, direction, first, last, levels[which], rows, weights, width)
        for i in range(last - first):
            for corner in range(8):
                at, w = np.uint64(rows[corner * _CHUNK + i]), weights[corner * _CHUNK + i]
                if parts > 1 and np.int64(at >> np.uint64(_OWNED)) % parts != part:
                    continue
                if width == 2:
                    out[at] += w * cotangents[first + i, 2 * which]
                    out[at + np.uint64(1)] += w * cotangents[first + i, 2 * which + 1]
                else:
                    for k in range(width):
                        out[at + np.uint64(k)] += w * cotangents[first + i, width * which + k]


@njit(**_OPTIONS)
def _contract_range(points, table, cotangents, levels, direction, out, first_chunk, last_chunk):
    rows, values = np.zeros(8 * _CHUNK, np.uint32), np.zeros(8 * _CHUNK, np.float32)
    n, count, m = cotangents.shape[0], levels.shape[0], out.shape[1]
    width = cotangents.shape[1] // count
    for axis in range(3):
        for i in range(first_chunk * _CHUNK, min(last_chunk * _CHUNK, m)):
            out[axis, i] = _ZERO
    for which in range(count):
        level = levels[which]
        for chunk in range(first_chunk, last_chunk):
            first, last = chunk * _CHUNK, min(chunk * _CHUNK + _CHUNK, n)
            for at in range(0, last - first, WIDTH):
                _store_rows(_cells(points, first + at, level)[0], level, table, rows, at, np.int32(width))
            for i in range(last - first):
                for corner in range(8):
                    at, value = np.uint64(rows[corner * _CHUNK + i]), _ZERO
                    for k in range(width):
                        value += cotangents[first + i, width * which + k] * table[at + np.uint64(k)]
                    values[corner * _CHUNK + i] = value
            for at in range(0, last - first, WIDTH):
                _, f, s = _cells(points, first + at, level)
                if direction.shape[1] > 0:
                    _add_curvature(out, first + at, f, s, values, at, direction)
                else:
                    _add_slope(out, first + at, f, s, values, at)


@njit(inline="always")
def _load8(array, at):
    return (
        load(array, at), load(array, at + _CHUNK), load(array, at + 2 * _CHUNK), load(array, at + 3 * _CHUNK),
        load(array, at + 4 * _CHUNK), load(array, at + 5 * _CHUNK), load(array, at + 6 * _CHUNK),
        load(array, at + 7 * _CHUNK),
    )  # fmt: skip


@njit(inline="always")
def _add3(out, point, x, y, z):
    m = out.shape[1]
    store(out, point, load(out, point) + x)
    store(out, m + point, load(out, m + point) + y)
    store(out, 2 * m + point, load(out, 2 * m + point) + z)


@njit(inline="always")
def _add_slope(out, point, f, s, values, at):
    """Gradient of the trilinear interpolant of eight values."""
    d0, d1, d2, d3, d4, d5, d6, d7 = _load8(values, at)
    x, y, z = f
    x0, y0, z0 = _ONE - x, _ONE - y, _ONE - z
    along_x = y0 * z0 * (d1 - d0) + y * z0 * (d3 - d2) + y0 * z * (d5 - d4) + y * z * (d7 - d6)
    along_y = x0 * z0 * (d2 - d0) + x * z0 * (d3 - d1) + x0 * z * (d6 - d4) + x * z * (d7 - d5)
    along_z = x0 * y0 * (d4 - d0) + x * y0 * (d5 - d1) + x0 * y * (d6 - d2) + x * y * (d7 - d3)
    _add3(out, point, s[0] * along_x, s[1] * along_y, s[2] * along_z)


@njit(inline="always")
def _add_curvature(out, point, f, s, values, at, direction):
    """Its Hessian, whose diagonal is zero, times a direction."""
    d0, d1, d2, d3, d4, d5, d6, d7 = _load8(values, at)
    x, y, z = f
    x0, y0, z0, m = _ONE - x, _ONE - y, _ONE - z, direction.shape[1]
    xy = s[0] * s[1] * (z0 * (d3 - d2 - d1 + d0) + z * (d7 - d6 - d5 + d4))
    xz = s[0] * s[2] * (y0 * (d5 - d4 - d1 + d0) + y * (d7 - d6 - d3 + d2))
    yz = s[1] * s[2] * (x0 * (d6 - d4 - d2 + d0) + x * (d7 - d5 - d3 + d1))
    u, v, w = load(direction, point), load(direction, m + point), load(direction, 2 * m + point)
    _add3(out, point, xy * v + xz * w, xy * u + yz * w, xz * u + yz * v)
