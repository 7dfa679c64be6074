"""Retrieval precision: what chance gives, what ties give, what a perfect score gives."""

import numpy as np
import pytest

from experiments.retrieval.model import r_precision


@pytest.mark.parametrize("count", [2, 7, 50])
def test_permuted_captions_are_found_by_chance(count):
    """Over all turns of the captions each object meets its nearest one exactly once: 1 / P in the mean."""
    cosines = np.random.default_rng(count).normal(size=(count, count))
    found = [r_precision(np.roll(cosines, turn, axis=1)) for turn in range(count)]
    assert np.mean(found) == pytest.approx(1 / count)


def test_random_permutations_of_a_perfect_score_are_found_by_chance():
    rng, perfect = np.random.default_rng(0), np.eye(20)
    assert r_precision(perfect) == 1.0 and r_precision(-perfect) == 0.0
    found = [r_precision(perfect[:, rng.permutation(20)]) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(1 / 20, abs=4 * np.sqrt(1 / 4000) / 20)  # fixed points have variance 1


def test_ties_and_what_is_no_number_count_as_missed():
    assert r_precision(np.ones((4, 4))) == 0.0
    cosines = np.eye(4)
    cosines[1, 2] = 1.0
    cosines[3, 3] = np.nan
    assert r_precision(cosines) == 0.5


def test_captions_of_no_object_are_rivals_and_each_object_needs_its_own():
    cosines = np.c_[np.eye(3), [0.0, 2.0, 0.0]]
    assert r_precision(cosines) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="own caption"):
        r_precision(cosines.T)
