"""Compositing on TPUs, the backward pass: front to back as well, see `xla`.

Each chunk of Gaussians sends its gradients to its own place in HBM; a sum by Gaussian in XLA, which does not depend on
timing, ends the pass.
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
    scan,
    steps,
    struct,
    tile_pixels,
    walk_scratch,
)
from renderers.kernels.composite.reference import MAX_ALPHA
from renderers.kernels.composite.xla import drawn_pixels, to_tiles
from renderers.kernels.tiling import TileLists, grid

SUM_SLOTS = 2**20  # summed at a time: XLA pads a copy of their rows to 128, 9.3 GB for 16.8 million slots at once


def backward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    outputs: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    cotangents: tuple[Float[Array, "h w c"], Float[Array, "h w"]],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
    blocks: TpuBlocks | None = None,
) -> tuple[Float[Array, "n 2"], Float[Array, "n 3"], Float[Array, " n"], Float[Array, "n c"], Float[Array, "n 2"]]:
    """Gradients of means2d, conics, opacities and features, and the absolute-valued gradient of means2d."""
    n, channels = features.shape
    blocks = blocks or tpu_blocks()
    bounds, ids = align(lists, n, blocks.chunk)
    rows = parameter_rows(means2d, conics, opacities, features, ids)
    drawn = drawn_pixels(mask, size).astype(rows.dtype)[:, None]
    (image, transmittance), (g_image, g_transmittance) = outputs, cotangents
    to_come = jnp.sum(image * g_image, -1) + transmittance * g_transmittance
    given = to_tiles(jnp.concatenate([g_image, to_come[..., None]], -1))
    given = jnp.pad(given, ((0, 0), (0, padded(channels) - channels - 1), (0, 0)))

    call = functools.partial(_call, channels=channels, tiles_across=grid(size)[1], blocks=blocks)
    per_slot = compiled_or_interpreted(call, bounds, rows, drawn, given)
    summed = _sum_by_gaussian(per_slot, ids, n)[:, : GEOMETRY + channels]
    means, conics_, moved, probe, feature = jnp.split(summed, (2, 5, 6, 8), 1)
    opacity = moved[:, 0] / jnp.where(opacities > 0, opacities, 1.0)
    return means, conics_, opacity, feature, probe


def _sum_by_gaussian(per_slot, ids, n):
    """Rows of gradients by Gaussian [n, rows], of those by slot [rows, slots]."""
    slots = ids.shape[0]
    part = min(SUM_SLOTS, slots)

    def add(first, count, summed):
        taken = lax.dynamic_slice_in_dim(ids, first, count)
        gradients = lax.dynamic_slice_in_dim(per_slot, first, count, 1)
        return summed.at[taken].add(gradients.T)

    empty = jnp.zeros_like(per_slot, shape=(n + 1, per_slot.shape[0]))
    summed = lax.fori_loop(0, slots // part, lambda index, summed: add(index * part, part, summed), empty)
    return add(slots - slots % part, slots % part, summed)[:n]


def _call(bounds, rows, drawn, given, *, channels, tiles_across, blocks, interpret):
    """Gradients of what is in each slot, rows as in `rows` with the probe's in the padding.

    Chunks that no pixel lives to see are left zero.
    """
    return pl.pallas_call(
        functools.partial(_backward_kernel, channels=channels, tiles_across=tiles_across, step=blocks.step),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(drawn.shape[0],),
            in_specs=[
                pl.BlockSpec(memory_space=pl.ANY),
                pl.BlockSpec((1, 1, PIXELS), lambda tile, bounds: (tile, 0, 0)),
                pl.BlockSpec((1, given.shape[1], PIXELS), lambda tile, bounds: (tile, 0, 0)),
                pl.BlockSpec(memory_space=pl.ANY),
            ],
            out_specs=pl.BlockSpec(memory_space=pl.ANY),
            scratch_shapes=[
                *walk_scratch(rows.shape[0], blocks.chunk),
                pltpu.VMEM((blocks.chunk, GEOMETRY), jnp.float32),
                pltpu.VMEM((blocks.chunk, PIXELS), jnp.float32),
                pltpu.VMEM((blocks.chunk, PIXELS), jnp.float32),
                pltpu.VMEM((2, rows.shape[0], blocks.chunk), jnp.float32),
                pltpu.SemaphoreType.DMA((2,)),
                pltpu.SMEM((1,), jnp.int32),
            ],
        ),
        out_shape=struct(rows.shape, bounds, rows, drawn, given),
        input_output_aliases={4: 0},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
        name="composite_backward",
    )(bounds, rows, drawn, given, jnp.zeros_like(rows))


def _backward_kernel(
    bounds,
    rows,
    drawn,
    given,
    _,
    gradients,
    buffers,
    arrivals,
    geometry,
    sums,
    values,
    weights,
    leaving,
    departures,
    sent,
    *,
    channels,
    tiles_across,
    step,
):
    pixels = tile_pixels(tiles_across)
    departing = functools.partial(_departing, leaving, gradients, departures)

    @pl.when(pl.program_id(0) == 0)
    def _():
        sent[0] = 0

    def visit(chunk, position, count, transmittance, to_come, alive):
        geometry[...] = chunk[:GEOMETRY].T
        values[...] = lax.dot_general(
            chunk[GEOMETRY:], given[0], (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
        )
        weights[...] = jnp.zeros(weights.shape, weights.dtype)
        sums[...] = jnp.zeros(sums.shape, sums.dtype)

        def differentiate_step(index, state):
            here = pl.ds(pl.multiple_of(index * step, step), step)
            weights[here], *state = _step(geometry[here], values[here], pixels, sums.at[here], *state)
            return tuple(state)

        after = lax.fori_loop(0, steps(count, step), differentiate_step, (transmittance, to_come, alive))

        slot = lax.rem(sent[0], 2)
        pl.when(sent[0] >= 2)(lambda: departing(slot, position).wait())
        leaving[slot, :GEOMETRY] = sums[...].T
        leaving[slot, GEOMETRY:] = lax.dot_general(
            given[0], weights[...], (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST
        )
        departing(slot, position).start()
        sent[0] = sent[0] + 1
        return after

    walk = Walk(bounds, rows, buffers, arrivals)
    state = jnp.ones((1, PIXELS), jnp.float32), given[0, channels : channels + 1]
    walk.run(visit, state, drawn[0])

    @pl.when(pl.program_id(0) == pl.num_programs(0) - 1)
    def _():
        pl.when(sent[0] >= 1)(lambda: departing(lax.rem(sent[0] - 1, 2), 0).wait())
        pl.when(sent[0] >= 2)(lambda: departing(lax.rem(sent[0], 2), 0).wait())


def _departing(leaving, gradients, departures, slot, position):
    """The copy of a chunk's gradients to their place; to wait for it, any place will do."""
    chunk = leaving.shape[2]
    target = gradients.at[:, pl.ds(pl.multiple_of(position, chunk), chunk)]
    return pltpu.make_async_copy(leaving.at[slot], target, departures.at[slot])


def _step(rows, value, pixels, sums, transmittance, to_come, alive):
    """A step's weights [step, 256], and the state after it.

    Leaves its gradients, summed over pixels, in the columns of `sums`: mean x y, conic xx xy yy, opacity times its
    gradient, absolute values of mean x y.
    """
    blended, transmittance, alive = blend(rows, pixels, transmittance, alive)
    dx, dy, raw, alpha, front = blended
    weight = alpha * front
    behind = to_come - scan(weight * value, jnp.add, 0.0)
    # dL / dsigma with its sign turned; zero where alpha is clamped, dropped or the pixel has stopped
    moves = (alpha > 0) & (front > 0) & (raw <= MAX_ALPHA)
    m = jnp.where(moves, alpha * (front * value - behind / (1 - alpha)), 0.0)
    mx, my = m * dx, m * dy
    gx = rows[:, 2:3] * mx + rows[:, 3:4] * my
    gy = rows[:, 3:4] * mx + rows[:, 4:5] * my
    over_pixels = functools.partial(jnp.sum, axis=1, keepdims=True)
    columns = [
        over_pixels(gx),
        over_pixels(gy),
        -0.5 * over_pixels(mx * dx),
        -over_pixels(mx * dy),
        -0.5 * over_pixels(my * dy),
        over_pixels(m),
        over_pixels(jnp.abs(gx)),
        over_pixels(jnp.abs(gy)),
    ]
    for place, column in enumerate(columns):
        sums[:, place : place + 1] = column
    return weight, transmittance, behind[-1:], alive
