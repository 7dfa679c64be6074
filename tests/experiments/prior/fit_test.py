"""The training of the prior without its loop: exact resume, the weights it leaves, the weights it may start from."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import checkpoints, train_loop
from experiments.errors import InputError
from experiments.prior import training
from experiments.prior.fit import Fit
from experiments.prior.settings import DataSettings, ModelSettings, MultiviewConfig, OptimizerSettings
from experiments.prior.weights import load_prior

_CONFIG = MultiviewConfig(
    model=ModelSettings(size=8, patch=4, rim=1, width=64, depth=1, text_width=64, text_depth=0),
    data=DataSettings(chunk=4, pool=2, first=1, reuse=2.0),
    optimizer=OptimizerSettings(batch=4, warmup=2),
    evaluation_rings=4,
    steps=8,
)


class NoStop:
    requested = False

    def exit_if_requested(self):
        pass


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The suite has four virtual devices; several are tested by processes in `train_multiview_test`."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)


def advanced(fit, folder, state, first, last):
    """States and losses of steps first .. last - 1 of the run."""
    program, losses = fit.program(folder), []
    for step in range(first, last):
        fraction = np.float32(step / _CONFIG.steps)
        batch = jax.device_put(program.batch(step))
        state, metrics, report = program.step(state, {}, batch, np.int32(step), fraction)
        assert not np.asarray(report.counts).any()
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal_and_leaves_the_average_of_its_weights(tmp_path, capsys):
    with Fit(_CONFIG, NoStop(), quiet=True) as fit:
        unbroken, losses = advanced(fit, tmp_path, fit.init()[0], 0, 6)
    with (
        Fit(_CONFIG, NoStop(), quiet=True) as fit,
        checkpoints.Checkpoints(tmp_path / "checkpoints") as saved,
    ):
        state, before = advanced(fit, tmp_path, fit.init()[0], 0, 3)
        saved.save(3, state, {"seconds": 1.0})
        saved.wait()
    with (
        Fit(_CONFIG, NoStop(), quiet=True) as fit,
        checkpoints.Checkpoints(tmp_path / "checkpoints") as saved,
    ):
        start = saved.restore_newest(fit.make_target)
        resumed, after = advanced(fit, tmp_path, start.state, 3, 6)
        assert before + after == losses
        jax.tree.map(np.testing.assert_array_equal, resumed, unbroken)

        flags = {"optimizer.batch": 4, "data.seed": 0, "seed": 0}
        flags |= {f"model.{name}": value for name, value in dataclasses.asdict(_CONFIG.model).items()}
        flags |= {f"diffusion.{name}": value for name, value in dataclasses.asdict(_CONFIG.diffusion).items()}
        described = {"name": "train_multiview", "flags": flags, "argv": ["x", "--steps=8"]}
        described |= {"device": {}, "packages": {}, "git_commit": None}
        (tmp_path / "config.json").write_text(json.dumps(described))
        of_run = load_prior(tmp_path)  # before the end: from the newest checkpoint
        assert of_run.about["steps"] == 3 and of_run.about["rings"] == 12

        finished = train_loop.Finished(state=resumed, aux={}, step=6, seconds=2.0, stopped=False)
        fit.export(tmp_path, finished)
    prior = load_prior(tmp_path / "prior.safetensors")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), prior.params, resumed.average)
    left = json.loads((tmp_path / "prior.json").read_text())
    final = json.loads((tmp_path / "metrics.json").read_text())
    assert left["steps"] == 6 and left["command"].endswith("--steps=8")
    assert final["error"] == pytest.approx(np.mean([final[f"error_{t:g}"] for t in training.EVALUATION_TIMES]))
    assert (tmp_path / "report.html").stat().st_size > 5000 and (tmp_path / "samples.png").exists()

    again = dataclasses.replace(_CONFIG, init=str(tmp_path / "prior.safetensors"))
    with Fit(again, NoStop(), quiet=True) as fit:
        jax.tree.map(np.testing.assert_array_equal, fit.init()[0].params, prior.params)
    other = dataclasses.replace(again, model=dataclasses.replace(_CONFIG.model, depth=2))
    with pytest.raises(InputError, match="--model.depth=1"):
        Fit(other, NoStop(), quiet=True)
