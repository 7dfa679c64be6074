"""The tuner: end to end with interpreted kernels, the entry that it prints, and its candidates."""

import json
import sys

import numpy as np
import pytest

from experiments import flags
from experiments.bench import tune, tuning
from renderers.kernels.composite import blocks
from renderers.kernels.composite.blocks import GpuBlocks, GpuPass, TpuBlocks


def _table(entry):
    """What the entry is once it is pasted."""
    names = {"GpuBlocks": GpuBlocks, "GpuPass": GpuPass, "TpuBlocks": TpuBlocks}
    return eval("{" + entry + "}", names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "limit", "count"), [("pallas_gpu", 2, 6), pytest.param("pallas_tpu", 1, 1, marks=pytest.mark.slow)]
)
def test_times_candidates_and_writes_a_table_that_can_be_pasted(backend, limit, count, tmp_path, monkeypatch, capsys):
    argv = ["tune", f"--backend={backend}", "--shapes=tiny", f"--limit={limit}", "--repeats=1", f"--output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as end:
        flags.run(tune.main, tune.Config())
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    (path,) = tmp_path.iterdir()
    assert path.name == f"tune_{backend}_cpu.json"
    made = json.loads(path.read_text())
    assert made["table"] in said.out
    times = {name: result["value"] for name, result in made["results"].items()}
    assert len(times) == count and min(times.values()) > 0
    sizes = blocks.default_for(_table(made["table"]) | {"": ()}, "cpu", 3, 9)
    if backend == "pallas_gpu":
        fastest = min((name for name in times if "/forward/" in name), key=times.get)
        assert fastest.endswith(tuning._label(sizes.forward)), "the table holds the fastest"
    else:
        assert min(times, key=times.get).endswith(tuning._label(sizes))


def test_a_candidate_that_does_not_compile_is_passed_over(monkeypatch, capsys):
    def passes(channels):
        yield GpuPass(pixels=256, turn=16, channels=3, warps=1, stages=2)
        yield GpuPass(pixels=128, turn=16, channels=3, warps=1)

    def run(sizes):
        if sizes.forward.stages == 2:
            raise RuntimeError("out of registers\nand more")
        return np.zeros(1)

    monkeypatch.setattr(
        tuning, "_problem", lambda backend, shape: tuning._Problem(3, 9, run, lambda sizes: np.zeros(1))
    )
    monkeypatch.setattr(tuning, "gpu_passes", passes)
    (channels, tiles, sizes), times = tuning.tune("pallas_gpu", "tiny", 1, None)
    assert (channels, tiles) == (3, 9) and sizes.forward.pixels == 128
    assert "stages=2: out of registers\n" in capsys.readouterr().out
    assert not [name for name in times if "/forward/" in name and "stages=2" in name]


def test_the_entry_serves_every_problem_with_its_nearest_row():
    rows = [(16, 100, TpuBlocks(chunk=128, step=8)), (3, 900, TpuBlocks(chunk=256, step=8))]
    rows.append((3, 100, TpuBlocks(chunk=128, step=16)))
    table = _table(tuning.literal("Some device", rows)) | {"": ()}
    for problem, expected in (((3, 100), 2), ((1, 101), 1), ((3, 10**6), 1), ((4, 1), 0), ((400, 10**6), 0)):
        assert blocks.default_for(table, "Some device", *problem) == rows[expected][2], problem


def test_candidates_are_distinct_and_fill_their_warps():
    for channels in (1, 3, 16, 40):
        candidates = list(tuning.gpu_passes(channels))
        assert len(candidates) == len(set(candidates)) > 20
        assert all(sizes.pixels >= 32 * sizes.warps and sizes.channels <= channels for sizes in candidates)
    assert len(set(tuning.tpu_candidates())) > 3


@pytest.mark.parametrize("flag", ["--shapes=", "--repeats=0", "--limit=-1", "--shapes=60k"])
def test_bad_flags_end_with_one_line(flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tune", flag])
    with pytest.raises(SystemExit) as end:
        flags.run(tune.main, tune.Config())
    assert end.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
