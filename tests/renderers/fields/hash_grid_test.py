"""The hash grid as a module, and losses on the gradient of a network over it: eikonal and orientation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from renderers.fields.frequency import band_windows
from renderers.fields.hash_grid import HashGrid, HashGridConfig
from renderers.kernels.hash_encode.api import hash_encode
from tests.helpers.gradients import assert_gradients_match

CONFIG = HashGridConfig(num_levels=3, base_resolution=4, finest_resolution=20, log2_table_size=8)


def test_the_module_is_the_encoding_of_its_table():
    grid = HashGrid(CONFIG, rngs=nnx.Rngs(0))
    table = np.asarray(grid.table[...])
    assert table.shape == (CONFIG.levels.num_rows, 2) and 0.9e-4 < np.abs(table).max() <= 1e-4
    points = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, 4, 3)), jnp.float32)
    windows = band_windows(0.5, 3)
    found = grid(points, level_weights=windows)
    assert found.shape == (2, 4, grid.num_features)
    flat = hash_encode(points.reshape(-1, 3), grid.table[...], grid.levels, level_weights=windows)
    np.testing.assert_array_equal(found.reshape(8, -1), flat)
    assert not np.asarray(found[..., 4:]).any() and np.asarray(found[..., :4]).any()


def _losses(points, table, first, second, backend):
    """Eikonal and orientation losses of an SDF: softplus network over the encoding."""

    def distance(points):
        features = hash_encode(points, table, CONFIG.levels, backend=backend)
        return (jax.nn.softplus(features @ first) @ second)[:, 0]

    value, pull = jax.vjp(distance, points)
    (gradient,) = pull(jnp.ones_like(value))
    length = jnp.sqrt((gradient**2).sum(1) + 1e-12)
    facing = jnp.maximum(0.0, gradient[:, 2] / length)
    return ((length - 1) ** 2).mean() + (jax.nn.sigmoid(value) * facing**2).mean()


def _inputs():
    rng = np.random.default_rng(0)
    shapes = ((5, 3), (CONFIG.levels.num_rows, 2), (6, 4), (4, 1))
    points, *rest = (rng.normal(size=shape) for shape in shapes)
    return 0.05 + 0.9 / (1 + np.exp(-points)), 0.3 * rest[0], *rest[1:]


@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_eikonal_and_orientation_gradients_are_central_differences(backend):
    with jax.enable_x64(True):
        arrays = (jnp.asarray(array) for array in _inputs())
        assert_gradients_match(functools.partial(_losses, backend=backend), *arrays, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_the_float32_kernel_has_the_same_eikonal_gradients():
    with jax.enable_x64(True):
        arrays = [jnp.asarray(array, jnp.float32) for array in _inputs()]
        gradient = jax.grad(_losses, (0, 1, 2, 3))
        expected = gradient(*(array.astype(jnp.float64) for array in arrays), "reference")
        for one, truth in zip(gradient(*arrays, None), expected, strict=True):
            assert one.dtype == jnp.float32
            np.testing.assert_allclose(one, truth, atol=1e-4 * float(jnp.abs(truth).max()))
