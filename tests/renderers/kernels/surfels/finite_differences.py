"""Gradients of surfel compositing by central differences of the numpy oracle, and each backward pass run alone.

Each `run_*` takes the module under test as its argument, so that a broken copy can be passed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from renderers.kernels import tiling
from renderers.kernels.surfels.api import _boxes
from renderers.kernels.surfels.reference import tile_rectangles
from tests.renderers.kernels.surfels import brute_force, scenes

SIZE = (20, 37)  # 2 x 3 tiles
NAMES = ("transforms", "means2d", "opacities", "features", "depths", "probe")
_STEP = 1e-6
_CHANNELS = 2


@functools.cache
def small_scene() -> dict[str, np.ndarray]:
    """Discs over all tiles, some below the filter's size, opacities from faint to clamped, a stack that stops early."""
    rng = np.random.default_rng(5)
    n = 14
    pixels, opacities = rng.uniform(0, 1, (n, 2)) * np.asarray(SIZE)[::-1], rng.uniform(0.1, 0.9, n)
    pixels[:4], opacities[:4] = [[9.3, 8.8], [10.1, 9.4], [9.7, 8.1], [9.9, 9.0]], [1.0, 0.98, 0.95, 0.9]
    scales = rng.uniform(1.5, 6.0, (n, 2))
    scales[5:11] = rng.uniform(0.2, 0.8, (6, 2))
    return scenes.scene_of(
        pixels=pixels,
        scales=scales,
        frames=np.linalg.qr(rng.normal(size=(n, 3, 3)))[0],
        opacities=opacities,
        features=rng.normal(0.5, 1.0, (n, _CHANNELS)),
        depths=(rng.permutation(n) + 3.0) / 3,
        size=SIZE,
    )


@functools.cache
def cotangents() -> tuple[np.ndarray, np.ndarray]:
    """Of image and planes, zero where a branch is near."""
    image, planes, safe = scenes.safe_cotangents(small_scene(), SIZE)
    assert safe.mean() > 0.85
    return image, planes


@functools.cache
def expected_gradients() -> dict[str, np.ndarray]:
    """By central differences; "probe" is the sum over pixels of the means' absolute ones."""
    scene = {name: np.asarray(array, np.float64) for name, array in small_scene().items()}
    g_image, g_planes = cotangents()

    def loss_by_pixel(name, index, step):
        moved = dict(scene, **{name: scene[name].copy()})
        moved[name][index] += step
        seen = brute_force.blend(moved, SIZE)
        return (seen.image * g_image).sum(-1) + (seen.planes * g_planes).sum(-1)

    gradients = {name: np.zeros_like(scene[name]) for name in NAMES[:-1]}
    gradients["probe"] = np.zeros_like(scene["means2d"])
    for name in NAMES[:-1]:
        for index in np.ndindex(scene[name].shape):
            # columns of M are as long as the surfel is large: steps that move the image alike
            step = _STEP
            if name == "transforms":
                step *= np.abs(
                    scene[name][index[0], 2, 2] if index[2] == 2 else scene[name][index[0], :2, index[2]]
                ).max()
            slope = (loss_by_pixel(name, index, step) - loss_by_pixel(name, index, -step)) / (2 * step)
            gradients[name][index] = slope.sum()
            if name == "means2d":
                gradients["probe"][index] = np.abs(slope).sum()
    return gradients


@functools.cache
def _outputs():
    seen = brute_force.blend(small_scene(), SIZE)
    return seen.image, seen.planes


def _arguments(dtype):
    """Differentiable inputs, and the rectangles."""
    scene = small_scene()
    inputs = [jnp.asarray(scene[name], dtype) for name in NAMES[:-1]]
    return inputs, tile_rectangles(inputs[1], jnp.asarray(scene["radii"]), SIZE)


def _pair(dtype):
    return tuple(jnp.asarray(c, dtype) for c in cotangents())


def run_reference(module) -> dict[str, np.ndarray]:
    """Reverse mode of a module's `composite`, float64."""
    with jax.enable_x64(True):
        inputs, rectangles = _arguments(jnp.float64)

        def run(transforms, means2d, opacities, features, depths, probe):
            return module.composite(transforms, means2d, opacities, features, probe, depths, rectangles, None, SIZE)

        pull = jax.jit(lambda *a: jax.vjp(run, *a)[1](_pair(jnp.float64)))
        return dict(zip(NAMES, map(np.asarray, pull(*inputs, jnp.zeros_like(inputs[1]))), strict=True))


def run_xla(module) -> dict[str, np.ndarray]:
    """A module's `backward`, float64, on lists made by the real tiling."""
    with jax.enable_x64(True):
        inputs, rectangles = _arguments(jnp.float64)
        lists = jax.jit(tiling.bin_gaussians, static_argnums=(3, 4))(*_boxes(rectangles), inputs[4], SIZE, 128)
        outputs = tuple(jnp.asarray(v, jnp.float64) for v in _outputs())
        run = jax.jit(lambda *a: module.backward(*a, lists, outputs, _pair(jnp.float64), None, SIZE))
        return dict(zip(NAMES, map(np.asarray, run(*inputs)), strict=True))


def run_cpu(module) -> dict[str, np.ndarray]:
    """A module's `backward`, float32, called from Python."""
    inputs, rectangles = _arguments(jnp.float32)
    n = len(inputs[0])
    arrays = [np.asarray(v) for v in (inputs[0].reshape(n, 9), *inputs[1:], rectangles)]
    out = np.full((n, module.GEOMETRY + _CHANNELS), np.nan, np.float32)
    outputs = [np.ascontiguousarray(v, np.float32) for v in _outputs()]
    module.backward(*arrays, np.zeros((0, 0), np.float32), *outputs, *cotangents(), out)
    transforms, mean, opacity, depth, probe, feature = np.split(out, (9, 11, 12, 13, 15), 1)
    found = (transforms.reshape(n, 3, 3), mean, opacity[:, 0], feature, depth[:, 0], probe)
    return dict(zip(NAMES, found, strict=True))


def largest_error(found: dict[str, np.ndarray]) -> float:
    """Worst difference from `expected_gradients`, relative to each column's largest entry."""
    worst = 0.0
    lengths = np.linalg.norm(small_scene()["transforms"].astype(np.float64), axis=1, keepdims=True)
    for name, expected in expected_gradients().items():
        scale = lengths if name == "transforms" else 1.0
        error = np.abs((found[name] - expected) * scale).max(0) / np.abs(expected * scale).max(0)
        worst = max(worst, float(np.where(np.isnan(error), np.inf, error).max()))
    return worst
