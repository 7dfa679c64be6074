"""Signed-distance fields: spheres at the start, over any features; gradients; the learned sharpness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from renderers.fields.hash_grid import HashGrid, HashGridConfig
from renderers.fields.heads import DirectionHarmonics
from renderers.fields.nerf import Domain
from renderers.fields.normals import eikonal_loss
from renderers.fields.sdf import LaplaceScale, SdfField, Sharpness, SphereMlp, even_directions
from tests.helpers.records import assert_record

LOW, HIGH, RADIUS = (-2.0, -1.0, -1.0), (2.0, 3.0, 1.0), 0.8
MIDDLE = np.array([0.0, 1.0, 0.0], np.float32)


class Waves(nnx.Module):
    """Features that are far from zero everywhere."""

    num_features = 6

    def __call__(self, points):
        return jnp.concatenate([jnp.sin(9 * points), jnp.cos(7 * points)], -1)


def hash_grid():
    config = HashGridConfig(num_levels=4, base_resolution=4, finest_resolution=32, log2_table_size=8)
    return HashGrid(config, backend="xla", rngs=nnx.Rngs(0))


def around(count=500, reach=1.5):
    return jnp.asarray(np.random.default_rng(0).uniform(-reach, reach, (count, 3)).astype(np.float32) + MIDDLE)


@pytest.mark.parametrize("encoding", [pytest.param(Waves, marks=pytest.mark.slow), hash_grid], ids=["waves", "hash"])
def test_it_starts_as_the_distance_to_a_sphere(encoding):
    field = SdfField(encoding(), domain=Domain(LOW, HIGH), radius=RADIUS, rngs=nnx.Rngs(0))
    points = around()
    said = jax.jit(lambda p: field(p, p))(points)
    assert_record(said)
    from_middle = np.asarray(points) - MIDDLE
    truth = np.linalg.norm(from_middle, axis=-1) - RADIUS
    error = np.abs(said.distance - truth)
    assert error.mean() < 0.03 * RADIUS and error.max() < 0.15 * RADIUS
    away = np.abs(truth) < 0.6
    outward = from_middle / np.linalg.norm(from_middle, axis=-1, keepdims=True)
    assert (np.sum(np.asarray(said.gradient) * outward, -1)[away] > 0.8).all()
    assert eikonal_loss(said.gradient)[away].mean() < 0.01
    assert ((said.color > -0.01) & (said.color < 1.01)).all()


def test_narrow_and_deep_networks_are_round_as_well():
    for width, depth in ((64, 1), (64, 3)):
        network = SphereMlp(2, 1, width=width, depth=depth, radius=0.5, rngs=nnx.Rngs(1))
        for radius in (0.25, 0.5, 1.0):
            shell = network(even_directions(100) * radius, jnp.ones((100, 2)))[:, 0]
            assert np.abs(shell - (radius - 0.5)).mean() < 0.04
    with pytest.raises(ValueError, match="hidden layer"):
        SphereMlp(0, 0, depth=0, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_the_gradient_is_the_difference_quotient():
    field = SdfField(Waves(), direction_encoding=DirectionHarmonics(1), width=32, rngs=nnx.Rngs(0))
    kernel = field.trunk.first.kernel
    kernel[...] = kernel[...] + 0.1  # features take part
    with jax.enable_x64(True):
        graph, state = nnx.split(field)
        field = nnx.merge(graph, jax.tree.map(lambda a: a.astype(jnp.float64), state))
        points = jnp.asarray(np.random.default_rng(1).uniform(-0.6, 0.6, (5, 3)))
        gradient = field(points, points).gradient
        for axis in range(3):
            step = 1e-6 * np.eye(3)[axis][None]
            difference = (field.distance(points + step) - field.distance(points - step)) / 2e-6
            np.testing.assert_allclose(gradient[:, axis], difference, rtol=1e-5, atol=1e-6)


def test_the_eikonal_loss_reaches_every_parameter_of_the_distance():
    field = SdfField(hash_grid(), rngs=nnx.Rngs(0))
    field.trunk.first.kernel[...] = field.trunk.first.kernel[...] + 0.05
    graph, state = nnx.split(field)

    @jax.jit
    def gradients(state):
        def loss(state):
            points = around(64, 0.8) - jnp.asarray(MIDDLE)[None]
            return jnp.mean(eikonal_loss(nnx.merge(graph, state)(points, points).gradient))

        return jax.grad(loss)(state)

    found = nnx.to_pure_dict(gradients(state))
    for leaf in jax.tree.leaves({"table": found["encoding"], "trunk": found["trunk"]}):
        assert np.isfinite(leaf).all()
    assert np.abs(found["encoding"]["table"]).max() > 0 and np.abs(found["trunk"]["first"]["kernel"]).max() > 0


def test_sharpness_and_scale_start_where_they_say_and_stay_in_bounds():
    np.testing.assert_allclose(Sharpness()(), 20, rtol=1e-5)
    np.testing.assert_allclose(LaplaceScale()(), 0.1, rtol=1e-5)
    sharp, scale = Sharpness(), LaplaceScale()
    sharp.v[...], scale.b[...] = jnp.asarray(50.0), jnp.asarray(-0.2)
    np.testing.assert_allclose((sharp(), scale()), (1e6, 0.2001), rtol=1e-4)
