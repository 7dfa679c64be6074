"""What a splat fit will need in memory, told before it starts.

Most runs are far from the limit, and a bound from counts says so at once. Where it does not, the training step is
compiled for the largest scene that the run may reach, which takes seconds and settles it; nothing is executed.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.errors import InputError
from experiments.splats import training
from experiments.splats.settings import FitConfig
from renderers.cameras.camera import Camera
from renderers.gaussians.preflight import INTERSECTIONS_PER_GAUSSIAN, abstract_inputs, statement_of
from renderers.kernels.composite.memory import native_bytes
from renderers.kernels.dispatch import choose
from renderers.kernels.tiling import next_capacity

_COPIES = 9  # parameters, two moments, gradient, their updates, a checkpoint being written (three), slack
_PER_INTERSECTION = 192  # keys, order, packed rows and gradient rows, at twice the count; native kernels take 52
_PER_PIXEL = 4 * 120  # planes of floats: SSIM windows and their gradients, cotangents, target
_COMFORTABLE = 0.5  # share of the free memory up to which the bound will do


def preflight(config: FitConfig, shapes: Sequence[tuple[int, ...]]) -> str:
    """State the peak memory of a run beside its photographs, and refuse one that cannot fit.

    Args:
      config: the run's; its cap on Gaussians counts, not the number to start from.
      shapes: (height, width, channels) of the training images, which are in memory already.

    Returns:
      One line for the log.

    Raises:
      InputError: it exceeds what the machine (or the accelerator) has free.
    """
    total, free, words = bound(config, shapes), _free_bytes(), "at most"
    if free is not None and total > _COMFORTABLE * free:
        total, words = stated(config, shapes), "up to"
    line = f"memory: {words} {total / 2**30:.1f} GiB for {config.growth.max_gaussians} Gaussians" + (
        "" if free is None else f", {free / 2**30:.1f} GiB free"
    )
    if free is not None and total > free:
        raise InputError(f"{line}: lower --growth.max_gaussians or --sh_degree, or raise --downscale")
    return line


def bound(config: FitConfig, shapes: Sequence[tuple[int, ...]]) -> int:
    """Bytes that the run surely does not exceed, from counts alone."""
    per_gaussian = 4 * (3 + 4 + 3 + 1 + 3 * (config.sh_degree + 1) ** 2)
    gaussians = config.growth.max_gaussians * (per_gaussian * _COPIES + INTERSECTIONS_PER_GAUSSIAN * _PER_INTERSECTION)
    height, width = _largest(shapes)[:2]
    return _replicas() * (gaussians + _views_a_device(config) * height * width * _PER_PIXEL)


def stated(config: FitConfig, shapes: Sequence[tuple[int, ...]]) -> int:
    """Peak bytes from the compiled training step of the largest scene; on CPUs a checkpoint being written comes on top.

    A device holds its share of the batch; virtual devices of one host hold theirs side by side.
    """
    number, chosen = config.growth.max_gaussians, choose(config.backend)
    size, count = _largest(shapes)[:2], INTERSECTIONS_PER_GAUSSIAN * number
    state, *inputs = abstract_step(config, shapes)
    capacity = None if chosen == "cpu" else next_capacity(count)
    compiled = training.update.lower(state, *inputs, config=config, white=False, capacity=capacity, mesh=None).compile()
    native = native_bytes(number, size, 4, count, gradients=True) if chosen == "cpu" else 0
    total = _replicas() * statement_of(compiled, native).total
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return total + (held if jax.default_backend() == "cpu" else 0)


def abstract_step(config: FitConfig, shapes: Sequence[tuple[int, ...]]) -> tuple[Any, ...]:
    """State, batch, step and fraction that `training.update` takes at the cap, as shapes without data."""
    number, views = config.growth.max_gaussians, _views_a_device(config)
    height, width, channels = _largest(shapes)
    gaussians, _ = abstract_inputs(number, (height, width), config.sh_degree, gradients=False)

    def of(shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:  # stands in for an array
        return jax.ShapeDtypeStruct(shape, dtype)

    cameras = Camera(of((views, 4, 4)), of((views, 2)), of((views, 2)), (height, width))
    batch = training.Batch(images=of((views, height, width, channels), jnp.uint8), cameras=cameras)
    state = jax.eval_shape(lambda scene: training.initial_state(scene, number), gaussians)
    return state, batch, of((), jnp.int32), of(())


def _largest(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int]:
    height, width, channels = max(shapes, key=lambda shape: shape[0] * shape[1])
    return height, width, channels


def _views_a_device(config: FitConfig) -> int:
    return max(1, config.batch // jax.device_count())


def _replicas() -> int:
    """Copies of a device's arrays that share one memory."""
    return jax.local_device_count() if jax.default_backend() == "cpu" else 1


def _free_bytes() -> int | None:
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
