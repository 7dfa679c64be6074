"""Which objects a training step shows: a function of the seeds and the step, whatever was shown before."""

import threading

import numpy as np
import pytest

from experiments import progress
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


class Stop:
    """Asks for the end once it was asked so many times."""

    def __init__(self, after):
        self.left = after

    def exit_if_requested(self):
        self.left -= 1
        if self.left < 0:
            raise SystemExit(75)


@pytest.fixture
def bar(monkeypatch):
    """What the bar was told: first of how many objects, then how many there are."""
    told = []
    monkeypatch.setattr(progress.Progress, "__enter__", lambda self: told.append(self._total) or self)
    monkeypatch.setattr(progress.Progress, "update", lambda self, done: told.append(done))
    return told


def test_the_bar_counts_from_nothing_to_what_is_to_be_rendered(made, bar):
    pool = RingPool(_SETTINGS, size=1, batch=_BATCH, seed=0)
    pool.fill(0, Stop(99), quiet=True)  # two chunks of the three that the pool may hold
    assert bar == [16, 0, 8, 16] and made == [0, 8]
    pool(0)
    pool.close()
    assert sorted(made) == [0, 8, 16]  # nothing again, and one ahead


def test_a_stop_ends_the_rendering_between_chunks_and_what_there_is_stays(made, bar):
    pool = RingPool(_SETTINGS, size=1, batch=_BATCH, seed=0)
    with pytest.raises(SystemExit):
        pool.fill(0, Stop(1), quiet=True)
    assert made == [0]
    pool.fill(0, Stop(99), quiet=True)
    pool.close()
    assert made == [0, 8] and bar[-3:] == [8, 0, 8]
