"""Gradients of compositing by central differences of the numpy oracle, and each hand-written backward pass run alone.

`backward_test.py` compares the two; `tests/mutation/flip_vjp_signs.py` does the same with backward passes that it has
broken. Each `run_*` takes the module under test as its argument, so that a broken copy can be passed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from renderers.kernels import tiling
from tests.renderers.kernels.composite import brute_force, scenes

SIZE = (20, 37)  # 2 x 3 tiles
NAMES = ("means2d", "conics", "opacities", "features", "probe")
_STEP = 1e-6


@functools.cache
def small_scene() -> dict[str, np.ndarray]:
    """Fourteen ellipses over all tiles, oblique, of opacities from faint to clamped, two stacks that stop early."""
    rng = np.random.default_rng(5)
    n = 14
    means = rng.uniform(0, 1, (n, 2)) * np.asarray(SIZE)[::-1]
    opacities = rng.uniform(0.1, 0.9, n)
    means[:4], opacities[:4] = [[9.3, 8.8], [10.1, 9.4], [9.7, 8.1], [9.9, 9.0]], [1.0, 0.98, 0.95, 0.9]
    return scenes.scene_of(
        means2d=means,
        scales=rng.uniform(1.5, 6.0, (n, 2)),
        angles=rng.uniform(0, np.pi, n),
        opacities=opacities,
        features=rng.normal(0.5, 1.0, (n, 2)),
        depths=rng.permutation(n) + 1.0,
    )


@functools.cache
def cotangents() -> tuple[np.ndarray, np.ndarray]:
    """Of image and transmittance, zero where a branch is near."""
    image, transmittance, safe = scenes.safe_cotangents(small_scene(), SIZE)
    assert safe.mean() > 0.9
    return image, transmittance


@functools.cache
def expected_gradients() -> dict[str, np.ndarray]:
    """By central differences, 1e-8 of the largest entry; "probe" is the sum over pixels of the means' absolute ones."""
    scene = {name: array.astype(np.float64) for name, array in small_scene().items()}
    g_image, g_transmittance = cotangents()

    def loss_by_pixel(name, index, step):
        moved = dict(scene, **{name: scene[name].copy()})
        moved[name][index] += step
        seen = brute_force.blend(moved, SIZE)
        return (seen.image * g_image).sum(-1) + seen.transmittance * g_transmittance

    gradients = {name: np.zeros_like(scene[name]) for name in NAMES[:-1]}
    gradients["probe"] = np.zeros_like(scene["means2d"])
    for name in NAMES[:-1]:
        for index in np.ndindex(scene[name].shape):
            slope = (loss_by_pixel(name, index, _STEP) - loss_by_pixel(name, index, -_STEP)) / (2 * _STEP)
            gradients[name][index] = slope.sum()
            if name == "means2d":
                gradients["probe"][index] = np.abs(slope).sum()
    return gradients


@functools.cache
def _outputs():
    seen = brute_force.blend(small_scene(), SIZE)
    return seen.image, seen.transmittance


def _arguments(dtype):
    scene = small_scene()
    return [jnp.asarray(scene[name], dtype) for name in NAMES[:-1]]


def run_reference(module) -> dict[str, np.ndarray]:
    """Reverse mode of a module's `composite`, float64."""
    scene = small_scene()
    with jax.enable_x64(True):
        arguments = [*_arguments(jnp.float64), jnp.zeros(scene["means2d"].shape)]
        depths = jnp.asarray(scene["depths"], jnp.float64)

        def blend(*a):
            return module.composite(*a, depths, None, SIZE)

        pull = jax.jit(lambda *a: jax.vjp(blend, *a)[1](_pair(jnp.float64)))
        return dict(zip(NAMES, map(np.asarray, pull(*arguments)), strict=True))


def run_xla(module) -> dict[str, np.ndarray]:
    """A module's `backward`, float64, on lists made by the real tiling."""
    scene = small_scene()
    with jax.enable_x64(True):
        boxes = [jnp.asarray(scene[name], jnp.float64) for name in ("means2d", "extents", "depths")]
        lists = jax.jit(tiling.bin_gaussians, static_argnums=(3, 4))(*boxes, SIZE, 128)
        outputs = tuple(jnp.asarray(v, jnp.float64) for v in _outputs())
        run = jax.jit(lambda *a: module.backward(*a, lists, outputs, _pair(jnp.float64), None, SIZE))
        return dict(zip(NAMES, map(np.asarray, run(*_arguments(jnp.float64))), strict=True))


def run_pallas(module) -> dict[str, np.ndarray]:
    """A module's `backward`, float32, interpreted on lists made by the real tiling."""
    scene = small_scene()
    boxes = [jnp.asarray(scene[name]) for name in ("means2d", "extents", "depths")]
    lists = jax.jit(tiling.bin_gaussians, static_argnums=(3, 4))(*boxes, SIZE, 128)
    outputs = tuple(jnp.asarray(v, jnp.float32) for v in _outputs())
    run = jax.jit(lambda *a: module.backward(*a, lists, outputs, _pair(jnp.float32), None, SIZE))
    return dict(zip(NAMES, map(np.asarray, run(*_arguments(jnp.float32))), strict=True))


def run_cpu(module) -> dict[str, np.ndarray]:
    """A module's `backward`, float32, called from Python."""
    scene = small_scene()
    image, transmittance = (np.ascontiguousarray(v, np.float32) for v in _outputs())
    channels = image.shape[2]
    out = np.full((len(scene["depths"]), module.GEOMETRY + channels), np.nan, np.float32)
    arguments = [scene[name] for name in ("means2d", "conics", "opacities", "features", "extents", "depths")]
    module.backward(*arguments, np.zeros((0, 0), np.float32), image, transmittance, *cotangents(), out)
    columns = np.split(out, (2, 5, 6, 8), 1)
    mean, conic, opacity, probe, feature = columns
    return dict(zip(NAMES, (mean, conic, opacity[:, 0], feature, probe), strict=True))


def _pair(dtype):
    return tuple(jnp.asarray(c, dtype) for c in cotangents())


def largest_error(found: dict[str, np.ndarray]) -> float:
    """Worst difference from `expected_gradients`, relative to each column's largest entry."""
    worst = 0.0
    for name, expected in expected_gradients().items():
        scale = np.abs(expected).max(0)
        error = np.abs(found[name] - expected).max(0) / scale
        worst = max(worst, float(np.where(np.isnan(error), np.inf, error).max()))
    return worst
