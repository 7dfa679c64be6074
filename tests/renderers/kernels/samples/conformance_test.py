"""Every backend of compositing at samples against numpy (values) and the reference in float64 (gradients)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels import tiling
from renderers.kernels.samples.api import composite_samples
from renderers.kernels.samples.queries import by_gaussian, by_sample
from tests.renderers.kernels.composite import scenes as lattice
from tests.renderers.kernels.samples import scenes

GRADIENTS = ("means2d", "conics", "opacities", "features", "positions", "probe")
CAPACITY = 15 * lattice.NUM  # all tiles each
K = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """A backend at a precision.

    Attributes:
      value: largest error of a value, weight or transmittance, relative to the largest feature.
      gradient: largest error of a gradient, relative to its array's largest entry.
    """

    backend: str
    dtype: str
    value: float
    gradient: float

    def __str__(self):
        return f"{self.backend}-{self.dtype}"


ROWS = (
    Row("reference", "float64", value=1e-12, gradient=1e-12),
    Row("xla", "float64", value=1e-12, gradient=1e-11),  # rounding of about 300 terms, and its cancellation
    Row("xla", "float32", value=1e-5, gradient=1e-4),
    Row("cpu", "float32", value=1e-5, gradient=1e-4),
)
rows = pytest.mark.parametrize("row", ROWS, ids=str)
SCENES = {
    "random": lattice.random_scene,
    "ties": lattice.ties,
    "saturating": lattice.saturating,
    "degenerate": lattice.degenerate,
    "one_tile": lattice.one_tile,
}


@functools.cache
def _scene(name):
    scene, at = SCENES[name](), scenes.positions()
    return scene, at, scenes.oracle(scene, at)


@functools.cache
def _compiled(backend):
    """Values, transmittance, overflow and gradients; one program for all scenes."""

    def evaluate(arrays, probe, cotangents):
        def run(means2d, conics, opacities, features, positions, probe):
            seen = composite_samples(
                means2d,
                conics,
                opacities,
                features,
                arrays["extents"],
                arrays["depths"],
                positions,
                size=scenes.SIZE,
                probe=probe,
                capacity=CAPACITY,
                backend=backend,
            )
            return (seen.values, seen.transmittance), seen.overflow

        outputs, pull, overflow = jax.vjp(run, *(arrays[name] for name in GRADIENTS[:-1]), probe, has_aux=True)
        return *outputs, overflow, dict(zip(GRADIENTS, pull(cotangents), strict=True))

    return jax.jit(evaluate)


@functools.cache
def _evaluated(backend, dtype, name):
    """Under x64, as a float32 form must not widen there either."""
    scene, at, seen = _scene(name)
    with jax.enable_x64(True):
        arrays = {key: jnp.asarray(array, dtype) for key, array in (scene | {"positions": at}).items()}
        given = tuple(jnp.asarray(c, dtype) for c in scenes.cotangents(seen))
        out = _compiled(backend)(arrays, jnp.zeros((lattice.NUM, 2), dtype), given)
        assert {leaf.dtype for leaf in jax.tree.leaves((out[:2], out[3]))} == {jnp.dtype(dtype)}
        return jax.tree.map(np.asarray, out)


@pytest.mark.parametrize("name", SCENES)
@rows
def test_values_and_gradients(row, name):
    scene, at, seen = _scene(name)
    safe = scenes.safe(seen)
    assert safe.mean() > 0.7, "the scene itself must not hide the samples"
    values, transmittance, overflow, gradients = _evaluated(row.backend, row.dtype, name)
    assert overflow == 0
    assert np.abs(values - seen.image)[safe].max() <= row.value * max(1.0, np.abs(scene["features"]).max())
    assert np.abs(transmittance - seen.transmittance)[safe].max() <= row.value
    outside = ~scenes.inside(at)
    assert not values[outside].any() and (transmittance[outside] == 1).all()
    expected = _evaluated("reference", "float64", name)[3]
    for array in GRADIENTS:
        assert np.isfinite(gradients[array]).all(), array
        scale = np.abs(expected[array]).max()
        assert scale > 0 and np.abs(gradients[array] - expected[array]).max() <= row.gradient * scale, array
    assert not gradients["positions"][outside].any()


@functools.cache
def _queries(backend, by_weight):
    def ask(arrays, safe_pixels, importance, safe):
        inputs = [arrays[name] for name in ("means2d", "conics", "opacities", "extents", "depths")]
        options = dict(size=scenes.SIZE, capacity=CAPACITY, backend=backend)
        kept = by_sample(*inputs, arrays["positions"], k=K, by_weight=by_weight, drawn=safe, **options)
        if by_weight:
            return kept, by_gaussian(*inputs, mask=safe_pixels, importance=importance, **options)
        return kept, None

    return jax.jit(ask)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("row", [row for row in ROWS if row != ROWS[1]], ids=str)
def test_queries(row, name):
    """Ids, counts and weights against the dense weights of numpy, where rounding changes no branch."""
    scene, at, seen = _scene(name)
    everywhere = lattice.brute_force.blend(scene, scenes.SIZE)
    safe, safe_pixels = scenes.safe(seen), scenes.safe(everywhere)
    importance = np.random.default_rng(3).uniform(0, 2, scenes.SIZE)
    with jax.enable_x64(True):
        arrays = {key: jnp.asarray(array, row.dtype) for key, array in (scene | {"positions": at}).items()}
        given = jnp.asarray(safe_pixels), jnp.asarray(importance, row.dtype), jnp.asarray(safe)
        by_weight, of_gaussians = jax.tree.map(np.asarray, _queries(row.backend, True)(arrays, *given))
        by_depth = jax.tree.map(np.asarray, _queries(row.backend, False)(arrays, *given)[0])

    weights = everywhere.weights * safe_pixels
    total, largest, pixels, overflow = of_gaussians
    assert overflow == 0
    np.testing.assert_array_equal(pixels, (weights > 0).sum((1, 2)))
    np.testing.assert_allclose(largest, (weights * importance).max((1, 2)), atol=row.value)
    expected = (weights * importance).sum((1, 2))
    np.testing.assert_allclose(total, expected, atol=row.value * max(1.0, expected.max()))

    weights = (seen.weights * safe).T
    for (count, ids, kept, overflow), order in ((by_weight, "weight"), (by_depth, "depth")):
        assert overflow == 0
        np.testing.assert_array_equal(count, (weights > 0).sum(1))
        np.testing.assert_array_equal((ids >= 0).sum(1), np.minimum(count, K))
        np.testing.assert_array_equal(ids >= 0, kept > 0)
        found = np.where(ids >= 0, np.take_along_axis(weights, np.maximum(ids, 0), 1), 0)
        np.testing.assert_allclose(kept, found, atol=row.value, err_msg="the weight is not that Gaussian's")
        for i in range(len(at)):
            assert len(set(ids[i][ids[i] >= 0])) == (ids[i] >= 0).sum(), "one is named twice"
        if order == "weight":
            np.testing.assert_allclose(kept, -np.sort(-weights, axis=1)[:, :K], atol=row.value)
        else:
            near_to_far = np.argsort(scene["depths"], kind="stable")
            for i in range(len(at)):
                blended = [j for j in near_to_far if weights[i, j] > 0][:K]
                assert list(ids[i][ids[i] >= 0]) == blended


@pytest.mark.parametrize("name", ["random", "saturating"])
def test_the_references_gradients_are_central_differences_of_numpy(name):
    scene, at, seen = _scene(name)
    g_values, g_transmittance = (c.astype(np.float64) for c in scenes.cotangents(seen))
    gradients = _evaluated("reference", "float64", name)[3]
    arrays = {key: array.astype(np.float64) for key, array in (scene | {"positions": at}).items()}

    def by_sample_loss(array, index, step):
        moved = dict(arrays, **{array: arrays[array].copy()})
        moved[array][index] += step
        seen = scenes.oracle(moved, moved.pop("positions"))
        return (seen.image * g_values).sum(-1) + seen.transmittance * g_transmittance

    rng = np.random.default_rng(0)
    touched = np.flatnonzero(np.abs(gradients["probe"]).min(1) > 1e-3)
    held = np.flatnonzero(np.abs(gradients["positions"]).min(1) > 1e-3)
    for array in GRADIENTS[:-1]:
        for i in rng.choice(held if array == "positions" else touched, 6, replace=False):
            index = (i, rng.integers(arrays[array].shape[1])) if arrays[array].ndim == 2 else (i,)
            slope = (by_sample_loss(array, index, 1e-6) - by_sample_loss(array, index, -1e-6)) / 2e-6
            scale = np.abs(gradients[array]).max()
            assert abs(gradients[array][index] - slope.sum()) < 1e-7 * scale, (array, index)
            if array == "means2d":
                assert abs(gradients["probe"][index] - np.abs(slope).sum()) < 1e-7 * np.abs(gradients["probe"]).max()


@pytest.mark.slow
def test_outside_a_trace_the_capacity_is_counted():
    scene, at, _ = _scene("random")
    scene, at = {name: jnp.asarray(array) for name, array in scene.items()}, jnp.asarray(at)
    needed = tiling.count_intersections(scene["means2d"], scene["extents"], scenes.SIZE)
    assert needed > tiling.next_capacity(1), "or counting could not be told from a constant"
    assert composite_samples(*scene.values(), at, size=scenes.SIZE, backend="xla").overflow == 0
    inputs = [scene[name] for name in ("means2d", "conics", "opacities", "extents", "depths")]
    assert by_gaussian(*inputs, size=scenes.SIZE, backend="xla")[3] == 0
