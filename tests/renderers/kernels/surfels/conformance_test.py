"""Every backend of surfel compositing against the reference: images, all planes and all gradients, on hostile scenes.

A new backend joins by a row in ROWS. The truth is the reference in float64, which `reference_test.py` holds against
numpy.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.surfels import api, shapes
from renderers.kernels.surfels.api import composite_surfels
from tests.helpers.close import assert_close
from tests.renderers.kernels.surfels import scenes

GRADIENTS = ("transforms", "means2d", "opacities", "features", "depths", "probe")
PLANES = ("transmittance", "depth", "distortion", "median_depth")


@dataclasses.dataclass(frozen=True)
class Row:
    """A backend at a precision.

    Attributes:
      image: largest error of images, relative to the largest feature or depth. reliability.md, R13: 1e-5.
      gradient: largest error of a gradient, relative to its array's largest entry. R13: 1e-4.
    """

    backend: str
    dtype: str
    image: float
    gradient: float

    def __str__(self):
        return f"{self.backend}-{self.dtype}"


ROWS = (
    Row("xla", "float64", image=1e-12, gradient=1e-11),  # rounding of about 200 terms, and its cancellation
    Row("xla", "float32", image=1e-5, gradient=1e-4),
    Row("cpu", "float32", image=1e-5, gradient=1e-4),
)
rows = pytest.mark.parametrize("row", ROWS, ids=str)


@functools.cache
def _compiled(backend, size, capacity):
    """Image, planes, overflow and the gradients; one program for all scenes of the same shapes."""

    def evaluate(arrays, probe, cotangents):
        def run(transforms, means2d, opacities, features, depths, probe):
            blended = composite_surfels(
                transforms,
                means2d,
                opacities,
                features,
                depths,
                arrays["radii"],
                size=size,
                probe=probe,
                capacity=capacity,
                backend=backend,
            )
            return (blended.image, jnp.stack([getattr(blended, name) for name in PLANES], -1)), blended.overflow

        inputs = tuple(arrays[name] for name in GRADIENTS[:-1])
        outputs, pull, overflow = jax.vjp(run, *inputs, probe, has_aux=True)
        return *outputs, overflow, dict(zip(GRADIENTS, pull(cotangents), strict=True))

    return jax.jit(evaluate)


def evaluate(backend, dtype, scene, cotangents, size=scenes.SIZE):
    """Run a backend under x64, as its float32 form must not widen there either."""
    n, (height, width) = len(scene["depths"]), size
    capacity = None if backend == "cpu" else n * (-(-height // 16)) * (-(-width // 16))
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(array, None if name == "radii" else dtype) for name, array in scene.items()}
        given = tuple(jnp.asarray(c, dtype) for c in cotangents)
        out = _compiled(backend, size, capacity)(arrays, jnp.zeros((n, 2), dtype), given)
        assert {leaf.dtype for leaf in jax.tree.leaves((out[:2], out[3]))} == {jnp.dtype(dtype)}
        return jax.tree.map(np.asarray, out)


_TRUTH = {}


def truth(name, scene, cotangents, size=scenes.SIZE):
    """The reference in float64, once a scene."""
    if name not in _TRUTH:
        _TRUTH[name] = evaluate("reference", "float64", scene, cotangents, size)
    return _TRUTH[name]


def in_units_of_the_surfel(gradient, scene):
    """Gradients of M by the length of its columns: of a tiny surfel they would else dwarf all others."""
    lengths = np.linalg.norm(scene["transforms"].astype(np.float64), axis=1, keepdims=True)
    return gradient * lengths


def assert_agrees(row, actual, expected, safe, scene):
    """Images where rounding cannot change a branch, gradients everywhere (their cotangents are zero elsewhere)."""
    image, planes, overflow, gradients = actual
    assert overflow == 0
    assert np.isfinite(image).all() and np.isfinite(planes).all()
    scale = max(1.0, np.abs(scene["features"]).max())
    assert np.abs(image - expected[0])[safe].max() <= row.image * scale
    for k, name in enumerate(PLANES):
        scale = 1.0 if name == "transmittance" else np.abs(scene["depths"]).max()
        error = np.abs(planes[..., k] - expected[1][..., k])[safe].max()
        assert error <= row.image * scale, f"{name}: {error}"
    for name in GRADIENTS:
        found, wanted = gradients[name], expected[3][name]
        assert np.isfinite(found).all(), name
        if name == "transforms":
            found, wanted = in_units_of_the_surfel(found, scene), in_units_of_the_surfel(wanted, scene)
        error = np.abs(found - wanted).max()
        assert error <= row.gradient * np.abs(wanted).max(), f"{name}: {error / np.abs(wanted).max()}"


@pytest.mark.parametrize("name", scenes.SCENES)
@rows
def test_agrees_with_the_reference(row, name):
    scene = scenes.SCENES[name]()
    *cotangents, safe = scenes.safe_cotangents(scene)
    assert safe.mean() > 0.7, "the scene itself must not hide the image"
    expected = truth(name, scene, cotangents)
    assert_agrees(row, evaluate(row.backend, row.dtype, scene, cotangents), expected, safe, scene)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "channels"), [(ROWS[1], 16), (ROWS[2], 16), (ROWS[2], 1)], ids=str)
def test_any_number_of_channels(row, channels):
    size = (17, 33)  # one pixel more than a tile, both ways
    scene = scenes.random_scene(seed=6, channels=channels, n=80, size=size)
    *cotangents, safe = scenes.safe_cotangents(scene, size)
    expected = truth(f"channels {channels}", scene, cotangents, size)
    assert_agrees(row, evaluate(row.backend, row.dtype, scene, cotangents, size), expected, safe, scene)


@pytest.mark.slow
@pytest.mark.parametrize("name", shapes.SHAPES)
def test_named_shapes_agree_between_backends(name):
    """Real sizes, cpu against xla; pixels where either could take another branch are a small, unbiased share."""
    shape = shapes.SHAPES[name]
    arrays = {key: jnp.asarray(array) for key, array in shapes.scene(shape).items()}
    found = {}
    for backend in ("cpu", "xla"):
        blended = jax.block_until_ready(composite_surfels(*arrays.values(), size=shape.size, backend=backend))
        found[backend] = np.asarray(blended.image), np.asarray(blended.transmittance), np.asarray(blended.distortion)
        assert blended.overflow == 0
    for ours, theirs in zip(found["cpu"], found["xla"], strict=True):
        assert_close(ours, theirs, atol=5e-5, quantile=0.998, worst=1e5)
        assert abs(float((ours - theirs).mean())) < 1e-6


@pytest.mark.slow
def test_outside_a_trace_the_capacity_is_counted():
    scene = {name: jnp.asarray(array) for name, array in scenes.random_scene(n=400).items()}
    rectangles = api.tile_rectangles(scene["means2d"], scene["radii"], scenes.SIZE)
    needed = int(api.tile_count(rectangles))
    assert needed > 1024, "or counting could not be told from a constant"
    assert composite_surfels(*scene.values(), size=scenes.SIZE, backend="xla").overflow == 0


def test_what_does_not_fit_is_counted():
    scene = {name: jnp.asarray(array) for name, array in scenes.random_scene(n=20).items()}
    needed = int(api.tile_count(api.tile_rectangles(scene["means2d"], scene["radii"], scenes.SIZE)))
    blend = jax.jit(lambda *scene: composite_surfels(*scene, size=scenes.SIZE, capacity=7, backend="xla"))
    assert blend(*scene.values()).overflow == needed - 7 > 0
