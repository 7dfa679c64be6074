"""Compositing on GPUs, the backward pass: front to back as well, see `xla`, and no atomics.

Each intersection writes one row of sums over its tile's pixels, to the place that `tiling.places` numbers it by, so
that the rows of a Gaussian lie together; a second kernel adds them up in a fixed order. Every place is written exactly
once (lists that end early write zeros), hence nothing is cleared beforehand, and results are the same on every run.
Per intersection: 4 (8 + c) bytes written and read once, in sequence. Atomic additions to [n, 8 + c] would save the
rows' memory, and cost as many serialised updates of the same Gaussian as it has tiles.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Bool, Float

from renderers.kernels import tiling
from renderers.kernels.composite import pallas_gpu_tiles as tiles
from renderers.kernels.composite.blocks import GpuBlocks, gpu_blocks
from renderers.kernels.composite.reference import MAX_ALPHA
from renderers.kernels.composite.xla import to_tiles

_MOMENTS = 8  # columns of a row before the features': gradient of the mean, second moments of m, m, absolute gradient
_COLUMNS = 16  # of a row that one program adds up


def backward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: tiling.TileLists,
    outputs: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    cotangents: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
    blocks: GpuBlocks | None = None,
) -> tuple[Float[Array, "n 2"], Float[Array, "n 3"], Float[Array, " n"], Float[Array, "n c"], Float[Array, "n 2"]]:
    """Gradients of means2d, conics, opacities and features, and the absolute-valued gradient of means2d.

    Float32; `blocks` None takes what `blocks.py` has for this device.
    """
    blocks = blocks or gpu_blocks(features.shape[1], lists.offsets.shape[0] - 1)
    (image, transmittance), (g_image, g_transmittance) = outputs, cotangents
    to_come = jnp.sum(image * g_image, -1) + transmittance * g_transmittance
    places, runs = tiling.places(lists)
    rows = tiles.compiled_or_interpreted(
        functools.partial(_rows_call, columns=tiling.grid(size)[1], blocks=blocks),
        lists.offsets,
        lists.ids,
        places,
        tiles.pack_geometry(means2d, conics, opacities),
        features,
        tiles.first_light(mask, size),
        to_tiles(g_image),
        to_tiles(to_come[..., None])[:, 0],
    )
    sums = tiles.compiled_or_interpreted(functools.partial(_sums_call, blocks=blocks), rows, runs)
    mean, moments, moved, probe, feature = jnp.split(sums, (2, 5, 6, _MOMENTS), 1)
    conic = moments * jnp.asarray([[-0.5, -1.0, -0.5]], moments.dtype)
    # the kernel's quadratic is in powers of two
    return (
        mean / tiles.LOG2_E,
        conic,
        moved[:, 0] / jnp.where(opacities > 0, opacities, 1.0),
        feature,
        probe / tiles.LOG2_E,
    )


def _rows_call(offsets, ids, places, geometry, features, light, g_image, to_come, *, columns, blocks, interpret):
    inputs = (offsets, ids, places, geometry, features, light, g_image, to_come)
    sizes, channels = blocks.backward, features.shape[1]
    parts = tiles.PIXELS // sizes.pixels
    width = _MOMENTS + channels

    def composite_backward(*refs):
        _differentiate_tile(*refs, columns=columns, channels=channels, sizes=sizes)

    return pl.pallas_call(
        composite_backward,
        grid=(light.shape[0], parts),
        in_specs=[
            *[pl.no_block_spec] * 5,
            tiles.pixel_block(sizes),
            tiles.pixel_block(sizes, channels),
            tiles.pixel_block(sizes),
        ],
        out_specs=pl.no_block_spec,
        out_shape=tiles.struct((tiles.addressable(ids.shape[0], parts * width), parts, width), *inputs),
        compiler_params=tiles.parameters(sizes),
        interpret=interpret,
        name="composite_backward",
    )(*inputs)


def _differentiate_tile(
    offsets_ref,
    ids_ref,
    places_ref,
    geometry_ref,
    features_ref,
    light_ref,
    g_ref,
    to_come_ref,
    rows_ref,
    *,
    columns,
    channels,
    sizes,
):
    tile, part = pl.program_id(0), pl.program_id(1)
    start, end = offsets_ref[tile], offsets_ref[tile + 1]
    x, y = tiles.tile_position(tile, columns)
    pixels = tiles.pixel_centres((x, y), part, sizes)

    def place(gaussian):
        return places_ref[gaussian, np.int32(0)] + places_ref[gaussian, np.int32(1)] * y + x

    held = [g_ref[j, :] for j in range(channels)] if channels <= sizes.channels else None

    def each_channel(body, state):
        """Fold `body(channel, its cotangents, state)` over the channels."""
        if held is None:
            return lax.fori_loop(jnp.int32(0), jnp.int32(channels), lambda j, s: body(j, g_ref[j, :], s), state)
        for j, g in enumerate(held):
            state = body(j, g, state)
        return state

    def visit(at, light, to_come):
        gaussian = ids_ref[at]
        seen, light = tiles.blend(geometry_ref, gaussian, pixels, light)
        (xx, xy, yy), dx, dy, alpha = seen.quadratic, seen.dx, seen.dy, seen.alpha
        weights = alpha * seen.front
        value = each_channel(lambda j, g, total: total + g * features_ref[gaussian, j], jnp.zeros_like(weights))
        to_come = to_come - weights * value
        # dL / dsigma with its sign turned; zero where alpha is clamped, dropped or the pixel has stopped
        moved = (weights > 0) & (seen.raw <= MAX_ALPHA)
        m = jnp.where(moved, alpha * (seen.front * value - to_come / (1 - alpha)), tiles.ZERO)
        gx = m * (2 * xx * dx + xy * dy)
        gy = m * (xy * dx + 2 * yy * dy)
        mx, my = m * dx, m * dy
        moments = (gx, gy, mx * dx, mx * dy, my * dy, m, jnp.abs(gx), jnp.abs(gy))
        row = place(gaussian)
        for column, moment in enumerate(moments):
            rows_ref[row, part, column] = jnp.sum(moment)

        def store_feature(j, g, _):
            rows_ref[row, part, _MOMENTS + j] = jnp.sum(weights * g)

        each_channel(store_feature, None)
        return light, to_come

    stopped, _, _ = tiles.walk(start, end, light_ref[...], visit, (to_come_ref[...],), sizes)

    def clear(turn, _):
        at = stopped + turn * _COLUMNS + lax.iota(jnp.int32, _COLUMNS)
        # Interpreted, a masked store writes back what it found: it must not find a place that is in use.
        row = jnp.where(at < end, place(ids_ref[jnp.minimum(at, end - 1)]), np.int32(rows_ref.shape[0]))[:, None]
        for first in range(0, _MOMENTS + channels, _COLUMNS):
            column = first + lax.iota(jnp.int32, _COLUMNS)[None]
            inside = (at < end)[:, None] & (column < _MOMENTS + channels)
            plgpu.store(rows_ref.at[row, part, column], jnp.zeros((_COLUMNS, _COLUMNS), jnp.float32), mask=inside)

    lax.fori_loop(jnp.int32(0), _turns(end - stopped, _COLUMNS), clear, None)


def _turns(count, step: int):
    """Turns of a loop that takes `step` of `count` at once."""
    return lax.div(count + (step - 1), jnp.int32(step))


def _sums_call(rows, runs, *, blocks, interpret):
    n, width, parts = runs.shape[0], rows.shape[2], rows.shape[1]

    def composite_sum(rows_ref, runs_ref, sums_ref):
        index = pl.program_id(0) * blocks.sum_gaussians + lax.iota(jnp.int32, blocks.sum_gaussians)
        column = pl.program_id(1) * _COLUMNS + lax.iota(jnp.int32, _COLUMNS)
        here = jnp.minimum(index, n - 1)
        first, last = runs_ref[here, np.int32(0)] * parts, runs_ref[here, np.int32(1)] * parts

        def load(turn):
            row = first[:, None] + (turn * blocks.sum_rows + lax.iota(jnp.int32, blocks.sum_rows))[None]
            inside = (row < last[:, None])[:, :, None] & (column < width)[None, None]
            row = jnp.minimum(row, rows_ref.shape[0] - 1)[:, :, None]
            return plgpu.load(rows_ref.at[row, column[None, None]], mask=inside, other=tiles.ZERO)

        def add(turn, total):
            return total + load(turn)

        total = jnp.zeros((blocks.sum_gaussians, blocks.sum_rows, _COLUMNS), jnp.float32)
        total = lax.fori_loop(jnp.int32(0), _turns(jnp.max(last - first), blocks.sum_rows), add, total)
        inside = (index < n)[:, None] & (column < width)[None]
        plgpu.store(sums_ref.at[index[:, None], column[None]], jnp.sum(total, 1), mask=inside)

    return pl.pallas_call(
        composite_sum,
        grid=(-(-n // blocks.sum_gaussians), -(-width // _COLUMNS)),
        in_specs=[pl.no_block_spec] * 2,
        out_specs=pl.no_block_spec,
        out_shape=tiles.struct((n, width), rows, runs),
        compiler_params=plgpu.CompilerParams(num_warps=1, num_stages=1),
        interpret=interpret,
        name="composite_sum",
    )(rows.reshape(-1, width), runs)
