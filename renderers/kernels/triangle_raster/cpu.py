"""The z-buffer on the host in Numba, float32: bands of rows in parallel, sixteen pixels of a row as vector registers.

The arithmetic is that of `reference.py`. A band walks its faces in ascending order, so that results do not depend on
the number of threads. `cpu_handlers.py` makes these functions known to XLA.
"""

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from renderers.kernels.jit_numba import njit
from renderers.kernels.lanes_numba import (
    WIDTH,
    absolute,
    any_positive,
    lanes,
    load,
    splat,
    store,
    where_at_least,
    where_greater,
)
from renderers.kernels.triangle_raster.reference import EMPTY

PERSPECTIVE, PARALLEL, SPHERICAL = 0, 1, 2
BAND = 16  # rows that one thread fills at a time
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_FAR = np.float32(np.inf)


@intrinsic
def _splat_bits(typing_context, value):
    """An int32 on all lanes, as the float32 of the same bits: lanes are chosen and stored, never rounded."""

    def generate(context, builder, signature, arguments):
        integers = ir.VectorType(ir.IntType(32), WIDTH)
        undefined, first = ir.Constant(integers, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        one = builder.insert_element(undefined, arguments[0], first)
        shuffled = builder.shuffle_vector(one, undefined, ir.Constant(integers, [0] * WIDTH))
        return builder.bitcast(shuffled, ir.VectorType(ir.FloatType(), WIDTH))

    return lanes(types.int32), generate


@njit(nogil=True, cache=True)
def _faces_by_band(boxes, bands):
    """Offsets [bands + 1] into a list of faces by band, ascending within each."""
    offsets = np.zeros(bands + 1, np.int64)
    for i in range(boxes.shape[0]):
        if boxes[i, 2] > boxes[i, 0] and boxes[i, 3] > boxes[i, 1]:
            for band in range(boxes[i, 1] // BAND, (boxes[i, 3] - 1) // BAND + 1):
                offsets[band + 1] += 1
    offsets = np.cumsum(offsets)
    fill = offsets.copy()
    ids = np.empty(offsets[-1], np.int32)
    for i in range(boxes.shape[0]):
        if boxes[i, 2] > boxes[i, 0] and boxes[i, 3] > boxes[i, 1]:
            for band in range(boxes[i, 1] // BAND, (boxes[i, 3] - 1) // BAND + 1):
                ids[fill[band]] = i
                fill[band] += 1
    return offsets, ids


@njit(nogil=True, cache=True, error_model="numpy")
def _shears(rays, top, rows, stride, projection):
    """Per pixel of a band, rows of `stride`: the two coefficients of the shear, 1 / d_c, and the axis c.

    The axis is 0, 1 or 2 for z, x or y. Beyond the image's right side coefficients are NaN, so that nothing is hit.
    """
    shear = np.full((4, rows * stride), np.float32(np.nan), np.float32)
    for y in range(rows):
        for x in range(rays.shape[1]):
            at = y * stride + x
            dx, dy, dz = rays[top + y, x, 0], rays[top + y, x, 1], rays[top + y, x, 2]
            axis = _ZERO
            if projection == SPHERICAL:
                if not abs(dz) >= max(abs(dx), abs(dy)):
                    if abs(dx) >= abs(dy):
                        dx, dy, dz, axis = dy, dz, dx, np.float32(1)
                    else:
                        dx, dy, dz, axis = dz, dx, dy, np.float32(2)
                dx, dy = dx / dz, dy / dz
            shear[0, at], shear[1, at], shear[2, at], shear[3, at] = dx, dy, _ONE / dz, axis
    return shear


@njit(inline="always")
def _plane_point(x, y, z, shear, at, projection):
    """A corner in the plane across sixteen rays, and what nearness is interpolated from; see `reference.sheared`."""
    plane = shear.shape[1]
    sx, sy = load(shear, at), load(shear, plane + at)
    if projection == PERSPECTIVE:
        return splat(x) - sx * z, splat(y) - sy * z, splat(z)
    if projection == PARALLEL:
        return splat(x) - sx, splat(y) - sy, splat(z)
    inverse, axis = load(shear, 2 * plane + at), load(shear, 3 * plane + at)
    low, high = splat(_HALF), splat(_ONE + _HALF)
    a = where_greater(axis, high, splat(z), where_greater(axis, low, splat(y), splat(x)))
    b = where_greater(axis, high, splat(x), where_greater(axis, low, splat(z), splat(y)))
    c = where_greater(axis, high, splat(y), where_greater(axis, low, splat(x), splat(z)))
    return a - sx * c, b - sy * c, c * inverse


@njit(inline="always")
def _all_at_least(a, b, c, d, e, f):
    """One where a >= b, c >= d and e >= f, else zero."""
    zero = splat(_ZERO)
    return where_at_least(a, b, where_at_least(c, d, where_at_least(e, f, splat(_ONE), zero), zero), zero)


@njit(inline="always")
def _visit(corners, number, shear, depth, index, at, near, projection):
    """Hold a face against sixteen pixels."""
    ax, ay, az = _plane_point(corners[0], corners[1], corners[2], shear, at, projection)
    bx, by, bz = _plane_point(corners[3], corners[4], corners[5], shear, at, projection)
    cx, cy, cz = _plane_point(corners[6], corners[7], corners[8], shear, at, projection)
    left_a, right_a = bx * cy, by * cx
    left_b, right_b = cx * ay, cy * ax
    left_c, right_c = ax * by, ay * bx
    inside = _all_at_least(left_a, right_a, left_b, right_b, left_c, right_c) + _all_at_least(
        right_a, left_a, right_b, left_b, right_c, left_c
    )
    if any_positive(inside):
        a, b, c = absolute(left_a - right_a), absolute(left_b - right_b), absolute(left_c - right_c)
        total = a + b + c
        zero, far = splat(_ZERO), splat(_FAR)
        found = (a * az + b * bz + c * cz) / where_greater(total, zero, total, splat(_ONE))
        found = where_greater(found, splat(near), found, far)
        found = where_greater(total, zero, where_greater(inside, zero, found, far), far)
        nearest = load(depth, at)
        store(index, at, where_greater(nearest, found, _splat_bits(number), load(index, at)))
        store(depth, at, where_greater(nearest, found, found, nearest))


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def visible_faces(points, faces, rays, boxes, near, projection, seen):
    """Fill `seen` [h, w] with the index of each pixel's face; see `reference.visible_faces`."""
    height, width = seen.shape
    bands = (height + BAND - 1) // BAND
    offsets, ids = _faces_by_band(boxes, bands)
    stride = width + WIDTH  # what is read past the end of a row belongs to no pixel
    for i in nb.prange(bands):
        half = (bands + 1) // 2
        band = 2 * i if i < half else 2 * (i - half) + 1  # deals neighbours, whose work is alike, to different threads
        top = band * BAND
        rows = min(BAND, height - top)
        index = np.full(rows * stride, np.int32(EMPTY), np.int32)
        if offsets[band + 1] > offsets[band]:
            shear = _shears(rays, top, rows, stride, projection)
            depth = np.full(rows * stride, _FAR, np.float32)
            bits = index.view(np.float32)
            for at in range(offsets[band], offsets[band + 1]):
                number = ids[at]
                a, b, c = faces[number, 0], faces[number, 1], faces[number, 2]
                corners = (
                    points[a, 0], points[a, 1], points[a, 2],
                    points[b, 0], points[b, 1], points[b, 2],
                    points[c, 0], points[c, 1], points[c, 2],
                )  # fmt: skip
                first, last = boxes[number, 0], boxes[number, 2]
                for y in range(max(boxes[number, 1] - top, 0), min(boxes[number, 3] - top, rows)):
                    for x in range(first, last, WIDTH):
                        _visit(corners, number, shear, depth, bits, y * stride + x, near, projection)
        for y in range(rows):
            for x in range(width):
                seen[top + y, x] = index[y * stride + x]
