"""Compositing on GPUs: Pallas kernels of the Triton backend, front to back; the forward pass.

One program blends one tile or a part of it, with the pixels in registers. Parameters are gathered by id inside the
kernel: an intersection then costs 4 bytes of list, 32 of geometry and 4 c of features, mostly out of the L2 cache,
where rows staged in list order would be written once and read twice from memory. The quadratic form is taken in
offsets from the mean, as everywhere in this package: monomials about the tile's centre save few operations and lose
digits for long thin ellipses. CPUs run the same kernels interpreted, which is how they are checked without a device.
"""

import functools

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float

from renderers.kernels.composite import pallas_gpu_tiles as tiles
from renderers.kernels.composite.blocks import GpuBlocks, GpuPass, gpu_blocks
from renderers.kernels.composite.pallas_gpu_vjp import backward as backward
from renderers.kernels.composite.xla import untile
from renderers.kernels.tiling import TileLists, grid


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
    blocks: GpuBlocks | None = None,
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Image without background and transmittance left; see `reference.composite`.

    Float32; `blocks` None takes what `blocks.py` has for this device.
    """
    channels = features.shape[1]
    sizes = (blocks or gpu_blocks(channels, lists.offsets.shape[0] - 1)).forward
    programs = -(-channels // sizes.channels)
    per_program = -(-channels // programs)
    features = jnp.pad(features, ((0, 0), (0, programs * per_program - channels)))
    call = functools.partial(_call, columns=grid(size)[1], programs=programs, per_program=per_program, sizes=sizes)
    image, transmittance = tiles.compiled_or_interpreted(
        call,
        lists.offsets,
        lists.ids,
        tiles.pack_geometry(means2d, conics, opacities),
        features,
        tiles.first_light(mask, size),
    )
    return untile(image, size)[..., :channels], untile(transmittance[:, None], size)[..., 0]


def _call(offsets, ids, geometry, features, light, *, columns, programs, per_program, sizes: GpuPass, interpret):
    inputs = (offsets, ids, geometry, features, light)
    count = light.shape[0]

    def composite_forward(*refs):
        _blend_tile(*refs, columns=columns, channels=per_program, sizes=sizes)

    return pl.pallas_call(
        composite_forward,
        grid=(count, tiles.PIXELS // sizes.pixels, programs),
        in_specs=[pl.no_block_spec] * 4 + [tiles.pixel_block(sizes)],
        out_specs=(tiles.pixel_block(sizes, per_program), tiles.pixel_block(sizes)),
        out_shape=(
            tiles.struct((count, programs * per_program, tiles.PIXELS), *inputs),
            tiles.struct((count, tiles.PIXELS), *inputs),
        ),
        compiler_params=tiles.parameters(sizes),
        interpret=interpret,
        name="composite_forward",
    )(*inputs)


def _blend_tile(
    offsets_ref,
    ids_ref,
    geometry_ref,
    features_ref,
    light_ref,
    image_ref,
    transmittance_ref,
    *,
    columns,
    channels,
    sizes,
):
    tile, part, first_channel = pl.program_id(0), pl.program_id(1), pl.program_id(2) * channels
    start, end = offsets_ref[tile], offsets_ref[tile + 1]
    pixels = tiles.pixel_centres(tiles.tile_position(tile, columns), part, sizes)

    def visit(at, light, *image):
        gaussian = ids_ref[at]
        seen, light = tiles.blend(geometry_ref, gaussian, pixels, light)
        weights = seen.alpha * seen.front
        added = (weights * features_ref[gaussian, first_channel + j] for j in range(channels))
        return light, *(value + more for value, more in zip(image, added, strict=True))

    light = light_ref[...]
    _, light, image = tiles.walk(start, end, light, visit, (jnp.zeros_like(light),) * channels, sizes)
    for j in range(channels):
        image_ref[j, :] = image[j]
    transmittance_ref[...] = jnp.abs(light)
