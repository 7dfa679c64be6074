"""The training of the tri-plane transformer as its users start it."""

from tests.helpers.programs import run_module


def test_bad_flags_are_one_line_and_code_2(tmp_path):
    ended = run_module("experiments.train_single_pass", "--model.patch=5", f"--workdir={tmp_path / 'run'}")
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and "model.patch" in lines[0]
    assert not (tmp_path / "run").exists()
