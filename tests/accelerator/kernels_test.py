"""The checks for accelerators themselves, at a tiny size on the CPU: what is right passes, what is wrong does not."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.bench import scenes
from tests.accelerator import check, kernels

TINY = scenes.Scene(num_gaussians=300, size=(32, 48), sh_degree=1)


def _passes(rows):
    return all(value <= kernels.LIMITS[unit] for value, unit in rows.values())


@pytest.mark.slow
def test_a_right_backend_passes_and_a_wrong_one_does_not(monkeypatch):
    made = {backend: kernels._made(backend, TINY, 1) for backend in ("cpu", "xla")}
    monkeypatch.setattr(kernels, "_made", lambda backend, *_: made[backend])
    rows = kernels.right("cpu", "xla", TINY, 1, ("rand_ed",))
    assert _passes(rows)
    assert {"right/cpu/rand_ed/colors", "right/cpu/rand_ed/gradient of probe"} <= set(rows)
    assert {"right/cpu_and_xla/300/worst pixel", "right/cpu_and_xla/300/gradient of sh"} <= set(rows)
    (color, alpha), (scene, camera) = made["cpu"]
    unwritten = np.where(np.arange(48)[None, :, None] < 47, color, np.nan)
    wrong = [
        ((color + 1e-3, alpha), (scene, camera)),
        ((unwritten, alpha), (scene, camera)),
        ((color, alpha), (dataclasses.replace(scene, means=1.001 * scene.means), camera)),
        ((color, alpha), (dataclasses.replace(scene, sh=scene.sh + np.nan), camera)),
    ]
    for outcome in wrong:
        made["cpu"] = outcome
        assert not _passes(kernels._apart("cpu", "xla", TINY, 0))


@pytest.mark.slow
def test_the_command_writes_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(scenes.SCENES, "100k", TINY)
    monkeypatch.setattr("experiments.runtime.setup", lambda *_: None)  # the suite has set jax up already
    config = check.Config(only="fast", backend="cpu", scenes=("100k",), repeats=1, poison_mib=0, output=str(tmp_path))
    assert check.main(config) == 0
    (path,) = tmp_path.glob("*/kernels_fast.json")
    results = json.loads(path.read_text())["results"]
    assert results["splats/cpu/100k/forward_backward"]["value"] > 0
    assert results["splats/cpu/100k/intersections"]["value"] > 300
    assert "splats/cpu/100k/binning" in capsys.readouterr().out


@pytest.mark.gpu
def test_kernels_of_a_gpu_are_right():
    assert check.main(check.Config(only="right", output="")) == 0
