"""Schedules: ends, preserved variance, shifts, published tables, and all that is derived from alpha and sigma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion import schedules
from generators.diffusion.schedules import Cosine, LinearRate, RectifiedFlow, Shifted, Table, log_snr

CONTINUOUS = {
    "cosine": Cosine(),
    "cosine, shifted": Cosine(shift=2.0),
    "linear rate": LinearRate(),
    "rectified flow": RectifiedFlow(),
    "rectified flow, shifted": RectifiedFlow(shift=3.0),
    "shifted linear rate": Shifted(base=LinearRate(), shift=0.5),
}
TABLES = {
    "linear": schedules.linear(),
    "scaled linear": schedules.scaled_linear(),
    "squared cosine": schedules.squared_cosine(),
    "zero terminal snr": schedules.zero_terminal_snr(schedules.scaled_linear()),
    "discretized": schedules.discretized(Cosine(shift=2.0)),
}
QUICK = ("cosine, shifted", "linear rate", "rectified flow, shifted", "zero terminal snr", "squared cosine")


def class_name(value):
    return type(value).__name__


def each(name, found):
    """Parameters of a test, those beyond the quick ones in the slow suite."""
    marks = {key: [] if key in QUICK else [pytest.mark.slow] for key in found}
    return pytest.mark.parametrize(name, [pytest.param(v, id=k, marks=marks[k]) for k, v in found.items()])


continuous, tables = each("schedule", CONTINUOUS), each("table", TABLES)


@continuous
def test_data_turns_into_noise(schedule):
    t = jnp.linspace(0, 1, 101)
    alpha, sigma = np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t))
    assert alpha[0] == 1 and sigma[0] == 0
    assert np.all(np.diff(alpha) < 0) and np.all(np.diff(sigma) > 0)
    if not isinstance(schedule, RectifiedFlow):
        np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=3e-7)
    else:
        np.testing.assert_allclose(alpha + sigma, 1, atol=3e-7)


@pytest.mark.parametrize("schedule", [Cosine(shift=2.0), RectifiedFlow(shift=3.0)], ids=class_name)
def test_pure_noise_has_no_data_at_all(schedule):
    one = jnp.ones(())
    assert schedule.alpha(one) == 0 and schedule.sigma(one) == 1
    assert log_snr(schedule, one) == -jnp.inf and log_snr(schedule, jnp.zeros(())) == jnp.inf


def test_the_rate_of_noise_is_linear_in_time():
    with jax.enable_x64(True):
        t = jnp.linspace(0, 1, 11)
        rate = jax.vmap(jax.grad(lambda t: -2 * jnp.log(LinearRate().alpha(t))))(t)
        np.testing.assert_allclose(rate, 0.1 + 19.9 * t, rtol=1e-12)


@pytest.mark.parametrize("base", [Cosine(), LinearRate(), RectifiedFlow(), TABLES["scaled linear"]], ids=class_name)
def test_a_shift_adds_a_constant_to_the_log_signal_to_noise_ratio(base):
    t = jnp.arange(1, 1000, 100) if isinstance(base, Table) else jnp.linspace(0.05, 0.95, 10)
    shifted = Shifted(base=base, shift=2.5)
    np.testing.assert_allclose(log_snr(shifted, t), log_snr(base, t) - 2 * np.log(2.5), atol=3e-5)
    if isinstance(base, (Cosine, RectifiedFlow)):
        own = type(base)(shift=2.5)
        np.testing.assert_allclose(log_snr(own, t), log_snr(shifted, t), atol=1e-5)


# alpha_bar at some timesteps as diffusers' schedulers of these names hold it: products of a thousand float32 numbers
PUBLISHED = {
    "scaled linear": {0: 0.9991500, 1: 0.9982960, 250: 0.6737923, 500: 0.2763325, 999: 0.0046601},
    "zero terminal snr": {0: 0.9991500, 1: 0.9982335, 250: 0.6524567, 500: 0.2410185, 999: 0.0},
    "linear": {0: 0.9999, 999: 4.0358e-05},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_tables_hold_the_published_numbers(name):
    bars = np.square(np.asarray(TABLES[name].alphas))
    for timestep, value in PUBLISHED[name].items():
        np.testing.assert_allclose(bars[timestep], value, atol=5e-7, rtol=2e-5 if value < 1e-3 else 0)


def test_tables_follow_their_definitions():
    scaled = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    for table, betas in (
        (TABLES["scaled linear"], scaled),
        (TABLES["linear"], np.linspace(1e-4, 0.02, 1000)),
    ):
        np.testing.assert_allclose(np.square(table.alphas), np.cumprod(1 - betas), rtol=1e-12)
        np.testing.assert_allclose(schedules.betas(table), betas, rtol=1e-6)
    t = np.arange(1001) / 1000
    bars = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(np.square(TABLES["squared cosine"].alphas[:-1]), bars[1:-1] / bars[0], rtol=1e-9)
    np.testing.assert_allclose(schedules.betas(TABLES["squared cosine"])[-1], 0.999, rtol=1e-6)


@tables
def test_tables_agree_with_their_derived_quantities(table):
    t = jnp.arange(table.count)
    alpha, sigma = np.asarray(table.alpha(t)), np.asarray(table.sigma(t))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=3e-7)
    assert np.all(np.diff(alpha) < 0)
    np.testing.assert_allclose(schedules.alpha_bars(table), alpha**2, rtol=1e-6)
    again = schedules.from_betas(np.asarray(schedules.betas(table), np.float64))
    np.testing.assert_allclose(again.alphas, alpha, atol=2e-6)
    np.testing.assert_array_equal(table.alpha(jnp.array([-1, table.count])), [1.0, np.nan])
    np.testing.assert_array_equal(table.sigma(jnp.array([-1, table.count])), [0.0, np.nan])


def test_zero_terminal_snr_leaves_the_first_and_spaces_the_others_alike():
    before, after = TABLES["scaled linear"], TABLES["zero terminal snr"]
    assert after.alphas[-1] == 0 and after.sigmas[-1] == 1
    np.testing.assert_allclose(after.alphas[0], before.alphas[0], rtol=1e-14)
    steps = np.diff(after.alphas) / np.diff(before.alphas)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    assert schedules.betas(after)[-1] == 1


@continuous
def test_discretized_tables_have_the_values_of_their_times(schedule):
    table = schedules.discretized(schedule, 40)
    t = jnp.arange(-1, 40)
    times = schedules.time_of_timestep(t, 40)
    np.testing.assert_allclose(table.alpha(t), schedule.alpha(times), atol=2e-7)
    np.testing.assert_allclose(table.sigma(t), schedule.sigma(times), atol=2e-7)


def test_schedules_can_be_made_and_asked_inside_a_jitted_function():
    def alpha(t):
        return schedules.zero_terminal_snr(schedules.discretized(LinearRate(), 10)).alpha(t)

    t = jnp.arange(10)
    np.testing.assert_array_equal(jax.jit(alpha)(t), alpha(t))
    static = jax.jit(lambda schedule, t: schedule.alpha(t), static_argnums=0)
    np.testing.assert_array_equal(static(schedules.linear(), t), static(schedules.linear(), t))
    assert hash(schedules.linear()) == hash(schedules.linear()) and schedules.linear() == schedules.linear()


@continuous
def test_time_of_log_snr_is_the_inverse(schedule):
    t = jnp.array([0.01, 0.2, 0.5, 0.8, 0.99])
    values = jnp.concatenate([log_snr(schedule, t), jnp.array([jnp.inf, -jnp.inf, -11.0, 60.0])])
    found = jax.jit(lambda v: schedules.time_of_log_snr(schedule, v))(values)
    np.testing.assert_allclose(found[:5], t, rtol=2e-6)
    np.testing.assert_array_equal(found[5:7], [0.0, 1.0])
    if isinstance(schedule, LinearRate):  # which ends with a ratio of exp(-10)
        np.testing.assert_allclose(found[7:], [1.0, 0.0], atol=1e-6)


def test_time_of_log_snr_has_the_derivatives_of_the_inverse_function():
    with jax.enable_x64(True):

        def product_of_slopes(t):
            value, slope = jax.value_and_grad(lambda t: log_snr(LinearRate(), t))(t)
            return slope * jax.grad(lambda v: schedules.time_of_log_snr(LinearRate(), v))(value)

        np.testing.assert_allclose(jax.jit(jax.vmap(product_of_slopes))(jnp.array([0.1, 0.6])), 1, rtol=1e-9)
        # With respect to the schedule: tan(pi t / 2) = exp(-value / 2) / shift for the cosine
        by_shift = jax.jit(jax.grad(lambda s: schedules.time_of_log_snr(Cosine(shift=s), jnp.asarray(0.7))))(2.0)
        tangent = np.exp(-0.35) / 2
        np.testing.assert_allclose(by_shift, -(2 / np.pi) * tangent / 2 / (1 + tangent**2), rtol=1e-9)


@pytest.mark.slow
@tables
def test_timestep_of_log_snr_is_the_nearest(table):
    t = jnp.array([0, 1, 500, table.count - 1])
    ratios = log_snr(table, t)
    np.testing.assert_array_equal(schedules.timestep_of_log_snr(table, ratios), t)
    neighbours = log_snr(table, jnp.array([500, 501]))
    between = neighbours[0] + jnp.array([0.4, 0.6]) * (neighbours[1] - neighbours[0])
    np.testing.assert_array_equal(schedules.timestep_of_log_snr(table, between), [500, 501])


@continuous
def test_derivatives_are_finite_up_to_the_ends(schedule):
    last = jnp.ones(())
    functions = (schedule.alpha, schedule.sigma, lambda t: log_snr(schedule, t))
    slopes = jax.jit(lambda t: [jax.grad(f)(t) for f in functions])(last)
    assert np.all(np.isfinite(slopes[:2])) and slopes[0] < 0
    assert not np.isnan(slopes[2])


def test_unusable_tables_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"betas must be above 0 and at most 1, got 0\.0"):
        schedules.from_betas(np.array([0.0, 0.1]))
    with pytest.raises(ValueError, match="as many alphas as sigmas"):
        Table(alphas=(1.0,), sigmas=())
    with pytest.raises(ValueError, match="alpha\\^2"):
        schedules.zero_terminal_snr(schedules.discretized(RectifiedFlow(), 10))
    with pytest.raises(ValueError, match="one timestep"):
        schedules.zero_terminal_snr(schedules.linear(1))
