import subprocess
import sys

import pytest

from experiments import flags, text_to_3d
from experiments.generation.settings import TextTo3dConfig


def outcome(capsys, *arguments):
    """Exit code and the one line on stderr of a run in this process."""
    with pytest.raises(SystemExit) as left:
        flags.run(text_to_3d.main, TextTo3dConfig(), ["text_to_3d", *arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    return left.value.code, lines


BAD = {
    "empty": (["--prompt="], "--prompt is empty"),
    "missing": ([], "--prompt is empty"),
    "long": (["--prompt=" + "a red box " * 1000], "10,000 characters"),
    "foreign": (["--prompt=ein grüner Würfel"], "English"),
    "unknown": (["--prompt=a red spere"], "'spere' (nearest: sphere"),
    "no sentence": (["--prompt=red on a", "--route=oracle"], "grammar"),
    "no weights": (["--prompt=a red box", "--weights=/nowhere/prior.safetensors"], "/nowhere/prior.safetensors"),
    "bad value": (["--prompt=a red box", "--candidates=0"], "candidates must be 1"),
    "bad nested value": (["--prompt=a red box", "--mesh.resolution=4"], "mesh.resolution must be 16"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_no_folder(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = BAD[case]
    code, lines = outcome(capsys, *arguments)
    assert code == 2 and len(lines) == 1 and expected in lines[0]
    assert not list(tmp_path.iterdir())


def test_damaged_weights_give_one_line(capsys, tmp_path):
    file = tmp_path / "prior.safetensors"
    file.write_bytes(b"\xff" * 100)
    code, lines = outcome(capsys, "--prompt=a red box", f"--weights={file}", f"--workdir={tmp_path / 'run'}")
    assert code == 2 and len(lines) == 1 and "prior.safetensors" in lines[0]


def test_a_folder_with_a_run_is_left_alone(capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code, lines = outcome(capsys, "--prompt=a red box", "--route=oracle", f"--workdir={tmp_path}")
    assert code == 2 and len(lines) == 1 and "already holds a run" in lines[0]
    assert (tmp_path / "config.json").read_text() == "{}"


@pytest.mark.slow
def test_the_oracle_makes_the_asset_and_resumes(tmp_path):
    command = [sys.executable, "-m", "experiments.text_to_3d", "--prompt=a red box on a blue box", "--route=oracle"]
    command += ["--oracle.objects=2", "--candidates=2", "--turntable_frames=4", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "run" / "asset.glb").read_bytes()
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "asset.glb").read_bytes() == first
    assert "views:" not in again.stderr  # they were there
