"""A field fit in this process, on a ball of 24 x 32 pixels: learning, resuming, overflow, what is left behind."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cadence, checkpoints, flags, metrics, preemption, progress, train_loop, workdir
from experiments.errors import InputError
from experiments.fields.fit import Fit
from experiments.fields.loading import load_field
from experiments.fields.settings import (
    FieldConfig,
    HashSettings,
    MeshSettings,
    NetworkSettings,
    OptimizerSettings,
    SamplingSettings,
)
from renderers.meshes.formats import read_mesh
from renderers.metrics import psnr
from tests.experiments.fields.captures import ball_capture
from tests.reliability import drivers

_CONFIG = FieldConfig(
    steps=60,
    turntable_frames=0,
    hash=HashSettings(levels=4, log2_rows=10, coarsest=4, finest=32),
    network=NetworkSettings(width=16, color_depth=1, direction_degree=1),
    sampling=SamplingSettings(
        capacity=1 << 11, rays=64, steps=32, occupancy=16, occupancy_start=8, occupancy_every=4, proposals=8, fine=8
    ),
    optimizer=OptimizerSettings(grid=0.05, network=0.02, warmup=0, final=0.1),
    mesh=MeshSettings(resolution=24, faces=400, texture=64),
    cadence=cadence.Cadence(log_every=1, evaluate_every=20, preview_every=0, checkpoint_seconds=None),
)


class _StopAt:
    """A stop that comes after so many batches."""

    def __init__(self, fit, steps):
        self._stop, self._fit, self._steps = preemption.StopSignal(), fit, steps
        fit_batches = fit._batches

        def batches(step, number):
            if step + 1 == steps:
                self._stop.request("test")
            return fit_batches(step, number)

        fit._batches = batches

    def __getattr__(self, name):
        return getattr(self._stop, name)


def _train(folder, config=_CONFIG, *, capture=None, stop_at=None, resume=False):
    folder = workdir.open_workdir("fit_field", str(folder), resume=resume, config=flags.to_dict(config))
    fit = Fit(capture or ball_capture(views=8), config, preemption.StopSignal())
    stop = preemption.StopSignal() if stop_at is None else _StopAt(fit, stop_at)
    with contextlib.ExitStack() as stack:
        saved = stack.enter_context(checkpoints.Checkpoints(folder / "checkpoints"))
        start = train_loop.resume_or_init(saved, resume=resume, init=fit.init, make_target=fit.make_target)
        fit.rays = start.aux["rays"]
        writer = stack.enter_context(metrics.MetricWriter(folder, restored_step=start.step if start.resumed else None))
        bar = stack.enter_context(progress.Progress(config.steps, description="fit", enabled=False))
        finished = train_loop.train(
            start,
            num_steps=config.steps,
            max_seconds=None,
            program=fit.program(folder),
            cadence=config.cadence,
            checkpoints=saved,
            writer=writer,
            progress=bar,
            stop=stop,
        )
    return fit, finished


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "run"
    fit, finished = _train(folder)
    fit.export(folder, finished)
    return folder, finished


def test_the_loss_falls_and_the_ball_is_learned(trained):
    folder, _ = trained
    lines = drivers.read_lines(folder)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    capture = ball_capture(views=8)
    image = capture.images[0] / 255.0
    shown = jnp.asarray(image[..., :3] * image[..., 3:] + 1 - image[..., 3:], jnp.float32)[None]
    constant = float(psnr(shown, jnp.broadcast_to(shown.mean((1, 2), keepdims=True), shown.shape)))
    numbers = json.loads((folder / "metrics.json").read_text())
    assert {"psnr", "ssim", "seconds", "steps", "mesh_psnr"} <= set(numbers)
    assert numbers["psnr"] > constant + 6, "no better than a picture of one colour"
    assert numbers["steps"] == 60 and [line["step"] for line in lines if "loss" in line] == list(range(1, 61))


def test_resumed_is_bit_equal_also_where_the_number_of_rays_has_changed(trained, tmp_path):
    folder, finished = trained
    run = tmp_path / "run"
    _, first = _train(run, stop_at=27)
    assert first.stopped and first.step == 27
    _, second = _train(run, resume=True)
    assert first.aux["rays"] > 0 and second.aux["rays"] == finished.aux["rays"]
    jax.tree.map(np.testing.assert_array_equal, second.state, finished.state)
    ours, theirs = drivers.logged_numbers(run), drivers.logged_numbers(folder)
    assert ours == [line for line in theirs if line in ours] and len(ours) in (len(theirs), len(theirs) - 1)


def test_the_field_is_loaded_in_the_capture_s_world(trained):
    folder, _ = trained
    field, box, settings = load_field(folder)
    assert settings == dataclasses.replace(_CONFIG, workdir=None)
    center = np.array([1.0, 0.0, 2.0])
    assert (box[0] < center - 0.5).all() and (box[1] > center + 0.5).all()
    rng = np.random.default_rng(0)
    out = rng.normal(size=(200, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    # along rays that come from all sides: nearly clear outside, and opaque before the middle
    t = np.linspace(0.55, 0.0, 56)
    points = (center + out[:, None] * t[None, :, None]).astype(np.float32)
    density, color = field(points.reshape(-1, 3), np.repeat(-out, 56, 0).astype(np.float32))
    optical = np.cumsum(np.asarray(density).reshape(200, 56), 1) * 0.01
    assert np.median(optical[:, 4]) < 0.4 < 1.0 < np.median(optical[:, -1])
    surface = np.asarray(color).reshape(200, 56, 3)[:, 5]
    assert np.corrcoef(surface[:, 0], out[:, 0])[0, 1] > 0.7, "red rises along x"


def test_the_mesh_is_the_ball(trained):
    folder, _ = trained
    mesh = read_mesh(folder / "asset.glb")
    distance = np.linalg.norm(np.asarray(mesh.vertices) - [1.0, 0.0, 2.0], axis=1)
    assert abs(np.median(distance) - 0.5) < 0.1
    assert mesh.uv is not None and mesh.texture is not None and 20 < len(mesh.faces) <= 440


def test_rays_that_find_no_room_are_counted_and_said(tmp_path, capsys):
    sampling = dataclasses.replace(_CONFIG.sampling, capacity=1 << 8)
    config = dataclasses.replace(_CONFIG, sampling=sampling, steps=9)
    fit = Fit(ball_capture(views=8), config, preemption.StopSignal())
    state, aux = fit.init()
    wanted = aux["rays"]
    fit.rays = 8 * wanted  # as if the scene had grown denser since
    program = fit.program(tmp_path)
    at, fraction = jax.device_put((np.int32(0), np.float32(0)))
    state, numbers, _ = program.step(state, aux, program.batch(0), at, fraction)
    assert int(numbers["samples"]) > 256 and int(numbers["rays"]) < 8 * wanted
    assert int(state.dropped) == 8 * wanted - int(numbers["rays"])
    aux = {**aux, "rays": 8 * wanted}
    state, aux = program.reshape(state, aux, 8)
    assert "found no room" in capsys.readouterr().out
    assert aux["rays"] < 8 * wanted and fit.rays == aux["rays"] and int(state.dropped) == 0


def test_a_checkpoint_of_the_other_kind_of_scene_is_refused(trained):
    fit = Fit(ball_capture(views=8), dataclasses.replace(_CONFIG, scene="unbounded"), preemption.StopSignal())
    with pytest.raises(InputError, match="--scene=object"):
        fit.make_target({"rays": 64, "unbounded": False})


def test_a_folder_without_a_field_is_refused(tmp_path):
    with pytest.raises(InputError, match="fit_field"):
        load_field(tmp_path)
