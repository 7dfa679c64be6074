import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from generators.multiview.view_transformer import ViewTransformer, ViewTransformerConfig

_CONFIG = ViewTransformerConfig(size=16, channels=2, rim=1, width=64, depth=2, words=5, length=3, text_width=64)


@pytest.fixture(scope="module")
def network():
    """The network with weights that are nowhere zero: a fresh one answers zero to everything."""
    structure, shapes = nnx.split(nnx.eval_shape(lambda: ViewTransformer(_CONFIG, rngs=nnx.Rngs(0))), nnx.Param)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0]), jnp.float32), shapes
    )
    return jax.jit(lambda *arguments: nnx.merge(structure, params)(*arguments))


def poses(key, shape):
    rotation, _ = np.linalg.qr(jax.random.normal(key, (*shape, 3, 3)))
    matrices = np.broadcast_to(np.eye(4), (*shape, 4, 4)).copy()
    matrices[..., :3, :3], matrices[..., :3, 3] = rotation, [0.1, -0.2, 1.9]
    return jnp.asarray(matrices, jnp.float32)


@pytest.fixture
def inputs(key):
    views = jax.random.normal(key, (2, 3, 16, 16, 2))
    words = jnp.array([[2, 3, 0], [4, 2, 3]])
    given = jnp.array([[True, False, False], [False, False, True]])
    return views, jnp.array([0.3, 0.8]), words, poses(key, (2, 3)), given


def test_views_may_come_in_any_order(network, inputs):
    """Permuting views together with their cameras permutes what comes out."""
    views, t, words, cameras, given = inputs
    order = jnp.array([2, 0, 1])
    found = network(views[:, order], t, words, cameras[:, order], given[:, order])
    np.testing.assert_allclose(found, network(*inputs)[:, order], atol=2e-5)
    wrong = network(views[:, order], t, words, cameras, given[:, order])
    assert np.abs(np.asarray(wrong - found)).max() > 1e-3  # the cameras do matter


def test_examples_do_not_see_each_other(network, inputs):
    whole = network(*inputs)
    for i in range(2):
        alone = network(*(leaf[i : i + 1] for leaf in inputs))
        np.testing.assert_allclose(alone[0], whole[i], atol=2e-5)


def test_every_view_sees_every_other_and_the_words_the_time_and_what_is_given(network, inputs):
    views, t, words, cameras, given = inputs
    whole = np.asarray(network(*inputs))
    changed = {
        "another view": (views.at[:, 1].add(1.0), t, words, cameras, given),
        "the time": (views, t + 0.1, words, cameras, given),
        "the words": (views, t, words[:, ::-1], cameras, given),
        "what is given": (views, t, words, cameras, ~given),
    }
    for what, others in changed.items():
        assert np.abs(np.asarray(network(*others)) - whole)[:, 0].max() > 1e-4, what


def test_nothing_given_is_the_default(network, inputs):
    views, t, words, cameras, given = inputs
    np.testing.assert_array_equal(
        network(views, t, words, cameras, jnp.zeros_like(given)), network(views, t, words, cameras, None)
    )


@pytest.mark.parametrize(
    ("changes", "words"), [({"patch": 5}, "tile"), ({"width": 65}, "multiples"), ({"rim": 5}, "half")]
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        ViewTransformerConfig(**{"size": 16, "words": 5, **changes})
