"""What both TPU kernels share: runs of intersections aligned to chunks, the walk over a tile's chunks, and blending.

Parameters lie in HBM with Gaussians on lanes: an array [rows, m] pads its rows to 8, while [m, columns] would pad its
columns to 128. A chunk is copied to VMEM while the one before it is blended; its geometry is turned so that Gaussians
lie on sublanes and the 256 pixels of the tile on lanes. Products and sums along a step's Gaussians are scans by
doubling over sublanes, exact to rounding: the exponential of a triangular product with log(1 - alpha) would take six
bfloat16 passes of the matrix unit, a logarithm and an exponential instead of five multiplications.
"""

import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from renderers.kernels.composite.reference import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE
from renderers.kernels.dispatch import Unsupported
from renderers.kernels.tiling import TILE, TileLists

PIXELS = TILE * TILE
SUBLANES = 8
GEOMETRY = SUBLANES  # mean x y, conic xx xy yy, opacity, two rows of padding; features follow
MAX_TILES = 2**17  # their bounds take half of the 1 MiB of scalar memory that v4 and later have; 8K needs 129,600
SLOTS = 4  # chunk buffers: the first chunks of an even and an odd tile, and two that later chunks take in turn


def padded(channels: int) -> int:
    """Rows that features take: one is left over for transmittance or for what is to come."""
    return -(-(channels + 1) // SUBLANES) * SUBLANES


def align(lists: TileLists, num_gaussians: int, chunk: int) -> tuple[Int[Array, " t2"], Int[Array, " s"]]:
    """Room for every tile's run in whole chunks.

    Returns:
      Bounds: tile t's run begins at bounds[t], rounded up to a chunk, and ends before bounds[t + 1]; the last is
      repeated, as the empty run of a tile past the end. And the Gaussian in each slot, `num_gaussians` where none is.

    Raises:
      Unsupported: more tiles than scalar memory holds.
    """
    tiles, capacity = lists.offsets.shape[0] - 1, lists.ids.shape[0]
    if tiles > MAX_TILES:
        raise Unsupported(
            f"backend 'pallas_tpu' takes images of up to {MAX_TILES} tiles of {TILE} x {TILE} pixels, got {tiles}: "
            "render it in parts, or use 'xla'"
        )
    counts = jnp.diff(lists.offsets)
    chunks = -(-counts // chunk)
    first = (jnp.cumsum(chunks) - chunks) * chunk
    ends = first + counts
    bounds = jnp.concatenate([jnp.zeros_like(ends[:1]), ends, ends[-1:]])

    most = capacity // chunk + min(tiles, capacity)
    tile = jnp.repeat(jnp.arange(tiles, dtype=jnp.int32), chunks, total_repeat_length=most)
    begin = lists.offsets[tile] + jnp.arange(most, dtype=jnp.int32) * chunk - first[tile]
    position = begin[:, None] + jnp.arange(chunk, dtype=jnp.int32)[None]
    held = position < lists.offsets[tile + 1][:, None]
    ids = jnp.where(held, lists.ids[jnp.minimum(position, capacity - 1)], num_gaussians)
    return bounds.astype(jnp.int32), ids.ravel()


def parameter_rows(means2d, conics, opacities, features, ids) -> Float[Array, "r s"]:
    """Parameters of the Gaussian in each slot; zero, and so without effect, where none is."""
    spare = padded(features.shape[1]) - features.shape[1]
    packed = jnp.concatenate([means2d, conics, opacities[:, None], jnp.zeros_like(means2d), features], 1)
    return jnp.pad(packed.T, ((0, spare), (0, 1)))[:, ids]


class Walk(typing.NamedTuple):
    """Where the kernels find their intersections.

    Attributes:
      bounds: scalar memory [t + 2], see `align`.
      rows: parameters in HBM [rows, slots].
      buffers: VMEM [SLOTS, rows, chunk].
      arrivals: a semaphore a buffer.
    """

    bounds: typing.Any
    rows: typing.Any
    buffers: typing.Any
    arrivals: typing.Any

    def _copy(self, position, slot):
        chunk = self.buffers.shape[2]
        source = self.rows.at[:, pl.ds(pl.multiple_of(position, chunk), chunk)]
        return pltpu.make_async_copy(source, self.buffers.at[slot], self.arrivals.at[slot])

    def run(self, visit: Callable, state: tuple, alive: Float[Array, "1 p"]):
        """Carry `state` through the chunks of this program's tile until its run ends or no pixel is alive.

        `visit(chunk, position, count, *state, alive)` returns the state and the alive pixels after a chunk (a
        reference [rows, chunk], of whose Gaussians the first `count` count). Tiles must run one after the other: the
        first chunk of each is on its way while the tile before it is blended.
        """
        chunk = self.buffers.shape[2]
        tile = pl.program_id(0)
        begin, end = _round_up(self.bounds[tile], chunk), self.bounds[tile + 1]
        next_begin, next_end = _round_up(end, chunk), self.bounds[tile + 2]

        def slot_of(position):
            return jnp.where(position == begin, _mod(tile, 2), 2 + _mod(_div(position, chunk), 2))

        pl.when((tile == 0) & (begin < end))(lambda: self._copy(begin, 0).start())
        pl.when(next_begin < next_end)(lambda: self._copy(next_begin, _mod(tile + 1, 2)).start())

        def body(carry):
            position, _, alive, *state = carry
            slot, after = slot_of(position), position + chunk
            self._copy(position, slot).wait()
            pl.when(after < end)(lambda: self._copy(after, slot_of(after)).start())
            count = jnp.minimum(end - position, chunk)
            *after_chunk, alive = visit(self.buffers.at[slot], position, count, *state, alive)
            return after, jnp.max(alive), alive, *after_chunk

        position, _, alive, *final = lax.while_loop(
            lambda carry: (carry[0] < end) & (carry[1] > 0), body, (begin, jnp.max(alive), alive, *state)
        )
        # stopped early: the next chunk is on its way all the same
        pl.when(position < end)(lambda: self._copy(position, slot_of(position)).wait())
        return *final, alive


def walk_scratch(rows: int, chunk: int) -> list:
    """Buffers and semaphores of a `Walk`, and the turned geometry of a chunk."""
    return [
        pltpu.VMEM((SLOTS, rows, chunk), jnp.float32),
        pltpu.SemaphoreType.DMA((SLOTS,)),
        pltpu.VMEM((chunk, GEOMETRY), jnp.float32),
    ]


def steps(count: Int[Array, ""], step: int) -> Int[Array, ""]:
    """Steps that `count` Gaussians take."""
    return _div(count + (step - 1), step)


def _round_up(position, chunk):
    return steps(position, chunk) * chunk


def _div(number, by):
    """Of numbers that are not negative; Python's operator would look at signs, which TPUs do per generation."""
    return lax.div(number, np.int32(by))


def _mod(number, by):
    return lax.rem(number, np.int32(by))


def tile_pixels(tiles_across: int) -> tuple[Float[Array, "1 p"], Float[Array, "1 p"]]:
    """Pixel centres x, y of this program's tile."""
    tile = pl.program_id(0)
    index = lax.broadcasted_iota(jnp.int32, (1, PIXELS), 1)
    x = _mod(tile, tiles_across) * TILE + _mod(index, TILE)
    y = _div(tile, tiles_across) * TILE + _div(index, TILE)
    return x.astype(jnp.float32) + 0.5, y.astype(jnp.float32) + 0.5


def scan(values: Float[Array, "s p"], combine: Callable, neutral: float) -> Float[Array, "s p"]:
    """Inclusive scan along sublanes by doubling."""
    row = lax.broadcasted_iota(jnp.int32, values.shape, 0)
    stride = 1
    while stride < values.shape[0]:
        values = combine(values, jnp.where(row >= stride, pltpu.roll(values, stride, 0), neutral))
        stride *= 2
    return values


class Blended(typing.NamedTuple):
    """A step's Gaussians at a tile's pixels, all [step, 256]: see `xla._blend_chunk`."""

    dx: Float[Array, "s p"]
    dy: Float[Array, "s p"]
    raw: Float[Array, "s p"]
    alpha: Float[Array, "s p"]
    front: Float[Array, "s p"]


def blend(
    rows: Float[Array, "s 8"],
    pixels: tuple[Float[Array, "1 p"], Float[Array, "1 p"]],
    transmittance: Float[Array, "1 p"],
    alive: Float[Array, "1 p"],
) -> tuple[Blended, Float[Array, "1 p"], Float[Array, "1 p"]]:
    """Blend a step's Gaussians; also transmittance and alive pixels (1 or 0) after them."""
    dx, dy = pixels[0] - rows[:, 0:1], pixels[1] - rows[:, 1:2]
    sigma = 0.5 * (rows[:, 2:3] * dx * dx + rows[:, 4:5] * dy * dy) + rows[:, 3:4] * dx * dy
    raw = rows[:, 5:6] * jnp.exp(-jnp.maximum(sigma, 0.0))
    alpha = jnp.minimum(MAX_ALPHA, raw)
    alpha = jnp.where((sigma >= 0) & (alpha >= ALPHA_THRESHOLD), alpha, 0.0)

    step = alpha.shape[0]
    row = lax.broadcasted_iota(jnp.int32, alpha.shape, 0)
    left = scan(1 - alpha, jnp.multiply, 1.0)
    behind = transmittance * left
    # the first Gaussian that would cross ends the pixel, whatever rounding makes of those after it
    stop = jnp.min(jnp.where(behind > MIN_TRANSMITTANCE, step, row), 0, keepdims=True)
    live = row < jnp.where(alive > 0, stop, 0)
    front = jnp.where(live, transmittance * jnp.where(row > 0, pltpu.roll(left, 1, 0), 1.0), 0.0)
    transmittance = jnp.min(jnp.where(live, behind, transmittance), 0, keepdims=True)
    return Blended(dx, dy, raw, alpha, front), transmittance, jnp.where(stop == step, alive, 0.0)


def struct(shape: tuple[int, ...], *like: jax.Array) -> jax.ShapeDtypeStruct:
    """A float32 output that varies over the mesh axes of any of `like`, as `shard_map` asks kernels to declare."""
    axes = frozenset().union(*(jax.typeof(array).manual_axis_type.varying for array in like))
    return jax.ShapeDtypeStruct(shape, jnp.float32, manual_axis_type=jax.sharding.ManualAxisType(varying=axes))


def compiled_or_interpreted(call: Callable, *arguments: jax.Array):
    """`call(*arguments, interpret=...)`: compiled for TPUs, interpreted elsewhere.

    Index arithmetic stays 32 bit under `jax_enable_x64`, which TPU kernels cannot be built with.
    """
    with jax.enable_x64(False):
        return lax.platform_dependent(
            *arguments,
            tpu=lambda *a: call(*a, interpret=False),
            default=lambda *a: call(*a, interpret=True),
        )
