"""Grids of times: the published sequences, and noise levels as asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion import schedules, time_grids
from generators.diffusion.schedules import Cosine, LinearRate, log_snr


def test_leading_timesteps_are_those_of_stable_diffusion():
    expected = [*range(981, 0, -20), -1]
    np.testing.assert_array_equal(time_grids.leading_timesteps(1000, 50), expected)
    np.testing.assert_array_equal(time_grids.leading_timesteps(1000, 3, offset=0), [666, 333, 0, -1])
    np.testing.assert_array_equal(time_grids.leading_timesteps(4, 4, offset=0), [3, 2, 1, 0, -1])


def test_trailing_timesteps_begin_with_the_last():
    np.testing.assert_array_equal(time_grids.trailing_timesteps(1000, 50), [*range(999, 0, -20), -1])
    # Table 2 of arXiv 2305.08891 for 10 steps, counted from 1 there
    np.testing.assert_array_equal(time_grids.trailing_timesteps(1000, 10)[:-1] + 1, range(1000, 0, -100))
    np.testing.assert_array_equal(time_grids.trailing_timesteps(1000, 3), [999, 666, 332, -1])
    np.testing.assert_array_equal(time_grids.trailing_timesteps(5, 5), [4, 3, 2, 1, 0, -1])


def test_levels_are_at_equal_steps_of_their_root():
    levels = np.asarray(time_grids.karras_levels(10, least=0.01, most=50.0, rho=5.0), np.float64)
    np.testing.assert_allclose([levels[0], levels[-1]], [50.0, 0.01], rtol=1e-4)
    steps = np.diff(levels**0.2)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    np.testing.assert_allclose(np.diff(time_grids.karras_levels(5, least=1.0, most=3.0, rho=1.0)), -0.5, rtol=1e-5)


def test_karras_times_have_their_levels_or_the_schedules_last():
    times = jax.jit(lambda: time_grids.karras_times(Cosine(shift=2.0), 12))()
    assert len(times) == 13 and times[-1] == 0
    levels = jnp.exp(-0.5 * log_snr(Cosine(shift=2.0), times[:-1]))
    np.testing.assert_allclose(levels, time_grids.karras_levels(12, least=0.002, most=80.0), rtol=1e-4)
    # alpha(1) = 0.0066 of this schedule: its levels end at 152
    assert jax.jit(lambda: time_grids.karras_times(LinearRate(), 4, most=1000.0))()[0] == 1


@pytest.mark.slow
def test_karras_timesteps_span_the_table():
    table = schedules.scaled_linear()
    timesteps = time_grids.karras_timesteps(table, 20)
    assert timesteps[0] == 999 and timesteps[-2] == 0 and timesteps[-1] == -1
    assert np.all(np.diff(timesteps) < 0)
    levels = np.exp(-0.5 * np.asarray(log_snr(table, timesteps[:-1])))
    wanted = time_grids.karras_levels(20, least=float(levels[-1]), most=float(levels[0]))
    # The nearest timestep is at most half a timestep off
    half = 0.5 * np.max(np.abs(np.diff(np.asarray(log_snr(table, jnp.arange(1000))))[5:]))
    np.testing.assert_allclose(np.log(levels), np.log(wanted), atol=half)
    # Infinite levels are left out
    assert time_grids.karras_timesteps(schedules.zero_terminal_snr(table), 5)[0] == 998


def test_impossible_grids_are_refused():
    with pytest.raises(ValueError, match="a table of 1000 timesteps has 1 to 1000 steps, not 1001"):
        time_grids.trailing_timesteps(1000, 1001)
    with pytest.raises(ValueError, match="leave a table of 1000"):
        time_grids.leading_timesteps(1000, 1000, offset=1)
