"""Gradients of fields by formula, by autodiff and by differences; second order; losses and their zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.fields import normals
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match

POINTS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def ball(points):
    return jnp.linalg.norm(points, axis=-1) - 0.5


def test_analytic_gradients_and_normals_of_a_ball():
    values, gradient = normals.value_and_gradient(ball, jnp.asarray(POINTS))
    outward = POINTS / np.linalg.norm(POINTS, axis=-1, keepdims=True)
    np.testing.assert_allclose(values, np.linalg.norm(POINTS, axis=-1) - 0.5, rtol=1e-5)
    np.testing.assert_allclose(gradient, outward, atol=1e-6)
    np.testing.assert_allclose(normals.distance_normals(ball, jnp.asarray(POINTS)), outward, atol=1e-6)
    matter = lambda p: 5 * jnp.exp(-jnp.sum(p * p, -1))  # noqa: E731
    np.testing.assert_allclose(normals.density_normals(matter, jnp.asarray(POINTS)), outward, atol=1e-5)
    np.testing.assert_array_equal(normals.density_normals(lambda p: 0 * p[:, 0], jnp.asarray(POINTS)), 0)


@pytest.mark.parametrize(("stencil", "exact", "order"), [("central", 2, 2), ("tetrahedron", 1, 1)])
def test_differences_are_exact_for_polynomials_and_converge_by_order(stencil, exact, order):
    with jax.enable_x64(True):
        x = jnp.asarray(POINTS, jnp.float64)
        linear = lambda p: p @ jnp.asarray([1.0, -2.0, 0.5]) + 3  # noqa: E731
        squares = lambda p: jnp.sum(p * p * jnp.asarray([[1.0, 2.0, 3.0]]), -1)  # noqa: E731
        mixed = lambda p: squares(p) + p[:, 0] * p[:, 1]  # noqa: E731
        for field in [linear, squares] + ([mixed] if exact == 2 else []):
            expected = normals.value_and_gradient(field, x)[1]
            np.testing.assert_allclose(normals.finite_gradient(field, x, 0.3, stencil=stencil), expected, atol=1e-12)
        wave = lambda p: jnp.sin(p[:, 0] * 2 + p[:, 1]) * jnp.cos(p[:, 2] - p[:, 0])  # noqa: E731
        expected = normals.value_and_gradient(wave, x)[1]
        errors = [
            float(jnp.abs(normals.finite_gradient(wave, x, h, stencil=stencil) - expected).mean())
            for h in (0.04, 0.02, 0.01)
        ]
        np.testing.assert_allclose(np.diff(np.log2(errors)), -order, atol=0.1)
    with pytest.raises(Exception, match="stencil"):
        normals.finite_gradient(ball, jnp.asarray(POINTS), 0.1, stencil="forward")  # pyright: ignore


def test_losses_by_hand():
    weights, view = jnp.array([0.5, 0.5]), jnp.array([[0.0, 0.0, 1.0]] * 2)
    facing = jnp.array([[0.0, 0.6, -0.8], [0.0, 0.6, 0.8]])
    np.testing.assert_allclose(normals.orientation_loss(weights, facing, view), [0, 0.32], rtol=1e-6)
    np.testing.assert_allclose(normals.predicted_normal_loss(weights, facing, view), [0.5 * 3.6, 0.5 * 0.4], rtol=1e-6)
    np.testing.assert_allclose(
        normals.eikonal_loss(jnp.array([[0.0, 0.6, 0.8], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]])), [0, 4, 1], atol=1e-6
    )
    assert_finite_gradients(lambda g: (normals.eikonal_loss(g), normals.unit(g)), jnp.zeros((2, 3)))


def test_second_order_gradients_are_differences():
    """Eikonal and orientation losses by a network's parameters and by the points, through its gradient."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        first, second = jnp.asarray(rng.normal(size=(3, 8))), jnp.asarray(rng.normal(size=8) / 8)
        points, view = jnp.asarray(rng.normal(size=(4, 3))), normals.unit(jnp.asarray(rng.normal(size=(4, 3))))

        def losses(first, second, points):
            field = lambda p: jax.nn.softplus(p @ first) @ second  # noqa: E731
            _, gradient = normals.value_and_gradient(field, points)
            facing = normals.density_normals(field, points)
            return normals.eikonal_loss(gradient), normals.orientation_loss(jnp.ones(4), facing, view)

        assert_gradients_match(losses, first, second, points, max_entries=12)
