"""Compositing on TPUs: Mosaic kernels, one tile a program, front to back; the forward pass.

Float32. CPUs run the same kernels interpreted, which is how they are checked without the device.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from renderers.kernels.composite.blocks import TpuBlocks, tpu_blocks
from renderers.kernels.composite.pallas_tpu_tiles import (
    GEOMETRY,
    PIXELS,
    Walk,
    align,
    blend,
    compiled_or_interpreted,
    padded,
    parameter_rows,
    steps,
    struct,
    tile_pixels,
    walk_scratch,
)
from renderers.kernels.composite.pallas_tpu_vjp import backward as backward
from renderers.kernels.composite.xla import drawn_pixels, untile
from renderers.kernels.tiling import TileLists, grid


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
    blocks: TpuBlocks | None = None,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Image without background and transmittance left; see `reference.composite`.

    Raises:
      Unsupported: more tiles than scalar memory has room for, see `pallas_tpu_tiles.MAX_TILES`.
    """
    n, channels = features.shape
    blocks = blocks or tpu_blocks()
    bounds, ids = align(lists, n, blocks.chunk)
    rows = parameter_rows(means2d, conics, opacities, features, ids)
    drawn = drawn_pixels(mask, size).astype(rows.dtype)[:, None]
    call = functools.partial(_call, channels=channels, tiles_across=grid(size)[1], blocks=blocks)
    whole = untile(compiled_or_interpreted(call, bounds, rows, drawn)[:, : channels + 1], size)
    return whole[..., :-1], whole[..., -1]


def _call(bounds, rows, drawn, *, channels, tiles_across, blocks, interpret):
    """Images of all tiles, transmittance in the row after the last channel."""
    depth = padded(channels)
    return pl.pallas_call(
        functools.partial(_forward_kernel, channels=channels, tiles_across=tiles_across, step=blocks.step),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(drawn.shape[0],),
            in_specs=[
                pl.BlockSpec(memory_space=pl.ANY),
                pl.BlockSpec((1, 1, PIXELS), lambda tile, bounds: (tile, 0, 0)),
            ],
            out_specs=pl.BlockSpec((1, depth, PIXELS), lambda tile, bounds: (tile, 0, 0)),
            scratch_shapes=[
                *walk_scratch(rows.shape[0], blocks.chunk),
                pltpu.VMEM((blocks.chunk, PIXELS), jnp.float32),
            ],
        ),
        out_shape=struct((drawn.shape[0], depth, PIXELS), bounds, rows, drawn),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
        name="composite_forward",
    )(bounds, rows, drawn)


def _forward_kernel(bounds, rows, drawn, out, buffers, arrivals, geometry, weights, *, channels, tiles_across, step):
    pixels = tile_pixels(tiles_across)
    out[0] = jnp.zeros(out.shape[1:], out.dtype)

    def visit(chunk, _, count, transmittance, alive):
        geometry[...] = chunk[:GEOMETRY].T
        weights[...] = jnp.zeros(weights.shape, weights.dtype)

        def blend_step(index, state):
            here = pl.ds(pl.multiple_of(index * step, step), step)
            blended, *state = blend(geometry[here], pixels, *state)
            weights[here] = blended.alpha * blended.front
            return tuple(state)

        state = lax.fori_loop(0, steps(count, step), blend_step, (transmittance, alive))
        out[0] += lax.dot(chunk[GEOMETRY:], weights[...], precision=lax.Precision.HIGHEST)
        return state

    walk = Walk(bounds, rows, buffers, arrivals)
    transmittance, _ = walk.run(visit, (jnp.ones((1, PIXELS), jnp.float32),), drawn[0])
    out[0, channels : channels + 1] = transmittance
