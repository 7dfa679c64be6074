"""How the Pallas kernels cut up their work: sizes by device kind, found by `python -m experiments.bench.tune`.

Data, not code: a new device joins by a row. Sizes change speed and the order of float additions, nothing else.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax

BlocksT = TypeVar("BlocksT")
_TILE_PIXELS = 256
_LANES, _SUBLANES = 128, 8  # of a TPU's vector register


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuPass:
    """One kernel of the Triton backend.

    Attributes:
      pixels: of a tile that one program blends; a tile takes 256 / pixels programs.
      turn: Gaussians between two looks at whether every pixel has stopped.
      channels: forward, the most that one program accumulates, further ones take further programs; backward, the most
        whose cotangents stay in registers, above that they are read again for every Gaussian.
      warps: of 32 threads a program.
      stages: of Triton's software pipeline.
    """

    pixels: int
    turn: int
    channels: int
    warps: int
    stages: int = 1

    def __post_init__(self):
        powers = self.pixels, self.warps
        if not all(value > 0 and value & (value - 1) == 0 for value in powers) or self.pixels > _TILE_PIXELS:
            raise ValueError(f"expected powers of two, pixels at most {_TILE_PIXELS}, got {self}")
        if min(self.turn, self.channels, self.stages) < 1:
            raise ValueError(f"expected turn, channels and stages of at least 1, got {self}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuBlocks:
    """All kernels of the Triton backend.

    Attributes:
      forward: blending.
      backward: gradients of every intersection.
      sum_gaussians: Gaussians whose rows of gradients one program adds up.
      sum_rows: rows that it reads at once for each.
    """

    forward: GpuPass
    backward: GpuPass
    sum_gaussians: int = 4
    sum_rows: int = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuBlocks:
    """All kernels of the Mosaic TPU backend.

    Attributes:
      chunk: Gaussians that one copy brings from HBM, a multiple of the 128 lanes; runs of intersections are padded to
        it.
      step: Gaussians blended side by side on sublanes, a multiple of 8 that divides the chunk.
    """

    chunk: int
    step: int

    def __post_init__(self):
        if self.chunk < 1 or self.chunk % _LANES or self.step < 1 or self.step % _SUBLANES or self.chunk % self.step:
            raise ValueError(f"expected chunk a multiple of {_LANES}, step one of {_SUBLANES} dividing it, got {self}")


# Device kind, then rows (most channels, most tiles, sizes); "" is for kinds that nobody has tuned. Few tiles leave a
# GPU idle unless they are cut up further. Whole tiles of one warp execute the fewest instructions (PTX of sm_90a: 792
# a Gaussian and tile backwards, 1872 with four warps and their barriers); many channels take their registers.
GPU: dict[str, tuple[tuple[int, int, GpuBlocks], ...]] = {
    "": (
        (
            8,
            2048,
            GpuBlocks(
                forward=GpuPass(pixels=64, turn=16, channels=16, warps=1),
                backward=GpuPass(pixels=128, turn=16, channels=8, warps=1),
            ),
        ),
        (
            8,
            1 << 30,
            GpuBlocks(
                forward=GpuPass(pixels=256, turn=32, channels=16, warps=1),
                backward=GpuPass(pixels=256, turn=32, channels=8, warps=1),
            ),
        ),
        (
            1 << 30,
            1 << 30,
            GpuBlocks(
                forward=GpuPass(pixels=128, turn=32, channels=16, warps=1),
                backward=GpuPass(pixels=128, turn=32, channels=16, warps=1),
            ),
        ),
    ),
}
TPU: dict[str, tuple[tuple[int, int, TpuBlocks], ...]] = {"": ((1 << 30, 1 << 30, TpuBlocks(chunk=128, step=32)),)}


def default_for(
    table: Mapping[str, Sequence[tuple[int, int, BlocksT]]], device_kind: str, channels: int = 1, tiles: int = 1
) -> BlocksT:
    """The tuned sizes of a device kind (`jax.Device.device_kind`): its first row with room for the problem.

    A problem that none has room for takes the last row; kinds that are not in the table take the rows of "".
    """
    rows = table.get(device_kind) or table[""]
    return next((sizes for most, largest, sizes in rows if channels <= most and tiles <= largest), rows[-1][2])


def gpu_blocks(channels: int, tiles: int) -> GpuBlocks:
    """Sizes for the GPU of this process; without one, as when exporting, those of an untuned kind."""
    return default_for(GPU, _kind("gpu"), channels, tiles)


def tpu_blocks() -> TpuBlocks:
    """Sizes for the TPU of this process; without one, as when exporting, those of an untuned kind."""
    return default_for(TPU, _kind("tpu"))


def _kind(platform):
    return jax.devices()[0].device_kind if jax.default_backend() == platform else ""
