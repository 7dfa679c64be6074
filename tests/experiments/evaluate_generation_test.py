"""The evaluation of assets as its users start it."""

import json

import pytest

from experiments import evaluate_generation, flags
from experiments.evaluation.settings import EvaluateGenerationConfig
from tests.helpers.programs import run_module

BAD = {
    "twice": (["--routes=mesh,mesh"], "none twice"),
    "no route": (["--routes=mash"], "did you mean"),
    "many": (["--captions=500"], "at most 900 assets"),
    "no weights": (["--weights=/nowhere/prior.safetensors"], "/nowhere/prior.safetensors"),
    "no towers": (["--routes=oracle", "--towers=/nowhere/towers.safetensors"], "/nowhere/towers.safetensors"),
    "no assets": (["--assets=/nowhere"], "--assets=/nowhere is not a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_no_folder(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = BAD[case]
    with pytest.raises(SystemExit) as left:
        flags.run(evaluate_generation.main, EvaluateGenerationConfig(), ["evaluate_generation", *arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert left.value.code == 2 and len(lines) == 1 and expected in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_oracles_assets_are_made_once_and_scored_like_exact_objects(tmp_path):
    small = ["--points=5000", "--volume_points=5000", "--objects=4", "--pool=10", "--candidates=1", "--steps=4"]
    made = ["--routes=oracle", "--split=fixed", "--captions=1", "--oracle.objects=2"]
    folder = tmp_path / "run"
    first = run_module("experiments.evaluate_generation", *made, *small, f"--workdir={folder}", timeout=900)
    assert first.returncode == 0, first.stderr
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["routes"]["exact"]["attributes"]["mean"] == scores["routes"]["oracle"]["attributes"]["mean"] == 1.0
    assert scores["routes"]["oracle"]["chamfer"]["mean"] < 0.03 and scores["about"]["towers"]
    asset = next((folder / "assets" / "oracle").iterdir()) / "asset.glb"
    when = asset.stat().st_mtime_ns
    again = run_module("experiments.evaluate_generation", *made, *small, f"--workdir={folder}", "--resume", timeout=900)
    assert again.returncode == 0, again.stderr
    assert asset.stat().st_mtime_ns == when and "views:" not in again.stderr
    assert json.loads((folder / "scores.json").read_text())["routes"]["oracle"] == scores["routes"]["oracle"]
    given = [f"--assets={folder / 'assets'}", f"--workdir={tmp_path / 'given'}"]
    found = run_module("experiments.evaluate_generation", *given, *small, timeout=900)
    assert found.returncode == 0, found.stderr
    again = json.loads((tmp_path / "given" / "scores.json").read_text())["routes"]["oracle"]
    assert again["chamfer"] == scores["routes"]["oracle"]["chamfer"]
