import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.distillation import annealing
from generators.distillation.timesteps import draw_timesteps
from tests.generators.distillation.worlds import KEY


def close(found, expected):
    np.testing.assert_allclose(np.array([float(v) for v in found]), expected, atol=1e-6)


def test_constant_ranges_stay():
    for progress in (0.0, 0.5, 1.0):
        close(annealing.constant(progress), (0.02, 0.98))


def test_mvdream_starts_with_noise_only_and_rests_at_four_fifths():
    close(annealing.linear(0.0), (0.98, 0.98))
    close(annealing.linear(0.4), (0.5, 0.74))
    close(annealing.linear(0.8), (0.02, 0.5))
    close(annealing.linear(1.0), (0.02, 0.5))


def test_prolificdreamer_drops_at_once():
    close(annealing.hard_drop(0.0), (0.02, 0.98))
    close(annealing.hard_drop(0.1999), (0.02, 0.98))
    close(annealing.hard_drop(0.2), (0.02, 0.5))
    close(annealing.hard_drop(1.0), (0.02, 0.5))


def test_hifa_falls_as_a_square_root():
    close(annealing.hifa(0.0), (0.98, 0.98))
    close(annealing.hifa(0.25), (0.5, 0.5))
    close(annealing.hifa(1.0), (0.02, 0.02))


@pytest.mark.parametrize(("step", "t"), [(0, 980), (5, 980), (11, 978), (250, 500), (499, 20), (500, 20)])
def test_dreamgaussian_timesteps_are_exact(step, t):
    """t = round((1 - step / 500) 1000), held in 20 .. 980."""
    np.testing.assert_array_equal(_dreamgaussian_timesteps(step / 500), t)


@jax.jit
def _dreamgaussian_timesteps(progress):
    return draw_timesteps(KEY, 3, annealing.dreamgaussian(progress))


def test_dreamgaussian_rounds_to_the_nearest_timestep():
    for step in range(300):
        expected = min(max(round((1 - step / 300) * 1000), 20), 980)
        close(annealing.dreamgaussian(step / 300), (expected / 1000, expected / 1000))


def test_dreamtime_visits_timesteps_in_proportion_to_its_prior():
    """Over evenly spaced progress the timesteps fall, and their histogram is the prior."""
    progress = (jnp.arange(4000) + 0.5) / 4000
    t, _ = jax.jit(jax.vmap(lambda p: annealing.dreamtime(p, t_range=(0.0, 1.0))))(progress)
    t = np.asarray(t)
    assert np.all(np.diff(t) <= 0) and t[0] > 0.99 and t[-1] < 0.3
    at = np.arange(1, 1001)
    prior = np.where(
        at > 800,
        np.exp(-((at - 800) ** 2) / (2 * 300**2)),
        np.where(at < 500, np.exp(-((at - 500) ** 2) / (2 * 100**2)), 1.0),
    )
    expected = np.cumsum(prior)[49::50] / prior.sum()
    counted = np.array([np.mean(t <= edge / 1000 + 1e-6) for edge in at[49::50]])
    np.testing.assert_allclose(counted, expected, atol=2e-3)
    close(annealing.dreamtime(0.0), (0.98, 0.98))


def test_scheduled_numbers():
    assert annealing.scheduled(0.3, 10) == 0.3
    steps = (-5, 0, 50, 100, 500)
    three = [float(annealing.scheduled((10.0, 20.0, 100), step)) for step in steps]
    np.testing.assert_allclose(three, [10, 10, 15, 20, 20])
    four = [float(annealing.scheduled([50, 1.0, 3.0, 150], step)) for step in (0, 50, 100, 150, 151)]
    np.testing.assert_allclose(four, [1, 1, 2, 3, 3])
    long = (10, 0.0, 1.0, 20, 5.0, 40, 3.0, 50)
    found = [float(annealing.scheduled(long, step)) for step in (0, 10, 15, 20, 30, 40, 45, 50, 99)]
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 3, 5, 4, 3, 3])
    assert float(annealing.scheduled((0, 1.0, 3.0, 4.0), 10**6, epoch=2)) == 2.0  # a float end counts epochs
    assert float(jax.jit(lambda step: annealing.scheduled((0, 1.0, 3.0, 4), step))(1)) == 1.5


@pytest.mark.parametrize("value", [(1.0, 2.0), (0, 1.0, 2.0, 0), (0, 1.0, 2.0, 10, 3.0), (0, 1.0, float("nan"), 9)])
def test_scheduled_numbers_of_no_form_are_refused(value):
    with pytest.raises(ValueError, match="scheduled number"):
        annealing.scheduled(value, 3)
