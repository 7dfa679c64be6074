"""Every backend of plane sampling: against scipy's interpolation, against the reference in float64, and laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from renderers.kernels.dispatch import Unsupported
from renderers.kernels.plane_sample.api import sample_planes
from tests.helpers.gradients import assert_gradients_match

SIZE = (5, 7)
ROWS = (("reference", "float64"), ("xla", "float64"), ("xla", "float32"), ("cpu", "float32"))
rows = pytest.mark.parametrize("row", ROWS, ids="-".join)
CHANNELS = 35  # two registers and a rest


def inputs():
    """Coordinates inside, in the fading border, and far outside; away from the texels' centres, where slopes jump."""
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(2, *SIZE, CHANNELS))
    coordinates = rng.uniform(-1.5, 1.5, (2, 60, 2))
    position = ((coordinates + 1) * np.array(SIZE[::-1]) - 1) / 2
    coordinates[np.abs(position - np.round(position)) < 1e-3] += 0.01
    coordinates[:, :3] = [[1e30, 0.0], [-1e30, 0.1], [0.2, 5.0]]
    g = rng.normal(size=(2, 60, CHANNELS))
    return tuple(array.astype(np.float32) for array in (planes, coordinates, g))


def directions():
    """For planes and coordinates."""
    rng = np.random.default_rng(1)
    return tuple(rng.normal(size=array.shape).astype(np.float32) for array in inputs()[:2])


@functools.cache
def _evaluated(backend, dtype):
    """Features, gradients, and gradients of those."""
    planes, coordinates, g = inputs()

    @jax.jit
    def evaluate(planes, coordinates, g, directions):
        def gradients(planes, coordinates, g):
            return jax.vjp(functools.partial(sample_planes, backend=backend), planes, coordinates)[1](g)

        first, pull = jax.vjp(gradients, planes, coordinates, g)
        return sample_planes(planes, coordinates, backend=backend), first, pull(directions)

    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda array: jnp.asarray(array, dtype), (planes, coordinates, g, directions()))
        found = evaluate(*arrays)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
        return jax.tree.map(np.asarray, found)


@rows
def test_values_are_scipys(row):
    """`grid-constant` interpolates with zeros beyond the outer texels: zero padding."""
    planes, coordinates, _ = inputs()
    features = _evaluated(*row)[0]
    x, y = (((coordinates[..., k].astype(np.float64) + 1) * SIZE[1 - k] - 1) / 2 for k in (0, 1))
    for p in range(2):
        for channel in (0, CHANNELS - 1):
            at = np.clip([y[p], x[p]], -9, 19)
            expected = ndimage.map_coordinates(planes[p, ..., channel], at, order=1, mode="grid-constant", cval=0.0)
            np.testing.assert_allclose(features[p, :, channel], expected, atol=1e-6 if row[1] == "float64" else 1e-5)


@pytest.mark.parametrize("row", ROWS[1:], ids="-".join)
def test_derivatives_to_the_second_order(row):
    bound = 1e-12 if row[1] == "float64" else 2e-5
    found, expected = (jax.tree.leaves(_evaluated(*which)) for which in (row, ROWS[0]))
    for one, truth in zip(found, expected, strict=True):
        assert np.abs(truth).max() > 0.1 and np.abs(one - truth).max() <= bound * np.abs(truth).max()
    assert not found[2][:, :3].any(), "no gradient to coordinates far outside"


def test_gradients_are_central_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        planes, at = jnp.asarray(rng.normal(size=(1, 3, 4, 2))), jnp.asarray(rng.uniform(-1.1, 1.1, (1, 5, 2)))
        g, direction = jnp.asarray(rng.normal(size=(1, 5, 2))), jnp.asarray(rng.normal(size=(1, 5, 2)))

        def slope(planes, at, g):
            return (jax.vjp(lambda at: sample_planes(planes, at, backend="xla"), at)[1](g)[0] * direction).sum()

        assert_gradients_match(lambda planes, at: sample_planes(planes, at, backend="reference"), planes, at)
        assert_gradients_match(slope, planes, at, g)


@pytest.mark.parametrize("backend", ["reference", "xla", "cpu"])
def test_a_plane_of_its_own_coordinates_returns_them_and_zero_outside(backend):
    height, width = 6, 9
    v, u = np.meshgrid(
        (np.arange(height) + 0.5) / height * 2 - 1, (np.arange(width) + 0.5) / width * 2 - 1, indexing="ij"
    )
    planes = jnp.asarray(np.stack([u, v, np.ones_like(u)], -1)[None], jnp.float32)
    rng = np.random.default_rng(0)
    inside = rng.uniform(-1, 1, (40, 2)) * (1 - 1 / np.array([width, height]))
    found = sample_planes(planes, jnp.asarray(inside[None], jnp.float32), backend=backend)[0]
    np.testing.assert_allclose(found, np.concatenate([inside, np.ones((40, 1))], 1), atol=1e-6)
    edge = jnp.asarray([[[1.0, 0.1], [-1 - 1 / width, 0.0], [0.0, -1.0], [1.0, 1.0], [3.0, 0.0]]], jnp.float32)
    np.testing.assert_allclose(
        sample_planes(planes, edge, backend=backend)[0, :, 2], [0.5, 0.0, 0.5, 0.25, 0.0], atol=1e-6
    )


def test_the_cpu_result_does_not_depend_on_the_number_of_threads():
    pytest.importorskip("numba")
    from renderers.kernels.plane_sample import cpu

    planes, coordinates, g = inputs()
    flat, given, none = coordinates.reshape(-1, 2), g.reshape(-1, CHANNELS), np.zeros((0, 2), np.float32)
    sums = []
    for threads in (1, 2, 3, 16):
        out = np.full(planes.size, np.nan, np.float32)
        cpu.scatter(np.array([2, *SIZE, threads], np.int32), flat, none, given, out)
        sums.append(out)
    for out in sums[1:]:
        np.testing.assert_array_equal(out, sums[0])
    np.testing.assert_allclose(sums[0].reshape(planes.shape), _evaluated(*ROWS[0])[1][0], atol=1e-5)


def test_forward_mode_and_refusals():
    planes, at = jnp.ones((1, 4, 4, 2)), jnp.zeros((1, 3, 2))
    _, pushed = jax.jvp(lambda at: sample_planes(planes, at, derivative="forward"), (at,), (jnp.ones_like(at),))
    np.testing.assert_allclose(pushed, 0, atol=1e-6)
    with pytest.raises(ValueError, match="forward mode"):
        sample_planes(planes, at, derivative="forward", backend="cpu")
    with pytest.raises(Unsupported, match="use 'xla'"):
        sample_planes(planes, at, backend="pallas_gpu")
    assert sample_planes(planes, at[:, :0]).shape == (1, 0, 2)
