"""How much of a pixel a boundary edge takes or gives: exact areas, with their derivatives.

A region S with a polygonal boundary covers of the unit square around a pixel's centre c
    area = [c in S] + sum over boundary segments of `area_beyond`,
since every point (x, y) of the square is reached from c by going up or down to (0, y) and then sideways, and its state
is that of c changed once by every segment that this path crosses. A segment thus changes the part of each row that lies
beyond it, and, where it crosses the column of the centre, all rows beyond the crossing. Both are polynomials of the
segment's ends: exact for any number of segments, corners and strips thinner than a pixel, local, and continuous when a
segment passes over the centre, because [c in S] changes by as much in the other direction.

Segments run with S to their left, `cross(end - start, s - start) > 0` for s in S, in pixel axes (x right, y down).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Pieces(NamedTuple):
    """The parts of segments in two pixels of one column (or row, of steep segments), relative to the pixels' centres.

    Attributes:
      pixels: (column, row), outside the image too.
      start, end: in [-0.5, 0.5]; equal in a pixel that the segment does not touch.
    """

    pixels: Int[Array, "n 2 2"]
    start: Float[Array, "n 2 2"]
    end: Float[Array, "n 2 2"]


def num_steps(
    start: Float[Array, "n 2"], end: Float[Array, "n 2"], size: tuple[int, int]
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """First column (of steep segments: row) of the image that each segment touches, and how many follow on it.

    None for segments beside the image or without finite ends.
    """
    steep = is_steep(start, end)
    limit, across = (jnp.where(steep, size[k], size[1 - k]).astype(start.dtype) for k in (0, 1))
    low, high = jnp.minimum(start, end), jnp.maximum(start, end)
    along_low, along_high = (jnp.where(steep, v[:, 1], v[:, 0]) for v in (low, high))
    other_low, other_high = (jnp.where(steep, v[:, 0], v[:, 1]) for v in (low, high))
    first, last = jnp.maximum(jnp.floor(along_low), 0), jnp.minimum(jnp.floor(along_high), limit - 1)
    meets = (last >= first) & (other_low < across) & (other_high > 0)  # NaN compares false
    first = jnp.where(meets, first, 0).astype(jnp.int32)
    return first, jnp.where(meets, jnp.where(meets, last, 0).astype(jnp.int32) - first + 1, 0)


def is_steep(start: Float[Array, "n 2"], end: Float[Array, "n 2"]) -> Bool[Array, " n"]:
    """Whether segments are walked row by row, not column by column; so a step touches two pixels at most."""
    extent = jnp.abs(end - start)
    return extent[:, 1] > extent[:, 0]


def touched_pieces(start: Float[Array, "n 2"], end: Float[Array, "n 2"], column: Int[Array, " n"]) -> Pieces:
    """Clips each segment to the two pixels that it may touch in a column (of steep segments: a row).

    Args:
      start, end: pixel coordinates; differentiable.
      column: between those that the segment reaches.
    """
    steep = lax.stop_gradient(is_steep(start, end))[:, None]
    start, end = (jnp.where(steep, v[:, ::-1], v) for v in (start, end))
    left = column.astype(start.dtype)
    run = end[:, 0] - start[:, 0]
    slope = (end[:, 1] - start[:, 1]) / jnp.where(run != 0, run, 1.0)

    def in_column(point):
        x = jnp.clip(point[:, 0], left, left + 1)
        return x - (left + 0.5), point[:, 1] + (x - point[:, 0]) * slope

    (ax, ay), (bx, by) = in_column(start), in_column(end)
    row = lax.stop_gradient(jnp.floor(jnp.minimum(ay, by)))
    ay, by = ay - (row + 0.5), by - (row + 0.5)  # the line between the two pixels is at 0.5
    a_beyond, b_beyond = ay > 0.5, by > 0.5
    crosses = a_beyond != b_beyond
    middle = ax + (0.5 - ay) * (bx - ax) / jnp.where(crosses, by - ay, 1.0)
    middle = jnp.where(crosses, middle, 0.0)

    def piece(x, y, here, shift):
        return jnp.stack([jnp.where(here, x, middle), jnp.where(here, y, 0.5) - shift], -1)

    starts = jnp.stack([piece(ax, ay, ~a_beyond, 0.0), piece(ax, ay, a_beyond, 1.0)], 1)
    ends = jnp.stack([piece(bx, by, ~b_beyond, 0.0), piece(bx, by, b_beyond, 1.0)], 1)
    rows = jnp.stack([row, row + 1], 1).astype(jnp.int32)
    pixels = jnp.stack([jnp.broadcast_to(column[:, None], rows.shape), rows], -1)
    steep = steep[:, :, None]
    return Pieces(*(jnp.where(steep, v[..., ::-1], v) for v in (pixels, starts, ends)))


def area_beyond(
    start: Float[Array, "*n 2"],
    end: Float[Array, "*n 2"],
    origin: Float[Array, "*n 2"],
    origin_inside: Bool[Array, "*n"],
) -> Float[Array, "*n"]:
    """What pieces of the boundary of S add to the share of the pixel that S covers; see the head of this file.

    Differentiable in the ends: bounded derivatives but where a piece runs along the column of the origin.

    Args:
      start, end: relative to the centre, inside the pixel.
      origin: the point that paths begin at, usually 0. The same for all pieces of a pixel.
      origin_inside: whether it is to the left of the line. Read only where the piece crosses its column.
    """
    (ax, ay), (bx, by) = (start[..., 0], start[..., 1]), (end[..., 0], end[..., 1])
    middle = origin[..., 0]
    a_right, b_right = ax > middle, bx > middle
    crosses = a_right != b_right
    height = ay + (middle - ax) * (by - ay) / jnp.where(crosses, bx - ax, 1.0)
    height = jnp.where(crosses, height, 0.0)

    def rows(here_a, here_b, sign):
        """Integral over y of what lies beyond the part of the piece on one side of the column."""
        y0, y1 = jnp.where(here_a, ay, height), jnp.where(here_b, by, height)
        x0, x1 = jnp.where(here_a, ax, middle), jnp.where(here_b, bx, middle)
        return (0.5 - 0.5 * sign * (x0 + x1)) * (y1 - y0)

    column = jnp.where(height > origin[..., 1], 0.5 - height, 0.5 + height)
    column = jnp.where(crosses, column, 0.0)
    return rows(~a_right, ~b_right, -1) - rows(a_right, b_right, 1) + jnp.where(origin_inside, -column, column)
