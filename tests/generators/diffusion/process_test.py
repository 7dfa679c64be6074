"""Predictions: definitions, all conversions among them, their ends, and the score of a density that is known."""

import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion import process, schedules
from generators.diffusion.process import Prediction
from generators.diffusion.schedules import Cosine, LinearRate, RectifiedFlow
from tests.generators.diffusion.mixtures import Mixture

KINDS = typing.get_args(Prediction)
CONVERSIONS = {
    "clean": process.to_clean,
    "noise": process.to_noise,
    "velocity": process.to_velocity,
    "flow": process.to_flow,
    "score": process.to_score,
}
SCHEDULES = {
    "cosine": Cosine(shift=2.0),
    "linear rate": LinearRate(),
    "rectified flow": RectifiedFlow(),
    "scaled linear": schedules.scaled_linear(),
    "zero terminal snr": schedules.zero_terminal_snr(schedules.scaled_linear()),
}
every_schedule = pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(schedule, id=name, marks=[pytest.mark.slow] if name in ("linear rate", "scaled linear") else [])
        for name, schedule in SCHEDULES.items()
    ],
)


def class_name(value):
    return type(value).__name__


def examples(count):
    clean, noise = np.random.default_rng(0).normal(size=(2, count, 3, 2))
    return jnp.asarray(clean), jnp.asarray(noise)


def times_within(schedule):
    table = isinstance(schedule, schedules.Table)
    return jnp.array([0, 400, 900]) if table else jnp.array([0.05, 0.5, 0.95])


@every_schedule
def test_all_conversions_agree_with_the_definitions(schedule):
    with jax.enable_x64(True):
        t = times_within(schedule)
        clean, noise = examples(len(t))
        alpha, sigma = (np.asarray(f)[:, None, None] for f in (schedule.alpha(t), schedule.sigma(t)))
        z = process.add_noise(clean, noise, t, schedule)
        np.testing.assert_allclose(z, alpha * clean + sigma * noise, rtol=1e-12)
        meant = {
            "clean": clean,
            "noise": noise,
            "velocity": alpha * noise - sigma * clean,
            "flow": noise - clean,
            "score": (alpha * clean - z) / sigma**2,
        }
        for kind in KINDS:
            np.testing.assert_allclose(process.target(kind, clean, noise, t, schedule), meant[kind], rtol=1e-9)

        @jax.jit
        def convert(predictions):
            return {(a, b): CONVERSIONS[b](predictions[a], a, z, t, schedule) for a in KINDS for b in KINDS}

        for (source, wanted), converted in convert(meant).items():
            np.testing.assert_allclose(converted, meant[wanted], rtol=1e-9, err_msg=f"{source} to {wanted}")


@every_schedule
def test_conversions_are_mutual_inverses_for_wrong_predictions_too(schedule):
    with jax.enable_x64(True):
        t = times_within(schedule)[1]
        guess, z = examples(4)

        def there_and_back(a, b):
            return CONVERSIONS[a](CONVERSIONS[b](guess, a, z, t, schedule), b, z, t, schedule)

        for back in jax.jit(lambda: [there_and_back(a, b) for a, b in itertools.product(KINDS, KINDS)])():
            np.testing.assert_allclose(back, guess, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), SCHEDULES["zero terminal snr"]], ids=class_name)
@pytest.mark.parametrize("kind", ["clean", "velocity", "flow"])
def test_clean_data_and_pure_noise_are_exact(schedule, kind):
    table = isinstance(schedule, schedules.Table)
    clean, noise = (x.astype(jnp.float32) for x in examples(2))
    pure = jnp.asarray(schedule.count - 1) if table else jnp.ones(())
    z = process.add_noise(clean, noise, pure, schedule)
    np.testing.assert_array_equal(z, noise)
    prediction = process.target(kind, clean, noise, pure, schedule)
    np.testing.assert_allclose(process.to_clean(prediction, kind, z, pure, schedule), clean, atol=1e-6)
    np.testing.assert_allclose(process.to_noise(prediction, kind, z, pure, schedule), noise, atol=1e-6)
    data = jnp.asarray(-1) if table else jnp.zeros(())
    z = process.add_noise(clean, noise, data, schedule)
    np.testing.assert_array_equal(z, clean)
    prediction = process.target(kind, clean, noise, data, schedule)
    np.testing.assert_allclose(process.to_clean(prediction, kind, z, data, schedule), clean, atol=1e-6)
    if kind != "clean":
        np.testing.assert_allclose(process.to_noise(prediction, kind, z, data, schedule), noise, atol=1e-6)


@pytest.mark.parametrize("kind", ["noise", "score"])
def test_a_prediction_of_the_noise_tells_nothing_of_the_data_in_pure_noise(kind):
    schedule = SCHEDULES["zero terminal snr"]
    clean, noise = examples(2)
    last = jnp.asarray(schedule.count - 1)
    z = process.add_noise(clean, noise, last, schedule)
    assert not np.any(np.isfinite(process.to_clean(0.9 * z, kind, z, last, schedule)))
    with pytest.raises(ValueError, match=rf"a prediction of the {kind} says nothing of the clean data at time 999"):
        process.require_defined(kind, jnp.arange(1000), schedule)
    process.require_defined(kind, jnp.arange(999), schedule)
    process.require_defined("velocity", jnp.arange(1000), schedule)
    process.require_defined(kind, jnp.arange(1000), schedules.scaled_linear())


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow()], ids=class_name)
def test_the_best_denoiser_means_the_score_of_the_density(schedule):
    with jax.enable_x64(True):
        mixture, t = Mixture(), jnp.asarray(0.4)
        z = jnp.linspace(-2, 2, 9)
        density = jax.vmap(jax.grad(lambda z: mixture.log_density(z, schedule.alpha(t), schedule.sigma(t))))
        score = jax.jit(lambda z: process.to_score(mixture.denoiser(schedule)(z, t), "clean", z, t, schedule))
        np.testing.assert_allclose(score(z), jax.jit(density)(z), rtol=1e-9)


def test_velocities_are_the_derivatives_of_the_path():
    with jax.enable_x64(True):
        clean, noise = examples(1)
        t = jnp.asarray(0.3)
        path = lambda schedule: lambda t: process.add_noise(clean, noise, t, schedule)  # noqa: E731
        by_time = jax.jit(lambda t: jax.jvp(path(RectifiedFlow()), (t,), (jnp.ones(()),))[1])(t)
        np.testing.assert_allclose(process.target("flow", clean, noise, t, RectifiedFlow()), by_time, rtol=1e-12)
        # The cosine's angle is pi t / 2
        by_angle = jax.jit(lambda t: jax.jvp(path(Cosine()), (t,), (jnp.asarray(2 / np.pi),))[1])(t)
        np.testing.assert_allclose(process.target("velocity", clean, noise, t, Cosine()), by_angle, rtol=1e-12)


def test_images_keep_their_dtype_whatever_the_schedules():
    clean = jnp.ones((2, 3), jnp.float32)
    with jax.enable_x64(True):
        for schedule, t in ((schedules.linear(10), jnp.array([3, 4])), (Cosine(), jnp.array([0.1, 0.2]))):
            noisy = jax.eval_shape(lambda z, t, s=schedule: process.add_noise(z, z, t, s), clean, t)
            velocity = jax.eval_shape(lambda z, t, s=schedule: process.to_velocity(z, "clean", z, t, s), clean, t)
            assert noisy.dtype == velocity.dtype == jnp.float32
