"""Losses: times spread as said, weights that turn one prediction's error into another's, and the whole loss by hand."""

import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, norm

from generators.diffusion import losses, process, schedules
from generators.diffusion.process import Prediction
from generators.diffusion.schedules import Cosine, RectifiedFlow, log_snr

KINDS = typing.get_args(Prediction)


def test_stratified_times_have_one_in_every_part():
    times = np.asarray(losses.stratified_times(jax.random.key(0), 64))
    np.testing.assert_array_equal(np.floor(times * 64), np.arange(64))


def test_stratified_timesteps_are_all_equally_likely():
    draw = jax.jit(lambda keys: jax.vmap(lambda key: losses.stratified_timesteps(key, 20, 30))(keys))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    assert drawn.min() == 0 and drawn.max() == 29
    # Two of 20 times in every three of 30 timesteps
    np.testing.assert_array_equal([np.bincount(row // 3, minlength=10) for row in drawn], 2)
    assert kstest((drawn.reshape(-1) + np.random.default_rng(0).random(8000)) / 30, "uniform").pvalue > 1e-3


def test_logit_normal_times_are():
    draw = jax.jit(lambda key: losses.logit_normal_times(key, 2000, mean=0.5, deviation=1.3))
    times = np.asarray(draw(jax.random.key(0)), np.float64)
    assert kstest(np.log(times / (1 - times)), norm(0.5, 1.3).cdf).pvalue > 0.01


@pytest.mark.parametrize("schedule", [Cosine(shift=2.0), RectifiedFlow()], ids=["cosine", "flow"])
def test_weights_turn_one_error_into_another(schedule):
    """Errors of predictions converted from two different ones of x_0, against the weight."""
    with jax.enable_x64(True):
        t = jnp.array([0.2, 0.7])
        z, one, other = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 5)))

        @jax.jit
        def squared_errors():
            to = {
                "clean": process.to_clean,
                "noise": process.to_noise,
                "velocity": process.to_velocity,
                "flow": process.to_flow,
                "score": process.to_score,
            }
            gaps = {k: f(one, "clean", z, t, schedule) - f(other, "clean", z, t, schedule) for k, f in to.items()}
            return {k: jnp.mean(gap**2, axis=1) for k, gap in gaps.items()}

        errors = squared_errors()
        for counted, predicted in itertools.product(KINDS, KINDS):
            weight = losses.error_weight(schedule, t, counted, predicted)
            np.testing.assert_allclose(weight * errors[predicted], errors[counted], rtol=1e-9)


@pytest.mark.parametrize("predicted", ["clean", "noise", "velocity"])
def test_min_snr_is_that_of_the_paper(predicted):
    t = jnp.linspace(0.05, 0.95, 19)
    snr = np.exp(np.asarray(log_snr(Cosine(), t), np.float64))
    in_paper = {"clean": 1, "noise": 1 / snr, "velocity": 1 / (snr + 1)}[predicted] * np.minimum(snr, 5)
    weight = losses.error_weight(Cosine(), t, "noise", predicted, most=5.0)
    np.testing.assert_allclose(weight, in_paper, rtol=1e-5)


def test_weights_are_finite_at_the_ends_where_that_is_promised():
    kinds = itertools.product(("clean", "noise", "velocity", "flow"), ("clean", "velocity", "flow"))
    table = schedules.zero_terminal_snr(schedules.linear())
    ends = ((Cosine(), jnp.array([0.0, 1.0])), (table, jnp.array([-1, 999])))
    for weights in jax.jit(lambda: [losses.error_weight(s, t, *k, most=5.0) for k in kinds for s, t in ends])():
        assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    # Pure noise says nothing of eps; at no noise the cut is what counts
    np.testing.assert_allclose(losses.error_weight(*ends[0], "noise", "clean", most=5.0), [5.0, 0.0])


def test_the_capped_weight_is_that_of_v_on_x_0():
    t = jnp.linspace(0, 1, 30)
    capped = losses.capped_velocity_weight(Cosine(shift=2.0), t, 5.0)
    np.testing.assert_allclose(capped, losses.error_weight(Cosine(shift=2.0), t, "velocity", "clean", 5.0), rtol=1e-5)
    np.testing.assert_allclose(capped[-1], 1.0, rtol=1e-6)
    assert capped[0] == 5


def test_the_loss_is_the_mean_over_examples_of_weight_times_error():
    clean, noise = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    t, weights = jnp.array([0.2, 0.5, 0.9]), jnp.array([1.0, 2.0, 0.0])
    schedule = Cosine()
    alpha, sigma = (np.asarray(f(t))[:, None] for f in (schedule.alpha, schedule.sigma))

    def loss_of(predict):
        return jax.jit(lambda: losses.denoising_loss(predict, clean, noise, t, schedule, "velocity", weights))()

    z, v = alpha * clean + sigma * noise, alpha * noise - sigma * clean
    by_hand = np.mean(np.asarray(weights) * np.mean((0.5 * z - v) ** 2, axis=1))
    np.testing.assert_allclose(loss_of(lambda z, t: 0.5 * z), by_hand, rtol=1e-5)
    assert loss_of(lambda z, t: process.target("velocity", clean, noise, t, schedule)) == 0
