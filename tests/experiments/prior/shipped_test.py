"""The weights that come with the program give the numbers that are stated beside them."""

import json

import numpy as np
import pytest

from experiments.data import blockworld
from experiments.prior import evaluation, rings, training
from experiments.prior.classes import ClassRenders, cache_folder
from experiments.prior.evaluation_settings import EvaluatePriorConfig
from experiments.prior.settings import MultiviewConfig
from experiments.prior.weights import SHIPPED, load_prior

_LARGEST = 40 * 2**20


def beside(name):
    return json.loads(SHIPPED.with_name(name).read_text())


def errors_of(prior, seed, numbers):
    config = MultiviewConfig(model=prior.settings, diffusion=prior.diffusion)
    unseen = rings.make_rings(seed, "iid", numbers, size=prior.settings.size, canonical=config.data.canonical)
    return np.asarray(training.validation_errors(prior.params, unseen, config=config))


def test_errors_of_a_few_unseen_objects_are_the_stated_ones():
    """Those of the first 16 objects of two solids. Other weights, or another world, move them by more than this."""
    prior, stated = load_prior(), beside("prior.json")
    assert SHIPPED.stat().st_size == stated["bytes"] <= _LARGEST
    seed = stated["data_seed"]
    pairs = [i for i in range(64) if len(blockworld.item(seed, "iid", i).assembly.centers) == 2][:16]
    np.testing.assert_allclose(errors_of(prior, seed, pairs), stated["errors_of_16_pairs"], rtol=2e-3)


@pytest.mark.slow
def test_errors_of_unseen_objects_are_the_stated_ones():
    """Rounding to half precision moves them by less than a percent."""
    prior, stated = load_prior(), beside("prior.json")
    wanted = [stated[f"error_{time:g}"] for time in training.EVALUATION_TIMES]
    found = errors_of(prior, stated["data_seed"], range(MultiviewConfig().evaluation_rings))
    np.testing.assert_allclose(found, wanted, rtol=0.01)


@pytest.mark.slow
def test_samples_score_as_stated():
    """The table of `evaluate_prior` for the 20 fixed prompts, which come first and so with the same random numbers."""
    prior, stated = load_prior(), beside("scores.json")
    config = EvaluatePriorConfig(captions=0, apart=0)
    prompts = [evaluation.Prompt(text, evaluation.parse(text)) for text in evaluation.FIXED_PROMPTS]
    renders = ClassRenders(prior.settings.size, cache_folder())
    scored = evaluation.evaluate("fixed", prompts, prior, renders, config, lambda: True)
    for name, margin in (("psnr", 0.1), ("normal_degrees", 0.2), ("hull_iou", 0.001), ("all", 0.0)):
        found = np.mean([row[name] for row in scored.model if row[name] is not None])
        assert found == pytest.approx(stated["sets"]["fixed"]["model"][name], abs=margin), name
