"""The march on the host in Numba, float32: rays in parallel, blocks of empty cells passed over.

A first walk notes which steps are taken and how many; a second writes them where the rays before leave off. Blocks of
cells, all of them empty, are left at once: while the middle of a step stays inside, no cell is looked up.
"""

import numba as nb
import numpy as np

from renderers.kernels.jit_numba import njit

BLOCK = 8  # cells along the side of a block
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@njit(inline="always")
def _after(t, cone, shortest, longest):
    return t + min(max(t * cone, shortest), longest)


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _blocks(grid):
    """Whether any cell of each block is occupied."""
    levels, nx, ny, nz = grid.shape
    bx, by, bz = (nx + BLOCK - 1) // BLOCK, (ny + BLOCK - 1) // BLOCK, (nz + BLOCK - 1) // BLOCK
    blocks = np.zeros((levels, bx, by, bz), np.uint8)
    for at in nb.prange(levels * bx):
        level, i = at // bx, at % bx
        for x in range(i * BLOCK, min((i + 1) * BLOCK, nx)):
            for y in range(ny):
                for z in range(nz):
                    blocks[level, i, y // BLOCK, z // BLOCK] |= grid[level, x, y, z]
    return blocks


@njit(inline="always")
def _exit(block, count, scale, origin, slope):
    """Parameter t at which a ray leaves a block along one axis; coordinates in which level 0 is [-1, 1]."""
    if slope == _ZERO:
        return np.float32(np.inf)
    cells = block + BLOCK if slope > _ZERO else block
    plane = (np.float32(2 * cells) / np.float32(count) - _ONE) * scale
    return (plane - origin) / slope


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def march(origins, directions, starts, ends, grid, box, steps, num_steps, out_starts, out_ends, rays, wanted, ran_out):
    """Fill starts, ends and rays [m], wanted and ran_out [r]; grid is uint8, steps are cone, shortest and longest."""
    count, capacity = origins.shape[0], out_starts.shape[0]
    levels, nx, ny, nz = grid.shape
    cone, shortest, longest = steps[0], steps[1], steps[2]
    blocks = _blocks(grid)
    # else blocks of a coarser level can hold part of the finer box, whose cells are looked up by themselves
    whole = nx % (4 * BLOCK) == 0 and ny % (4 * BLOCK) == 0 and nz % (4 * BLOCK) == 0
    taken = np.zeros((count, num_steps), np.uint8)
    center, inverse = np.empty(3, np.float32), np.empty(3, np.float32)
    for axis in range(3):
        center[axis] = _HALF * (box[0, axis] + box[1, axis])
        inverse[axis] = _ONE / (_HALF * (box[1, axis] - box[0, axis]))
    widest = np.float32(2.0 ** (levels - 1))
    for ray in nb.prange(count):
        ox, oy, oz = (
            (origins[ray, 0] - center[0]) * inverse[0],
            (origins[ray, 1] - center[1]) * inverse[1],
            (origins[ray, 2] - center[2]) * inverse[2],
        )
        dx, dy, dz = (
            directions[ray, 0] * inverse[0],
            directions[ray, 1] * inverse[1],
            directions[ray, 2] * inverse[2],
        )
        t, end, number, k = starts[ray], ends[ray], 0, 0
        empty_until = -np.float32(np.inf)
        while k < num_steps:
            after = _after(t, cone, shortest, longest)
            middle = _HALF * (after + t)
            if not middle < end:
                break
            if middle >= empty_until:
                x, y, z = ox + middle * dx, oy + middle * dy, oz + middle * dz
                size = max(abs(x), abs(y), abs(z))
                if size <= widest:
                    level, scale = 0, _ONE
                    while size > scale:
                        level += 1
                        scale *= np.float32(2)
                    shrink = _HALF / scale
                    i = min(max(int((x * shrink + _HALF) * np.float32(nx)), 0), nx - 1)
                    j = min(max(int((y * shrink + _HALF) * np.float32(ny)), 0), ny - 1)
                    h = min(max(int((z * shrink + _HALF) * np.float32(nz)), 0), nz - 1)
                    if blocks[level, i // BLOCK, j // BLOCK, h // BLOCK] == 0:
                        if level == 0 or whole:
                            bx, by, bz = i // BLOCK * BLOCK, j // BLOCK * BLOCK, h // BLOCK * BLOCK
                            out = min(_exit(bx, nx, scale, ox, dx), _exit(by, ny, scale, oy, dy))
                            out = min(out, _exit(bz, nz, scale, oz, dz))
                            empty_until = min(out, end)
                    elif grid[level, i, j, h] != 0:
                        taken[ray, k] = 1
                        number += 1
            t = after
            k += 1
        wanted[ray] = number
        ran_out[ray] = 1 if k == num_steps and t < end else 0
    offsets = np.zeros(count + 1, np.int64)
    for ray in range(count):
        offsets[ray + 1] = offsets[ray] + wanted[ray]
    used = min(offsets[count], capacity)
    for ray in nb.prange(count):
        t, place, last = starts[ray], offsets[ray], min(offsets[ray + 1], capacity)
        k = 0
        while place < last:
            after = _after(t, cone, shortest, longest)
            if taken[ray, k] != 0:
                out_starts[place], out_ends[place], rays[place] = t, after, ray
                place += 1
            t = after
            k += 1
    for place in range(used, capacity):
        out_starts[place], out_ends[place], rays[place] = _ZERO, _ZERO, count
