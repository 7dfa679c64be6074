"""The walk over outlines on the host, forward and backward. Numba; float32 arrays, float64 arithmetic.

Segments are taken in batches. Within one, threads share out the segments and note what each piece does in a row of its
own; the notes are then added up in order: results do not depend on the number of threads.
"""

import math

import numba as nb
import numpy as np

from renderers.kernels.edge_blend.cpu_edges import (
    BENT,
    MODEL,
    PARTS,
    edge_vertices,
    in_front,
    part_of_edge,
    segment,
    segment_back,
)
from renderers.kernels.edge_blend.cpu_lens import NEAR, NUMBERS, ORTHOGRAPHIC, project
from renderers.kernels.edge_blend.cpu_pieces import (
    area_beyond,
    area_slopes,
    column_back,
    column_ends,
    is_steep,
    split,
    split_back,
)
from renderers.kernels.edge_blend.cpu_visibility import corner, cover, moved_across, point_on_edge
from renderers.kernels.edge_blend.pairs import ASIDE, ROUNDINGS
from renderers.kernels.jit_numba import njit

_BATCH = 8192  # segments
_BLOCKS = 32  # of segments in a batch
_ROUNDING = ROUNDINGS * float(np.finfo(np.float32).eps)


@njit(nogil=True, cache=True)
def _face_at(index, column, row):
    """The face that a pixel sees; -1 outside the image."""
    if column < 0 or column >= index.shape[1] or row < 0 or row >= index.shape[0]:
        return -1
    return index[row, column]


@njit(nogil=True, cache=True)
def _is_open(index, column, row):
    """Whether a pixel or one of its eight neighbours is empty."""
    for y in range(row - 1, row + 2):
        for x in range(column - 1, column + 2):
            if _face_at(index, x, y) < 0:
                return True
    return False


@njit(nogil=True, cache=True, error_model="numpy")
def _origin(points, faces, index, codes, lens, column, row):
    """The point that the pixel's state holds at, relative to its centre: a step into the face that the centre sees."""
    face = index[row, column]
    if face < 0:
        return 0.0, 0.0
    a, b, c = corner(points, faces[face, 0]), corner(points, faces[face, 1]), corner(points, faces[face, 2])
    if codes[MODEL] != ORTHOGRAPHIC and not min(a[2], b[2], c[2]) > lens[NEAR]:
        return 0.0, 0.0
    middle = ((a[0] + b[0] + c[0]) / 3, (a[1] + b[1] + c[1]) / 3, (a[2] + b[2] + c[2]) / 3)
    u, v = project(codes[MODEL], codes[BENT] > 0, lens, middle)
    u, v = u - column - 0.5, v - row - 0.5
    length = math.sqrt(u * u + v * v)
    if not length > 0:
        return 0.0, 0.0
    scale = min(8 * _ROUNDING * max(index.shape[0], index.shape[1]) / length, 0.5)
    return u * scale, v * scale


@njit(nogil=True, cache=True, error_model="numpy")
def _decided(points, faces, opposite, index, codes, lens, edge, places, piece, column, row, mask_only):
    """What a piece does in its pixel.

    Args: vertices of the edge; ends of the part, in space and in the image; ends of the piece.

    Returns whether it is seen, whether the background is behind it, the pixel's origin and whether that is on the
    surface, and the pixels, flat, that lend the inner and the outer colour.
    """
    first, second = edge
    begin, finish, start, end = places
    height, width = index.shape
    origin, own = (0.0, 0.0), row * width + column
    background = _is_open(index, column, row)
    if mask_only and not background:
        return False, False, origin, False, own, own
    origin = _origin(points, faces, index, codes, lens, column, row)
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    step_x = step_y = 0
    if is_steep(start, end):
        step_x = 1 if along_y > 0 else -1
    elif along_x != 0:
        step_y = -1 if along_x > 0 else 1
    mid_x, mid_y = 0.5 * (piece[0][0] + piece[1][0]), 0.5 * (piece[0][1] + piece[1][1])
    squared = along_x * along_x + along_y * along_y
    squared = squared if squared > 0 else 1.0
    x, y = column + 0.5 - start[0], row + 0.5 - start[1]
    share = min(max(((x + mid_x) * along_x + (y + mid_y) * along_y) / squared, 0.0), 1.0)
    from_line = (along_x * (y + origin[1]) - along_y * (x + origin[0])) / math.sqrt(squared)
    point = point_on_edge(codes[MODEL], begin, finish, share)
    point = moved_across(codes[MODEL], lens, begin, finish, point, ASIDE)

    face = index[row, column]
    reach = math.sqrt(mid_x * mid_x + mid_y * mid_y)
    hides, touches, _, behind = cover(
        codes[MODEL], lens, points, faces, opposite, face, point, reach, first, second
    )  # fmt: skip
    if hides:
        return False, False, origin, False, own, own
    furthest = max(abs(start[0]), abs(start[1]), abs(end[0]), abs(end[1])) + max(height, width)
    inside = from_line > 0
    if abs(from_line) < _ROUNDING * furthest:
        inside = touches
    back = _face_at(index, column - step_x, row - step_y)
    if not inside:
        reach = math.sqrt((mid_x + step_x) ** 2 + (mid_y + step_y) ** 2)
        if cover(codes[MODEL], lens, points, faces, opposite, back, point, reach, first, second)[0]:
            return False, False, origin, False, own, own
    if background and (inside or face >= 0):
        if not inside and behind:
            background = False
        else:
            there = _face_at(index, column + step_x, row + step_y)
            reach = math.sqrt((mid_x - step_x) ** 2 + (mid_y - step_y) ** 2)
            background = not cover(
                codes[MODEL], lens, points, faces, opposite, there, point, reach, first, second
            )[2]  # fmt: skip
    inner = outer = own
    if not (inside and face >= 0) and 0 <= column - step_x < width and 0 <= row - step_y < height:
        inner = own - step_x - step_y * width
    if inside and face >= 0 and 0 <= column + step_x < width and 0 <= row + step_y < height:
        outer = own + step_x + step_y * width
    return True, background, origin, inside, inner, outer


@njit(nogil=True, cache=True, error_model="numpy")
def _piece(start, end, column, second, size):
    """The piece of a segment in the first or second pixel of a column: its ends, its pixel, whether there is one."""
    steep = is_steep(start, end)
    if steep:
        start, end = (start[1], start[0]), (end[1], end[0])
    a, b, row = column_ends(start, end, float(column))
    low, high, here = split(a, b, second)
    row = row + 1.0 if second else row
    limit = size[1] if steep else size[0]
    if not (here and row >= 0 and row < limit):
        return (low, high), 0, 0, False
    if steep:
        return ((low[1], low[0]), (high[1], high[0])), int(row), column, True
    return (low, high), column, int(row), True


@njit(nogil=True, cache=True, error_model="numpy")
def _piece_back(start, end, column, second, of_low, of_high):
    """Gradients of a segment's ends by those of its piece."""
    steep = is_steep(start, end)
    if steep:
        start, end = (start[1], start[0]), (end[1], end[0])
        of_low, of_high = (of_low[1], of_low[0]), (of_high[1], of_high[0])
    a, b, _ = column_ends(start, end, float(column))
    of_a, of_b = split_back(a, b, second, of_low, of_high)
    of_start, of_end = column_back(start, end, float(column), of_a, of_b)
    if steep:
        return (of_start[1], of_start[0]), (of_end[1], of_end[0])
    return of_start, of_end


@njit(nogil=True, cache=True, error_model="numpy")
def _located(points, faces, codes, lens, size, edges, number):
    """A segment: vertices of its edge, their places, its ends in space and in the image, first column and count."""
    edge = edge_vertices(points, faces, codes[MODEL], edges[number // codes[PARTS]])
    ends = corner(points, edge[0]), corner(points, edge[1])
    begin, finish = part_of_edge(codes, lens, number % codes[PARTS], ends[0], ends[1])
    start, end, first, count = segment(codes, lens, size, begin, finish)
    if not in_front(codes, lens, ends[0], ends[1]):
        count = 0
    return edge, ends, (begin, finish, start, end), first, count


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _offsets(points, faces, codes, lens, size, edges, low, high):
    """Where the notes of each segment of a batch begin, two a column; one number more than segments."""
    offsets = np.zeros(high - low + 1, np.int64)
    for block in nb.prange(_BLOCKS):
        for s in range(block * (high - low) // _BLOCKS, (block + 1) * (high - low) // _BLOCKS):
            offsets[s + 1] = 2 * _located(points, faces, codes, lens, size, edges, low + s)[4]
    for s in range(high - low):
        offsets[s + 1] += offsets[s]
    return offsets


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def walked(values, points, faces, opposite, index, lens, codes, edges, num_edges, out, seen, num_seen):
    """Fill out [p, c] with values [p, c] and what outlines change; index [h, w].

    Fill `seen` [3 f] with the edges that change something, in order, and num_seen [1]: most are hidden.
    """
    precise, size, mask_only = lens.astype(np.float64), index.shape, values.shape[1] == 1
    out[:] = values
    num_seen[0] = 0
    total = num_edges * codes[PARTS]
    for low in range(0, total, _BATCH):
        high = min(low + _BATCH, total)
        offsets = _offsets(points, faces, codes, precise, size, edges, low, high)
        pixels = np.full((offsets[-1], 3), -1, np.int32)
        areas = np.empty((offsets[-1], 2), np.float32)
        for block in nb.prange(_BLOCKS):
            for s in range(block * (high - low) // _BLOCKS, (block + 1) * (high - low) // _BLOCKS):
                if offsets[s + 1] > offsets[s]:
                    _note_segment(
                        points, faces, opposite, index, codes, precise, edges, low + s, mask_only,
                        pixels[offsets[s] : offsets[s + 1]], areas[offsets[s] : offsets[s + 1]],
                    )  # fmt: skip
        _add_notes(values, pixels, areas, out)
        num_seen[0] = _add_seen(edges, codes, low, offsets, pixels, seen, num_seen[0])


@njit(nogil=True, cache=True, error_model="numpy")
def _note_segment(points, faces, opposite, index, codes, lens, edges, number, mask_only, pixels, areas):
    """Write for each piece the pixel and those of inner and outer colours, and areas for colours and for the mask."""
    edge, _, places, first, count = _located(points, faces, codes, lens, index.shape, edges, number)
    for note in range(2 * count):
        second = note % 2 == 1
        piece, column, row, exists = _piece(places[2], places[3], first + note // 2, second, index.shape)
        if not exists:
            continue
        seen, background, origin, inside, inner, outer = _decided(
            points, faces, opposite, index, codes, lens, edge, places, piece, column, row, mask_only
        )
        if seen and (background or not mask_only):
            area = area_beyond(piece[0], piece[1], origin, inside)
            pixels[note, 0], pixels[note, 1], pixels[note, 2] = row * index.shape[1] + column, inner, outer
            areas[note, 0], areas[note, 1] = area, area if background else 0.0


@njit(nogil=True, cache=True)
def _add_notes(values, pixels, areas, out):
    for note in range(pixels.shape[0]):
        own = pixels[note, 0]
        if own >= 0:
            inner, outer = pixels[note, 1], pixels[note, 2]
            out[own, 0] += areas[note, 1]
            for c in range(1, values.shape[1]):
                out[own, c] += areas[note, 0] * (values[inner, c] - values[outer, c])


@njit(nogil=True, cache=True)
def _add_seen(edges, codes, low, offsets, pixels, seen, count):
    for s in range(offsets.shape[0] - 1):
        for note in range(offsets[s], offsets[s + 1]):
            if pixels[note, 0] >= 0:
                edge = edges[(low + s) // codes[PARTS]]
                if count == 0 or seen[count - 1] != edge:
                    seen[count] = edge
                    count += 1
                break
    return count


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def gradients(
    values, points, faces, opposite, index, lens, codes, edges, num_edges, cotangent, of_values, of_points, of_lens
):
    """Fill gradients of values [p, c], points [v, 3] and lens; `cotangent` is that of `walked`'s result."""
    precise, size, mask_only = lens.astype(np.float64), index.shape, values.shape[1] == 1
    of_values[:], of_points[:] = cotangent, 0
    sums = np.zeros((_BLOCKS, NUMBERS))
    total = num_edges * codes[PARTS]
    for low in range(0, total, _BATCH):
        high = min(low + _BATCH, total)
        offsets = _offsets(points, faces, codes, precise, size, edges, low, high)
        pixels = np.full((0 if mask_only else offsets[-1], 3), -1, np.int32)
        areas = np.empty(pixels.shape[0], np.float32)
        of_ends = np.zeros((high - low, 2, 3), np.float32)
        for block in nb.prange(_BLOCKS):
            for s in range(block * (high - low) // _BLOCKS, (block + 1) * (high - low) // _BLOCKS):
                if offsets[s + 1] > offsets[s]:
                    _note_gradients(
                        values, points, faces, opposite, index, codes, precise, edges, low + s, mask_only, cotangent,
                        pixels[offsets[s] : offsets[s + 1]], areas[offsets[s] : offsets[s + 1]], of_ends[s],
                        sums[block],
                    )  # fmt: skip
        for note in range(pixels.shape[0]):
            own, inner, outer = pixels[note, 0], pixels[note, 1], pixels[note, 2]
            if own >= 0:
                for c in range(1, values.shape[1]):
                    of_values[inner, c] += areas[note] * cotangent[own, c]
                    of_values[outer, c] -= areas[note] * cotangent[own, c]
        for s in range(high - low):
            if offsets[s + 1] > offsets[s]:
                edge = edge_vertices(points, faces, codes[MODEL], edges[(low + s) // codes[PARTS]])
                for axis in range(3):
                    of_points[edge[0], axis] += of_ends[s, 0, axis]
                    of_points[edge[1], axis] += of_ends[s, 1, axis]
    for number in range(NUMBERS):
        of_lens[number] = sums[:, number].sum()


@njit(nogil=True, cache=True, error_model="numpy")
def _note_gradients(
    values,
    points,
    faces,
    opposite,
    index,
    codes,
    lens,
    edges,
    number,
    mask_only,
    cotangent,
    pixels,
    areas,
    of_ends,
    sums,
):
    """Write a segment's gradients of its edge's ends, and what its pieces pass on to colours; add those of the lens."""
    edge, ends, places, first, count = _located(points, faces, codes, lens, index.shape, edges, number)
    sx, sy, ex, ey = 0.0, 0.0, 0.0, 0.0
    for note in range(2 * count):
        second = note % 2 == 1
        piece, column, row, exists = _piece(places[2], places[3], first + note // 2, second, index.shape)
        if not exists:
            continue
        seen, background, origin, inside, inner, outer = _decided(
            points, faces, opposite, index, codes, lens, edge, places, piece, column, row, mask_only
        )
        if not seen or (mask_only and not background):
            continue
        own = row * index.shape[1] + column
        of_area = float(cotangent[own, 0]) if background else 0.0
        if not mask_only:
            pixels[note, 0], pixels[note, 1], pixels[note, 2] = own, inner, outer
            areas[note] = area_beyond(piece[0], piece[1], origin, inside)
            for c in range(1, values.shape[1]):
                of_area += float(cotangent[own, c]) * (float(values[inner, c]) - values[outer, c])
        low, high = area_slopes(piece[0], piece[1], origin, inside)
        of_low, of_high = (of_area * low[0], of_area * low[1]), (of_area * high[0], of_area * high[1])
        of_start, of_end = _piece_back(places[2], places[3], first + note // 2, second, of_low, of_high)
        sx, sy, ex, ey = sx + of_start[0], sy + of_start[1], ex + of_end[0], ey + of_end[1]
    if count > 0:
        of_start, of_end = segment_back(
            codes, lens, number % codes[PARTS], ends[0], ends[1], (sx, sy), (ex, ey), sums
        )  # fmt: skip
        for axis in range(3):
            of_ends[0, axis], of_ends[1, axis] = of_start[axis], of_end[axis]
