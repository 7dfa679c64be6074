"""Radiance fields: domains, activations, and that each part of the field matters where it should and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from renderers.fields import heads
from renderers.fields.dense_grid import DenseGrid
from renderers.fields.frequency import FrequencyEncoding
from renderers.fields.hash_grid import HashGrid, HashGridConfig
from renderers.fields.nerf import Blob, DensityField, Domain, NerfField
from renderers.fields.triplane import TriPlane
from renderers.volumes.contraction import contract
from tests.helpers.gradients import assert_finite_gradients

LOW, HIGH = (-1.0, 0.0, -2.0), (3.0, 2.0, 2.0)
RNG = np.random.default_rng(0)
POINTS = jnp.asarray(RNG.uniform(-3, 5, (200, 3)), jnp.float32)
DIRECTIONS = POINTS / jnp.linalg.norm(POINTS, axis=-1, keepdims=True)


def small_hash(rngs):
    return HashGrid(HashGridConfig(num_levels=2, base_resolution=4, finest_resolution=8, log2_table_size=6), rngs=rngs)


ENCODINGS = {
    "frequency": ("signed", lambda rngs: FrequencyEncoding(2)),
    "hash": ("unit", small_hash),
    "triplane": ("signed", lambda rngs: TriPlane((8,), 4, rngs=rngs)),
    "dense": ("unit", lambda rngs: DenseGrid((5, 5, 5), 4, scale=0.1, rngs=rngs)),
}


def test_domains_fill_the_interval_of_the_encoding():
    corners = jnp.asarray([LOW, HIGH, (1.0, 1.0, 0.0), (9.0, 1.0, 0.0)])
    unit, inside = Domain(LOW, HIGH)(corners)
    np.testing.assert_allclose(unit[:3], [[0] * 3, [1] * 3, [0.5] * 3], atol=1e-6)
    assert inside.tolist() == [True, True, True, False]
    signed, inside = Domain(LOW, HIGH, contraction="sphere", interval="signed")(corners)
    np.testing.assert_allclose(signed[2:], [[0, 0, 0], np.asarray(contract(jnp.array([4.0, 0.0, 0.0]))) / 2], atol=1e-6)
    assert inside.all() and (jnp.abs(Domain(LOW, HIGH, "cube")(1e4 * POINTS)[0] - 0.5) <= 0.5).all()


@pytest.mark.parametrize("name", ["hash", *(pytest.param(n, marks=pytest.mark.slow) for n in ENCODINGS if n != "hash")])
def test_any_encoding_makes_a_field(name):
    """Empty outside the box, a density and a colour in range inside; every parameter receives a gradient."""
    interval, make = ENCODINGS[name]
    rngs = nnx.Rngs(0)
    domain = Domain(LOW, HIGH, interval=interval)
    field = NerfField(make(rngs), domain=domain, direction_encoding=heads.DirectionHarmonics(1), width=8, rngs=rngs)
    graph, state = nnx.split(field)

    @jax.jit
    def evaluate(state):
        def loss(state):
            density, color = nnx.merge(graph, state)(POINTS, DIRECTIONS)
            return jnp.sum(density) + jnp.sum(color**2), (density, color)

        return jax.grad(loss, has_aux=True)(state)

    gradients, (density, color) = evaluate(state)
    inside = ((POINTS >= jnp.asarray([LOW])) & (POINTS <= jnp.asarray([HIGH]))).all(-1)
    assert 5 < inside.sum() < 100 and (density[inside] > 0).all() and not density[~inside].any()
    assert ((color > -0.01) & (color < 1.01)).all()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_only_what_should_change_the_color_does():
    """Directions and appearances change colours, not densities; without an encoding of directions nothing does."""
    rngs = nnx.Rngs(0)
    seen = NerfField(
        FrequencyEncoding(2), direction_encoding=heads.DirectionHarmonics(2), appearances=3, width=16, rngs=rngs
    )
    seen.color_head.embedding.embedding[...] = jnp.asarray(RNG.normal(size=(3, 16)), jnp.float32)
    density, color = seen(POINTS, DIRECTIONS)
    turned = seen(POINTS, -DIRECTIONS)
    np.testing.assert_array_equal(turned[0], density)
    assert np.abs(turned[1] - color).max() > 1e-2
    first, second = (seen(POINTS, DIRECTIONS, jnp.full(200, i)) for i in (0, 1))
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first[1] - second[1]).max() > 1e-2
    equal = jnp.broadcast_to(seen.color_head.embedding.embedding[...][:1], (3, 16))
    seen.color_head.embedding.embedding[...] = equal
    np.testing.assert_allclose(seen(POINTS, DIRECTIONS)[1], first[1], atol=1e-6, err_msg="the mean of equal ones")
    plain = NerfField(FrequencyEncoding(2), width=8, rngs=rngs)
    np.testing.assert_array_equal(plain(POINTS, DIRECTIONS)[1], plain(POINTS, -DIRECTIONS)[1])


def test_another_encoding_can_take_its_place_for_a_call():
    field = NerfField(FrequencyEncoding(3), domain=Domain(interval="signed"), width=8, rngs=nnx.Rngs(0))
    closed = lambda x: field.encoding(x, windows=jnp.zeros(3))  # noqa: E731
    near = jnp.asarray([[0.3, 0.1, 0.2], [0.3, 0.1, 0.2001]])
    plain, smooth = field.density(near), field.density(near, encode=closed)
    assert abs(smooth[0] - plain[0]) > 1e-4


def test_blobs_put_matter_in_the_middle():
    points = jnp.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(heads.density_blob(points, "linear", 10.0, 0.5), [10, 0, -10], atol=1e-5)
    np.testing.assert_allclose(
        heads.density_blob(points, "gaussian", 5.0, 0.5), [5, 5 * np.exp(-0.5), 5 * np.exp(-2)], rtol=1e-5
    )
    assert_finite_gradients(lambda p: heads.density_blob(p, "linear", 10.0, 0.5), points)
    field = NerfField(
        FrequencyEncoding(1), width=8, activation="softplus", blob=Blob(), density_offset=0.0, rngs=nnx.Rngs(0)
    )
    density = field.density(points)
    assert density[0] > 5 and density[2] < 0.1


def test_the_exponential_is_one_with_a_gradient_that_is_bounded():
    x = jnp.array([-2.0, 0.0, 3.0, 20.0, 1000.0])
    value, slope = heads.truncated_exp(x), jax.grad(lambda x: jnp.sum(heads.truncated_exp(x)))(x)
    np.testing.assert_allclose(value[:4], np.exp(x[:4]), rtol=1e-5)
    np.testing.assert_allclose(slope, np.exp(np.minimum(x, 15)), rtol=1e-5)
    assert np.isfinite(value).all()
    curvature = jax.vmap(jax.grad(jax.grad(heads.truncated_exp)))(x)
    np.testing.assert_allclose(curvature, np.where(x < 15, np.exp(np.minimum(x, 15)), 0), rtol=1e-5)
    for kind in ("exp", "softplus"):
        np.testing.assert_allclose(
            heads.density_activation(jnp.zeros(1), kind, -1.0),
            {"exp": np.exp(-1), "softplus": np.log1p(np.exp(-1))}[kind],
        )


def test_proposals_and_backgrounds():
    proposal = DensityField(FrequencyEncoding(2), domain=Domain(LOW, HIGH), width=8, rngs=nnx.Rngs(0))
    flat = proposal(POINTS)
    np.testing.assert_allclose(proposal(POINTS.reshape(10, 20, 3)).ravel(), flat, rtol=1e-5)
    assert not flat[0 == (POINTS >= jnp.asarray([LOW])).all(-1)].any()
    sky = heads.Background(rngs=nnx.Rngs(0))(DIRECTIONS)
    assert sky.shape == (200, 3) and np.ptp(sky, axis=0).min() > 1e-3
