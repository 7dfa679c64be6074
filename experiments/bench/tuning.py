"""Candidates of block sizes for compositing, and how long each takes on a named shape."""

import dataclasses
import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments import errors
from experiments.bench.timing import median_ms
from renderers.kernels import tiling
from renderers.kernels.composite import shapes
from renderers.kernels.composite.blocks import GpuBlocks, GpuPass, TpuBlocks, gpu_blocks

# Problem and winner: channels, tiles, sizes; as in the tables of `blocks`.
Row = tuple[int, int, GpuBlocks | TpuBlocks]

_TINY = shapes.Shape(num_gaussians=120, size=(40, 40))
_ANY = 1 << 30


@dataclasses.dataclass(frozen=True)
class _Problem:
    """A shape with everything that kernels take, binned beforehand: sorting is not what is tuned."""

    channels: int
    tiles: int
    forward: Callable[..., Any]
    backward: Callable[..., Any]


def gpu_passes(channels: int) -> Iterator[GpuPass]:
    """Every way to cut up a pass that differs for that many channels, the promising ones first."""
    seen = set()
    for warps, pixels, turn, most in itertools.product((1, 2, 4), (256, 128, 64, 32), (32, 16, 64), (16, 8, 32, 64)):
        sizes = GpuPass(pixels=pixels, turn=turn, channels=min(most, channels), warps=warps)
        if pixels >= 32 * warps and sizes not in seen:
            seen.add(sizes)
            yield sizes


def tpu_candidates() -> Iterator[TpuBlocks]:
    """Every way to cut up a TPU's passes, which share their alignment of lists."""
    for chunk, step in itertools.product((128, 256), (8, 16, 32)):
        yield TpuBlocks(chunk=chunk, step=step)


def tune(backend: str, name: str, repeats: int, limit: int | None) -> tuple[Row, dict[str, tuple[float, str]]]:
    """The fastest sizes for a named shape, and the median of every candidate.

    Args:
      backend: "pallas_gpu" or "pallas_tpu".
      name: of `shapes.SHAPES`, or "tiny".
      repeats: runs of each.
      limit: most candidates of each pass; None tries all.

    Raises:
      InputError: no candidate runs here.
    """
    problem = _problem(backend, _TINY if name == "tiny" else shapes.SHAPES[name])
    times: dict[str, tuple[float, str]] = {}

    def fastest(what: str, candidates: Iterator[Any], call: Callable[[Any], Callable[[], Any]]) -> Any:
        found = {}
        for sizes in itertools.islice(candidates, limit):
            label = f"tune/{backend}/{name}/{what}/{_label(sizes)}"
            try:
                found[sizes] = median_ms(call(sizes), repeats=repeats)
            except Exception as error:  # whatever a compiler says of sizes that it cannot do
                print(f"{label}: {str(error).strip().splitlines()[0][:200]}", flush=True)
                continue
            times[label] = (found[sizes], "ms")
        if not found:
            raise errors.InputError(f"--shapes={name}: no candidate of the {what} pass runs on this device, see above")
        return min(found, key=lambda sizes: found[sizes])

    winner: GpuBlocks | TpuBlocks
    if backend == "pallas_tpu":
        winner = fastest(
            "both", tpu_candidates(), lambda sizes: lambda: (problem.forward(sizes), problem.backward(sizes))
        )
    else:
        start, channels = gpu_blocks(problem.channels, problem.tiles), problem.channels

        def forward(sizes):
            return lambda: problem.forward(dataclasses.replace(start, forward=sizes))

        def backward(sizes):
            return lambda: problem.backward(dataclasses.replace(start, backward=sizes))

        winner = GpuBlocks(
            forward=fastest("forward", gpu_passes(channels), forward),
            backward=fastest("backward", gpu_passes(channels), backward),
            sum_gaussians=start.sum_gaussians,
            sum_rows=start.sum_rows,
        )
        sums = (
            dataclasses.replace(winner, sum_gaussians=gaussians, sum_rows=rows)
            for gaussians, rows in itertools.product((4, 8, 2), (8, 4, 16))
        )
        winner = fastest("sum", sums, lambda sizes: lambda: problem.backward(sizes))
    return (problem.channels, problem.tiles, winner), times


def _problem(backend, shape):
    kernels: Any = importlib.import_module(f"renderers.kernels.composite.{backend}")  # Pallas takes a second to import
    arrays = {name: jnp.asarray(array) for name, array in shapes.scene(shape).items()}
    boxes = arrays["means2d"], arrays["extents"], arrays["depths"]
    capacity = tiling.next_capacity(int(tiling.count_intersections(*boxes[:2], shape.size)))
    lists = jax.jit(tiling.bin_gaussians, static_argnums=(3, 4))(*boxes, shape.size, capacity)
    inputs = tuple(arrays[name] for name in ("means2d", "conics", "opacities", "features"))
    forward = jax.jit(lambda blocks, *given: kernels.forward(*given, None, shape.size, blocks), static_argnums=0)
    backward = jax.jit(lambda blocks, *given: kernels.backward(*given, None, shape.size, blocks), static_argnums=0)
    image, transmittance = jax.jit(lambda *given: kernels.forward(*given, None, shape.size))(*inputs, lists)
    cotangents = jnp.cos(7 * image), jnp.sin(5 * transmittance)
    rows, columns = tiling.grid(shape.size)
    return _Problem(
        channels=shape.channels,
        tiles=rows * columns,
        forward=lambda blocks: forward(blocks, *inputs, lists),
        backward=lambda blocks: backward(blocks, *inputs, lists, (image, transmittance), cotangents),
    )


def _label(sizes) -> str:
    """Sizes in one word: `pixels=64,turn=16,...`, of the sum those of its own kernel."""
    fields: Mapping[str, Any] = {f.name: getattr(sizes, f.name) for f in dataclasses.fields(sizes)}
    return ",".join(f"{name}={value}" for name, value in fields.items() if isinstance(value, int))


def literal(device_kind: str, rows: Sequence[Row]) -> str:
    """The entry of a device for the table in `blocks.py`.

    Rows rise in channels, then tiles; each number of channels' last row serves images of any size, the very last any
    number of channels.
    """
    ordered = sorted(rows, key=lambda row: row[:2])
    lines = []
    for at, (channels, tiles, sizes) in enumerate(ordered):
        last = at + 1 == len(ordered)
        if last or ordered[at + 1][0] != channels:
            tiles = _ANY
        lines.append(f"    ({_ANY if last else channels}, {tiles}, {sizes!r}),")
    return "\n".join([f'"{device_kind}": (', *lines, "),"])
