"""The rasterizer's other modes: surfels, and forward-mode derivatives by the camera's pose."""

import functools

import jax
import jax.numpy as jnp

from experiments.bench import scenes
from experiments.bench.timing import median_ms, paired_ms
from renderers.gaussians.rasterize import render
from renderers.kernels import tiling
from renderers.kernels.dispatch import choose
from renderers.kernels.surfels import shapes
from renderers.kernels.surfels.api import composite_surfels

_POSE = 6  # directions that a camera's pose has


def measure() -> dict[str, tuple[float, str]]:
    """Names to values with units, on the platform's default backend."""
    return _surfels("50k") | _surfels("full_hd") | pose_directions("100k", scenes.SCENES["100k"])


def _surfels(name: str) -> dict[str, tuple[float, str]]:
    """Compositing of surfels, binning included."""
    shape, chosen = shapes.SHAPES[name], choose(pallas=False)
    arrays = {key: jnp.asarray(array) for key, array in shapes.scene(shape).items()}
    capacity = tiling.default_capacity(shape.num_surfels, shape.size)
    inputs = tuple(
        arrays[key] for key in ("transforms", "means2d", "opacities", "features", "depths", "radii")
    )  # every array is an argument: XLA would sort constants while it compiles

    def image(*inputs):
        return composite_surfels(*inputs, size=shape.size, capacity=capacity, backend=chosen)

    def loss(*inputs):
        floats = [leaf for leaf in jax.tree.leaves(image(*inputs)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum(jnp.sum(leaf * leaf) for leaf in floats)

    forward, both = jax.jit(image), jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
    prefix = f"modes/{chosen}/surfels_{name}"
    return {
        f"{prefix}/forward": (median_ms(lambda: forward(*inputs)), "ms"),
        f"{prefix}/forward_backward": (median_ms(lambda: both(*inputs)), "ms"),
    }


def pose_directions(name: str, scene: scenes.Scene, *, repeats: int = 5) -> dict[str, tuple[float, str]]:
    """A render with its derivatives along all directions of the pose, and that over the render alone."""
    chosen = choose()
    gaussians, camera = scenes.draw(scene)
    directions = jnp.zeros((_POSE, 4, 4)).at[jnp.arange(_POSE), jnp.arange(_POSE) // 2, jnp.arange(_POSE) % 4].set(1.0)
    capacity = tiling.default_capacity(scene.num_gaussians, scene.size)

    @jax.jit
    def image(gaussians, camera):
        return render(gaussians, camera, capacity=capacity, backend=chosen).color

    @jax.jit
    def derivatives(gaussians, camera, directions):
        def moved(pose):
            there = type(camera)(pose, camera.focal, camera.principal, camera.size)
            return render(gaussians, there, capacity=capacity, backend=chosen, derivative="forward").color

        pushed = functools.partial(jax.jvp, moved, (camera.camera_from_world,))
        return jax.vmap(lambda direction: pushed((direction,)))(directions)

    _, milliseconds, ratio = paired_ms(
        lambda: image(gaussians, camera), lambda: derivatives(gaussians, camera, directions), repeats=repeats
    )
    prefix = f"modes/{chosen}/{name}/pose_{_POSE}_directions"
    return {prefix: (milliseconds, "ms"), f"{prefix}/over_forward": (ratio, "times")}
