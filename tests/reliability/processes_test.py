"""R9, R10: two processes of two virtual CPU devices each train as one, save, resume on any number, and end together."""

import shutil
import signal

import numpy as np
import pytest

from tests.reliability import drivers
from tests.reliability.conftest import TOY

# float32 sums in another order, over 40 steps of a contraction.
_TOLERANCE = 1e-5


def _losses(workdir):
    lines = drivers.logged_numbers(workdir)
    return [(line["step"], line["item"]) for line in lines if "loss" in line], np.array(
        [line.get("loss", line.get("error")) for line in lines]
    )


def _check_same(workdir, unbroken):
    order, losses = _losses(workdir)
    wanted_order, wanted = _losses(unbroken.workdir)
    assert order == wanted_order
    np.testing.assert_allclose(losses, wanted, rtol=_TOLERANCE)


def test_two_processes_equal_one_and_resume_on_one_and_two(unbroken, tmp_path, log):
    run = tmp_path / "run"
    with drivers.Ranks([*TOY, "--linger_in=train"], run, 2, log) as ranks:
        ranks.wait_for_phase("train")
        # One rank hears of it only: both must stop, at the same step.
        ranks.processes[1].send_signal(signal.SIGTERM)
        ended = ranks.finish()
    assert [one.code for one in ended] == [75, 75], [one.err for one in ended]
    step = drivers.newest_step(run)
    assert step in (14, 16)
    order, losses = _losses(run)
    assert len(order) == step
    np.testing.assert_allclose(losses, _losses(unbroken.workdir)[1][: len(losses)], rtol=_TOLERANCE)
    shutil.copytree(run, tmp_path / "on_one")

    one = drivers.run([*TOY, f"--workdir={tmp_path / 'on_one'}", "--resume"], log)
    assert one.code == 0, one.err
    assert f"resuming from the checkpoint of step {step}" in one.out
    _check_same(tmp_path / "on_one", unbroken)

    with drivers.Ranks([*TOY, "--resume"], run, 2, log) as ranks:
        ended = ranks.finish()
    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    _check_same(run, unbroken)
    assert drivers.final_arrays_digest(run)[0] == 40
    assert drivers.leftovers(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", [0, 1])
def test_one_rank_that_fails_takes_the_other_with_it(broken, tmp_path, log):
    command = [*TOY, "--raise_at=11", f"--raise_on={broken}", "--step_seconds=0.05"]
    with drivers.Ranks(command, tmp_path / "run", 2, log) as ranks:
        ended = ranks.finish()
    assert "told to fail" in ended[broken].err
    assert all(one.code != 0 for one in ended)
    assert sum(one.seconds for one in ended) < 30.0
    assert drivers.newest_step(tmp_path / "run") in (5, 10)
