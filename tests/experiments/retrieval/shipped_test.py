"""The towers that come with the program retrieve as well as is stated beside them."""

import json

import pytest

from experiments.retrieval import galleries, model
from experiments.retrieval.settings import RetrievalConfig
from experiments.retrieval.weights import SHIPPED, load_towers

_LARGEST = 40 * 2**20


def stated():
    return json.loads(SHIPPED.with_suffix(".json").read_text())


def precision(split, pool):
    """Of objects that training has not seen, by as many captions."""
    towers = load_towers()
    gallery = galleries.make_gallery(stated()["data_seed"], split, pool, size=towers.settings.size)
    return model.r_precision(galleries.cosines(towers.settings, towers.params, gallery))


def test_captions_of_a_few_unseen_objects_are_found():
    """One in sixteen by chance."""
    assert SHIPPED.stat().st_size == stated()["bytes"] <= _LARGEST
    assert precision("compositional", 16) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("split", ["iid", "compositional"])
def test_captions_of_unseen_objects_are_found_as_often_as_stated(split):
    assert precision(split, RetrievalConfig().pool) == pytest.approx(stated()[f"r_precision_{split}"], abs=0.011)
