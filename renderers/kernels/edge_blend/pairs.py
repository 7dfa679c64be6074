"""Pairs of edge and column: what each of their pieces gives to, or takes from, its pixel.

What is decided (visibility, sides) has no derivatives; areas and colours have.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import project_camera_points
from renderers.kernels.edge_blend.coverage import area_beyond, is_steep, num_steps, touched_pieces
from renderers.kernels.edge_blend.images import cut_edge, image_of_edge, num_parts
from renderers.kernels.edge_blend.visibility import (
    Cover,
    at,
    components,
    cover,
    moved_across,
    point_on_edge,
    side_of_edge,
    silhouette_edges,
)

ASIDE = 0.02  # pixels from an edge to where what is beside it is looked up
SURELY = 0.05  # of the margin
ROUNDINGS = 4  # within which a centre counts as on an edge, in units of the rounding of pixel coordinates


class Pairs(NamedTuple):
    """The edges of some pairs: faces, corner numbers, part of the edge, column, and which are really there."""

    face: Int[Array, " n"]
    corner: Int[Array, " n"]
    part: Int[Array, " n"]
    column: Int[Array, " n"]
    used: Bool[Array, " n"]


class Blend(NamedTuple):
    """What the two pieces of each pair do: pixels (flat) that change, where colours come from, how much counts."""

    pixel: Int[Array, "n 2"]
    inner: Int[Array, "n 2"]
    outer: Int[Array, "n 2"]
    origin: Float[Array, "n 2 2"]
    origin_inside: Bool[Array, "n 2"]
    counts: Float[Array, "n 2"]
    counts_in_mask: Float[Array, "n 2"]


def steps_of_edges(surface, camera, near):
    """First column and number of columns of each part of each edge, [3 f parts]; none for those off the outlines."""
    surface, camera, near = lax.stop_gradient((surface, camera, near))
    outline = silhouette_edges(surface.points, surface.faces, surface.opposite, camera)
    corners = surface.points[surface.faces]
    turned = (side_of_edge(camera, *(components(corners[:, k]) for k in range(3))) < 0)[:, None, None]
    parts = num_parts(camera)
    numbers = jnp.arange(parts, dtype=jnp.int32)
    steps = []
    for k in range(3):
        ends = jnp.stack([corners[:, k], corners[:, (k + 1) % 3]], 1)
        ends = jnp.where(turned, ends[:, ::-1], ends)
        ends = jnp.repeat(ends, parts, axis=0)
        start, end, seen = image_of_edge(ends, jnp.tile(numbers, len(corners)), camera, near)
        first, count = num_steps(start, end, camera.size)
        steps.append((first, jnp.where(seen & jnp.repeat(outline[:, k], parts), count, 0)))
    first, count = (jnp.stack(v, 1).reshape(-1) for v in zip(*steps, strict=True))
    return first, count


def open_pixels(face_index: Int[Array, "h w"]) -> Bool[Array, " p"]:
    """Whether a pixel or one of its eight neighbours is empty; elsewhere nothing can let the background through."""
    empty = jnp.pad(face_index < 0, 1, constant_values=True)
    rows = empty[:-2] | empty[1:-1] | empty[2:]
    return (rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]).reshape(-1)


def numbered(edge, parts, column, used):
    """Pairs of rows that `steps_of_edges` returns with columns."""
    return Pairs(edge // (3 * parts), edge % 3, edge // 3 % parts, column, used)


def ends_of(surface, camera, pairs):
    """Vertices of the edges, [n, 2], in the order that has the surface to the left."""
    a, b, c = (surface.faces[:, k][pairs.face] for k in range(3))
    start = jnp.where(pairs.corner == 0, a, jnp.where(pairs.corner == 1, b, c))
    end = jnp.where(pairs.corner == 0, b, jnp.where(pairs.corner == 1, c, a))
    turned = side_of_edge(camera, at(surface.points, a), at(surface.points, b), at(surface.points, c)) < 0
    return jnp.stack([jnp.where(turned, end, start), jnp.where(turned, start, end)], 1)


def colors(flat, blend):
    """On the two sides of pieces, [n, 2, c]."""
    return flat[blend.inner, 1:], flat[blend.outer, 1:]


def changes(ends, camera, near, pairs, blend, inner, outer):
    """What pieces of edges add to the mask and the colours of their pixels, [n, 2, 1 + c]."""
    start, end, _ = image_of_edge(ends, pairs.part, camera, near)
    pieces = touched_pieces(start, end, pairs.column)
    area = area_beyond(pieces.start, pieces.end, blend.origin, blend.origin_inside)
    mask = area * blend.counts_in_mask
    return jnp.concatenate([mask[..., None], (area * blend.counts)[..., None] * (inner - outer)], -1)


def decided(surface, camera, near, opened, pairs, ends):
    """Which pieces are seen, and what is on their two sides. Without derivatives."""
    vertices = ends_of(surface, camera, pairs)
    surface, camera, near, ends = lax.stop_gradient((surface, camera, near, ends))
    start, end, seen = image_of_edge(ends, pairs.part, camera, near)
    pieces = touched_pieces(start, end, pairs.column)
    along = end - start
    steep = is_steep(start, end)[:, None]
    zero = jnp.zeros_like(along[:, 0])
    outward = jnp.where(steep, jnp.stack([along[:, 1], zero], -1), jnp.stack([zero, -along[:, 0]], -1))
    outward = jnp.sign(outward).astype(jnp.int32)[:, None]
    own, beyond, within = pieces.pixels, pieces.pixels + outward, pieces.pixels - outward
    middle = 0.5 * (pieces.start + pieces.end)
    centres = own.astype(start.dtype) + 0.5

    rounding = ROUNDINGS * jnp.finfo(start.dtype).eps
    origin = _origins(surface, camera, near, own, 8 * rounding * max(camera.size))

    length = jnp.sum(along * along, -1)
    length = jnp.where(length > 0, length, 1.0)
    offset = centres - start[:, None]
    share = jnp.clip(jnp.sum((offset + middle) * along[:, None], -1) / length[:, None], 0.0, 1.0)
    from_line = along[:, None, 0] * (offset + origin)[..., 1] - along[:, None, 1] * (offset + origin)[..., 0]
    from_line = from_line / jnp.sqrt(length)[:, None]

    def look(pixels):
        """The surface at pixels against a point beside the piece."""
        reach = jnp.linalg.norm(centres + middle - pixels.astype(start.dtype) - 0.5, axis=-1)
        return reach, jnp.where(
            _held(pixels, camera.size), surface.face_index.reshape(-1)[_flat(pixels, camera.size)], -1
        )

    reach, index = (jnp.stack(v).reshape(-1) for v in zip(*map(look, (own, beyond, within)), strict=True))
    twice = jnp.repeat(jnp.arange(len(along)), 2)
    begin, finish = (components(point[twice]) for point in cut_edge(ends, pairs.part, camera, near))
    on_edge = point_on_edge(camera, begin, finish, share.reshape(-1))
    beside = moved_across(camera, begin, finish, on_edge, ASIDE)
    x, y, z = (jnp.tile(value, 3) for value in beside)
    first, second = (jnp.tile(vertices[:, k][twice], 3) for k in (0, 1))
    found = cover(surface, camera, index, (x, y, z), reach, (first, second))
    here, there, back = (Cover(*(v.reshape(3, len(along), 2)[k] for v in found)) for k in range(3))

    furthest = jnp.max(jnp.abs(jnp.concatenate([start, end], -1)), -1, keepdims=True) + max(camera.size)
    tie = jnp.abs(from_line) < rounding * furthest
    inside = jnp.where(tie, here.touches & ~here.empty, from_line > 0)
    visible = ~_hides(here) & (inside | ~_hides(back)) & _held(own, camera.size) & (pairs.used & seen)[:, None]
    goes_on = ~there.empty & (there.covers | ~(there.ends | there.touches))
    behind = here.covers | (~here.ends & ~here.touches & (here.distance > here.margin))
    background = jnp.where(inside, goes_on, ~here.empty & (behind | goes_on))
    own_flat = _flat(own, camera.size)
    background |= ~opened[own_flat]
    inner = jnp.where((inside & ~here.empty) | ~_held(within, camera.size), own_flat, _flat(within, camera.size))
    outer = jnp.where(~inside | here.empty | ~_held(beyond, camera.size), own_flat, _flat(beyond, camera.size))
    counts = visible.astype(start.dtype)
    return Blend(own_flat, inner, outer, origin, inside, counts, counts * (1 - background.astype(start.dtype)))


def _origins(surface, camera, near, pixels, step):
    """Points that the pixels' states hold at, relative to their centres: a step into the face that a centre sees.

    On a centre that lies on an outline two edges that meet there could otherwise differ about its side.
    """
    index = surface.face_index.reshape(-1)[_flat(pixels, camera.size)]
    rows = jnp.maximum(index, 0)
    corners = [at(surface.points, surface.faces[:, k][rows]) for k in range(3)]
    nearest = jnp.minimum(jnp.minimum(corners[0][2], corners[1][2]), corners[2][2])
    usable = (index >= 0) & ((camera.model == "orthographic") | (nearest > near))
    middle = jnp.stack([(a + b + c) / 3 for a, b, c in zip(*corners, strict=True)], -1)
    middle = jnp.where(usable[..., None], middle, 1.0)
    inward = project_camera_points(camera, middle) - pixels.astype(middle.dtype) - 0.5
    length = jnp.linalg.norm(inward, axis=-1)
    scale = jnp.where(usable & (length > 0), step / jnp.where(length > 0, length, 1.0), 0.0)
    return inward * jnp.minimum(scale, 0.5)[..., None]


def _hides(cover):
    # where the surface is known to go on in front, no margin is needed for what it does on the way
    in_front = jnp.where(
        cover.covers, cover.distance < -SURELY * cover.margin, ~cover.touches & (cover.distance < -cover.margin)
    )
    return ~cover.empty & ~cover.ends & in_front


def _held(pixels, size):
    column, row = pixels[..., 0], pixels[..., 1]
    return (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])


def _flat(pixels, size):
    column, row = jnp.clip(pixels[..., 0], 0, size[1] - 1), jnp.clip(pixels[..., 1], 0, size[0] - 1)
    return row * size[1] + column
