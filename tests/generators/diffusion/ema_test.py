"""Averages of weights: their memory early and late, and a sequence whose average is known."""

import jax.numpy as jnp
import numpy as np

from generators.diffusion import ema


def test_decay_rises_to_its_most():
    steps = jnp.array([0, 10, 90, 890, 10**6])
    decays = [ema.ramped_decay(step, 0.995) for step in steps]
    np.testing.assert_allclose(decays, [0.1, 0.55, 0.91, 0.99, 0.995], rtol=1e-6)


def test_the_start_is_forgotten_and_the_last_tenth_is_what_counts():
    """What each step's weights weigh in the average, from the sequence of decays: they sum to 1, late ones most."""
    count = 1000
    decays = np.array([float(ema.ramped_decay(jnp.asarray(n), 0.9999)) for n in range(count)])
    weights = (1 - decays) * np.append(np.cumprod(decays[:0:-1])[::-1], 1.0)
    assert np.prod(decays) < 1e-15  # of the weights before the first step
    np.testing.assert_allclose(np.sum(weights), 1, rtol=1e-6)
    age = np.sum(weights * (count - 1 - np.arange(count)))
    np.testing.assert_allclose(age, count / 10, rtol=0.05)


def test_a_constant_is_its_own_average_and_a_step_is_followed_geometrically():
    params = {"a": jnp.array([1.0, 2.0]), "b": (jnp.array(3.0),)}
    same = ema.averaged(params, params, 0.7)
    np.testing.assert_allclose(same["a"], params["a"], rtol=1e-6)
    average = {"a": jnp.zeros(2), "b": (jnp.zeros(()),)}
    for _ in range(5):
        average = ema.averaged(average, params, 0.7)
    np.testing.assert_allclose(average["a"], (1 - 0.7**5) * np.array([1.0, 2.0]), rtol=1e-6)
    np.testing.assert_allclose(average["b"][0], (1 - 0.7**5) * 3.0, rtol=1e-6)
