"""The training of the prior as its users start it: bad flags, kills, signals, several processes."""

import json
import signal

import numpy as np
import pytest

from tests.helpers.programs import run_module
from tests.reliability import drivers

_TINY = [
    "-m",
    "experiments.train_multiview",
    "--steps=16",
    "--model.size=8",
    "--model.patch=4",
    "--model.rim=1",
    "--model.width=64",
    "--model.depth=1",
    "--model.text_width=64",
    "--model.text_depth=0",
    "--data.chunk=4",
    "--data.pool=2",
    "--data.first=1",
    "--data.reuse=4",
    "--optimizer.batch=4",
    "--evaluation_rings=4",
    "--cadence.log_every=1",
    "--cadence.evaluate_every=8",
    "--cadence.preview_every=8",
    "--cadence.checkpoint_every=2",
]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--optimizer.batch=0"], "optimizer.batch"),
        (["--init=/nowhere/prior.safetensors"], "/nowhere/prior.safetensors"),
    ],
)
def test_bad_flags_are_one_line_and_code_2(flags, words, tmp_path):
    ended = run_module("experiments.train_multiview", *flags, f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and words in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.patch=5"], "tile"),
        (["--model.width=100"], "multiples"),
        (["--optimizer.batch=3", "--runtime.num_cpu_devices=2"], "divide"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line_and_code_2(flags, words, tmp_path):
    ended = run_module("experiments.train_multiview", *flags, f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and words in lines[0]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    process = drivers.start([*_TINY, f"--workdir={folder / 'run'}"], folder / "log")
    ended = drivers.finish(process, folder / "log", timeout=600)  # it compiles for all that follow
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_stopped_and_resumed_is_bit_equal(unbroken, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    command = [*_TINY, f"--workdir={run}", "--resume"]
    process = drivers.start(command, log)
    drivers.wait_until(lambda: len(drivers.read_lines(run)) > 2, timeout=300)
    process.send_signal(signal.SIGTERM)
    assert drivers.finish(process, log, timeout=300).code == 75
    stopped_at = drivers.newest_step(run)
    process = drivers.start(command, log)
    drivers.wait_until(lambda: drivers.newest_step(run) > stopped_at, timeout=300)
    process.send_signal(signal.SIGKILL)
    assert drivers.finish(process, log).code == -9
    assert 0 < stopped_at < drivers.newest_step(run) < 16
    ended = drivers.finish(drivers.start(command, log), log, timeout=600)
    assert ended.code == 0, ended.err
    assert drivers.final_arrays_digest(run) == drivers.final_arrays_digest(unbroken)
    assert drivers.logged_numbers(run) == drivers.logged_numbers(unbroken)
    assert drivers.leftovers(run) == []
    final = json.loads((run / "metrics.json").read_text())
    assert final["steps"] == 16 and 0 < final["error"] < 1
    assert (run / "prior.safetensors").read_bytes()[8:] and (run / "samples.png").exists()
    assert len(list((run / "previews").glob("*.png"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_have_the_losses_of_one(unbroken, tmp_path):
    with drivers.Ranks(_TINY, tmp_path / "run", 2, tmp_path / "log") as ranks:
        ended = [drivers.finish(*each, timeout=600) for each in zip(ranks.processes, ranks.logs, strict=True)]
    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    found, wanted = (
        np.array([line["loss"] for line in drivers.logged_numbers(run) if "loss" in line])
        for run in (tmp_path / "run", unbroken)
    )
    assert len(wanted) == 16
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert (tmp_path / "run" / "prior.safetensors").exists()
