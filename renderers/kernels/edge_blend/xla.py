"""The walk over outlines in XLA, forward and backward: any device, any dtype.

Pairs of edge and column are counted, and walked in chunks, so that cost follows the number of pixels on outlines while
shapes stay static.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.kernels.edge_blend.images import num_parts
from renderers.kernels.edge_blend.pairs import (
    changes,
    colors,
    decided,
    ends_of,
    numbered,
    open_pixels,
    steps_of_edges,
)
from renderers.kernels.edge_blend.visibility import Surface
from renderers.kernels.transformations import one_by_one

_CHUNK = 2048  # pairs of edge and column at a time


class Walk(NamedTuple):
    """Pairs of edge and column to be walked.

    Attributes:
      ends: running sums of pairs over edges.
      first: each edge's first column.
      open: whether a pixel or one of its eight neighbours is empty; elsewhere nothing can let the background through.
    """

    ends: Int[Array, " e"]
    first: Int[Array, " e"]
    open: Bool[Array, " p"]


def plan(surface: Surface, camera: Camera, near: Float[Array, ""]) -> Walk:
    """The pairs of all outlines."""
    first, count = steps_of_edges(surface, camera, near)
    return Walk(ends=jnp.cumsum(count), first=first, open=open_pixels(surface.face_index))


def walked(
    values: Float[Array, "h w c"], surface: Surface, camera: Camera, near: Float[Array, ""], walk: Walk
) -> tuple[Float[Array, "h w c"], Walk]:
    """Values with what outlines change, and the pairs for the way back: the same."""
    return _walked(values, surface, camera, near, walk), walk


@one_by_one
def _walked(values, surface, camera, near, walk):
    flat = values.reshape(-1, values.shape[-1])
    points = surface.points

    def visit(turn, result):
        pairs = _pairs(walk, turn, camera)
        ends = ends_of(surface, camera, pairs)
        blend = decided(surface, camera, near, walk.open, pairs, points[ends])
        change = changes(points[ends], camera, near, pairs, blend, *colors(flat, blend))
        return result.at[blend.pixel.reshape(-1)].add(change.reshape(-1, change.shape[-1]))

    return _each_chunk(walk, visit, flat).reshape(values.shape)


@one_by_one
def walked_back(values, surface, camera, near, walk, cotangent):
    """Gradients of values, points and camera."""
    flat, points = values.reshape(-1, values.shape[-1]), surface.points
    cotangent = cotangent.reshape(flat.shape)

    def visit(turn, sums):
        of_values, of_points, of_camera = sums
        pairs = _pairs(walk, turn, camera)
        ends = ends_of(surface, camera, pairs)
        blend = decided(surface, camera, near, walk.open, pairs, points[ends])
        inner, outer = colors(flat, blend)
        _, pull = jax.vjp(
            lambda at, lens, inner, outer: changes(at, lens, near, pairs, blend, inner, outer),
            points[ends], camera, inner, outer,
        )  # fmt: skip
        of_ends, of_lens, of_inner, of_outer = pull(cotangent[blend.pixel])
        for pixels, part in ((blend.inner, of_inner), (blend.outer, of_outer)):
            of_values = of_values.at[pixels.reshape(-1), 1:].add(part.reshape(pixels.size, -1))
        of_points = of_points.at[ends.reshape(-1)].add(of_ends.reshape(-1, 3))
        return of_values, of_points, jax.tree.map(jnp.add, of_camera, of_lens)

    start = (cotangent, jnp.zeros_like(points), jax.tree.map(jnp.zeros_like, camera))
    of_values, of_points, of_camera = _each_chunk(walk, visit, start)
    return of_values.reshape(values.shape), of_points, of_camera


def _each_chunk(walk, visit, start):
    total = walk.ends[-1]

    def body(state):
        turn, result = state
        return turn + 1, visit(turn, result)

    return lax.while_loop(lambda state: state[0] * _CHUNK < total, body, (jnp.zeros((), jnp.int32), start))[1]


def _pairs(walk, turn, camera):
    pair = turn * _CHUNK + jnp.arange(_CHUNK, dtype=jnp.int32)
    edge = jnp.searchsorted(walk.ends, pair, side="right")
    used = edge < walk.ends.size
    edge = jnp.minimum(edge, walk.ends.size - 1).astype(jnp.int32)
    begin = jnp.where(edge > 0, walk.ends[jnp.maximum(edge - 1, 0)], 0)
    return numbered(edge, num_parts(camera), walk.first[edge] + pair - begin, used)
