"""Rotations and covariances of Gaussians against scipy, and at quaternions that are hardly any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renderers.gaussians.covariance import covariances, normalise_quaternions, rotation_matrices
from tests.helpers.gradients import assert_gradients_match

RNG = np.random.default_rng(0)
QUATERNIONS = RNG.normal(size=(20, 4)) * np.exp(RNG.normal(0, 3, (20, 1)))
SCALES = np.exp(RNG.normal(size=(20, 3)))


def _scipy(quaternions):
    return Rotation.from_quat(np.asarray(quaternions), scalar_first=True).as_matrix()


def test_rotations_equal_scipy_for_quaternions_of_any_length():
    with jax.enable_x64(True):
        np.testing.assert_allclose(rotation_matrices(jnp.asarray(QUATERNIONS)), _scipy(QUATERNIONS), atol=1e-15)


@pytest.mark.parametrize("length", [1e-34, 1e-30, 1e-20, 1e19, 1e37])
def test_length_does_not_matter_over_the_range_of_float32(length):
    # at both ends short of where a reciprocal, or a small entry, is no longer a normal number
    unit = QUATERNIONS / np.linalg.norm(QUATERNIONS, axis=1, keepdims=True)
    found = rotation_matrices(jnp.asarray(unit * length, jnp.float32))
    np.testing.assert_allclose(found, _scipy(unit), atol=1e-6)


def test_zero_stands_for_the_identity_and_gives_no_gradient():
    zero = jnp.zeros((1, 4))
    np.testing.assert_array_equal(rotation_matrices(zero)[0], np.eye(3))
    jacobian = jax.jit(jax.jacrev(rotation_matrices))(zero)
    np.testing.assert_array_equal(jacobian, 0.0)
    np.testing.assert_array_equal(normalise_quaternions(zero), 0.0)


def test_gradient_has_no_radial_part():
    jacobian = jax.jit(jax.jacrev(rotation_matrices))(jnp.asarray([[1.0, 0, 0, 0], [0.3, -0.5, 0.2, 2.0]]))
    assert np.isfinite(jacobian).all()
    along = np.einsum("nijmk,mk->nij", jacobian, [[1.0, 0, 0, 0], [0.3, -0.5, 0.2, 2.0]])
    np.testing.assert_allclose(along, 0.0, atol=1e-6)


def test_covariance_turns_with_its_gaussian():
    with jax.enable_x64(True):
        turn = Rotation.from_rotvec([0.3, -1.1, 0.7])
        turned = (turn * Rotation.from_quat(QUATERNIONS, scalar_first=True)).as_quat(scalar_first=True)
        before = np.asarray(covariances(jnp.asarray(QUATERNIONS), jnp.asarray(SCALES)))
        after = covariances(jnp.asarray(turned), jnp.asarray(SCALES))
        np.testing.assert_allclose(after, turn.as_matrix() @ before @ turn.as_matrix().T, atol=1e-13)
        np.testing.assert_allclose(np.linalg.eigvalsh(before), np.sort(SCALES**2, axis=1), rtol=1e-10)


def test_gradients_equal_central_differences():
    with jax.enable_x64(True):
        unit = QUATERNIONS / np.linalg.norm(QUATERNIONS, axis=1, keepdims=True)
        assert_gradients_match(covariances, jnp.asarray(unit[:6] * 1.7), jnp.asarray(SCALES[:6]))
