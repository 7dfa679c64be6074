"""The evaluation of a prior as its users start it."""

import json

import pytest

from tests.helpers.programs import run_module


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--guidance=-1"], "guidance"), (["--weights=/nowhere/prior.safetensors"], "train_multiview")],
)
def test_bad_input_is_one_line_and_code_2(flags, words, tmp_path):
    ended = run_module("experiments.evaluate_prior", *flags, f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and words in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_untrained_prior_is_found_out_and_exact_renders_are_not(tmp_path):
    from experiments.prior import weights
    from tests.experiments.prior.weights_test import prior_of

    weights.save_prior(tmp_path / "prior.safetensors", prior_of())
    flags = [f"--weights={tmp_path / 'prior.safetensors'}", "--captions=2", "--apart=2", "--steps=2", "--nocache"]
    ended = run_module("experiments.evaluate_prior", *flags, f"--workdir={tmp_path / 'run'}", timeout=600)
    assert ended.returncode == 0, ended.stderr
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    exact, model = scores["sets"]["fixed"]["exact"], scores["sets"]["fixed"]["model"]
    assert exact["all"] > 0.8 and model["all"] < 0.3
    assert exact["psnr"] > model["psnr"] + 10
    assert len(scores["captions"]["iid"]) == 2
    for name in ("report.html", "metrics.json", "sheet_fixed.png", "sheet_iid.png", "sheet_compositional.png"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert "named colours present" in ended.stdout
