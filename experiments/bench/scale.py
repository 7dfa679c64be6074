"""Rendering from 100 thousand to millions of Gaussians: time, intersections, and peak memory against its statement.

On the host each number of Gaussians runs in a process of its own. The peak is what the process held most while it
rendered, minus what it held before the scene was made, with everything compiled and loaded; scene, images and gradients
are part of it, as they are of the statement (`renderers.gaussians.preflight`). An accelerator belongs to one process;
there the allocator's own record is read, which never falls: scenes have to rise.
"""

import dataclasses
import gc
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench import process_memory, scenes
from experiments.bench.timing import median_ms
from renderers.gaussians import preflight
from renderers.gaussians.projection import project
from renderers.kernels import tiling
from renderers.kernels.composite.memory import native_bytes
from renderers.kernels.dispatch import Backend, choose

_MINUTES = 20


def measure(names: tuple[str, ...], backend: Backend | None = None) -> dict[str, tuple[float, str]]:
    """Names to values with units, of every scene named; `linear` compares the last with the first by intersections.

    Raises:
      RuntimeError: the process of a scene ended before its time, for want of memory as a rule.
    """
    rows: dict[str, tuple[float, str]] = {}
    host = jax.default_backend() == "cpu"
    points = {name: _in_child(name, backend) if host else point(scenes.SCENES[name], backend) for name in names}
    for name, found in points.items():
        for key, value in found.items():
            unit = key.rpartition("_")[2] if key.endswith(("_ms", "_bytes")) else ""
            rows[f"scale/{name}/{key}"] = (value, unit)
    first, last = points[names[0]], points[names[-1]]
    for key in ("forward_ms", "forward_backward_ms"):
        if key in first and key in last and len(names) > 1:
            growth = last[key] / first[key] / (last["intersections"] / first["intersections"])
            rows[f"scale/{names[0]}_to_{names[-1]}/{key[:-3]}"] = (growth, "times linear in intersections")
    return rows


def _in_child(name: str, backend: Backend | None) -> dict[str, float]:
    code = (
        "import json, sys; from experiments import runtime; from experiments.bench import scale, scenes; "
        "runtime.setup(); name, backend = json.loads(sys.argv[1]); "
        "print(json.dumps(scale.point(scenes.SCENES[name], backend)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([name, backend])],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60 * _MINUTES,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"scale/{name} ended with exit code {done.returncode} (-9: the system ran out of memory)")
    return json.loads(done.stdout.splitlines()[-1])


def point(scene: scenes.Scene, backend: Backend | None = None, *, repeats: int = 5) -> dict[str, float]:
    """One scene in this process: intersections, and for both programs median milliseconds and peak bytes."""
    chosen = choose(backend)
    process_memory.return_what_is_freed()
    _warm(scene, chosen)
    count = intersections(scene, chosen)
    capacity = tiling.next_capacity(count)
    found: dict[str, float] = {"intersections": count}
    for key, gradients in (("forward", False), ("forward_backward", True)):
        made = preflight.program(gradients=gradients, capacity=capacity, backend=chosen)
        shapes = preflight.abstract_inputs(scene.num_gaussians, scene.size, scene.sh_degree, gradients=gradients)
        compiled = jax.jit(made).lower(*shapes).compile()
        native = 0
        if chosen == "cpu":
            native = native_bytes(scene.num_gaussians, scene.size, 4, count, gradients=gradients)
        stated = preflight.statement_of(compiled, native).total
        milliseconds, peak = _run(compiled, scene, gradients, repeats)
        found |= {f"{key}_ms": milliseconds, f"{key}_stated_bytes": stated}
        if peak is not None:
            found |= {f"{key}_peak_bytes": peak, f"{key}_peak_over_stated": peak / stated}
    return found


def _arguments(scene: scenes.Scene, gradients: bool) -> tuple[Any, ...]:
    drawn = scenes.draw(scene)
    return (*drawn, jnp.zeros((*scene.size, 3), jnp.float32)) if gradients else drawn


def _run(compiled, scene: scenes.Scene, gradients: bool, repeats: int) -> tuple[float, int | None]:
    """Median time, and the peak above what was held before the scene was made."""
    gc.collect()
    before = process_memory.resident()
    arguments = _arguments(scene, gradients)
    jax.block_until_ready(arguments)
    process_memory.resident()  # gives back what drawing the scene took
    counted = process_memory.reset_peak()
    milliseconds = median_ms(lambda: compiled(*arguments), repeats=repeats, warmup=1)
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return milliseconds, (device.memory_stats() or {}).get("peak_bytes_in_use")
    after = process_memory.peak()
    return milliseconds, after - before if counted and after is not None and before is not None else None


def _warm(scene: scenes.Scene, backend: Backend) -> None:
    """Loads what the first call of a process loads: kernels, threads, allocators."""
    small = dataclasses.replace(scene, num_gaussians=256, size=(64, 64))
    for gradients in (False, True):
        made = preflight.program(gradients=gradients, capacity=1 << 14, backend=backend)
        jax.block_until_ready(jax.jit(made)(*_arguments(small, gradients)))


def intersections(scene: scenes.Scene, backend: Backend) -> int:
    """(Gaussian, tile) pairs that the backend composites; the cpu backend leaves out tiles that ellipses miss."""
    return count_of(seen_of(scene), scene.size, backend)


def seen_of(scene: scenes.Scene) -> Any:
    """The scene's Gaussians on the image plane."""
    return _project(*scenes.draw(scene))


def count_of(seen: Any, size: tuple[int, int], backend: Backend) -> int:
    """Intersections of projected Gaussians; see `intersections`."""
    if backend != "cpu":
        return int(tiling.count_intersections(seen.means2d, seen.extents, size))
    from renderers.kernels.composite.cpu_tiles import bin_tiles

    arrays = (seen.means2d, seen.conics, seen.opacities, seen.extents, seen.depths)
    return len(bin_tiles(*(jax.device_get(array) for array in arrays), *tiling.grid(size))[1])


@jax.jit
def _project(gaussians, camera):
    opacities, scales = jax.nn.sigmoid(gaussians.opacity_logits), jnp.exp(gaussians.log_scales)
    return project(gaussians.means, gaussians.quaternions, scales, opacities, camera)
