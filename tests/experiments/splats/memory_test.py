"""The preflight of a splat fit: a bound where there is room, the compiled step where there is not."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from experiments.data.demo import demo_capture
from experiments.errors import InputError
from experiments.splats import memory, scene, training, views
from experiments.splats.settings import FitConfig, Growth

SHAPES = [(32, 32, 3)] * 5
GIB = 2**30


def _config(number, **changes):
    return FitConfig(growth=Growth(max_gaussians=number), sh_degree=0, **changes)


def test_a_run_far_from_the_limit_compiles_nothing(monkeypatch):
    monkeypatch.setattr(memory, "_free_bytes", lambda: 64 * GIB)
    monkeypatch.setattr(memory, "_replicas", lambda: 1)
    monkeypatch.setattr(memory, "stated", lambda *_: pytest.fail("compiled for nothing"))
    assert "at most 1.9 GiB for 1000000 Gaussians, 64.0 GiB free" in memory.preflight(_config(10**6), SHAPES)
    monkeypatch.setattr(memory, "_free_bytes", lambda: None)
    assert memory.preflight(_config(10**8), SHAPES).endswith("Gaussians"), "nothing to compare with: said, not refused"


@pytest.mark.slow
def test_near_the_limit_the_compiled_step_decides(monkeypatch):
    config = _config(300_000)
    exact = memory.stated(config, SHAPES)
    assert exact < memory.bound(config, SHAPES) < 3 * exact
    monkeypatch.setattr(memory, "stated", lambda *_: exact)
    monkeypatch.setattr(memory, "_free_bytes", lambda: exact + 1)
    assert memory.preflight(config, SHAPES).startswith(f"memory: up to {exact / GIB:.1f} GiB for 300000 Gaussians")
    monkeypatch.setattr(memory, "_free_bytes", lambda: exact - 1)
    with pytest.raises(InputError, match=re.escape("lower --growth.max_gaussians or --sh_degree")):
        memory.preflight(config, SHAPES)


def test_the_step_that_is_stated_is_the_step_that_runs():
    """Shapes and types of every argument are those that a real capture gives."""
    capture = demo_capture(size=(32, 32), views=9, num_points=64)
    number = len(capture.points)
    config = _config(number, batch=2 * jax.device_count())
    frame = scene.normalisation(capture)
    gaussians = scene.initial_gaussians(
        capture, frame, use_points=True, number=0, degree=config.sh_degree, most=number, seed=0
    )
    batches = views.Batches(views.divide(capture, frame, dataclasses.replace(config, batch=2)), config, None)
    whole = batches(0)
    share = jax.tree.map(lambda leaf: leaf[:2], whole)  # a device's
    real = (training.initial_state(gaussians, number), share, jnp.int32(0), jnp.float32(0))
    stated = memory.abstract_step(config, [image.shape for image in capture.images])

    def described(tree):
        return [(leaf.shape, jnp.dtype(leaf.dtype)) for leaf in jax.tree.leaves(tree)]

    assert jax.tree.structure(real) == jax.tree.structure(stated)
    assert described(real) == described(stated)
