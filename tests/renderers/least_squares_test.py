"""Levenberg-Marquardt: exact where the model is, never uphill, blind to units, deaf to outliers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from renderers import least_squares


def run(residuals, x, steps, *, damping=1e-3, huber=None):
    """All states of a search."""
    advance = jax.jit(functools.partial(least_squares.step, residuals, huber=huber))
    states = [least_squares.start(jnp.asarray(x, jnp.float32), damping=damping)]
    for _ in range(steps):
        states.append(advance(states[-1]))
    return states


def _rosenbrock(x):
    return {"valley": 10 * (x[1:] - x[:1] ** 2), "slope": 1 - x[0]}  # any pytree


def _line():
    rng = np.random.default_rng(0)
    matrix, values = rng.normal(size=(30, 3)), rng.normal(size=30)
    return matrix, values, lambda x: jnp.asarray(matrix, jnp.float32) @ x - jnp.asarray(values, jnp.float32)


def test_a_linear_problem_is_solved_by_one_step():
    matrix, values, residuals = _line()
    states = run(residuals, np.zeros(3), 2, damping=1e-9)
    assert jnp.array_equal(states[1].x, jnp.zeros(3)), "the first step only looks"
    np.testing.assert_allclose(states[2].x, np.linalg.lstsq(matrix, values, rcond=None)[0], atol=2e-6)


def test_follows_the_banana_valley():
    states = run(_rosenbrock, [-1.2, 1.0], 40)
    np.testing.assert_allclose(states[-1].x, [1.0, 1.0], atol=1e-5)


def test_never_goes_uphill_and_stays_where_a_step_is_discarded():
    states = run(_rosenbrock, [-1.2, 1.0], 30, damping=1e-9)
    discarded = 0
    for before, after in zip(states[1:], states[2:], strict=False):
        assert after.cost <= before.cost
        if not after.accepted:
            discarded += 1
            assert jnp.array_equal(after.x, before.x) and after.damping > before.damping
    assert discarded > 0, "the start must be one where full steps overshoot"


def test_a_step_to_where_nothing_is_defined_is_discarded():
    states = run(lambda x: jnp.log(x), [6.0], 25, damping=1e-9)  # a full step goes to 6 - 6 log 6 < 0
    assert not states[2].accepted and states[2].x == 6.0
    np.testing.assert_allclose(states[-1].x, [1.0], atol=1e-5)


def test_units_of_the_parameters_do_not_matter():
    units = jnp.asarray([1e-3, 250.0])
    plain = run(_rosenbrock, [-1.2, 1.0], 12)
    scaled = run(lambda y: _rosenbrock(y * units), np.asarray([-1.2, 1.0]) / units, 12)
    np.testing.assert_allclose(scaled[-1].x * units, plain[-1].x, rtol=1e-3)


def test_a_parameter_without_effect_stays():
    states = run(lambda x: x[:1] - 3.0, [0.0, 7.0], 10)
    np.testing.assert_allclose(states[-1].x, [3.0, 7.0], rtol=1e-6)


@pytest.mark.parametrize("huber", [None, 0.3])
def test_is_the_minimum_that_scipy_finds(huber):
    rng = np.random.default_rng(1)
    at = np.linspace(0, 2, 60)
    values = 1.5 * np.exp(-0.8 * at) + rng.normal(0, 0.02, 60)
    values[::7] += 2.0  # outliers, all to one side
    states = run(
        lambda x: x[0] * jnp.exp(-x[1] * jnp.asarray(at, jnp.float32)) - jnp.asarray(values, jnp.float32),
        [1.0, 0.1],
        40,
        huber=huber,
    )
    loss = {} if huber is None else {"loss": "huber", "f_scale": huber}
    expected = optimize.least_squares(lambda x: x[0] * np.exp(-x[1] * at) - values, [1.0, 0.1], **loss)
    np.testing.assert_allclose(states[-1].x, expected.x, rtol=2e-3)
    np.testing.assert_allclose(states[-1].cost, expected.cost, rtol=1e-5)
    bias = np.abs(np.asarray(states[-1].x) - [1.5, 0.8]).max()
    assert bias > 0.2 if huber is None else bias < 0.1


def test_many_searches_at_once():
    starts = jnp.asarray([[-1.2, 1.0], [0.5, 2.0], [2.0, -1.0]])

    def last(x):
        state = least_squares.start(x)
        return jax.lax.fori_loop(0, 40, lambda _, s: least_squares.step(_rosenbrock, s), state).x

    np.testing.assert_allclose(jax.jit(jax.vmap(last))(starts), np.ones((3, 2)), atol=1e-4)
