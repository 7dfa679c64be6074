"""The gradient helpers must notice a wrong derivative, a missing one and one that is not finite."""

import jax
import jax.numpy as jnp
import pytest

from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match


@jax.custom_jvp
def _cube_with_wrong_slope(x):
    return x**3


_cube_with_wrong_slope.defjvps(lambda tangent, answer, x: 3.001 * x**2 * tangent)


def test_right_gradients_pass_and_wrong_ones_do_not():
    with jax.enable_x64(True):
        x = jnp.asarray([0.3, -1.2, 2.0])
        assert_gradients_match(lambda a, b: {"p": a["x"] ** 3 * b, "q": jnp.sin(b)}, {"x": x}, x + 1.0)
        with pytest.raises(AssertionError, match="central difference"):
            assert_gradients_match(_cube_with_wrong_slope, x)
        with pytest.raises(AssertionError, match="central difference"):
            assert_gradients_match(lambda a: a * jax.lax.stop_gradient(a), x)


def test_differences_need_float64():
    with pytest.raises(AssertionError, match="float64"):
        assert_gradients_match(jnp.sin, jnp.ones(2))


def test_a_gradient_that_is_not_finite_is_named():
    assert_finite_gradients(jnp.sqrt, jnp.asarray([1.0, 4.0]))
    with pytest.raises(AssertionError, match=r"not finite at \[\[1\]\]"):
        assert_finite_gradients(lambda x: jnp.where(x > 0.0, jnp.sqrt(x), 0.0), jnp.asarray([1.0, 0.0]))
