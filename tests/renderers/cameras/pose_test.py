"""Rigid transforms against scipy, group laws, gradients at the identity, at the series' joints and at half turns."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from scipy.spatial.transform import Rotation

from renderers.cameras import pose
from renderers.cameras.camera import Camera, project_camera_points, to_camera_frame
from tests.helpers.close import assert_close
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match

ANGLES = [0.0, 1e-12, 1e-8, 1e-4, 0.04, 0.05, 0.4999999, 0.5, 0.5000001, 1.0, 2.0, 3.1, np.pi - 1e-7]
_se3_exp, _se3_log = jax.jit(jax.vmap(pose.se3_exp)), jax.jit(jax.vmap(pose.se3_log))
_orthonormalise = jax.jit(pose.orthonormalise)


def twists(seed=0):
    """One twist for each angle, and one about each axis at each."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(len(ANGLES), 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    vectors = [axes * np.asarray(ANGLES)[:, None]] + [np.outer(ANGLES, row) for row in np.eye(3)]
    rotations = np.concatenate(vectors)
    return np.concatenate([rotations, rng.normal(size=rotations.shape)], axis=1)


def twist_matrix(twist):
    (x, y, z), move = twist[:3], twist[3:]
    matrix = np.zeros((4, 4))
    matrix[:3] = np.column_stack([np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), move])
    return matrix


def test_exponential_equals_scipy():
    with jax.enable_x64(True):
        deltas = twists()
        expected = np.stack([scipy.linalg.expm(twist_matrix(delta)) for delta in deltas])
        assert_close(_se3_exp(jnp.asarray(deltas)), expected, atol=2e-14)


def test_logarithm_undoes_the_exponential_up_to_half_a_turn():
    with jax.enable_x64(True):
        deltas = jnp.asarray(twists())
        # Near pi the entries of R change by the square of the distance to pi: half the digits remain only in R itself.
        assert_close(_se3_log(_se3_exp(deltas)), deltas, atol=1e-8)
        assert_close(_se3_log(_se3_exp(deltas))[:10], deltas[:10], atol=1e-14)


def test_exponential_undoes_the_logarithm_at_exactly_half_a_turn():
    with jax.enable_x64(True):
        axes = np.concatenate([np.eye(3), -np.eye(3), [[0.6, 0.0, 0.8], [0.0, -0.6, 0.8]]])
        turns = np.stack([2 * np.outer(axis, axis) - np.eye(3) for axis in axes])
        vectors = jax.vmap(pose.so3_log)(jnp.asarray(turns))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), np.pi, rtol=1e-14)
        assert_close(jax.vmap(pose.so3_exp)(vectors), turns, atol=1e-14)


def test_float32_keeps_its_digits_at_every_angle():
    deltas = twists().astype(np.float32)
    expected = np.stack([scipy.linalg.expm(twist_matrix(delta.astype(np.float64))) for delta in deltas])
    found = _se3_exp(jnp.asarray(deltas))
    assert found.dtype == jnp.float32
    assert_close(found, expected, atol=1.5e-6)  # eight roundings of numbers up to 2
    assert_close(_se3_log(found)[:9], deltas[:9], atol=3e-6)


def test_gradients_of_exponential_and_logarithm():
    with jax.enable_x64(True):
        angles = jnp.asarray([0.0, 1e-9, 1e-4, 0.3, 0.6, 2.5, 3.141])
        rotations = angles[:, None] * jnp.asarray([[0.6, -0.64, 0.48]])
        deltas = jnp.concatenate([rotations, jnp.tile(jnp.asarray([[0.3, -0.2, 0.5]]), (7, 1))], axis=1)
        assert_gradients_match(jax.vmap(pose.se3_exp), deltas, rtol=1e-7, atol=1e-8)
        bases = _se3_exp(deltas)

        def log_of_moved(moves):  # moves stay on the group, where the logarithm is defined
            return jax.vmap(lambda move, base: pose.se3_log(pose.compose(pose.se3_exp(move), base)))(moves, bases)

        assert_gradients_match(log_of_moved, jnp.zeros((7, 6)), rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_in_float32_at_identity_and_half_turns():
    turns = jnp.stack([jnp.diag(jnp.asarray([*signs, 1.0])) for signs in ((1.0, 1, 1), (1.0, -1, -1), (-1.0, -1, 1))])
    assert_finite_gradients(jax.vmap(pose.se3_log), turns)
    assert_finite_gradients(jax.vmap(pose.se3_exp), jnp.asarray([[0.0] * 6, [1e-20] * 6]))


def test_second_derivative_at_zero_is_that_of_the_series():
    # R = I + [w] + [w]^2 / 2 + ..., so d^2 R_11 / dw_y^2 = -1.
    hessian = jax.jit(jax.hessian(lambda w: pose.so3_exp(w)[0, 0]))(jnp.zeros(3))
    np.testing.assert_allclose(hessian, np.diag([0.0, -1.0, -1.0]), atol=1e-6)


def test_group_laws():
    with jax.enable_x64(True):
        a, b, c = _se3_exp(jnp.asarray(twists(1)[[3, 9, 20]]))
        assert_close(pose.compose(pose.compose(a, b), c), pose.compose(a, pose.compose(b, c)), atol=1e-14)
        assert_close(pose.compose(a, pose.invert(a)), np.eye(4), atol=1e-14)
        assert_close(pose.invert(pose.compose(a, b)), pose.compose(pose.invert(b), pose.invert(a)), atol=1e-14)
        assert_close(pose.from_parts(*pose.to_parts(a)), a, atol=0.0)
        point = jnp.asarray([0.3, -1.0, 2.0])
        expected = pose.transform_points(a, pose.transform_points(b, point))
        assert_close(pose.transform_points(pose.compose(a, b), point), expected, atol=1e-14)


def test_perturb_moves_points_in_the_cameras_own_frame():
    camera = Camera(pose.se3_exp(jnp.asarray([0.3, 0.2, -0.4, 1.0, 2.0, 3.0])), jnp.ones(2), jnp.zeros(2), (4, 4))
    points = jnp.asarray([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])
    delta = jnp.asarray([0.0, 0.0, np.pi / 2, 0.0, 0.0, 0.0])
    before = to_camera_frame(camera, points)
    after = to_camera_frame(pose.perturb(camera, delta), points)
    # A quarter turn about the optical axis takes x to y and y to -x.
    np.testing.assert_allclose(after, np.stack([-before[:, 1], before[:, 0], before[:, 2]], -1), atol=1e-5)
    shift = pose.perturb(camera, jnp.asarray([0.0, 0.0, 0.0, 0.1, 0.2, 0.3]))
    np.testing.assert_allclose(to_camera_frame(shift, points) - before, [[0.1, 0.2, 0.3]] * 2, atol=1e-5)


def test_perturb_recovers_a_pose_by_gauss_newton():
    with jax.enable_x64(True):
        truth = pose.se3_exp(jnp.asarray([0.2, -0.1, 0.3, 0.1, 0.2, 3.0]))
        camera = Camera(truth, jnp.asarray([50.0, 50.0]), jnp.asarray([32.0, 32.0]), (64, 64))
        points = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)))
        target = project_camera_points(camera, to_camera_frame(camera, points))

        def residual(delta, at):
            moved = pose.perturb(at, delta)
            return (project_camera_points(moved, to_camera_frame(moved, points)) - target).ravel()

        step = jax.jit(lambda at: (residual(jnp.zeros(6), at), jax.jacfwd(residual)(jnp.zeros(6), at)))
        estimate = pose.perturb(camera, jnp.asarray([0.05, -0.08, 0.06, 0.1, -0.1, 0.2]))
        for _ in range(6):
            value, jacobian = step(estimate)
            estimate = pose.perturb(estimate, -jnp.linalg.lstsq(jacobian, value)[0])
        assert_close(estimate.camera_from_world, truth, atol=1e-12)


def test_orthonormalise_gives_the_polar_factor():
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        matrices = np.concatenate([rng.normal(size=(20, 3, 3)), [np.eye(3) * 7.0, np.diag([1.0, 1.0, -1e-3])]])
        stack = jnp.tile(jnp.eye(4), (22, 1, 1)).at[:, :3, :3].set(matrices).at[:, :3, 3].set(2.5)
        found = _orthonormalise(stack)
        expected = np.stack([scipy.linalg.polar(matrix)[0] for matrix in matrices])
        assert_close(found[:, :3, :3], expected, atol=1e-10)
        assert_close(found[:, :3, 3], np.full((22, 3), 2.5))
        assert_gradients_match(pose.orthonormalise, jnp.eye(4).at[0, 1].set(1e-3), rtol=1e-6, atol=1e-8)


def test_quaternions_equal_scipy():
    with jax.enable_x64(True):
        rotations = Rotation.from_rotvec(twists()[:, :3])
        matrices = jnp.asarray(rotations.as_matrix())
        expected = rotations.as_quat(canonical=True, scalar_first=True)
        found = pose.quaternion_from_matrix(matrices)
        assert_close(np.abs(np.sum(np.asarray(found) * expected, -1)), np.ones(len(found)), atol=1e-14)
        assert (found[:, 0] >= 0).all()
        assert_close(pose.matrix_from_quaternion(3.0 * found), matrices, atol=1e-14)
        assert_close(pose.matrix_from_quaternion(jnp.zeros(4)), np.eye(3))
    assert_finite_gradients(pose.matrix_from_quaternion, jnp.zeros(4))
