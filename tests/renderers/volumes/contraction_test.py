"""The contraction: where it is the identity, how smooth, its inverse, and Gaussians through it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.volumes.contraction import contract, transform_gaussian, uncontract
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match

shapes = pytest.mark.parametrize("shape", ["sphere", "cube"])


def norm(x, shape):
    return np.linalg.norm(x, axis=-1) if shape == "sphere" else np.abs(x).max(-1)


def points(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 3)) * 10 ** rng.uniform(-2, 3, (count, 1))).astype(np.float32)


@shapes
def test_formula_of_the_paper_and_inverse(shape):
    x = points()
    size = norm(x, shape)[:, None]
    expected = np.where(size <= 1, x, (2 - 1 / size) * x / size)
    z = contract(jnp.asarray(x), shape)
    np.testing.assert_allclose(z, expected, rtol=2e-6, atol=1e-7)
    assert (norm(np.asarray(z), shape) < 2).all()
    # 2 - |z| is 1 / |x|: what float32 keeps of it is what the inverse can have
    np.testing.assert_allclose(uncontract(z, shape) / x, np.ones_like(x), atol=2e-3)


@shapes
def test_it_is_smooth_where_it_begins(shape):
    """Value and Jacobian are continuous at |x| = 1."""
    direction = np.array([0.2, -0.5, 1.0]) / norm(np.array([0.2, -0.5, 1.0]), shape)
    with jax.enable_x64(True):
        at = [jnp.asarray(direction * r) for r in (1 - 1e-7, 1.0, 1 + 1e-7)]
        jacobian = jax.jit(jax.jacfwd(lambda x: contract(x, shape)))
        jacobians = [jacobian(x) for x in at]
        np.testing.assert_allclose(jacobians, np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-6)


@shapes
def test_jacobians_are_differences_and_finite_at_the_limits(shape):
    with jax.enable_x64(True):
        assert_gradients_match(lambda x: contract(x, shape), jnp.asarray([[0.3, 2.0, -1.0], [0.1, 0.2, 0.3]]))
    extreme = jnp.array([[0.0, 0.0, 0.0], [1e15, 1.0, 0.0], [1.0, 0.0, 0.0], [1e-30, 0.0, 0.0]])
    assert_finite_gradients(lambda x: contract(x, shape), extreme)
    np.testing.assert_allclose(norm(contract(extreme, shape), shape), [0, 2, 1, 0], atol=1e-6)
    beyond = uncontract(jnp.array([[2.0, 0.0, 0.0], [3.0, 0.0, 0.0]]), shape)
    assert np.isfinite(beyond).all() and (beyond[:, 0] > 1e6).all()


def test_gaussians_through_the_linearisation():
    """J C J^T with J by autodiff; the identity inside; radially far away it shrinks with |x|^4, across with |x|^2."""
    rng = np.random.default_rng(0)
    mean, root = jnp.asarray(points(20), jnp.float32), rng.normal(size=(20, 3, 3)).astype(np.float32)
    covariance = jnp.asarray(root @ root.transpose(0, 2, 1))
    through = jax.jit(lambda m, c: transform_gaussian(contract, m, c))
    value, transformed = through(mean, covariance)
    jacobian = jax.jit(jax.vmap(jax.jacfwd(contract)))(mean)
    np.testing.assert_allclose(value, contract(mean), rtol=1e-6)
    np.testing.assert_allclose(transformed, jacobian @ covariance @ jacobian.swapaxes(1, 2), rtol=1e-3, atol=1e-5)
    inside = np.linalg.norm(mean, axis=-1) < 1
    np.testing.assert_allclose(transformed[inside], covariance[inside], rtol=1e-5)
    mean = mean.at[0].set(jnp.array([100.0, 0.0, 0.0]))
    _, far = through(mean, jnp.broadcast_to(jnp.eye(3), (20, 3, 3)))
    np.testing.assert_allclose(jnp.diagonal(far[0]), [1e-8, (1.99 / 100) ** 2, (1.99 / 100) ** 2], rtol=1e-2)


def test_gaussians_agree_with_samples_of_them():
    mean, covariance = np.array([3.0, 1.0, -2.0]), np.diag([0.02, 0.05, 0.01])
    drawn = np.random.default_rng(0).multivariate_normal(mean, covariance, 40_000).astype(np.float32)
    given = jnp.asarray(mean[None], jnp.float32), jnp.asarray(covariance[None], jnp.float32)
    value, transformed = jax.jit(lambda m, c: transform_gaussian(contract, m, c))(*given)
    through = np.asarray(contract(jnp.asarray(drawn)))
    np.testing.assert_allclose(through.mean(0), value[0], atol=3e-3)
    np.testing.assert_allclose(np.cov(through.T), transformed[0], atol=0.05 * float(transformed[0].max()))
