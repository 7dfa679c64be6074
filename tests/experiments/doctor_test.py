import json
import re
import tomllib

import pytest

from experiments import config_fields, doctor
from tests.helpers import programs


def test_the_lists_of_packages_are_those_of_the_project():
    project = tomllib.loads((programs.ROOT / "pyproject.toml").read_text())["project"]
    required = {re.split(r"[<>=\[ ]", line)[0] for line in project["dependencies"]}
    assert required <= set(doctor.CORE) and set(doctor.CORE) - required <= {"jaxlib"}
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"])


def test_a_healthy_machine_has_no_problems(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor,
        "_check_in_child",
        lambda config, problems: {"backend": "xla", "image error": 0.0, "gradient error": 0.0},
    )
    config = doctor.Config(json=True, runtime=config_fields.RuntimeConfig(compilation_cache="off"))
    assert doctor.main(config) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["problems"] == []
    assert [device["platform"] for device in findings["devices"]] == ["cpu"] * 4
    assert findings["backends"]["composite"] in ("cpu", "xla") and findings["packages"]["jax"]


def test_a_missing_package_is_a_problem_and_nothing_else_is_tried(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CORE", ("jax", "no-such-package"))
    assert doctor.main(doctor.Config()) == 1
    assert "problem: missing packages: no-such-package" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os; os.abort()", "exit code -6"),
        ("raise SystemExit('no such kernel')", "no such kernel"),
        ('print(\'{"backend": "cpu", "image error": 0.5, "gradient error": 0}\')', "differs from the reference"),
        ('print(\'{"backend": "cpu", "image error": NaN, "gradient error": 0}\')', "differs from the reference"),
    ],
)
def test_a_kernel_that_crashes_or_is_wrong_is_reported(monkeypatch, body, words):
    started = doctor.subprocess.run

    def run(command, **options):
        return started([command[0], "-c", body], **options)

    monkeypatch.setattr(doctor.subprocess, "run", run)
    problems = []
    doctor._check_in_child(config_fields.RuntimeConfig(), problems)
    assert len(problems) == 1 and words in problems[0]


def test_the_whole_examination_of_this_machine():
    done = programs.run_module("experiments.doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no problems found" in done.stdout and "composite" in done.stdout
