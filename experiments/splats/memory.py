"""What a splat fit will need in memory, told before it starts."""

import os
from collections.abc import Sequence

import jax

from experiments.errors import InputError
from experiments.splats.settings import FitConfig

_COPIES = 6  # parameters, two moments, gradient, and two in flight while arrays grow or are copied for a checkpoint
_PER_INTERSECTION = 4 * (8 + 4) + 4 + 32  # a gradient row, its id, and its share of keys and offsets


def preflight(config: FitConfig, shapes: Sequence[tuple[int, ...]]) -> str:
    """Estimate the peak memory of a run and refuse one that cannot fit.

    Args:
      config: the run's; its cap on Gaussians counts, not the number to start from.
      shapes: (height, width, channels) of the training images.

    Returns:
      One line for the log.

    Raises:
      InputError: the estimate exceeds what the machine (or the accelerator) has free.
    """
    per_gaussian = 4 * (3 + 4 + 3 + 1 + 3 * (config.sh_degree + 1) ** 2)
    gaussians = config.growth.max_gaussians * (per_gaussian * _COPIES + 8 * _PER_INTERSECTION)
    pixels = max(height * width for height, width, *_ in shapes)
    images = sum(height * width * channels for height, width, channels in shapes)
    working = config.batch * pixels * 4 * 64  # SSIM windows and their gradients, cotangents, targets
    total, free = gaussians + images + working, _free_bytes()
    line = (
        f"memory: up to {total / 2**30:.1f} GiB for {config.growth.max_gaussians} Gaussians and {len(shapes)} images"
        + ("" if free is None else f", {free / 2**30:.1f} GiB free")
    )
    if free is not None and total > free:
        raise InputError(f"{line}: lower --growth.max_gaussians or --sh_degree, or raise --downscale")
    return line


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
