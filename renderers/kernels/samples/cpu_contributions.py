"""Queries on the host, Numba, float32: what each Gaussian contributes to an image, and who contributes to samples."""

import numba as nb
import numpy as np

from renderers.kernels.composite.cpu import (
    _CHECK,
    _HALF,
    _ONE,
    _PARTS,
    _ZERO,
    _all_stopped,
    _blend,
    _drawn,
    _row_range,
    _spread,
)
from renderers.kernels.composite.cpu_tiles import bin_tiles
from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import WIDTH, any_positive, load, ramp, splat, store, total, where_greater
from renderers.kernels.samples.cpu import FRONT, REST, exponent, load_group, offsets_from
from renderers.kernels.samples.cpu_groups import bin_used_tiles, samples_by_tile
from renderers.kernels.tiling import TILE


@njit(parallel=True, nogil=True, cache=True)
def _gather_rows(ids, per_row, totals, largest, pixels):
    """Sum, maximum and sum of each Gaussian's rows in list order; each part owns a range of Gaussians."""
    n = totals.shape[0]
    for part in nb.prange(_PARTS):
        first, last = n * part // _PARTS, n * (part + 1) // _PARTS
        totals[first:last], largest[first:last], pixels[first:last] = _ZERO, _ZERO, 0
        for k in range(ids.shape[0]):
            j = ids[k]
            if first <= j < last:
                totals[j] += per_row[k, 0]
                largest[j] = max(largest[j], per_row[k, 1])
                pixels[j] += np.int32(per_row[k, 2])


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def by_gaussian(means, conics, opacities, extents, depths, mask, importance, totals, largest, pixels):
    """Fill, for each Gaussian, sum and largest of importance [h, w] times weight and the number of pixels blended."""
    height, width = importance.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    offsets, ids = bin_tiles(means, conics, opacities, extents, depths, rows, columns)
    per_row = np.zeros((ids.shape[0], 3), np.float32)
    for i in nb.prange(rows * columns):
        tile = _spread(i, rows * columns)
        top, left = tile // columns * TILE, tile % columns * TILE
        state = np.zeros(2 * TILE * TILE, np.float32)  # a row's transmittance, then its importance
        lanes = np.empty(TILE, np.float32)
        for y in range(TILE):
            for x in range(TILE):
                inside = top + y < height and left + x < width and _drawn(mask, top + y, left + x)
                state[2 * y * TILE + x] = _ONE if inside else -_ONE
                state[(2 * y + 1) * TILE + x] = importance[top + y, left + x] if inside else _ZERO
        zero, one = splat(_ZERO), splat(_ONE)
        for k in range(offsets[tile], offsets[tile + 1]):
            j = ids[k]
            mean_y = means[j, 1] - np.float32(top) - _HALF
            dx = ramp() - (means[j, 0] - np.float32(left) - _HALF)
            from_x, cross = _HALF * conics[j, 0] * (dx * dx), conics[j, 1] * dx
            summed, most, count = zero, zero, zero
            first, last = _row_range(mean_y, extents[j, 1])
            for y in range(first, last):
                at = 2 * y * TILE
                dy = np.float32(y) - mean_y
                sigma = from_x + cross * dy + _HALF * conics[j, 2] * dy * dy
                _, _, weight, behind = _blend(sigma, opacities[j], load(state, at))
                store(state, at, behind)
                valued = weight * load(state, at + TILE)
                summed = summed + valued
                most = where_greater(valued, most, valued, most)
                count = count + where_greater(weight, zero, one, zero)
            per_row[k, 0], per_row[k, 2] = total(summed), total(count)
            store(lanes, 0, most)
            for x in range(TILE):
                per_row[k, 1] = max(per_row[k, 1], lanes[x])
            if (k - offsets[tile]) % _CHECK == _CHECK - 1 and _all_stopped(state, 2 * TILE):
                break
    _gather_rows(ids, per_row, totals, largest, pixels)


@njit(inline="always")
def _keep_largest(ids, weights, i, j, weight):
    """Insert a Gaussian into sample i's list, falling by weight; a weight equal to one kept comes after it."""
    place = weights.shape[1]
    while place > 0 and weight > weights[i, place - 1]:
        place -= 1
    for other in range(weights.shape[1] - 1, place, -1):
        ids[i, other], weights[i, other] = ids[i, other - 1], weights[i, other - 1]
    if place < weights.shape[1]:
        ids[i, place], weights[i, place] = j, weight


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def by_sample(means, conics, opacities, extents, depths, positions, drawn, options, counts, ids_kept, weights_kept):
    """Fill, for each sample, the number of Gaussians blended and k of them with their weights; -1 and 0 beyond.

    options: height, width, and 1 to keep the k largest weights, 0 the k nearest Gaussians.
    """
    height, width, by_weight = options[0], options[1], options[2] > 0
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    runs, samples = samples_by_tile(positions, drawn, height, width)
    offsets, ids = bin_used_tiles(means, conics, opacities, extents, depths, rows, columns, runs)
    counts[:], ids_kept[:], weights_kept[:] = 0, -1, _ZERO
    for tile in nb.prange(rows * columns):
        state = np.empty(REST, np.float32)
        lanes = np.empty(WIDTH, np.float32)
        for first in range(runs[tile], runs[tile + 1], WIDTH):
            last = min(first + WIDTH, runs[tile + 1])
            load_group(state, positions, samples, first, last)
            for k in range(offsets[tile], offsets[tile + 1]):
                j = ids[k]
                dx, dy = offsets_from(state, means, j)
                _, _, weight, behind = _blend(exponent(conics, j, dx, dy), opacities[j], load(state, FRONT))
                store(state, FRONT, behind)
                if any_positive(weight):
                    store(lanes, 0, weight)
                    for lane in range(last - first):
                        if lanes[lane] > _ZERO:
                            i = samples[first + lane]
                            if by_weight:
                                _keep_largest(ids_kept, weights_kept, i, j, lanes[lane])
                            elif counts[i] < weights_kept.shape[1]:
                                ids_kept[i, counts[i]], weights_kept[i, counts[i]] = j, lanes[lane]
                            counts[i] += 1
                if (k - offsets[tile]) % _CHECK == _CHECK - 1 and not any_positive(load(state, FRONT)):
                    break
