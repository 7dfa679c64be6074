"""The parts of rendering a full-size scene (1080p, SH degree 3): projection, colours, binning, and the whole."""

from collections.abc import Callable
from typing import Any

import jax

from experiments.bench import scale, scenes
from experiments.bench.timing import median_ms
from renderers.gaussians import preflight
from renderers.gaussians.gaussians import sh_degree
from renderers.gaussians.projection import project
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.kernels import tiling
from renderers.kernels.dispatch import Backend, choose


def measure(
    names: tuple[str, ...] = ("100k", "500k"), backend: Backend | None = None, *, repeats: int = 9
) -> dict[str, tuple[float, str]]:
    """Names to values with units: `parts` of every scene named."""
    chosen = choose(backend)
    rows: dict[str, tuple[float, str]] = {}
    for name in names:
        for part, (value, unit) in parts(scenes.SCENES[name], chosen, repeats=repeats).items():
            rows[f"splats/{chosen}/{name}/{part}"] = (value, unit)
    return rows


def parts(scene: scenes.Scene, backend: Backend, *, repeats: int) -> dict[str, tuple[float, str]]:
    """Median times of projection, colours and binning, each alone, and of whole renders forward and with gradients.

    `binning` is the tile lists of `tiling`, which every backend but cpu composites from; on cpu it is the native one.
    `composite` is what the whole takes beyond the three.
    """
    gaussians, camera = scenes.draw(scene)
    seen = scale.seen_of(scene)
    count = scale.count_of(seen, scene.size, backend)
    capacity = tiling.next_capacity(count)
    target = jax.numpy.zeros((*scene.size, 3), gaussians.means.dtype)
    scene_and_camera = (gaussians, camera)

    def whole(gradients: bool, *inputs):
        made = jax.jit(preflight.program(gradients=gradients, capacity=capacity, backend=backend))
        return lambda: made(*inputs)

    calls: dict[str, Callable[[], Any]] = {
        "projection": lambda: _projection(*scene_and_camera),
        "projection_forward_backward": lambda: _projection_gradient(*scene_and_camera),
        "colours": lambda: _colours(*scene_and_camera),
        "colours_forward_backward": lambda: _colours_gradient(*scene_and_camera),
        "binning": _binning(seen, scene.size, capacity, backend),
        "forward": whole(False, *scene_and_camera),
        "forward_backward": whole(True, *scene_and_camera, target),
    }
    rows: dict[str, tuple[float, str]] = {"intersections": (count, "")}
    rows |= {name: (median_ms(call, repeats=repeats, warmup=1), "ms") for name, call in calls.items()}
    before = sum(rows[name][0] for name in ("projection", "colours", "binning"))
    rows["composite"] = (rows["forward"][0] - before, "ms")
    return rows


def _binning(seen, size, capacity: int, backend: Backend) -> Callable[[], Any]:
    if backend != "cpu":
        made = jax.jit(tiling.bin_gaussians, static_argnums=(3, 4))
        return lambda: made(seen.means2d, seen.extents, seen.depths, size, capacity)
    return lambda: scale.count_of(seen, size, backend)


def _project(gaussians, camera):
    opacities, scales = jax.nn.sigmoid(gaussians.opacity_logits), jax.numpy.exp(gaussians.log_scales)
    return project(gaussians.means, gaussians.quaternions, scales, opacities, camera)


def _colors(gaussians, camera):
    return sh_colors(gaussians.sh, gaussians.means, camera, sh_degree(gaussians))


def _gradient(function):
    def total(gaussians, camera):
        leaves = jax.tree.leaves(function(gaussians, camera))
        return sum(leaf.sum() for leaf in leaves if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating))

    return jax.jit(jax.value_and_grad(total, (0, 1)))


_projection, _projection_gradient = jax.jit(_project), _gradient(_project)
_colours, _colours_gradient = jax.jit(_colors), _gradient(_colors)
