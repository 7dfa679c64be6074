"""What is in front of a silhouette edge in a pixel, and what behind it, on the host. Numba, float64 arithmetic.

The rules are those of `visibility.py` and `pairs.py`.
"""

import math

from renderers.kernels.edge_blend.cpu_lens import FOCAL, ORTHOGRAPHIC, PINHOLE
from renderers.kernels.edge_blend.pairs import SURELY
from renderers.kernels.edge_blend.visibility import BOUNDARY, CURVATURE
from renderers.kernels.jit_numba import njit

_FLATTEST = 1e-4


@njit(nogil=True, cache=True)
def corner(points, vertex):
    """A vertex in float64."""
    return float(points[vertex, 0]), float(points[vertex, 1]), float(points[vertex, 2])


@njit(nogil=True, cache=True)
def minus(a, b):
    """a - b."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@njit(nogil=True, cache=True)
def cross(a, b):
    """a x b."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(nogil=True, cache=True)
def dot(a, b):
    """a . b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(nogil=True, cache=True)
def side_of_edge(model, start, end, point):
    """Positive where the camera sees a point to the left of the line through start and end."""
    along, offset = minus(end, start), minus(point, start)
    if model == ORTHOGRAPHIC:
        return along[0] * offset[1] - along[1] * offset[0]
    return dot(cross(start, along), offset)


@njit(nogil=True, cache=True, error_model="numpy")
def point_on_edge(model, start, end, share):
    """The point at a share of the way that an edge takes in the image."""
    if model == PINHOLE:
        near, far = share * start[2], (1 - share) * end[2]
        share = near / (near + far) if near + far > 0 else share
    return (
        start[0] + share * (end[0] - start[0]),
        start[1] + share * (end[1] - start[1]),
        start[2] + share * (end[2] - start[2]),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def moved_across(model, lens, start, end, point, pixels):
    """A point moved to the right of the edge from start to end by so many pixels."""
    if model == ORTHOGRAPHIC:
        across, depth = (end[1] - start[1], start[0] - end[0], 0.0), 1.0
    else:
        across, depth = cross(end, start), math.sqrt(dot(point, point))
    length = math.sqrt(dot(across, across))
    step = pixels / min(abs(lens[FOCAL]), abs(lens[FOCAL + 1])) * depth / (length if length > 0 else 1.0)
    return point[0] + step * across[0], point[1] + step * across[1], point[2] + step * across[2]


@njit(nogil=True, cache=True)
def _within(model, a, b, c, point):
    """Whether a face covers a point, and the edge (by its first corner) that the point is furthest beyond."""
    turn = side_of_edge(model, a, b, c)
    sign = 1.0 if turn > 0 else (-1.0 if turn < 0 else 0.0)
    x = sign * side_of_edge(model, a, b, point)
    y = sign * side_of_edge(model, b, c, point)
    z = sign * side_of_edge(model, c, a, point)
    lowest = min(x, y, z)
    return lowest >= 0, 0 if x == lowest else (1 if y == lowest else 2)


@njit(nogil=True, cache=True, error_model="numpy")
def _ahead(model, a, b, c, point):
    """Distance from a point to a face's plane in the direction of view, and the plane's slope against it."""
    normal = cross(minus(b, a), minus(c, a))
    across = normal[2] if model == ORTHOGRAPHIC else dot(normal, point)
    length = math.sqrt(dot(normal, normal)) * (1.0 if model == ORTHOGRAPHIC else math.sqrt(dot(point, point)))
    cosine = max(abs(across) / (length if length > 0 else 1.0), _FLATTEST)
    distance = dot(normal, minus(a, point)) / (across if across != 0 else 1.0)
    return distance, math.sqrt(max(1 - cosine * cosine, 0.0)) / cosine


@njit(nogil=True, cache=True, error_model="numpy")
def cover(model, lens, points, faces, opposite, face, point, reach, first, second):
    """What the surface at a pixel is to a point at most a pixel or two away: hides, touches, goes_on, behind.

    Args: the pixel's face, -1 for none; the point, beside the edge between vertices `first` and `second`; its distance
    in the image from the pixel's centre.

    Returns whether the surface hides the point; whether it shares a vertex with the edge; whether it goes on to the
    point's place; whether it is there behind the point.
    """
    if face < 0:
        return False, False, False, False
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    touches = i == first or j == first or k == first or i == second or j == second or k == second
    a, b, c = corner(points, i), corner(points, j), corner(points, k)
    inside, edge = _within(model, a, b, c, point)
    if edge == 1:
        a, b, c = b, c, a
    elif edge == 2:
        a, b, c = c, a, b
    covers, ends = inside, False
    if not inside:
        beyond = opposite[face, edge]
        ends = beyond == BOUNDARY
        if not ends:
            other = corner(points, beyond)
            ends = side_of_edge(model, a, b, other) * side_of_edge(model, a, b, c) >= 0
            if not ends:
                covers, c = _within(model, b, a, other, point)[0], other
                touches |= beyond == first or beyond == second
    distance, slope = _ahead(model, a, b, c, point)
    margin = CURVATURE * (reach + 0.5) * (1 + slope) / min(abs(lens[FOCAL]), abs(lens[FOCAL + 1]))
    in_front = distance < -SURELY * margin if covers else (not touches and distance < -margin)
    goes_on = covers or not (ends or touches)
    return not ends and in_front, touches, goes_on, covers or (not ends and not touches and distance > margin)
