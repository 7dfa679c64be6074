"""Retrieval by any judge; the two-tower model as one."""

import numpy as np
import pytest

from experiments.data.blocks.descriptions import vocabulary
from experiments.errors import InputError
from experiments.evaluation import captions, retrieval
from experiments.prior.classes import may_agree
from experiments.retrieval import model
from experiments.retrieval.settings import TowerSettings
from experiments.retrieval.weights import Towers, save_towers


def by_length(views, texts):
    """Judges that a ring means the caption with as many letters as its first value says."""
    return -np.abs(views.reshape(len(views), -1)[:, :1] - np.array([[len(text) for text in texts]]))


@pytest.mark.parametrize(("own", "expected"), [("a red box", True), ("a red sphere", False)])
def test_only_the_nearest_caption_is_retrieved(own, expected):
    ring = np.full((4, 2, 2, 8), 9.0)  # "a red box"
    others = [text for text in ("a red box", "a red sphere", "a white cylinder") if text != own]
    for at_once in (3, 8):
        assert retrieval.retrieved(ring, own, others, by_length, at_once=at_once) is expected


def test_a_judge_that_sees_nothing_retrieves_nothing():
    ring = np.zeros((4, 2, 2, 8))
    same = lambda views, texts: np.ones((len(views), len(texts)))  # noqa: E731
    assert not retrieval.retrieved(ring, "a red box", ["a blue box"], same, at_once=4)


def test_rivals_say_what_no_object_of_the_class_can_be():
    pool = captions.pool_of(("iid", "compositional"), 60)
    assert pool == captions.pool_of(("iid", "compositional"), 60)
    for asked in pool[:20]:
        found = captions.rivals(asked, pool)
        assert len(found) > 50 and len({each.text for each in found}) == len(found)
        assert not any(may_agree(asked.description, other.description) for other in found)
    assert len({each.name for each in pool}) == len(pool)


@pytest.mark.slow
def test_towers_for_other_pictures_are_refused(tmp_path):

    settings = TowerSettings()
    params = model.initial_params(settings, 0)
    towers = Towers(settings=settings, params=params, vocabulary=vocabulary(), about={})
    save_towers(tmp_path / "towers.safetensors", towers)
    found = retrieval.towers_of(str(tmp_path / "towers.safetensors"), size=settings.size)
    assert found is not None and retrieval.digest(found.params) == retrieval.digest(towers.params)
    assert retrieval.digest(model.initial_params(settings, 1)) != retrieval.digest(params)
    with pytest.raises(InputError, match="pixels"):
        retrieval.towers_of(str(tmp_path / "towers.safetensors"), size=2 * settings.size)
    views = np.random.default_rng(0).uniform(-1, 1, (2, 4, settings.size, settings.size, 8)).astype(np.float32)
    cosines = retrieval.judged_by(found)(views, ["a red box", "a blue box", "a red box"])
    np.testing.assert_allclose(cosines[:, 0], cosines[:, 2], atol=1e-6)
    assert cosines.shape == (2, 3) and np.abs(cosines).max() <= 1 + 1e-5
