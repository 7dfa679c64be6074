"""The experiment as its users start it; what it learns is tested in `fields`."""

import json

import numpy as np
import pytest

from renderers.meshes.formats import read_mesh
from tests.helpers.programs import run_module
from tests.reliability import drivers

_SHORT = [
    "-m",
    "experiments.fit_field",
    "--steps=60",
    "--turntable_frames=3",
    "--hash.levels=4",
    "--hash.log2_rows=12",
    "--sampling.capacity=4096",
    "--sampling.steps=64",
    "--sampling.occupancy=24",
    "--sampling.occupancy_start=8",
    "--mesh.resolution=32",
    "--mesh.faces=800",
    "--mesh.texture=128",
    "--cadence.log_every=1",
    "--cadence.evaluate_every=30",
    "--cadence.preview_every=30",
    "--cadence.checkpoint_every=5",
]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data=/nowhere/at/all"], "/nowhere/at/all"),
        (["--data=demo", "--sampling.capacity=1000"], "power of two"),
        (["--data=demo", "--surface=neus", "--scene=unbounded"], "scene=object"),
    ],
)
def test_bad_input_is_one_line_and_code_2(flags, words, tmp_path):
    ended = run_module("experiments.fit_field", *flags, f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and words in lines[0]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    ended = drivers.run([*_SHORT, f"--workdir={folder / 'run'}"], folder / "log")
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.mark.slow
def test_results_are_all_there(unbroken):
    numbers = json.loads((unbroken / "metrics.json").read_text())
    assert numbers["steps"] == 60 and numbers["seconds"] > 0
    assert numbers["psnr"] > 14 and 0 < numbers["ssim"] < 1 and numbers["mesh_psnr"] > 10
    mesh = read_mesh(unbroken / "asset.glb")
    # in the capture's own frame: the still life stands on a table of about one metre around the origin
    assert np.abs(np.median(np.asarray(mesh.vertices), 0)).max() < 0.6
    report = (unbroken / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "") and report.count("data:image/") >= 4
    assert (unbroken / "turntable.mp4").stat().st_size > 1000
    assert len(list((unbroken / "renders").glob("*.png"))) == 4
    assert len(list((unbroken / "previews").glob("*.png"))) == 2


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(unbroken, tmp_path):
    run = tmp_path / "run"
    killed_at = drivers.run_killed_until_done(_SHORT, run, [0.3, "saving"], tmp_path / "log")
    assert len(killed_at) == 2, "an attempt ended before its kill came"
    assert drivers.final_arrays_digest(run) == drivers.final_arrays_digest(unbroken)
    assert drivers.logged_numbers(run) == drivers.logged_numbers(unbroken)
    assert drivers.leftovers(run) == []
