"""The z-buffer on GPUs: a Pallas kernel of the Triton backend. One program holds a tile's pixels in registers.

It walks the tile's list of faces one by one; a face costs 4 bytes of list and one row of 48 bytes, mostly out of the L2
cache. CPUs run the same kernel interpreted, which is how it is checked without a device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from renderers.kernels.composite import pallas_gpu_tiles as tiles
from renderers.kernels.composite.blocks import GpuPass
from renderers.kernels.composite.xla import to_tiles
from renderers.kernels.tiling import TILE, TileLists, grid
from renderers.kernels.triangle_raster.reference import EMPTY, Projection, hit_depth

_SIZES = GpuPass(pixels=tiles.PIXELS, turn=1, channels=3, warps=4)
_ROW = 12  # numbers of a face's row: nine coordinates, padded to 48 bytes
_FAR = np.float32(np.inf)


def visible_faces(
    points: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    rays: Float[Array, "h w 3"],
    lists: TileLists,
    near: Float[Array, ""],
    projection: Projection,
) -> Int[Array, "h w"]:
    """Index of the face that each pixel sees, -1 where there is none. Float32."""
    height, width = rays.shape[:2]
    rows = jnp.pad(points[faces].reshape(len(faces), 9), ((0, 0), (0, _ROW - 9)))
    call = functools.partial(_call, projection=projection)
    index = tiles.compiled_or_interpreted(call, lists.offsets, lists.ids, rows, near[None], to_tiles(rays))
    down, across = grid((height, width))
    image = index.reshape(down, across, TILE, TILE).transpose(0, 2, 1, 3)
    return image.reshape(down * TILE, across * TILE)[:height, :width]


def _call(offsets, ids, rows, near, rays, *, projection, interpret):
    inputs = (offsets, ids, rows, near, rays)
    like = tiles.struct((rays.shape[0], tiles.PIXELS), *inputs)

    def triangle_raster(*refs):
        _fill_tile(*refs, projection=projection)

    return pl.pallas_call(
        triangle_raster,
        grid=(rays.shape[0], tiles.PIXELS // _SIZES.pixels),
        in_specs=[pl.no_block_spec] * 4 + [tiles.pixel_block(_SIZES, 3)],
        out_specs=tiles.pixel_block(_SIZES),
        out_shape=jax.ShapeDtypeStruct(like.shape, jnp.int32, manual_axis_type=like.manual_axis_type),
        compiler_params=tiles.parameters(_SIZES),
        interpret=interpret,
        name="triangle_raster",
    )(*inputs)


def _fill_tile(offsets_ref, ids_ref, rows_ref, near_ref, rays_ref, index_ref, *, projection):
    tile = pl.program_id(0)
    ray, near = (rays_ref[0, :], rays_ref[1, :], rays_ref[2, :]), near_ref[0]

    def visit(at, nearest):
        depth, index = nearest
        face = ids_ref[at]
        corners = [tuple(rows_ref[face, 3 * k + axis] for axis in range(3)) for k in range(3)]
        found = hit_depth(corners, ray, near, projection)
        return jnp.minimum(found, depth), jnp.where(found < depth, face, index)

    nothing = jnp.zeros_like(ray[0], jnp.int32) + np.int32(EMPTY)
    start = (jnp.zeros_like(ray[0]) + _FAR, nothing)
    _, index_ref[...] = lax.fori_loop(offsets_ref[tile], offsets_ref[tile + 1], visit, start)
