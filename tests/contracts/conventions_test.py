"""Conversions that packages keep to themselves agree with scipy and so with each other, and have gradients at rest.

Packages share contracts, not code: each has the few rotation conversions it needs. They meet here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from renderers.cameras import camera as cameras
from renderers.cameras import pose
from renderers.gaussians.covariance import rotation_matrices
from renderers.gaussians.rasterize import rasterize
from tests.helpers.gradients import assert_gradients_match

# Every conversion of quaternions (wxyz, any length) to matrices; a package adds its own.
FROM_QUATERNIONS = {
    "renderers.gaussians.covariance": rotation_matrices,
    "renderers.cameras.pose": pose.matrix_from_quaternion,
}

RNG = np.random.default_rng(0)
QUATERNIONS = np.concatenate(
    [RNG.normal(size=(30, 4)), np.eye(4), -np.eye(4), [[1, 1e-7, 0, 0], [1e-7, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]]]
)
conversions = pytest.mark.parametrize("convert", FROM_QUATERNIONS.values(), ids=FROM_QUATERNIONS)


@conversions
def test_quaternions_are_wxyz_and_rotate_as_scipys(convert):
    with jax.enable_x64(True):
        for factor in (1.0, -1.0, 3.0):
            expected = Rotation.from_quat(QUATERNIONS, scalar_first=True).as_matrix()
            np.testing.assert_allclose(convert(jnp.asarray(factor * QUATERNIONS)), expected, atol=1e-14)


@conversions
def test_gradients_are_right_at_the_identity_and_finite_at_zero(convert):
    with jax.enable_x64(True):
        rest = jnp.asarray([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [2.0, 1e-9, 0, 0]])
        assert_gradients_match(convert, rest)
        for degenerate in (jnp.zeros((1, 4)), jnp.full((1, 4), 1e-300)):
            jacobian = jax.jit(jax.jacrev(convert))(degenerate)
            assert np.isfinite(jacobian).all()
    jacobian = jax.jit(jax.jacrev(convert))(jnp.zeros((1, 4)))
    assert np.isfinite(jacobian).all()


def test_axis_angles_of_cameras_agree_with_scipy_and_have_gradients_at_rest():
    with jax.enable_x64(True):
        vectors = np.concatenate([RNG.normal(size=(10, 3)), 1e-8 * np.eye(3), np.zeros((1, 3))])
        for vector in vectors:
            rotation = pose.so3_exp(jnp.asarray(vector))
            np.testing.assert_allclose(rotation, Rotation.from_rotvec(vector).as_matrix(), atol=1e-14)
        assert_gradients_match(pose.so3_exp, jnp.zeros(3))


def test_cameras_look_along_z_with_y_down_and_pixel_centres_at_one_half():
    camera = cameras.Camera(jnp.eye(4), jnp.asarray([10.0, 10.0]), jnp.asarray([8.0, 6.0]), (12, 16))
    pixels, depths = cameras.project(camera, jnp.asarray([[0.0, 0, 2], [1.0, 0, 2], [0.0, 1, 2]]))
    np.testing.assert_allclose(pixels, [[8, 6], [13, 6], [8, 11]], atol=1e-6)
    np.testing.assert_allclose(depths, 2.0)
    at = jnp.asarray([[(3.5 - 8) / 10, (9.5 - 6) / 10, 1.0]])  # the centre of column 3, row 9
    seen = rasterize(at, jnp.asarray([[1.0, 0, 0, 0]]), jnp.full((1, 3), 1e-3), jnp.ones(1), jnp.ones((1, 1)), camera)
    assert np.unravel_index(np.argmax(seen.alpha), (12, 16)) == (9, 3)
    neighbours = np.asarray(seen.alpha)[[8, 10, 9, 9], [3, 3, 2, 4]]
    np.testing.assert_allclose(neighbours, neighbours[0], rtol=1e-4)
