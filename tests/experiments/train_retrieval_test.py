"""The training of the two towers as its users start it."""

import json
import signal

import pytest

from experiments.retrieval.weights import load_towers
from tests.helpers.programs import run_module
from tests.reliability import drivers

_TINY = [
    "-m",
    "experiments.train_retrieval",
    "--steps=16",
    "--tower.size=8",
    "--tower.patch=4",
    "--tower.width=64",
    "--tower.depth=1",
    "--data.chunk=4",
    "--data.pool=2",
    "--data.first=1",
    "--data.reuse=4",
    "--batch=4",
    "--pool=4",
    "--cadence.log_every=1",
    "--cadence.evaluate_every=8",
    "--cadence.checkpoint_every=2",
]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch=1"], "batch"),
        pytest.param(["--tower.patch=5"], "tile", marks=pytest.mark.slow),
        pytest.param(["--batch=3", "--runtime.num_cpu_devices=2"], "--batch=3 does not divide", marks=pytest.mark.slow),
    ],
)
def test_bad_flags_are_one_line_and_code_2(flags, words, tmp_path):
    ended = run_module("experiments.train_retrieval", *flags, f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and words in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stopped_and_resumed_is_bit_equal_and_leaves_weights_with_a_report(tmp_path):
    whole, log = tmp_path / "whole", tmp_path / "log"
    ended = drivers.finish(drivers.start([*_TINY, f"--workdir={whole}"], log), log, timeout=600)
    assert ended.code == 0, ended.err
    run = tmp_path / "run"
    command = [*_TINY, f"--workdir={run}", "--resume"]
    process = drivers.start(command, log)
    drivers.wait_until(lambda: len(drivers.read_lines(run)) > 2, timeout=300)
    process.send_signal(signal.SIGTERM)
    assert drivers.finish(process, log, timeout=300).code == 75
    assert 0 < drivers.newest_step(run) < 16
    ended = drivers.finish(drivers.start(command, log), log, timeout=600)
    assert ended.code == 0, ended.err
    assert drivers.final_arrays_digest(run) == drivers.final_arrays_digest(whole)
    assert drivers.logged_numbers(run) == drivers.logged_numbers(whole)
    final = json.loads((run / "metrics.json").read_text())
    assert final["steps"] == 16 and 0 <= final["r_precision_iid"] <= 1 and 0 <= final["r_precision_compositional"] <= 1
    towers = load_towers(run)
    assert towers.about["steps"] == 16 and towers.about["objects"] == 64 and towers.settings.size == 8
    assert (run / "report.html").stat().st_size > 5000
