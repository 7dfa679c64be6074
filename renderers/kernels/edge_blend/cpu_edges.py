"""The edges of outlines and their segments in the image, on the host. Numba, float64 arithmetic.

The rules are those of `visibility.silhouette_edges` and `images.py`.
"""

import math

import numba as nb
import numpy as np

from renderers.kernels.edge_blend.cpu_lens import FISHEYE, LIMIT, NEAR, PINHOLE, project, pull
from renderers.kernels.edge_blend.cpu_pieces import num_steps
from renderers.kernels.edge_blend.cpu_visibility import corner, side_of_edge
from renderers.kernels.jit_numba import njit

MODEL, BENT, PARTS = range(3)  # entries of the codes
_BLOCKS = 32  # of faces


@njit(nogil=True, cache=True)
def _edges_of_face(points, faces, opposite, model, face, edges, at):
    """Write the numbers 3 face + k of the edges of a face that are on outlines; returns where the next one goes."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    a, b, c = corner(points, i), corner(points, j), corner(points, k)
    turn = side_of_edge(model, a, b, c)
    if not abs(turn) > 0:  # what is not a number has no outline
        return at
    for edge in range(3):
        own, other = faces[face, (edge + 2) % 3], opposite[face, edge]
        outline = other < 0
        if own < other or (own == other and turn < 0):
            start, end = (a, b) if edge == 0 else ((b, c) if edge == 1 else (c, a))
            outline = side_of_edge(model, start, end, corner(points, other)) * turn > 0
        if outline:
            edges[at] = 3 * face + edge
            at += 1
    return at


@njit(parallel=True, nogil=True, cache=True)
def outline_edges(points, faces, opposite, codes, edges, count):
    """Fill `edges` [3 f] with the edges of outlines, in order, and `count` [1] with how many there are."""
    num_faces, model = faces.shape[0], codes[MODEL]
    ends = np.zeros(_BLOCKS, np.int64)
    for block in nb.prange(_BLOCKS):
        at = 3 * (block * num_faces // _BLOCKS)
        for face in range(block * num_faces // _BLOCKS, (block + 1) * num_faces // _BLOCKS):
            at = _edges_of_face(points, faces, opposite, model, face, edges, at)
        ends[block] = at
    total = 0
    for block in range(_BLOCKS):
        for at in range(3 * (block * num_faces // _BLOCKS), ends[block]):
            edges[total] = edges[at]
            total += 1
    count[0] = total


@njit(nogil=True, cache=True, error_model="numpy")
def edge_vertices(points, faces, model, edge):
    """The vertices of an edge, in the order that has the surface to the left."""
    face, k = edge // 3, edge % 3
    first, second = faces[face, k], faces[face, (k + 1) % 3]
    i, j, m = faces[face, 0], faces[face, 1], faces[face, 2]
    if side_of_edge(model, corner(points, i), corner(points, j), corner(points, m)) < 0:
        return second, first
    return first, second


@njit(nogil=True, cache=True, error_model="numpy")
def _near_share(start, end, near):
    """At which share of its way an edge meets the near plane."""
    rise = end[2] - start[2]
    return min(max((near - start[2]) / (rise if rise != 0 else 1.0), 0.0), 1.0)


@njit(nogil=True, cache=True, error_model="numpy")
def _between(start, end, share):
    return (
        start[0] + share * (end[0] - start[0]),
        start[1] + share * (end[1] - start[1]),
        start[2] + share * (end[2] - start[2]),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _cut(codes, lens, start, end):
    """The ends of an edge behind the near plane."""
    near = lens[NEAR]
    if codes[MODEL] == FISHEYE or not (start[2] < near or end[2] < near):
        return start, end
    at_near = _between(start, end, _near_share(start, end, near))
    at_near = (at_near[0], at_near[1], near)
    return (at_near if start[2] < near else start), (at_near if end[2] < near else end)


@njit(nogil=True, cache=True, error_model="numpy")
def part_of_edge(codes, lens, part, start, end):
    """The ends of a part of an edge after what lies before the near plane has been cut away."""
    start, end = _cut(codes, lens, start, end)
    if codes[PARTS] == 1:
        return start, end
    return _between(start, end, part / codes[PARTS]), _between(start, end, (part + 1) / codes[PARTS])


@njit(nogil=True, cache=True, error_model="numpy")
def _is_seen(codes, lens, point):
    radius = math.sqrt(point[0] * point[0] + point[1] * point[1])
    if codes[MODEL] == FISHEYE:
        length = math.sqrt(radius * radius + point[2] * point[2])
        return math.atan2(radius, point[2]) < lens[LIMIT] and length > lens[NEAR]
    return radius < lens[LIMIT] * point[2]


@njit(nogil=True, cache=True, error_model="numpy")
def segment(codes, lens, size, begin, finish):
    """Pixels where a part of an edge begins and ends, its first column, and how many it touches."""
    nothing = (0.0, 0.0)
    if codes[MODEL] == FISHEYE or (codes[MODEL] == PINHOLE and codes[BENT] > 0):
        if not (_is_seen(codes, lens, begin) and _is_seen(codes, lens, finish)):
            return nothing, nothing, 0, 0
    start = project(codes[MODEL], codes[BENT] > 0, lens, begin)
    end = project(codes[MODEL], codes[BENT] > 0, lens, finish)
    first, count = num_steps(start, end, size[0], size[1])
    return start, end, first, count


@njit(nogil=True, cache=True, error_model="numpy")
def in_front(codes, lens, start, end):
    """Whether the camera sees some of an edge, as far as the near plane goes."""
    return codes[MODEL] == FISHEYE or start[2] > lens[NEAR] or end[2] > lens[NEAR]


@njit(nogil=True, cache=True, error_model="numpy")
def segment_back(codes, lens, part, start, end, of_begin, of_finish, sums):
    """Gradients of an edge's ends by those of the pixels where a part of it begins and ends.

    That of the lens is added to `sums`.
    """
    begin, finish = part_of_edge(codes, lens, part, start, end)
    model, bent = codes[MODEL], codes[BENT] > 0
    g_start = pull(model, bent, lens, begin, of_begin[0], of_begin[1], sums)
    g_end = pull(model, bent, lens, finish, of_finish[0], of_finish[1], sums)
    if codes[PARTS] > 1:
        low, high = part / codes[PARTS], (part + 1) / codes[PARTS]
        g_start, g_end = (
            _mixed(g_start, 1 - low, g_end, 1 - high),
            _mixed(g_start, low, g_end, high),
        )
    near = lens[NEAR]
    if model == FISHEYE or not (start[2] < near or end[2] < near):
        return g_start, g_end
    share, rise = _near_share(start, end, near), end[2] - start[2]
    of_near = g_start if start[2] < near else g_end
    of_kept = g_end if start[2] < near else g_start
    # x and y at the near plane move with the ends, and with the share (near - z_0) / (z_1 - z_0)
    of_share = of_near[0] * (end[0] - start[0]) + of_near[1] * (end[1] - start[1])
    flat = (of_near[0], of_near[1], 0.0)
    of_start, of_end = _mixed(flat, 1 - share, flat, 0.0), _mixed(flat, share, flat, 0.0)
    of_start = (of_start[0], of_start[1], -of_share * (1 - share) / rise)
    of_end = (of_end[0], of_end[1], -of_share * share / rise)
    if start[2] < near:
        return of_start, _mixed(of_end, 1.0, of_kept, 1.0)
    return _mixed(of_start, 1.0, of_kept, 1.0), of_end


@njit(nogil=True, cache=True)
def _mixed(a, share_a, b, share_b):
    return share_a * a[0] + share_b * b[0], share_a * a[1] + share_b * b[1], share_a * a[2] + share_b * b[2]
