"""The contrastive loss against its formula; what the vectors of pictures and captions depend on, and what not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from generators.vision.two_tower import TwoTower, TwoTowerConfig, contrastive_loss
from tests.helpers.gradients import assert_gradients_match

_CONFIG = TwoTowerConfig(views=2, size=8, patch=4, words=9, length=6, depth=2, joint=16)


@pytest.fixture(scope="module")
def towers():
    """The encoders with weights that are nowhere zero: fresh layers change nothing."""
    structure, shapes = nnx.split(nnx.eval_shape(lambda: TwoTower(_CONFIG, rngs=nnx.Rngs(0))), nnx.Param)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, jnp.float32), shapes)
    pictures = jax.jit(lambda images: nnx.merge(structure, params).pictures(images))
    captions = jax.jit(lambda words: nnx.merge(structure, params).captions(words))
    return pictures, captions


def unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def brute_force(pictures, captions, temperature, same):
    """The loss pair by pair, and its gradient by the pictures and by the captions."""
    count = len(pictures)
    loss, by_pictures, by_captions = 0.0, np.zeros_like(pictures), np.zeros_like(captions)
    for i in range(count):
        rivals = [j for j in range(count) if j == i or not same[i, j]]
        for seek in ("caption", "picture"):
            pairs = [(i, j) if seek == "caption" else (j, i) for j in rivals]
            logits = np.array([pictures[p] @ captions[c] for p, c in pairs])
            shares = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
            loss -= np.log(shares[rivals.index(i)]) / (2 * count)
            for (p, c), share in zip(pairs, shares, strict=True):
                pull = (share - (p == c)) / (2 * count * temperature)
                by_pictures[p] += pull * captions[c]
                by_captions[c] += pull * pictures[p]
    return loss, by_pictures, by_captions


@pytest.mark.parametrize("repeated", [False, True])
def test_the_contrastive_loss_and_its_gradient_are_those_of_the_formula(repeated):
    rng = np.random.default_rng(1)
    pictures, captions, temperature = unit(rng, 5, 7), unit(rng, 5, 7), 0.3
    said = np.array([0, 1, 0, 2, 3 - 2 * repeated])
    same = said[:, None] == said[None] if repeated else np.eye(5, dtype=bool)
    wanted = brute_force(pictures, captions, temperature, same)
    with jax.enable_x64(True):
        arguments = jnp.asarray(pictures), jnp.asarray(captions), jnp.asarray(temperature)
        rule = jnp.asarray(same) if repeated else None
        loss, slopes = jax.jit(jax.value_and_grad(lambda p, c, t: contrastive_loss(p, c, t, rule), (0, 1)))(*arguments)
        np.testing.assert_allclose(loss, wanted[0], rtol=1e-12)
        np.testing.assert_allclose(slopes[0], wanted[1], atol=1e-13)
        np.testing.assert_allclose(slopes[1], wanted[2], atol=1e-13)
        if repeated:
            assert_gradients_match(lambda t: contrastive_loss(*arguments[:2], t, rule), arguments[2])


def test_matching_pairs_far_from_all_others_cost_nothing_and_equal_ones_the_logarithm_of_their_number():
    loss, axes = jax.jit(contrastive_loss), np.eye(6, dtype=np.float32)
    assert float(loss(axes, axes, np.float32(0.01))) == pytest.approx(0.0, abs=1e-6)
    equal = np.full((6, 6), 6**-0.5, np.float32)
    assert float(loss(equal, equal, np.float32(0.1))) == pytest.approx(np.log(6), rel=1e-5)


def test_padding_does_not_matter_and_words_and_their_order_do(towers):
    short = np.array([[3, 5, 2], [7, 7, 4]])
    turned, longer = short[:, ::-1], np.c_[short, [1, 1]]
    nothing = np.zeros((1, 3), int)
    padded = np.concatenate(
        [np.pad(words, ((0, 0), (0, 6 - words.shape[1]))) for words in (short, turned, longer, nothing)]
    )
    vectors, others = np.asarray(towers[1](short)), np.asarray(towers[1](padded))
    np.testing.assert_allclose(others[:2], vectors, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(others, axis=-1), 1.0, atol=1e-5)
    assert (np.abs(others[2:4] - vectors).max(axis=1) > 0.02).all()
    assert (np.abs(others[4:6] - vectors).max(axis=1) > 0.02).all()


def test_objects_do_not_see_each_other_and_their_sides_are_told_apart(towers):
    images = np.random.default_rng(0).normal(size=(3, 2, 8, 8, 3)).astype(np.float32)
    vectors = np.asarray(towers[0](images))
    among_others = towers[0](np.stack([images[2], images[0], -images[1]]))
    np.testing.assert_allclose(among_others[:2], vectors[[2, 0]], atol=1e-6)
    for changed in (images[:, ::-1], images[:, :, :, ::-1]):
        assert (np.abs(np.asarray(towers[0](changed)) - vectors).max(axis=1) > 0.02).all()


@pytest.mark.parametrize("sizes", [{"patch": 3}, {"width": 96}])
def test_sizes_have_to_go_together(sizes):
    with pytest.raises(ValueError, match="tile|multiple"):
        TwoTowerConfig(words=9, length=6, size=8, **sizes)
