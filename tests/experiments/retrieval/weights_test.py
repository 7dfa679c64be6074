"""The towers' file: weights come back and give the same cosines; what is none is refused in one line."""

import jax
import numpy as np
import pytest

from experiments.data.blocks.descriptions import vocabulary
from experiments.errors import InputError
from experiments.retrieval import model, weights
from experiments.retrieval.settings import TowerSettings
from experiments.retrieval.weights import Towers, load_towers, save_towers

_TINY = TowerSettings(size=8, patch=4, width=64, depth=1, joint=8)


@pytest.fixture(scope="module")
def towers():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.initial_params(_TINY, 0))
    params = jax.tree.map(lambda leaf: np.float32(0.3 * rng.normal(size=leaf.shape)), shapes)
    return Towers(settings=_TINY, params=params, vocabulary=vocabulary(), about={"steps": 3, "pool": 5})


def test_weights_come_back_and_give_the_same_cosines(towers, tmp_path):
    save_towers(tmp_path / "towers.safetensors", towers)
    found = load_towers(tmp_path)  # the folder that a training leaves
    assert (found.settings, found.vocabulary, found.about) == (_TINY, vocabulary(), {"steps": 3, "pool": 5})
    rounded = jax.tree.map(lambda leaf: np.float32(np.float16(leaf)), towers.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, rounded)
    views = np.random.default_rng(1).normal(size=(2, 4, 8, 8, 8)).astype(np.float32)
    words = np.array([[2, 9, 11, 0], [2, 9, 12, 5], [3, 8, 0, 0]])
    cosines = model.similarities(_TINY, towers.params, views, words)
    np.testing.assert_allclose(model.similarities(_TINY, found.params, views, words), cosines, atol=5e-3)
    assert np.ptp(cosines) > 0.1 and np.abs(cosines).max() <= 1 + 1e-5


@pytest.mark.parametrize("damage", ["missing", "cut", "another version", "no weights", "shipped"])
def test_weights_that_are_none_are_refused_in_one_line(towers, tmp_path, damage, monkeypatch):
    path = tmp_path / "towers.safetensors"
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "none.safetensors")
    save_towers(path, towers)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-50])
    elif damage == "another version":
        path.write_bytes(content.replace(b"retrieval towers 1", b"retrieval towers 9"))
    elif damage == "no weights":
        path.write_text("none\n" * 99)
    with pytest.raises(InputError) as caught:
        load_towers(None if damage == "shipped" else path)
    message = str(caught.value)
    assert "\n" not in message and ("none.saf" if damage == "shipped" else "towers.saf") in message
    assert "experiments.train_retrieval" in message or damage not in ("missing", "shipped")
