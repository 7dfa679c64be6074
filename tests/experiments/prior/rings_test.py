"""Which objects a training step shows: a function of the seeds and the step, whatever was shown before."""

import threading

import numpy as np
import pytest

from experiments.prior import rings
from experiments.prior.rings import RingPool, Rings
from experiments.prior.settings import DataSettings

_SETTINGS = DataSettings(chunk=8, pool=3, first=2, reuse=4.0)
_BATCH = 4


@pytest.fixture
def made(monkeypatch):
    """Numbers of the objects that are rendered, in the order in which they are; nothing is."""
    numbers, lock = [], threading.Lock()

    def numbered(seed, split, indices, *, size, canonical):
        with lock:
            numbers.append(int(indices[0]))
        views = np.zeros((len(indices), 4, size, size, 8), np.uint8)
        angles = np.zeros(len(indices), np.float32)
        return Rings(views=views, words=np.asarray(indices)[:, None], azimuths=angles, elevations=angles)

    monkeypatch.setattr(rings, "make_rings", numbered)
    return numbers


def shown(steps, seed=0):
    pool = RingPool(_SETTINGS, size=1, batch=_BATCH, seed=seed)
    found = [pool(step).words[:, 0].tolist() for step in steps]
    pool.close()
    return found


def test_a_resumed_run_is_shown_what_the_unbroken_one_would_have_been(made):
    unbroken = shown(range(60))
    assert shown(range(37, 60)) == unbroken[37:]
    assert shown([59]) == unbroken[59:]
    assert shown(range(5), seed=1) != unbroken[:5]


def test_every_chunk_is_made_once_and_only_the_newest_are_drawn_from(made):
    drawn = np.array(shown(range(80)))
    assert made == sorted(set(made)) and made[:3] == [0, 8, 16]
    steps_a_chunk = _SETTINGS.reuse * _SETTINGS.chunk / _BATCH
    for step, numbers in enumerate(drawn):
        newest = _SETTINGS.first + int(step / steps_a_chunk)
        assert (numbers // _SETTINGS.chunk < newest).all()
        assert (numbers // _SETTINGS.chunk >= newest - _SETTINGS.pool).all()


def test_an_object_is_shown_as_often_as_was_asked_for(made):
    numbers = np.array(shown(range(20_000))).reshape(-1)
    counts = np.bincount(numbers)[_SETTINGS.chunk * 5 : -_SETTINGS.chunk * 5]  # away from the start and the end
    assert counts.mean() == pytest.approx(_SETTINGS.reuse, rel=0.01)
    assert counts.var() == pytest.approx(_SETTINGS.reuse, rel=0.1)  # drawn at random: Poisson
