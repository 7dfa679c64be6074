"""What the forward and backward Triton kernels of compositing share: a walk along a tile's list, front to back.

A pixel's state is its transmittance, negative once the pixel has stopped: one register, and one comparison tells
whether a Gaussian still counts. Inside a kernel pixels are arrays [p] in registers and a Gaussian's parameters scalars.
Chunks of Gaussians side by side, arrays [k, p], share reductions and barriers, but need a logarithm and an exponential
for the running product, and gathers of vectors: in PTX for sm_90a 3239 instructions a warp-tile and Gaussian backwards
against 883 of one warp that walks one by one, which has no barriers to share.
"""

import functools
import math
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Bool, Float

from renderers.kernels.composite.blocks import GpuPass
from renderers.kernels.composite.reference import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE
from renderers.kernels.composite.xla import drawn_pixels
from renderers.kernels.dispatch import Unsupported
from renderers.kernels.tiling import TILE

PIXELS = TILE * TILE
LOG2_E = math.log2(math.e)
ZERO = np.float32(0)  # a plain 0.0 would be a float64 in kernels under `jax_enable_x64`


def pack_geometry(means2d, conics, opacities) -> Float[Array, "n 8"]:
    """Parameters of a Gaussian in one sector of memory, 32 bytes: mean x y, quadratic xx xy yy, opacity.

    Alpha is opacity 2^-(xx dx^2 + xy dx dy + yy dy^2): GPUs have the exponential of base 2.
    """
    quadratic = conics * jnp.asarray([[0.5 * LOG2_E, LOG2_E, 0.5 * LOG2_E]], conics.dtype)
    return jnp.pad(jnp.concatenate([means2d, quadratic, opacities[:, None]], 1), ((0, 0), (0, 2)))


def first_light(mask: Bool[Array, "h w"] | None, size: tuple[int, int]) -> Float[Array, "t p"]:
    """State that every pixel starts from: 1 where it is drawn, else stopped."""
    return jnp.where(drawn_pixels(mask, size), jnp.float32(1), jnp.float32(-1))


def compiled_or_interpreted(call: Callable[..., Any], *arrays: jax.Array) -> Any:
    """`call(*arrays, interpret=...)`, compiled where there is Triton, interpreted elsewhere.

    Decided while lowering, so that a host without a GPU can export for one.

    Raises:
      Unsupported: an array of a size that kernels would address wrongly.
    """
    for array in arrays:
        if _misaddressed(array.size):
            raise Unsupported(f"backend 'pallas_gpu' cannot address {array.shape}, 2^31 to 2^32 numbers; use 'xla'")
    compiled = functools.partial(call, interpret=False)
    return lax.platform_dependent(
        *arrays, cuda=compiled, rocm=compiled, default=functools.partial(call, interpret=True)
    )


def _misaddressed(size: int) -> bool:
    """Whether Pallas (JAX 0.10.2) takes 32-bit offsets, which are signed, where they do not reach."""
    return 1 << 31 < size <= 1 << 32


def addressable(rows: int, width: int) -> int:
    """A number of rows, at least as many, so that kernels can address an array of that size."""
    return (1 << 32) // width + 1 if _misaddressed(rows * width) else rows


def struct(shape: tuple[int, ...], *like: jax.Array) -> jax.ShapeDtypeStruct:
    """A float32 output that varies over the mesh axes of any of `like`, as `shard_map` asks kernels to declare."""
    axes = frozenset().union(*(jax.typeof(array).manual_axis_type.varying for array in like))
    return jax.ShapeDtypeStruct(shape, jnp.float32, manual_axis_type=jax.sharding.ManualAxisType(varying=axes))


def parameters(sizes: GpuPass) -> plgpu.CompilerParams:
    """What Triton is told. Leaving it out would choose another Pallas backend."""
    return plgpu.CompilerParams(num_warps=sizes.warps, num_stages=sizes.stages)


def tile_position(tile, columns: int):
    """Column and row of a tile among all."""
    return lax.rem(tile, jnp.int32(columns)), lax.div(tile, jnp.int32(columns))


def pixel_centres(position, part, sizes: GpuPass):
    """Pixel centres x, y of a program's part of the tile at (column, row)."""
    index = part * sizes.pixels + lax.iota(jnp.int32, sizes.pixels)
    x = position[0] * TILE + lax.rem(index, jnp.int32(TILE))
    y = position[1] * TILE + lax.div(index, jnp.int32(TILE))
    return x.astype(jnp.float32) + 0.5, y.astype(jnp.float32) + 0.5


class Blended(typing.NamedTuple):
    """A Gaussian at the pixels of a program.

    Attributes:
      dx, dy: from its mean.
      quadratic: its packed xx, xy, yy.
      raw: alpha before the clamp.
      alpha: zero where nothing is drawn.
      front: transmittance in front, zero where the pixel has stopped.
    """

    dx: Any
    dy: Any
    quadratic: tuple
    raw: Any
    alpha: Any
    front: Any


def blend(geometry_ref, gaussian, pixels, light):
    """Blend a Gaussian into `light`; see `renderers.kernels.composite`. Returns it and the light behind it."""
    x, y, xx, xy, yy, opacity = (geometry_ref[gaussian, column] for column in range(6))
    dx, dy = pixels[0] - x, pixels[1] - y
    sigma = dx * (xx * dx + xy * dy) + yy * dy * dy
    raw = opacity * jnp.exp2(-sigma)
    alpha = jnp.minimum(raw, MAX_ALPHA)
    alpha = jnp.where((sigma >= 0) & (alpha >= ALPHA_THRESHOLD), alpha, ZERO)
    behind = light * (1 - alpha)
    live = behind > MIN_TRANSMITTANCE
    front, light = jnp.where(live, light, ZERO), jnp.where(live, behind, -jnp.abs(light))
    return Blended(dx, dy, (xx, xy, yy), raw, alpha, front), light


def walk(start, end, light, visit, state: tuple, sizes: GpuPass):
    """Go along a list until it ends or no pixel has light left.

    Args:
      start: of the list.
      end: one past its last entry.
      light: of the pixels before it.
      visit: (position, light, *state) to (light, *state).
      state: whatever else an entry changes.
      sizes: of the pass.

    Returns:
      Where it stopped (entries from there on change nothing), the light, and the state.
    """

    def onward(light, at):
        # A stop is a negative position. A condition on the light itself crashed the compiler of jaxlib 0.10.2.
        return jnp.where(jnp.max(light) > 0, at, ~at)

    def turn(carry):
        at, *state = carry
        stop = jnp.minimum(at + sizes.turn, end)
        light, *state = lax.fori_loop(at, stop, lambda at, state: visit(at, *state), tuple(state))
        return onward(light, stop), light, *state

    at, light, *rest = lax.while_loop(
        lambda carry: (carry[0] >= 0) & (carry[0] < end), turn, (onward(light, start), light, *state)
    )
    return jnp.where(at < 0, ~at, at), light, tuple(rest)


def pixel_block(sizes: GpuPass, channels: int | None = None) -> pl.BlockSpec:
    """A program's part of an array [t, p], or of the first channels of an array [t, c, p]."""
    if channels is None:
        return pl.BlockSpec((None, sizes.pixels), lambda tile, part, *_: (tile, part))
    return pl.BlockSpec((None, channels, sizes.pixels), lambda tile, part, *block: (tile, *(block or (0,)), part))
