"""Every config builds: programs construct their defaults, and the training step traces under the choices of flags."""

import dataclasses
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import flags
from experiments.splats import training
from experiments.splats.settings import FitConfig
from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians

_PROGRAMS = (
    *("experiments.fit_gaussians", "experiments.fit_field", "experiments.fit_mesh", "experiments.reconstruct"),
    *("experiments.train_multiview", "experiments.evaluate_prior", "experiments.train_single_pass"),
    "experiments.train_retrieval",
    *("experiments.text_to_3d", "experiments.image_to_3d", "experiments.evaluate_generation"),
    *("experiments.view", "experiments.doctor", "experiments.bench.__main__", "experiments.bench.tune"),
)


@pytest.mark.parametrize("program", _PROGRAMS)
def test_defaults_build_and_survive_the_round_trip_through_flags(program):
    default = importlib.import_module(program).Config()
    given = []
    for name, value in flags.to_dict(default).items():
        if value != ():
            value = ",".join(map(str, value)) if isinstance(value, tuple) else value
            given.append(f"--{name}={'none' if value is None else value}")
    assert flags.parse(default, [program, *given]) == default


_CHOICES = {
    "sh_degree": (0, 2, 4),
    "background": ("black", "random"),
    "antialias": (False, True),
    "batch": (1, 2),
    "backend": ("xla", "cpu"),
}


@pytest.mark.parametrize("values", [v for i, v in enumerate(itertools.product(*_CHOICES.values())) if i % 11 == 0])
def test_the_step_traces_and_keeps_the_state_as_it_is(values):
    config = dataclasses.replace(FitConfig(), **dict(zip(_CHOICES, values, strict=True)))
    rows = jnp.zeros
    k = (config.sh_degree + 1) ** 2
    start = Gaussians(
        means=rows((9, 3)),
        quaternions=rows((9, 4)),
        log_scales=rows((9, 3)),
        opacity_logits=rows(9),
        sh=rows((9, k, 3)),
    )
    state = jax.eval_shape(lambda: training.initial_state(start, 16))
    b = config.batch
    cameras = Camera(rows((b, 4, 4)), rows((b, 2)), rows((b, 2)), (20, 30))
    batch = training.Batch(images=jnp.zeros((b, 20, 30, 4), jnp.uint8), cameras=cameras)

    def step(state, batch):
        at, fraction = jnp.int32(0), jnp.float32(0)
        return training.update(state, batch, at, fraction, config=config, white=True, capacity=64, mesh=None)

    new, metrics, report = jax.eval_shape(step, state, batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert all(value.shape == () for value in metrics.values()) and np.issubdtype(report.counts.dtype, np.integer)
