"""Every backend of compositing against the reference: images, transmittance and all gradients, on hostile scenes.

A new backend joins by a row in ROWS. The truth is the reference
in float64, which `reference_test.py` holds against numpy.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels import tiling
from renderers.kernels.composite import shapes
from renderers.kernels.composite.api import composite
from tests.helpers.close import assert_close
from tests.renderers.kernels.composite import scenes

GRADIENTS = ("means2d", "conics", "opacities", "features", "probe")


@dataclasses.dataclass(frozen=True)
class Row:
    """A backend at a precision.

    Attributes:
      image: largest error of image and transmittance, relative to the largest feature. reliability.md, R13: 1e-5.
      gradient: largest error of a gradient, relative to its array's largest entry. R13: 1e-4.
    """

    backend: str
    dtype: str
    image: float
    gradient: float

    def __str__(self):
        return f"{self.backend}-{self.dtype}"


ROWS = (
    Row("xla", "float64", image=1e-13, gradient=1e-11),  # rounding of about 300 terms, and its cancellation
    Row("xla", "float32", image=1e-5, gradient=1e-4),
    Row("cpu", "float32", image=1e-5, gradient=1e-4),
    Row("pallas_gpu", "float32", image=1e-5, gradient=1e-4),
    Row("pallas_tpu", "float32", image=1e-5, gradient=1e-4),
)
rows = pytest.mark.parametrize("row", ROWS, ids=str)


@functools.cache
def _compiled(backend, size, capacity):
    """Image, transmittance, overflow and the gradients; one program for all scenes of the same shapes."""

    def evaluate(arrays, probe, cotangents):
        def run(means2d, conics, opacities, features, probe):
            blended = composite(
                means2d,
                conics,
                opacities,
                features,
                arrays["extents"],
                arrays["depths"],
                size=size,
                probe=probe,
                capacity=capacity,
                backend=backend,
            )
            return (blended.image, blended.transmittance), blended.overflow

        inputs = tuple(arrays[name] for name in GRADIENTS[:-1])
        outputs, pull, overflow = jax.vjp(run, *inputs, probe, has_aux=True)
        return *outputs, overflow, dict(zip(GRADIENTS, pull(cotangents), strict=True))

    return jax.jit(evaluate)


def evaluate(backend, dtype, scene, cotangents, size=scenes.SIZE):
    """Run a backend under x64, as its float32 form must not widen there either."""
    n, (height, width) = len(scene["depths"]), size
    capacity = None if backend == "cpu" else n * (-(-height // 16)) * (-(-width // 16))
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(array, dtype) for name, array in scene.items()}
        given = tuple(jnp.asarray(c, dtype) for c in cotangents)
        out = _compiled(backend, size, capacity)(arrays, jnp.zeros((n, 2), dtype), given)
        assert {leaf.dtype for leaf in jax.tree.leaves((out[:2], out[3]))} == {jnp.dtype(dtype)}
        return jax.tree.map(np.asarray, out)


_TRUTH = {}


def truth(name, scene, cotangents):
    """The reference in float64, once a scene."""
    if name not in _TRUTH:
        _TRUTH[name] = evaluate("reference", "float64", scene, cotangents)
    return _TRUTH[name]


def assert_agrees(row, actual, expected, safe, features):
    """Images where rounding cannot change a branch, gradients everywhere (their cotangents are zero elsewhere)."""
    image, transmittance, overflow, gradients = actual
    scale = max(1.0, np.abs(features).max())
    assert overflow == 0
    assert np.abs(image - expected[0])[safe].max() <= row.image * scale
    assert np.abs(transmittance - expected[1])[safe].max() <= row.image
    for name in GRADIENTS:
        error = np.abs(gradients[name] - expected[3][name]).max()
        assert np.isfinite(gradients[name]).all(), name
        assert error <= row.gradient * np.abs(expected[3][name]).max(), f"{name}: {error}"


SCENES = {
    "random": scenes.random_scene,
    "ties": scenes.ties,
    "saturating": scenes.saturating,
    "degenerate": scenes.degenerate,
    "one_tile": scenes.one_tile,
}


@pytest.mark.parametrize("name", SCENES)
@rows
def test_agrees_with_the_reference(row, name):
    scene = SCENES[name]()
    *cotangents, safe = scenes.safe_cotangents(scene)
    assert safe.mean() > 0.7, "the scene itself must not hide the image"
    expected = truth(name, scene, cotangents)
    assert_agrees(row, evaluate(row.backend, row.dtype, scene, cotangents), expected, safe, scene["features"])


@pytest.mark.slow
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 4, 16])
@pytest.mark.parametrize("row", [row for row in ROWS if row.dtype == "float32"], ids=str)
def test_any_number_of_channels(row, channels):
    size = (17, 33)  # one pixel more than a tile, both ways
    scene = scenes.random_scene(seed=6, channels=channels, n=300, size=size)
    *cotangents, safe = scenes.safe_cotangents(scene, size)
    name = f"channels {channels}"
    if name not in _TRUTH:
        _TRUTH[name] = evaluate("reference", "float64", scene, cotangents, size)
    assert_agrees(row, evaluate(row.backend, row.dtype, scene, cotangents, size), _TRUTH[name], safe, scene["features"])


@pytest.mark.slow
@rows
def test_ten_thousand_in_one_tile(row):
    size = (48, 48)
    scene = scenes.one_tile(n=10_000)
    scene["opacities"] *= 0.25  # or the pixels would stop after a few hundred
    *cotangents, safe = scenes.safe_cotangents(scene, size)
    name = "ten thousand"
    if name not in _TRUTH:
        _TRUTH[name] = evaluate("reference", "float64", scene, cotangents, size)
    assert_agrees(row, evaluate(row.backend, row.dtype, scene, cotangents, size), _TRUTH[name], safe, scene["features"])


@pytest.mark.slow
@pytest.mark.parametrize("name", shapes.SHAPES)
def test_named_shapes_agree_between_backends(name):
    """Real sizes, cpu against xla; pixels where either could take another branch are a small, unbiased share."""
    shape = shapes.SHAPES[name]
    arrays = {key: jnp.asarray(array) for key, array in shapes.scene(shape).items()}
    found = {}
    for backend in ("cpu", "xla"):
        blended = jax.block_until_ready(composite(*arrays.values(), size=shape.size, backend=backend))
        found[backend] = np.asarray(blended.image), np.asarray(blended.transmittance)
        assert blended.overflow == 0
    for ours, theirs in zip(found["cpu"], found["xla"], strict=True):
        assert_close(ours, theirs, atol=2e-5, quantile=0.999, worst=1e3)
        assert abs(float((ours - theirs).mean())) < 1e-6


def test_the_yardstick_has_the_size_that_the_records_state():
    arrays = shapes.scene(shapes.SCENE_50K)
    count = tiling.count_intersections(
        jnp.asarray(arrays["means2d"]), jnp.asarray(arrays["extents"]), shapes.SCENE_50K.size
    )
    assert len(arrays["depths"]) == 50_000 and abs(int(count) - 204_000) < 1_000


def test_outside_a_trace_the_capacity_is_counted():
    scene = {name: jnp.asarray(array) for name, array in scenes.random_scene().items()}
    needed = int(tiling.count_intersections(scene["means2d"], scene["extents"], scenes.SIZE))
    assert needed > tiling.next_capacity(1), "or counting could not be told from a constant"
    assert composite(*scene.values(), size=scenes.SIZE, backend="xla").overflow == 0
