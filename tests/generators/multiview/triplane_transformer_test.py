"""The tri-plane transformer: what it must not see, what must not matter, where its texels are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from generators.multiview.triplane_transformer import TriplaneTransformer, TriplaneTransformerConfig
from generators.networks.attention import attend

CONFIG = TriplaneTransformerConfig(
    size=16, patch=8, width=64, depth=2, texels=8, cell=4, plane_rim=1, features=4, hidden=16
)
COLOR, NORMAL = 0, 4


@pytest.fixture(scope="module")
def network():
    """One whose layers all do something, unlike those of a fresh one."""
    graph = nnx.split(nnx.eval_shape(lambda: TriplaneTransformer(CONFIG, rngs=nnx.Rngs(0))), nnx.Param)[0]

    @jax.jit
    def moved():
        fresh = nnx.state(TriplaneTransformer(CONFIG, rngs=nnx.Rngs(0)), nnx.Param)
        leaves, structure = jax.tree.flatten(fresh)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noise = [0.05 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        return jax.tree.map(jnp.add, fresh, jax.tree.unflatten(structure, noise))

    params = moved()

    @jax.jit
    def run(params, views, cameras, seen, whole):
        return nnx.merge(graph, params)(views, cameras, seen, whole)

    return graph, params, run


@functools.partial(jax.jit, static_argnums=0)
def _views(count=3):
    views = jax.random.uniform(jax.random.key(2), (1, count, 16, 16, 8), minval=-1.0)
    turns = jnp.linspace(0.0, 2.0, count)
    cameras = jnp.broadcast_to(jnp.eye(4), (1, count, 4, 4))
    cosine, sine = jnp.cos(turns), jnp.sin(turns)
    cameras = cameras.at[0, :, 0, 0].set(cosine).at[0, :, 0, 2].set(sine)
    cameras = cameras.at[0, :, 2, 0].set(-sine).at[0, :, 2, 2].set(cosine).at[0, :, 2, 3].set(1.9)
    return views, cameras


def test_a_view_that_is_not_there_does_not_matter(network):
    _, params, run = network
    views, cameras = _views()
    seen, whole = jnp.array([[True, False, True]]), jnp.ones((1, 3), bool)
    with_it = run(params, views, cameras, seen, whole)
    other = run(params, views.at[:, 1].set(0.3), cameras.at[:, 1, 0, 3].set(5.0), seen, whole)
    np.testing.assert_array_equal(with_it, other)
    kept = np.array([0, 2])
    without = run(params, views[:, kept], cameras[:, kept], jnp.ones((1, 2), bool), jnp.ones((1, 2), bool))
    np.testing.assert_allclose(with_it, without, atol=2e-5)
    everything = run(params, views, cameras, jnp.ones((1, 3), bool), whole)
    assert float(jnp.abs(everything - with_it).max()) > 1e-3


def test_of_a_photograph_only_colour_and_coverage_matter(network):
    _, params, run = network
    views, cameras = _views()
    seen, whole = jnp.ones((1, 3), bool), jnp.array([[True, False, True]])
    base = run(params, views, cameras, seen, whole)
    np.testing.assert_array_equal(base, run(params, views.at[:, 1, ..., NORMAL].set(0.7), cameras, seen, whole))
    for changed in (views.at[:, 1, ..., COLOR].set(0.7), views.at[:, 0, ..., NORMAL].set(0.7)):
        assert float(jnp.abs(base - run(params, changed, cameras, seen, whole)).max()) > 1e-3


def test_the_order_of_views_does_not_matter(network):
    _, params, run = network
    views, cameras = _views()
    seen, whole = jnp.array([[True, True, False]]), jnp.array([[True, False, True]])
    order = np.array([2, 0, 1])
    turned = run(params, views[:, order], cameras[:, order], seen[:, order], whole[:, order])
    np.testing.assert_allclose(run(params, views, cameras, seen, whole), turned, atol=2e-5)


def test_every_parameter_is_learnt(network):
    graph, params, _ = network
    views, cameras = _views()

    @jax.jit
    @jax.grad
    def slope(params):
        net = nnx.merge(graph, params)
        planes = net(views, cameras, None, jnp.array([[True, False, True]]))
        distances, colors = net.read(planes.reshape(3, -1, CONFIG.features).swapaxes(0, 1).reshape(-1, 12))
        return jnp.sum(distances) + jnp.sum(colors**2)

    for path, leaf in jax.tree_util.tree_flatten_with_path(slope(params))[0]:
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


def test_cells_lie_on_their_planes_in_reading_order():
    config = TriplaneTransformerConfig(
        size=16, width=64, depth=1, texels=8, cell=2, plane_rim=0, features=1, hidden=4
    )  # fresh layers add nothing, so that texels are those of the planes' own tokens

    @jax.jit
    def numbered(views, cameras):
        net = TriplaneTransformer(config, rngs=nnx.Rngs(0))
        net.planes[...] = jnp.eye(48, 64)
        content = jnp.arange(48.0)[:, None] + 0.1 * jnp.arange(4)[None]
        net.cells_out.kernel[...] = jnp.zeros((64, 4)).at[:48].set(content / 8.0)
        return net(views, cameras)

    planes = np.asarray(numbered(*_views(1)))[0, ..., 0]
    for p, row, column in ((0, 0, 0), (0, 3, 6), (1, 5, 2), (2, 7, 7)):
        cell = 16 * p + 4 * (row // 2) + column // 2
        assert planes[p, row, column] == pytest.approx(cell + 0.1 * (2 * (row % 2) + column % 2), rel=1e-4, abs=1e-4)


def test_hidden_keys_are_as_if_they_were_not_there():
    queries, keys, values = np.random.default_rng(0).normal(size=(3, 2, 5, 8)).astype(np.float32)
    seen = jnp.array([[1.0, 0.0, 1.0, 1.0, 0.0]] * 2)
    kept = np.array([0, 2, 3])

    @jax.jit
    def both(queries, keys, values):
        hidden = attend(queries, [(keys, values)], head_size=4, seen=seen)
        return hidden, attend(queries, [(keys[:, kept], values[:, kept])], head_size=4)

    np.testing.assert_allclose(*both(queries, keys, values), atol=1e-6)


@pytest.mark.parametrize("sizes", [{"patch": 5}, {"cell": 5}, {"width": 100}, {"view_rim": 5}])
def test_sizes_that_do_not_go_together_are_refused(sizes):
    with pytest.raises(ValueError):
        TriplaneTransformerConfig(**sizes)
