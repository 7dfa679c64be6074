"""Compositing on Hopper and later GPUs with Mosaic, Pallas' successor of Triton: the forward pass.

A twin of `pallas_gpu.forward` that waits for Triton's end (deprecated from JAX 0.11 on). It equals the reference in
JAX's simulation of a GPU and compiles to Hopper's machine code without spills (tests/aot); it has not run on a device,
and no backend name leads here yet.

One warpgroup a tile, two pixels a thread. While a chunk of Gaussians is blended, the copy engine brings the next one to
shared memory. No layout is written by hand: arrays take theirs from what is loaded from global memory, which is spread
over the threads as Mosaic likes it.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Bool, Float

from renderers.kernels.composite.reference import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE
from renderers.kernels.composite.xla import GEOMETRY, drawn_pixels, untile
from renderers.kernels.tiling import TILE, TileLists, grid

CHUNK = 32  # Gaussians in flight
GROUP = 32  # channels a pass: two registers a channel and thread, and copies take at most 256 columns
_PIXELS = TILE * TILE
_ALIGNMENT = 4  # floats: the copy engine moves 16 bytes at a time


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
    *,
    chunk: int = CHUNK,
    interpret: bool = False,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Image without background and transmittance left; see `reference.composite`.

    Float32. More than `GROUP` channels take a pass over the Gaussians for each group of them.

    Args:
      means2d: pixels.
      conics: inverse 2D covariances (xx, xy, yy), 1 / pixel^2.
      opacities: in [0, 1].
      features: values to blend.
      lists: Gaussians of each tile.
      mask: pixels to draw; None draws all.
      size: image (height, width).
      chunk: Gaussians copied to shared memory at a time.
      interpret: simulate threads, memories and barriers on the CPU.
    """
    drawn = drawn_pixels(mask, size).astype(jnp.float32)
    geometry = jnp.concatenate([means2d, conics, opacities[:, None]], 1)
    images = []
    for first in range(0, features.shape[1], GROUP):
        group = features[:, first : first + GROUP]
        width = GEOMETRY + group.shape[1]
        rows = jnp.concatenate([geometry, group], 1)[lists.ids]
        rows = jnp.pad(rows, ((0, chunk), (0, -width % _ALIGNMENT)))  # the last chunk may read past the end
        image, transmittance = _call(
            lists.offsets, rows, drawn, group.shape[1], grid(size)[1], chunk=chunk, interpret=interpret
        )
        images.append(image)
    whole = untile(jnp.concatenate([*images, transmittance[:, None]], 1), size)
    return whole[..., :-1], whole[..., -1]


def _call(offsets, rows, drawn, channels, tiles_across, *, chunk, interpret):
    tiles = drawn.shape[0]
    index = jnp.arange(_PIXELS, dtype=jnp.int32)
    centres = jnp.stack([index % TILE, index // TILE]).astype(jnp.float32) + 0.5
    run = plgpu.kernel(
        functools.partial(_kernel, channels=channels, tiles_across=tiles_across),
        out_type=(
            jax.ShapeDtypeStruct((tiles, channels, _PIXELS), jnp.float32),
            jax.ShapeDtypeStruct((tiles, _PIXELS), jnp.float32),
        ),
        scratch_types=(plgpu.SMEM((2, chunk, rows.shape[1]), jnp.float32), plgpu.Barrier(num_barriers=2)),
        grid=(tiles,),
        grid_names=("tile",),
        interpret=_simulation() if interpret else None,
    )
    with jax.enable_x64(False):  # or Python numbers in the kernel would be 64 bit, and index arithmetic with them
        return run(offsets, rows, drawn, centres)


def _kernel(offsets, rows, drawn, centres, image_out, transmittance_out, buffers, arrivals, *, channels, tiles_across):
    chunk = buffers.shape[1]
    tile = lax.axis_index("tile")
    begin, end = offsets[tile], offsets[tile + 1]
    chunks = lax.div(end - begin + (chunk - 1), chunk)
    x = centres[0] + (lax.rem(tile, tiles_across) * TILE).astype(jnp.float32)
    y = centres[1] + (lax.div(tile, tiles_across) * TILE).astype(jnp.float32)

    def fetch(turn):
        slot = lax.rem(turn, 2)
        source = rows.at[pl.ds(begin + turn * chunk, chunk)]
        plgpu.copy_gmem_to_smem(source, buffers.at[slot], arrivals.at[slot])

    def blend_chunk(carry):
        turn, *state = carry
        slot, after = lax.rem(turn, 2), turn + 1
        plgpu.commit_smem()  # all threads have read what the next copy overwrites
        pl.when(after < chunks)(lambda: fetch(after))
        plgpu.barrier_wait(arrivals.at[slot])

        def blend(row, state):
            transmittance, alive, *image = state
            mean_x, mean_y, xx, xy, yy, opacity, *feature = (
                buffers[slot, row, column] for column in range(GEOMETRY + channels)
            )
            dx, dy = x - mean_x, y - mean_y
            sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
            alpha = jnp.minimum(MAX_ALPHA, opacity * jnp.exp(-jnp.maximum(sigma, 0.0)))
            alpha = jnp.where((sigma >= 0) & (alpha >= ALPHA_THRESHOLD), alpha, 0.0)
            behind = transmittance * (1 - alpha)
            alive = jnp.where(behind > MIN_TRANSMITTANCE, alive, 0.0)
            weight = jnp.where(alive > 0, alpha * transmittance, 0.0)
            transmittance = jnp.where(alive > 0, behind, transmittance)
            return transmittance, alive, *(c + weight * f for c, f in zip(image, feature, strict=True))

        held = jnp.minimum(end - begin - turn * chunk, chunk)
        state = lax.fori_loop(0, held, blend, tuple(state))
        going = jnp.max(state[1]) > 0
        # a program must not end while a copy is on its way into its memory
        pl.when(jnp.logical_not(going) & (after < chunks))(lambda: plgpu.barrier_wait(arrivals.at[lax.rem(after, 2)]))
        return jnp.where(going, after, chunks), *state

    pl.when(chunks > 0)(lambda: fetch(0))
    alive = drawn[tile]
    empty = alive * 0.0  # a literal zero has no layout, and loops keep the layouts that they begin with
    state = (jnp.int32(0), empty + 1.0, alive, *[empty] * channels)
    _, transmittance, _, *image = lax.while_loop(lambda carry: carry[0] < chunks, blend_chunk, state)
    for channel, values in enumerate(image):
        image_out[tile, channel] = values
    transmittance_out[tile] = transmittance


def _simulation():
    # not public in jax 0.10.2, and of no use but to tests
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams()
