"""Pieces of segments in pixels and the areas beyond them, with derivatives, on the host. Numba, float64 arithmetic.

The equations are those of `coverage.py`. Steep segments are walked by rows: there x and y change places, in segments
and columns, and back in pieces.
"""

import math

import numpy as np

from renderers.kernels.jit_numba import njit


@njit(nogil=True, cache=True)
def is_steep(start, end):
    """Whether a segment is walked row by row."""
    return abs(end[1] - start[1]) > abs(end[0] - start[0])


@njit(nogil=True, cache=True, error_model="numpy")
def num_steps(start, end, height, width):
    """First column (of steep segments: row) of the image that a segment touches, and how many follow on it."""
    axis = 1 if is_steep(start, end) else 0
    limit, across = (height, width) if axis == 1 else (width, height)
    low, high = min(start[axis], end[axis]), max(start[axis], end[axis])
    other_low, other_high = min(start[1 - axis], end[1 - axis]), max(start[1 - axis], end[1 - axis])
    finite = math.isfinite(start[0]) and math.isfinite(start[1]) and math.isfinite(end[0]) and math.isfinite(end[1])
    if not (finite and low < limit and high >= 0 and other_low < across and other_high > 0):
        return 0, 0
    first, last = int(max(low, 0.0)), int(min(high, limit - 1.0))
    return first, last - first + 1


@njit(nogil=True, cache=True, error_model="numpy")
def column_ends(start, end, column):
    """A segment's ends in a column, relative to the centre of the first of two pixels, and that pixel's row.

    The second pixel is in the next row; the line between the two is at 0.5.
    """
    run = end[0] - start[0]
    slope = (end[1] - start[1]) / (run if run != 0 else 1.0)
    ax, bx = min(max(start[0], column), column + 1.0), min(max(end[0], column), column + 1.0)
    ay, by = start[1] + (ax - start[0]) * slope, end[1] + (bx - end[0]) * slope
    row = np.floor(min(ay, by))
    return (ax - column - 0.5, ay - row - 0.5), (bx - column - 0.5, by - row - 0.5), row


@njit(nogil=True, cache=True, error_model="numpy")
def split(a, b, second):
    """The ends of the piece in the first or second pixel, and whether there is one. See `column_ends`."""
    a_here, b_here = (a[1] > 0.5) == second, (b[1] > 0.5) == second
    shift = 1.0 if second else 0.0
    middle = 0.0
    if a_here != b_here:
        middle = a[0] + (0.5 - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
    start = (a[0] if a_here else middle, (a[1] if a_here else 0.5) - shift)
    end = (b[0] if b_here else middle, (b[1] if b_here else 0.5) - shift)
    return start, end, a_here or b_here


@njit(nogil=True, cache=True, error_model="numpy")
def area_beyond(start, end, origin, inside):
    """What a piece adds to the share of its pixel."""
    (ax, ay), (bx, by), middle = start, end, origin[0]
    a_right, b_right = ax > middle, bx > middle
    if a_right == b_right:
        return -(0.5 - 0.5 * (ax + bx)) * (by - ay) if a_right else (0.5 + 0.5 * (ax + bx)) * (by - ay)
    height = ay + (middle - ax) / (bx - ax) * (by - ay)
    column = 0.5 - height if height > origin[1] else 0.5 + height
    column = -column if inside else column
    if b_right:
        return (0.5 + 0.5 * (ax + middle)) * (height - ay) - (0.5 - 0.5 * (middle + bx)) * (by - height) + column
    return (0.5 + 0.5 * (middle + bx)) * (by - height) - (0.5 - 0.5 * (ax + middle)) * (height - ay) + column


@njit(nogil=True, cache=True, error_model="numpy")
def area_slopes(start, end, origin, inside):
    """Derivatives of `area_beyond` by the piece's ends."""
    (ax, ay), (bx, by), middle = start, end, origin[0]
    a_right, b_right = ax > middle, bx > middle
    if a_right == b_right:
        beyond = 0.5 * (ax + bx) - 0.5 if a_right else 0.5 + 0.5 * (ax + bx)
        turned = 0.5 * (by - ay)
        return (turned, -beyond), (turned, beyond)
    share = (middle - ax) / (bx - ax)
    height = ay + share * (by - ay)
    column = -1.0 if height > origin[1] else 1.0
    of_height = -column if inside else column
    sign = 1.0 if b_right else -1.0
    # what lies beyond the part with a, and beyond the part with b
    beyond_a, beyond_b = 0.5 + 0.5 * sign * (ax + middle), 0.5 - 0.5 * sign * (bx + middle)
    of_height += sign * (beyond_a + beyond_b)
    of_share = of_height * (by - ay)
    return (
        (0.5 * (height - ay) - of_share * (1 - share) / (bx - ax), of_height * (1 - share) - sign * beyond_a),
        (0.5 * (by - height) - of_share * share / (bx - ax), of_height * share - sign * beyond_b),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def split_back(a, b, second, of_start, of_end):
    """Gradients of what `column_ends` gave by those of the piece that `split` gave."""
    a_here, b_here = (a[1] > 0.5) == second, (b[1] > 0.5) == second
    if a_here and b_here:
        return of_start, of_end
    # one end is the crossing, of which only the place along the line between the pixels moves
    of_middle = of_end[0] if a_here else of_start[0]
    share = (0.5 - a[1]) / (b[1] - a[1])
    steep = of_middle * (b[0] - a[0]) / (b[1] - a[1])
    of_a, of_b = (of_middle * (1 - share), -steep * (1 - share)), (of_middle * share, -steep * share)
    if a_here:
        return (of_a[0] + of_start[0], of_a[1] + of_start[1]), of_b
    return of_a, (of_b[0] + of_end[0], of_b[1] + of_end[1])


@njit(nogil=True, cache=True, error_model="numpy")
def column_back(start, end, column, of_a, of_b):
    """Gradients of a segment's ends by those of its ends in a column."""
    run = end[0] - start[0]
    slope = (end[1] - start[1]) / (run if run != 0 else 1.0)
    ax, bx = min(max(start[0], column), column + 1.0), min(max(end[0], column), column + 1.0)
    of_slope = of_a[1] * (ax - start[0]) + of_b[1] * (bx - end[0])
    of_rise = of_slope / (run if run != 0 else 1.0)
    of_run = -of_rise * slope if run != 0 else 0.0
    of_start_x = of_a[0] if ax == start[0] else -of_a[1] * slope
    of_end_x = of_b[0] if bx == end[0] else -of_b[1] * slope
    return (of_start_x - of_run, of_a[1] - of_rise), (of_end_x + of_run, of_b[1] + of_rise)
