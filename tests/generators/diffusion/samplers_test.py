"""Samplers: orders of convergence to the exact flow, known variances of chains, and which methods are the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion import samplers, schedules, time_grids
from generators.diffusion.samplers import Carry
from generators.diffusion.sampling import clipped, sample, sample_path
from generators.diffusion.schedules import Cosine, LinearRate, RectifiedFlow
from tests.generators.diffusion.mixtures import Mixture

ORDERS = {samplers.ddim: 1, samplers.euler: 1, samplers.dpm_solver_pp: 2, samplers.heun: 2}
STARTS = np.array([-2.0, -0.7, -0.1, 0.3, 1.1, 2.2])
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
by_sampler = pytest.mark.parametrize("step", ORDERS, ids=lambda step: step.__name__)


def level(schedule, t):
    if isinstance(schedule, schedules.Table):
        return schedule.alphas[t], schedule.sigmas[t]
    return tuple(float(x) for x in _levels(schedule, jnp.asarray(t)))


@functools.partial(jax.jit, static_argnums=0)
def _levels(schedule, t):
    return schedule.alpha(t), schedule.sigma(t)


def solved(step, schedule, times, starts=STARTS, mixture=None):
    """The points at the last time."""
    denoise = (mixture or Mixture()).denoiser(schedule)
    return np.asarray(jax.jit(lambda z: sample(KEY, z, denoise, schedule, times, step))(jnp.asarray(starts)))


def order_of(step, schedule, counts, first, last):
    """Slope of the logarithm of the error over that of the number of steps."""
    exact = Mixture().transported(STARTS, level(schedule, first), level(schedule, last))
    errors = [
        np.sqrt(np.mean((solved(step, schedule, time_grids.uniform_times(n, first=first, last=last)) - exact) ** 2))
        for n in counts
    ]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0], errors


@by_sampler
def test_order_of_convergence(step):
    with jax.enable_x64(True):
        order, errors = order_of(step, Cosine(), (24, 96), 0.9, 0.1)
    assert abs(order - ORDERS[step]) < 0.2, f"{order:.2f} from {errors}"
    assert errors[-1] < (1e-2 if ORDERS[step] == 1 else 1e-3)


@pytest.mark.slow
@by_sampler
@pytest.mark.parametrize("schedule", [Cosine(shift=2.0), LinearRate(), RectifiedFlow()], ids=str)
@pytest.mark.parametrize("first", [1.0, 0.9])
def test_order_of_convergence_with_every_schedule(step, schedule, first):
    with jax.enable_x64(True):
        order, errors = order_of(step, schedule, (32, 64, 128, 256), first, 0.1)
    # From pure noise a second step of order 1 remains, which DPM-Solver++ cannot avoid
    assert ORDERS[step] - 0.2 < order < ORDERS[step] + 0.6, f"{order:.2f} from {errors}"


def test_from_pure_noise_to_clean_data():
    """No division by alpha = 0 or sigma = 0, and the right quantile of the data for each of the noise."""
    with jax.enable_x64(True):
        exact = Mixture().transported(STARTS, (0.0, 1.0), (1.0, 0.0))
        times, denoise = time_grids.uniform_times(100), Mixture().denoiser(Cosine())
        run = jax.jit(lambda z: [sample(KEY, z, denoise, Cosine(), times, step) for step in ORDERS])
        for reached in run(jnp.asarray(STARTS)):
            np.testing.assert_allclose(reached, exact, atol=0.03)


def test_a_known_point_is_reached_in_any_number_of_steps():
    """With the right answer from the start, every method arrives there: exactly, for it ends with its estimate."""
    point = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32)
    zero_snr = schedules.zero_terminal_snr(schedules.scaled_linear())
    cases = [
        (*pair, step)
        for pair in ((Cosine(), time_grids.uniform_times(3)), (zero_snr, time_grids.trailing_timesteps(1000, 3)))
        for step in (*ORDERS, samplers.ddpm)
    ]
    run = jax.jit(lambda z: [sample(KEY, z, lambda z, t: point, *case) for case in cases])
    for reached in run(jnp.ones((2, 3))):
        np.testing.assert_allclose(reached, point, atol=1e-6)


def test_ddim_is_exact_for_one_point_between_any_levels():
    """With x_0 known the flow is z' = alpha' x_0 + sigma' eps: DDIM and DPM-Solver++ make no error in one step."""
    times = jnp.array([0.9, 0.2])
    (alpha, sigma), (alpha_after, sigma_after) = level(Cosine(), 0.9), level(Cosine(), 0.2)
    steps = (samplers.ddim, samplers.dpm_solver_pp)
    run = jax.jit(lambda z: [sample(KEY, z, lambda z, t: jnp.full(1, 0.7), Cosine(), times, step) for step in steps])
    for z in run(jnp.array([1.3])):
        np.testing.assert_allclose(z, alpha_after * 0.7 + sigma_after * (1.3 - alpha * 0.7) / sigma, rtol=1e-5)


@pytest.mark.slow
def test_ddim_is_eulers_method_in_the_noise_level_and_of_flow_matching():
    with jax.enable_x64(True):
        times, denoise = jnp.linspace(0.9, 0.2, 5), jax.jit(Mixture().denoiser(Cosine()))
        z = STARTS
        for now, after in zip(times[:-1], times[1:], strict=True):
            (alpha, sigma), (alpha_after, sigma_after) = level(Cosine(), now), level(Cosine(), after)
            scaled, slope = z / alpha, (z / alpha - np.asarray(denoise(jnp.asarray(z), now))) / (sigma / alpha)
            z = np.asarray(alpha_after * (scaled + (sigma_after / alpha_after - sigma / alpha) * slope))
        np.testing.assert_allclose(solved(samplers.ddim, Cosine(), times), z, rtol=1e-10)

        flow, denoise = RectifiedFlow(), jax.jit(Mixture().denoiser(RectifiedFlow()))
        z = STARTS
        for now, after in zip(times[:-1], times[1:], strict=True):
            # eps - x_0 = (z - x_0) / t
            z = z + float(after - now) * (z - np.asarray(denoise(jnp.asarray(z), now))) / float(now)
        np.testing.assert_allclose(solved(samplers.ddim, flow, times), z, rtol=1e-10)


def test_inversion_undoes_sampling():
    with jax.enable_x64(True):
        times = jnp.linspace(0.1, 0.9, 201)
        noisy = solved(samplers.ddim, Cosine(), times)
        exact = Mixture().transported(STARTS, level(Cosine(), 0.1), level(Cosine(), 0.9))
        np.testing.assert_allclose(noisy, exact, atol=0.02)
        np.testing.assert_allclose(solved(samplers.ddim, Cosine(), times[::-1], noisy), STARTS, atol=0.03)


COUNT = 40_000
SPREAD = 4 / np.sqrt(2 * COUNT)  # four standard errors of a variance


def chain(step, schedule, times, deviation, count=COUNT):
    """Samples for data N(0, deviation^2), from noise."""
    data = Mixture(means=(0.0,), deviations=(deviation,), weights=(1.0,))
    start = jax.random.normal(jax.random.key(1), (count,))
    run = jax.jit(lambda z: sample(KEY, z, data.denoiser(schedule), schedule, times, step))
    return np.asarray(run(start), np.float64)


def test_the_large_variance_is_exact_for_standard_normal_data():
    """Then z stays standard normal at every time, in few and unequal steps too (DDPM, section 3.2)."""
    step = functools.partial(samplers.ddpm, variance="large")
    z = chain(step, Cosine(), jnp.array([1.0, 0.8, 0.35, 0.05]), 1.0)
    assert abs(np.var(z) - 1) < SPREAD and abs(np.mean(z)) < 4 / np.sqrt(COUNT)


def test_the_small_variance_is_exact_for_a_point():
    alpha, sigma = level(Cosine(), 0.3)
    z = chain(samplers.ddpm, Cosine(), jnp.array([1.0, 0.8, 0.5, 0.3]), 0.0)
    assert abs(np.var(z) / sigma**2 - 1) < SPREAD


def ancestral_variance(schedule, times, deviation, variance):
    """Of the chain's end: with Gaussian data each step multiplies z by a number and adds noise of a known variance."""
    total = 1.0
    for now, after in zip(times[:-1], times[1:], strict=True):
        alpha, sigma = level(schedule, now)
        alpha_after, sigma_after = level(schedule, after)
        kept = alpha / alpha_after
        added = sigma**2 - kept**2 * sigma_after**2
        denoised = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
        factor = kept * sigma_after**2 / sigma**2 + alpha_after * added / sigma**2 * denoised
        fresh = added * (sigma_after**2 / sigma**2 if variance == "small" else 1.0)
        total = factor**2 * total + fresh
    return total


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_chain_of_ddpm_has_its_variance_and_tends_to_that_of_the_data(variance):
    schedule, deviation = schedules.discretized(Cosine(), 1000), 0.5
    step = functools.partial(samplers.ddpm, variance=variance)
    times = [999, 700, 400, 200, 100]
    expected = ancestral_variance(schedule, times, deviation, variance)
    assert abs(np.var(chain(step, schedule, jnp.array(times), deviation)) / expected - 1) < SPREAD
    # Every timestep of it: what the forward process has at the end
    alpha, sigma = level(schedule, 100)
    every = ancestral_variance(schedule, range(999, 99, -1), deviation, variance)
    assert abs(every / (alpha**2 * deviation**2 + sigma**2) - 1) < 0.01


def test_ddim_with_eta_1_is_ddpm():
    times = time_grids.trailing_timesteps(1000, 4)
    denoise = Mixture().denoiser(schedules.linear())
    z = jnp.asarray(STARTS, jnp.float32)
    ends = [
        jax.jit(lambda z, step=step: sample(KEY, z, denoise, schedules.linear(), times, step))(z)
        for step in (functools.partial(samplers.ddim, eta=1.0), samplers.ddpm)
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=2e-4)


@pytest.mark.slow
def test_samples_are_differentiable_from_noise_to_data():
    """By the noise and by the schedule through every step, ends included, in both modes, against differences."""

    def end(step, h):
        schedule, times = Cosine(shift=1.5 + 2 * h), time_grids.uniform_times(3)
        return sample(KEY, (0.4 + h)[None], Mixture().denoiser(schedule), schedule, times, step)[0]

    @jax.jit
    def values_and_slopes(h):
        forward = jax.jvp(functools.partial(end, samplers.heun), (h,), (jnp.ones(()),))
        reverse = jax.value_and_grad(functools.partial(end, samplers.dpm_solver_pp))(h)
        return jnp.array([forward, reverse])

    with jax.enable_x64(True):
        (above, _), (below, _), (_, slopes) = (values_and_slopes(jnp.asarray(h)).T for h in (1e-5, -1e-5, 0.0))
        np.testing.assert_allclose(slopes, (above - below) / 2e-5, rtol=1e-7)


def test_the_multistep_method_uses_the_estimate_before():
    """One step from a known history, by the formula of algorithm 2 in logarithms."""
    with jax.enable_x64(True):
        before, now, after = (jnp.asarray(t) for t in (0.7, 0.6, 0.45))
        x, older, z = 0.3, 0.1, 0.9
        carry = Carry(z=jnp.array([z]), clean=jnp.array([older]), before=before)
        step = jax.jit(
            lambda carry: samplers.dpm_solver_pp(carry, now, after, KEY, lambda z, t: jnp.array([x]), Cosine())
        )
        moved = step(carry)
        half = [np.log(alpha / sigma) for alpha, sigma in (level(Cosine(), t) for t in (before, now, after))]
        h, r = half[2] - half[1], (half[1] - half[0]) / (half[2] - half[1])
        middle = (1 + 1 / (2 * r)) * x - 1 / (2 * r) * older
        (_, sigma), (alpha_after, sigma_after) = level(Cosine(), 0.6), level(Cosine(), 0.45)
        np.testing.assert_allclose(
            moved.z[0], sigma_after / sigma * z - alpha_after * np.expm1(-h) * middle, rtol=1e-12
        )
        assert moved.clean[0] == x and moved.before == now


def test_estimates_are_clipped_and_their_path_is_kept():
    denoise = clipped(lambda z, t: 10 * (z - t), low=-1.0, high=2.0)
    last, path = sample_path(KEY, jnp.array([0.0, 5.0]), denoise, Cosine(), time_grids.uniform_times(4), samplers.ddim)
    assert path.shape == (4, 2) and path.min() >= -1 and path.max() == 2
    np.testing.assert_array_equal(path[-1], last)
