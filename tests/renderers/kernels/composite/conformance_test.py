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

from renderers.kernels.composite.api import composite
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
