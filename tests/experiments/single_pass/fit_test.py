"""The training without its loop: four devices have the losses of one, and go on from what was saved."""

import jax
import numpy as np
import pytest

from experiments.checkpoints import Checkpoints
from experiments.prior.settings import DataSettings, OptimizerSettings
from experiments.single_pass.fit import Fit
from experiments.single_pass.settings import ExampleSettings, ModelSettings, TrainSinglePassConfig

_CONFIG = TrainSinglePassConfig(
    model=ModelSettings(width=64, depth=1, texels=16, features=4, hidden=16),
    example=ExampleSettings(near=32, anywhere=32),
    data=DataSettings(chunk=4, pool=2, first=1, reuse=4.0),
    optimizer=OptimizerSettings(batch=4, warmup=2),
    steps=4,
)


class NoStop:
    def exit_if_requested(self):
        pass


def advanced(fit, folder, state, first, last):
    program, losses = fit.program(folder), []
    for step in range(first, last):
        batch, fraction = jax.device_put(program.batch(step)), np.float32(step / _CONFIG.steps)
        state, metrics, _ = program.step(state, {}, batch, np.int32(step), fraction)
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.mark.slow
def test_four_devices_have_the_losses_of_one_and_go_on_from_what_was_saved(tmp_path, monkeypatch):
    with Fit(_CONFIG, NoStop(), quiet=True) as fit:
        fit.render_pool(0)
        state, begun = advanced(fit, tmp_path, fit.init()[0], 0, 2)
        assert all(len(leaf.sharding.device_set) == 4 for leaf in jax.tree.leaves(state))
        with Checkpoints(tmp_path / "checkpoints") as saved:
            saved.save(2, state, {})
            saved.wait()
            restored = saved.restore_newest(fit.make_target)
        unbroken, rest = advanced(fit, tmp_path, state, 2, 4)
        again, same = advanced(fit, tmp_path, restored.state, 2, 4)
        assert same == rest
        jax.tree.map(np.testing.assert_array_equal, again, unbroken)
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    with Fit(_CONFIG, NoStop(), quiet=True) as fit:
        alone, losses = advanced(fit, tmp_path, fit.init()[0], 0, 4)
    np.testing.assert_allclose(begun + rest, losses, rtol=1e-4)
    for one, other in zip(jax.tree.leaves(alone.params), jax.tree.leaves(unbroken.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)  # Adam's first steps are of the gradient's sign
