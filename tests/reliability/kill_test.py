"""R1: killed with -9 at any moment and started again, a run ends as if nothing had happened."""

import random

import pytest

from tests.reliability import drivers
from tests.reliability.conftest import TOY

# Steps of at least 15 ms, saved every 5; the first save of a process is 0.3 s late, it imports orbax.
_SLOWED = [*TOY, "--step_seconds=0.015"]


def test_killed_run_is_bit_equal_to_the_unbroken_one(unbroken, tmp_path, log):
    _check_kills([], [0.13, "saving"], unbroken.digest, unbroken.numbers, tmp_path / "run", log)


@pytest.mark.slow
def test_run_killed_20_times_is_bit_equal_to_the_unbroken_one(tmp_path, log):
    whole = tmp_path / "whole"
    assert drivers.run([*TOY, "--steps=400", f"--workdir={whole}"], log).code == 0
    chance = random.Random(20261122)
    moments = ["saving" if chance.random() < 0.3 else chance.uniform(0.0, 0.8) for _ in range(20)]
    digest, numbers = drivers.final_arrays_digest(whole), drivers.logged_numbers(whole)
    _check_kills(["--steps=400"], moments, digest, numbers, tmp_path / "run", log)


def _check_kills(flags, moments, digest, numbers, run, log):
    killed_at = drivers.run_killed_until_done([*_SLOWED, *flags], run, moments, log)
    print("killed when these steps were logged:", killed_at)
    assert len(killed_at) == len(moments), "an attempt ended before its kill came"
    assert drivers.final_arrays_digest(run) == digest
    assert drivers.logged_numbers(run) == numbers  # data order ("item"), losses, evaluations
    assert drivers.leftovers(run) == []


def test_same_seed_twice_is_bit_equal_and_another_seed_is_not(unbroken, tmp_path, log):
    """R12."""
    for seed, equal in ((0, True), (1, False)):
        run = tmp_path / str(seed)
        assert drivers.run([*TOY, f"--workdir={run}", f"--seed={seed}"], log).code == 0
        assert (drivers.final_arrays_digest(run) == unbroken.digest) == equal
        assert (drivers.logged_numbers(run) == unbroken.numbers) == equal
