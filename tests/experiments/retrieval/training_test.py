"""The training step: objects that differ in the order of two colours are told apart; repeated captions do no harm."""

import numpy as np
import pytest

from experiments.data.blocks import rendering
from experiments.data.blocks.descriptions import COLORS, words_of
from experiments.prior import rings
from experiments.prior.rings import Rings
from experiments.retrieval import model, training
from experiments.retrieval.settings import RetrievalConfig, TowerSettings

_STEPS = 60
_PAIRS = [("red", "blue"), ("blue", "red"), ("red", "green"), ("green", "red")]
_PAIRS += [("blue", "green"), ("green", "blue"), ("white", "black"), ("black", "white")]
_CONFIG = RetrievalConfig(
    tower=TowerSettings(size=16, width=64, depth=1, joint=16), batch=8, rate=4e-3, warmup=5, steps=_STEPS, lit=0.3
)


@pytest.fixture(scope="module")
def objects():
    """Two colours side by side, seen from all sides: left and right change places behind."""
    read, views = rings.tokenizer(), np.zeros((8, 4, 16, 16, 8), np.float32)
    views[..., 3:6] = [0.0, 0.0, -1.0]  # facing the camera
    views[..., 7] = 1.0
    for row, (left, right) in enumerate(_PAIRS):
        for view in range(4):
            first, second = (left, right) if view < 2 else (right, left)
            views[row, view, :, :8, :3] = 2 * np.array(COLORS[first]) - 1
            views[row, view, :, 8:, :3] = 2 * np.array(COLORS[second]) - 1
    words = np.stack([read.encode(words_of(f"a {left} box left of a {right} box")) for left, right in _PAIRS])
    angles = np.zeros(8, np.float32)
    return Rings(views=rendering.to_bytes(views), words=words, azimuths=angles, elevations=angles)


def precision(params, objects):
    views = rendering.from_bytes(objects.views)
    return model.r_precision(np.asarray(model.similarities(_CONFIG.tower, params, views, objects.words)))


@pytest.mark.slow
def test_eight_objects_are_told_apart_by_the_order_of_their_colours(objects):
    state = training.fresh_state(_CONFIG)
    assert precision(state.params, objects) < 0.5
    for step in range(_STEPS):
        fraction = np.float32(step / _STEPS)
        state, metrics, report = training.update(state, objects, np.int32(step), fraction, config=_CONFIG)
        assert not np.asarray(report.counts).any()
    assert precision(state.params, objects) == 1.0
    assert float(metrics["loss"]) < 0.1 and float(metrics["right"]) == 1.0


def test_objects_with_one_caption_are_no_rivals():
    words = np.array([[4, 5, 0], [4, 5, 6], [4, 5, 0]])
    wanted = [[True, False, True], [False, True, False], [True, False, True]]
    np.testing.assert_array_equal(training.same_captions(words), wanted)
