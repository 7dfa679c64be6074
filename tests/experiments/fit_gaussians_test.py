"""The experiment as its users start it: results, refusals, kills, several processes.

The demo capture serves as data.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from renderers.gaussians.formats import read_splats
from tests.helpers.programs import run_module
from tests.reliability import drivers

# Growth at steps 10, 20, ... doubles the arrays on the way: 3000 points need 4096 rows, 4500 need 8192.
_SHORT = [
    "-m",
    "experiments.fit_gaussians",
    "--steps=40",
    "--sh_degree=1",
    "--turntable_frames=3",
    "--growth.start=10",
    "--growth.every=10",
    "--growth.factor=1.3",
    "--cadence.log_every=1",
    "--cadence.evaluate_every=20",
    "--cadence.preview_every=20",
    "--cadence.checkpoint_every=5",
]


@pytest.fixture(scope="module")
def compilation_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, compilation_cache) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("unbroken")
    ended = drivers.run([*_SHORT, f"--workdir={folder / 'run'}"], folder / "log")
    assert ended.code == 0, ended.err
    return folder / "run"


def test_results_are_all_there(unbroken):
    numbers = json.loads((unbroken / "metrics.json").read_text())
    assert numbers["steps"] == 40 and numbers["seconds"] > 0
    lines = drivers.read_lines(unbroken)
    evaluations = [line["psnr"] for line in lines if "psnr" in line]
    # 40 steps from coloured points: far from done, well beyond the 12 dB of a blank page
    assert evaluations[-1] == pytest.approx(numbers["psnr"]) and numbers["psnr"] > max(15, evaluations[0])
    assert 0.4 < numbers["ssim"] < 1
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 41))
    splats = read_splats(unbroken / "splats.ply")
    assert splats.means.shape[0] == numbers["num_gaussians"] > 5000
    # in the capture's own frame: the still life stands on a table of about one metre around the origin
    assert np.abs(np.median(np.asarray(splats.means), 0)).max() < 0.5
    report = (unbroken / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "") and report.count("data:image/") >= 4
    assert (unbroken / "turntable.mp4").stat().st_size > 1000
    assert len(list((unbroken / "renders").glob("*.png"))) == 4
    assert len(list((unbroken / "previews").glob("*.png"))) == 2
    config = json.loads((unbroken / "config.json").read_text())
    assert config["flags"]["growth.factor"] == 1.3


def test_killed_and_resumed_is_bit_equal(unbroken, tmp_path):
    run = tmp_path / "run"
    killed_at = drivers.run_killed_until_done(_SHORT, run, [0.3, "saving"], tmp_path / "log")
    assert len(killed_at) == 2, "an attempt ended before its kill came"
    assert drivers.final_arrays_digest(run) == drivers.final_arrays_digest(unbroken)
    assert drivers.logged_numbers(run) == drivers.logged_numbers(unbroken)
    assert drivers.leftovers(run) == []


@pytest.mark.slow
def test_killed_20_times_is_bit_equal(unbroken, tmp_path):
    run = tmp_path / "run"
    chance = np.random.default_rng(20261122)
    moments = ["saving" if chance.random() < 0.3 else float(chance.uniform(0.0, 0.25)) for _ in range(20)]
    whole = drivers.run([*_SHORT, "--steps=160", f"--workdir={tmp_path / 'whole'}"], tmp_path / "log")
    assert whole.code == 0
    killed_at = drivers.run_killed_until_done([*_SHORT, "--steps=160"], run, moments, tmp_path / "log")
    print("killed when these steps were logged:", killed_at)
    assert len(killed_at) == 20
    assert drivers.final_arrays_digest(run) == drivers.final_arrays_digest(tmp_path / "whole")
    assert drivers.logged_numbers(run) == drivers.logged_numbers(tmp_path / "whole")


@pytest.mark.slow
def test_processes_share_the_views_and_hand_over(compilation_cache, tmp_path):
    """Two processes of two devices have the losses of one, and their checkpoint goes on with one process."""
    flags = [flag for flag in _SHORT if "growth" not in flag and "--steps" not in flag] + ["--batch=4", "--steps=12"]
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert drivers.run([*flags, f"--workdir={alone}"], tmp_path / "log").code == 0
    with drivers.Ranks(flags, both, 2, tmp_path / "ranks") as ranks:
        for ended in ranks.finish():
            assert ended.code == 0, ended.err
    _check_same_losses(alone, both)
    shutil.rmtree(both / "checkpoints" / "12")
    ended = drivers.run([*flags, "--resume", f"--workdir={both}"], tmp_path / "log")
    assert ended.code == 0 and "checkpoint of step 10" in ended.out, ended.out + ended.err
    _check_same_losses(alone, both)


def _check_same_losses(alone, both):
    one, two = ([line["loss"] for line in drivers.read_lines(run) if "loss" in line] for run in (alone, both))
    assert len(one) == len(two) == 12
    np.testing.assert_allclose(one, two, atol=1e-5)  # sums over views in another order


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data=/nowhere/at/all"], "/nowhere/at/all"),
        (["--data=demo", "--holdout=0003,nobody"], "nobody"),
        (["--data=demo", "--sh_degree=7"], "sh_degree"),
        (["--data=demo", "--growth.max_gaussians=900000000"], "max_gaussians"),
    ],
)
def test_bad_input_is_one_line_and_code_2(flags, words, tmp_path, compilation_cache):
    ended = run_module("experiments.fit_gaussians", *flags, f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and words in lines[0]
