"""Compositing at samples on the host in Numba, float32: tiles in parallel, 16 samples of a tile in a vector register.

The arithmetic is that of `kernels.composite.cpu`. Each (Gaussian, used tile) pair has a gradient row of its own, summed
per Gaussian in list order: results do not depend on the number of threads.
"""

import numba as nb
import numpy as np

from renderers.kernels.composite.cpu import _CHECK, _HALF, _MAX_ALPHA, _ONE, _ZERO, GEOMETRY, _blend, _sum_by_gaussian
from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import WIDTH, absolute, any_positive, load, splat, store, total, where_greater
from renderers.kernels.samples.cpu_groups import bin_used_tiles, samples_by_tile
from renderers.kernels.tiling import TILE

X, Y, FRONT, REST = 0, WIDTH, 2 * WIDTH, 3 * WIDTH  # a group's state: positions, transmittance, then what else it keeps


@njit(inline="always")
def load_group(state, positions, samples, first, last):
    """Positions of up to sixteen samples and transmittance 1; places without a sample have stopped."""
    for lane in range(WIDTH):
        state[FRONT + lane] = -_ONE
        state[X + lane], state[Y + lane] = _ZERO, _ZERO
    for lane in range(last - first):
        state[FRONT + lane] = _ONE
        state[X + lane] = positions[samples[first + lane], 0]
        state[Y + lane] = positions[samples[first + lane], 1]


@njit(inline="always")
def offsets_from(state, means, j):
    """Position less mean, x and y, of a group of samples."""
    return load(state, X) - means[j, 0], load(state, Y) - means[j, 1]


@njit(inline="always")
def exponent(conics, j, dx, dy):
    """sigma of Gaussian j at a group of samples."""
    return _HALF * conics[j, 0] * (dx * dx) + conics[j, 1] * dx * dy + _HALF * conics[j, 2] * dy * dy


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def forward(means, conics, opacities, features, extents, depths, positions, drawn, size, values, final):
    """Fill values [m, c] and the final transmittance [m]; samples outside the image see nothing."""
    channels = features.shape[1]
    rows, columns = (size[0] + TILE - 1) // TILE, (size[1] + TILE - 1) // TILE
    runs, samples = samples_by_tile(positions, drawn, size[0], size[1])
    offsets, ids = bin_used_tiles(means, conics, opacities, extents, depths, rows, columns, runs)
    values[:], final[:] = _ZERO, _ONE
    for tile in nb.prange(rows * columns):
        state = np.empty(REST + channels * WIDTH, np.float32)
        for first in range(runs[tile], runs[tile + 1], WIDTH):
            last = min(first + WIDTH, runs[tile + 1])
            load_group(state, positions, samples, first, last)
            state[REST:] = _ZERO
            for k in range(offsets[tile], offsets[tile + 1]):
                j = ids[k]
                dx, dy = offsets_from(state, means, j)
                _, _, weight, behind = _blend(exponent(conics, j, dx, dy), opacities[j], load(state, FRONT))
                store(state, FRONT, behind)
                for channel in range(channels):
                    at = REST + channel * WIDTH
                    store(state, at, load(state, at) + weight * features[j, channel])
                if (k - offsets[tile]) % _CHECK == _CHECK - 1 and not any_positive(load(state, FRONT)):
                    break
            for lane in range(last - first):
                i = samples[first + lane]
                final[i] = abs(state[FRONT + lane])
                for channel in range(channels):
                    values[i, channel] = state[REST + channel * WIDTH + lane]


@njit(inline="always")
def _load_cotangents(state, samples, first, last, values, final, g_values, g_final):
    """The inner product of outputs and cotangents still to come (all), then the cotangents, after a group's state."""
    state[REST:] = _ZERO
    for lane in range(last - first):
        i = samples[first + lane]
        to_come = final[i] * g_final[i]
        for channel in range(values.shape[1]):
            state[REST + (1 + channel) * WIDTH + lane] = g_values[i, channel]
            to_come += values[i, channel] * g_values[i, channel]
        state[REST + lane] = to_come


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def backward(
    means,
    conics,
    opacities,
    features,
    extents,
    depths,
    positions,
    drawn,
    size,
    values,
    final,
    g_values,
    g_final,
    out,
    moved,
):
    """Fill out [n, 8 + c], as `kernels.composite.cpu.backward` does, and moved [m, 2], gradients of the positions."""
    channels = features.shape[1]
    rows, columns = (size[0] + TILE - 1) // TILE, (size[1] + TILE - 1) // TILE
    runs, samples = samples_by_tile(positions, drawn, size[0], size[1])
    offsets, ids = bin_used_tiles(means, conics, opacities, extents, depths, rows, columns, runs)
    per_row = np.zeros((ids.shape[0], GEOMETRY + channels), np.float32)
    moved[:] = _ZERO
    for tile in nb.prange(rows * columns):
        state = np.empty(REST + (1 + channels) * WIDTH, np.float32)
        along = np.empty(2 * WIDTH, np.float32)
        for first in range(runs[tile], runs[tile + 1], WIDTH):
            last = min(first + WIDTH, runs[tile + 1])
            load_group(state, positions, samples, first, last)
            _load_cotangents(state, samples, first, last, values, final, g_values, g_final)
            along[:] = _ZERO
            zero = splat(_ZERO)
            for k in range(offsets[tile], offsets[tile + 1]):
                j = ids[k]
                row = per_row[k]
                dx, dy = offsets_from(state, means, j)
                front = load(state, FRONT)
                raw, alpha, weight, behind = _blend(exponent(conics, j, dx, dy), opacities[j], front)
                value = zero
                for channel in range(channels):
                    g = load(state, REST + (1 + channel) * WIDTH)
                    value = value + g * features[j, channel]
                    row[GEOMETRY + channel] += total(weight * g)
                to_come = load(state, REST) - weight * value
                store(state, REST, to_come)
                store(state, FRONT, behind)
                # -dL / dsigma: zero where alpha is dropped (alpha = 0), the sample has stopped, or alpha is clamped
                m = alpha * (front * value - to_come / (_ONE - alpha))
                m = where_greater(behind, zero, where_greater(raw, splat(_MAX_ALPHA), zero, m), zero)
                gx = m * (conics[j, 0] * dx + conics[j, 1] * dy)
                gy = m * (conics[j, 1] * dx + conics[j, 2] * dy)
                store(along, 0, load(along, 0) - gx)
                store(along, WIDTH, load(along, WIDTH) - gy)
                row[0] += total(gx)
                row[1] += total(gy)
                row[2] += -_HALF * total(m * dx * dx)
                row[3] += -total(m * dx * dy)
                row[4] += -_HALF * total(m * dy * dy)
                row[5] += total(m) / opacities[j] if opacities[j] > _ZERO else _ZERO
                row[6] += total(absolute(gx))
                row[7] += total(absolute(gy))
                if (k - offsets[tile]) % _CHECK == _CHECK - 1 and not any_positive(load(state, FRONT)):
                    break
            for lane in range(last - first):
                moved[samples[first + lane], 0] = along[lane]
                moved[samples[first + lane], 1] = along[WIDTH + lane]
    _sum_by_gaussian(ids, per_row, out)
