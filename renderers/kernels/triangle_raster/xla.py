"""The z-buffer in plain XLA, for any device and float dtype: one tile at a time, its list of faces in chunks."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from renderers.kernels import tiling
from renderers.kernels.composite.xla import to_tiles
from renderers.kernels.tiling import TILE, TileLists
from renderers.kernels.triangle_raster.reference import EMPTY, Projection, components, hit_depth

CHUNK = 16  # faces tested per loop turn


def face_lists(boxes: Int[Array, "f 4"], size: tuple[int, int], capacity: int) -> TileLists:
    """Faces of each tile in ascending order."""
    centers, extents = _centers_and_extents(boxes)
    return tiling.bin_gaussians(centers, extents, jnp.zeros_like(centers[:, 0]), size, capacity)


def count_intersections(boxes: Int[Array, "f 4"], size: tuple[int, int]) -> Int[Array, ""]:
    """Number of (face, tile) intersections, which sets the capacity that lists need."""
    return tiling.count_intersections(*_centers_and_extents(boxes), size)


def default_capacity(num_faces: int, size: tuple[int, int]) -> int:
    """Bound used inside a trace when none is given: four tiles a face and 64 layers of faces over the whole image.

    Never more than all tiles each.
    """
    rows, columns = tiling.grid(size)
    tiles = rows * columns
    return tiling.next_capacity(min(num_faces * tiles, 4 * num_faces + 64 * tiles))


def _centers_and_extents(boxes):
    """Boxes in the form of `tiling`, drawn in by a quarter pixel: the pixel past the last is not in the box."""
    first, last = boxes[:, :2].astype(jnp.float32), boxes[:, 2:].astype(jnp.float32)
    drawn = jnp.all(last > first, -1, keepdims=True)
    return 0.5 * (first + last), jnp.where(drawn, 0.5 * (last - first) - 0.25, 0.0)


def visible_faces(
    points: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    rays: Float[Array, "h w 3"],
    lists: TileLists,
    near: Float[Array, ""],
    projection: Projection,
) -> Int[Array, "h w"]:
    """Index of the face that each pixel sees, -1 where there is none."""
    height, width = rays.shape[:2]
    ids = jnp.pad(lists.ids, (0, CHUNK))
    rays_by_tile = to_tiles(rays)  # [t, 3, p]

    def tile_index(given):
        start, end, rays = given
        ray = rays[0][None], rays[1][None], rays[2][None]

        def body(carry):
            start, depth, index = carry
            chunk = lax.dynamic_slice_in_dim(ids, start, CHUNK)
            inside = start + jnp.arange(CHUNK, dtype=jnp.int32) < end
            corners = [components(points[faces[chunk, k]][:, None]) for k in range(3)]
            found = hit_depth(corners, ray, near, projection)
            found = jnp.where(inside[:, None], found, jnp.inf)
            nearest = jnp.min(found, 0)
            first = chunk[jnp.argmin(found, 0)]  # of equal ones the first, which has the lower index
            closer = nearest < depth
            return start + CHUNK, jnp.where(closer, nearest, depth), jnp.where(closer, first, index)

        state = (start, jnp.full_like(rays[0], jnp.inf), jnp.full_like(rays[0], EMPTY, jnp.int32))
        return lax.while_loop(lambda carry: carry[0] < end, body, state)[2]

    tiles = lax.map(tile_index, (lists.offsets[:-1], lists.offsets[1:], rays_by_tile))
    rows, columns = tiling.grid((height, width))
    image = tiles.reshape(rows, columns, TILE, TILE).transpose(0, 2, 1, 3)
    return image.reshape(rows * TILE, columns * TILE)[:height, :width]
