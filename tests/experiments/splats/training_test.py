"""The training step: descent, schedules, refinement, sharding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.demo import demo_capture
from experiments.splats import scene, training, views
from experiments.splats.fit import Fit
from experiments.splats.settings import FitConfig, Growth
from renderers.gaussians.spherical_harmonics import sh_colors


class _NeverStopped:
    requested = False


@functools.cache
def _capture():
    return demo_capture(size=(32, 32), views=9, num_points=250)


def _start(config, mesh=None):
    frame = scene.normalisation(_capture())
    divided = views.divide(_capture(), frame, config)
    gaussians = scene.initial_gaussians(
        _capture(), frame, use_points=True, number=0, degree=config.sh_degree, most=10**6, seed=0
    )
    return training.initial_state(gaussians, 512), views.Batches(divided, config, mesh)


def _train(config, steps, mesh=None, capacity=None):
    state, batches = _start(config, mesh)
    if mesh is not None:
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        state = jax.device_put(state, whole)
    losses = []
    for step in range(steps):
        at, fraction = jnp.int32(step), jnp.float32(step / 100)
        state, metrics, report = training.update(
            state, batches(step), at, fraction, config=config, white=True, capacity=capacity, mesh=mesh
        )
        losses.append(float(metrics["loss"]))
        assert not report.counts.any()
    return state, losses


def test_one_view_fitted_alone_halves_its_loss():
    config = FitConfig(holdout="0001,0002,0003,0004,0005,0006,0007,0008", sh_degree=1)
    _, losses = _train(config, 80)
    assert losses[-1] < losses[0] / 2


@pytest.mark.slow
def test_views_shared_among_devices_give_the_losses_of_one():
    config = FitConfig(holdout="9", batch=4, sh_degree=1)
    mesh = jax.make_mesh((4,), ("views",), axis_types=(jax.sharding.AxisType.Auto,))
    one, alone = _train(config, 4)
    many, together = _train(config, 4, mesh)
    # sums over views in another order: float32 rounding, amplified by Adam where a gradient is close to zero
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.abs(np.asarray(one.gaussians.sh) - np.asarray(many.gaussians.sh)).mean() < 1e-5


@pytest.mark.slow
def test_batch_gradient_is_the_mean_of_its_views():
    config = dataclasses.replace(FitConfig(holdout="9", batch=2, sh_degree=1), growth=Growth(noise=0.0))
    state, batches = _start(config)
    batch = batches(0)
    halves = [jax.tree.map(lambda leaf: leaf[i : i + 1], batch) for i in range(2)]  # noqa: B023 - used at once
    background = jnp.zeros(3)  # white pixels on white would have an L1 gradient of either sign
    # round Gaussians have no gradient to their rotation, only rounding: draw them out
    stretch = jnp.asarray(np.random.default_rng(0).normal(size=(512, 3)) * 0.5, jnp.float32)
    gaussians = dataclasses.replace(state.gaussians, log_scales=state.gaussians.log_scales + stretch)

    def gradient(part):
        def loss(gaussians):
            return training._batch_loss(gaussians, state.alive, part, background, config, None)[0]

        return jax.grad(loss)(gaussians)

    whole, parts = gradient(batch), [gradient(half) for half in halves]
    for total, a, b in zip(*map(jax.tree.leaves, (whole, *parts)), strict=True):
        np.testing.assert_allclose(total, a + b, atol=2e-5 * float(jnp.abs(total).max() + 1e-9))


@pytest.mark.parametrize(("fraction", "bands"), [(0.0, 1), (0.0999, 1), (0.1, 4), (0.25, 9), (0.3, 16), (1.0, 16)])
def test_colour_bands_join_in_order(fraction, bands):
    mask = training.band_mask(jnp.float32(fraction), 3)
    np.testing.assert_array_equal(mask[:, 0], np.arange(16) < bands)


def test_masked_bands_are_a_lower_degree():
    config = FitConfig(holdout="9", sh_degree=2)
    state, batches = _start(config)
    camera = jax.tree.map(lambda leaf: leaf[0], batches(0).cameras)
    rng = np.random.default_rng(0)
    sh = jnp.asarray(rng.normal(size=state.gaussians.sh.shape), jnp.float32)
    masked = sh * training.band_mask(jnp.float32(0.15), 2)[None]
    np.testing.assert_allclose(
        sh_colors(masked, state.gaussians.means, camera, 2), sh_colors(sh, state.gaussians.means, camera, 1), atol=1e-6
    )


def test_transparent_photographs_stand_on_the_background():
    image = jnp.asarray([[[255, 0, 51, 102]]], jnp.uint8)
    np.testing.assert_allclose(
        training.composite_background(image, jnp.array([0.0, 1.0, 0.5]))[0, 0], [0.4, 0.6, 0.2 * 0.4 + 0.3], atol=1e-6
    )


def test_refinement_grows_to_the_cap_and_stops_in_time(tmp_path):
    config = FitConfig(
        holdout="9", batch=4, steps=1000, sh_degree=0, growth=Growth(max_gaussians=2000, factor=1.5, every=10, start=10)
    )
    fit = Fit(_capture(), config, _NeverStopped())
    state, aux = fit.init()
    aux["seconds"] = 0.0
    alive, capacity = [int(state.alive.sum())], [aux["capacity"]]
    program = fit.program(tmp_path)
    for step in range(1, 101):
        state, aux = program.reshape(state, aux, step)
        alive.append(int(state.alive.sum()))
        capacity.append(aux["capacity"])
    assert alive[9] == 250 and alive[10] == 375 and alive[20] == 563 and alive[-1] == 2000
    assert capacity[0] == 1024 and capacity[-1] == 2000 and state.gaussians.means.shape == (2000, 3)
    same, _ = program.reshape(state, aux, 801 - 1 + 10)  # beyond 0.8 of the run nothing moves
    assert same is state


def test_moments_of_changed_rows_start_anew():
    config = FitConfig(holdout="9", sh_degree=0)
    state, _ = _start(config)
    state = dataclasses.replace(state, moments=jax.tree.map(lambda leaf: leaf + 1, state.moments))
    old = state.gaussians.opacity_logits
    new = training.refine(jax.tree.map(jnp.copy, state), jnp.int32(40), jnp.int32(100), seed=0)
    born = np.asarray(new.alive) & (np.arange(512) >= 250)
    assert born.sum() == 40
    split = (np.asarray(new.gaussians.opacity_logits) != np.asarray(old)) & ~born
    for moment in (new.moments.mu, new.moments.nu):
        rows = np.asarray(moment.means)[:, 0]
        assert (rows[born | split] == 0).all() and (rows[~(born | split)] == 1).all()


def test_dropped_intersections_are_counted_and_given_room(capsys, tmp_path):
    config = FitConfig(
        holdout="9", batch=4, sh_degree=0, backend="xla", growth=Growth(every=5, start=5, factor=1.0, max_gaussians=300)
    )
    fit = Fit(_capture(), config, _NeverStopped())
    state, aux = fit.init()
    enough = aux["intersections"]
    # 32 x 32 pixels are 4 tiles, so that 250 Gaussians need less than the smallest room: pretend that it was half
    state = dataclasses.replace(state, overflow=jnp.full_like(state.overflow, 7))
    state, aux = fit.program(tmp_path).reshape(state, {**aux, "seconds": 0.0}, 5)
    assert aux["intersections"] == 2 * enough and int(state.overflow) == 0
    assert "dropped 7 intersections" in capsys.readouterr().out
