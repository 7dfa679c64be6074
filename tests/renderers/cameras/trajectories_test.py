"""Camera paths: where they look, that they are where geometry says, uniformity, smoothness."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras import trajectories as paths
from renderers.cameras.camera import Camera, project
from renderers.cameras.pose import compose, invert, se3_exp, so3_log
from tests.helpers.close import assert_close
from tests.helpers.gradients import assert_finite_gradients

_look_at = jax.jit(paths.look_at)
_orbit_pose = jax.jit(paths.orbit_pose)
_invert = jax.jit(invert)
_exponentials = jax.jit(jax.vmap(se3_exp))
_orbit = jax.jit(paths.orbit, static_argnums=0)
_path = jax.jit(paths.interpolate_path, static_argnames=("num_views", "closed", "interpolation", "even_speed"))


def centers_of(camera_from_world):
    return np.asarray(_invert(camera_from_world)[..., :3, 3])


def pixels_of(camera_from_world, point):
    camera = Camera(camera_from_world, jnp.asarray([50.0, 50.0]), jnp.asarray([32.0, 24.0]), (48, 64))
    return project(camera, jnp.asarray(point, jnp.float32))


_pixels_of_each = jax.jit(jax.vmap(pixels_of, in_axes=(0, None)))


def assert_rotations(camera_from_world):
    rotation = np.asarray(camera_from_world)[..., :3, :3]
    assert_close(rotation @ np.swapaxes(rotation, -1, -2), np.broadcast_to(np.eye(3), rotation.shape), atol=2e-6)
    assert (np.linalg.det(rotation) > 0).all()


def test_look_at_by_hand():
    # From +Z towards the origin: right is +X, image down is -Y, forward is -Z.
    pose = _look_at(jnp.asarray([0.0, 0.0, 4.0]), jnp.zeros(3))
    assert_close(pose, [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]], atol=1e-7)


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2, -0.9, 0.1), (1.0, 1.0, 1.0)])
def test_look_at_centres_its_target_and_keeps_up_upright(up):
    eye, target = jnp.asarray([1.0, 2.0, -3.0]), jnp.asarray([0.5, -0.2, 0.3])
    pose = _look_at(eye, target, jnp.asarray(up))
    assert_rotations(pose)
    assert_close(centers_of(pose), eye, atol=1e-6)
    pixel, depth = pixels_of(pose, target)
    np.testing.assert_allclose(pixel, [32.0, 24.0], atol=1e-4)
    np.testing.assert_allclose(depth, np.linalg.norm(eye - target), rtol=1e-6)
    above, _ = pixels_of(pose, target + 0.1 * jnp.asarray(up))
    np.testing.assert_allclose(above[0], 32.0, atol=1e-4)
    assert above[1] < 24.0


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_looking_along_up_is_the_limit_of_the_orbit(side):
    straight = _look_at(jnp.asarray([0.0, 3.0 * side, 0.0]), jnp.zeros(3))
    limit = _orbit_pose(0.0, side * (np.pi / 2 - 1e-4), 3.0)
    assert_rotations(straight)
    assert_close(straight, limit, atol=4e-4)


def test_look_at_is_finite_everywhere():
    for eye in ([0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, -2.0, 0.0], [1e-8, 2.0, 0.0]):
        pose = _look_at(jnp.asarray(eye), jnp.zeros(3))
        assert_rotations(pose)
    degenerate = jnp.asarray([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1e-8, 2.0, 0.0], [0.0, 0.0, 1.0]])
    assert_finite_gradients(
        jax.vmap(paths.look_at), degenerate, jnp.zeros((4, 3)), jnp.eye(3)[jnp.asarray([1, 1, 1, 2])]
    )


def test_azimuth_starts_in_front_and_grows_towards_x():
    half_pi = np.pi / 2
    for azimuth, elevation, expected in [
        (0.0, 0.0, (0, 0, 2)),
        (half_pi, 0.0, (2, 0, 0)),
        (np.pi, 0.0, (0, 0, -2)),
        (0.3, half_pi, (0, 2, 0)),
    ]:
        assert_close(centers_of(_orbit_pose(azimuth, elevation, 2.0)), np.asarray(expected, float), atol=1e-6)
    z_up = _orbit_pose(0.0, 0.0, 2.0, None, jnp.asarray([0.0, 0.0, 1.0]))
    assert_close(centers_of(z_up), [2.0, 0.0, 0.0], atol=1e-6)  # front of a z-up world is +X


def test_orbit_equals_look_at_away_from_the_poles():
    target = jnp.asarray([0.3, 0.1, -0.2])
    poses = _orbit(7, 2.5, elevation=0.6, start_azimuth=0.4, target=target)
    expected = jax.jit(jax.vmap(paths.look_at, in_axes=(0, None)))(jnp.asarray(centers_of(poses)), target)
    assert_close(poses, expected, atol=3e-6)


def test_orbit_closes_in_equal_steps():
    poses = _orbit(12, 2.0, elevation=-0.3)
    relative = compose(jnp.roll(poses, -1, axis=0), invert(poses))
    assert_close(relative, np.broadcast_to(relative[0], (12, 4, 4)), atol=3e-6)
    np.testing.assert_allclose(np.linalg.norm(so3_log(relative[0][:3, :3])), 2 * np.pi / 12, rtol=1e-5)


def test_orbit_passes_smoothly_over_the_pole():
    elevations = jnp.linspace(1.2, 2.0, 41)
    poses = jax.jit(jax.vmap(paths.orbit_pose, in_axes=(None, 0, None)))(0.7, elevations, 2.0)
    steps = np.linalg.norm(np.diff(np.asarray(poses)[:, :3, :3], axis=0), axis=(1, 2))
    assert steps.max() < 1.01 * steps.min()


def test_spiral_aims_at_its_focus_and_stays_in_its_box():
    center = se3_exp(jnp.asarray([0.2, -0.3, 0.1, 0.5, 0.4, 1.0]))
    radii = jnp.asarray([0.4, 0.2, 0.1])
    poses = jax.jit(paths.spiral, static_argnums=1)(center, 48, radii=radii, focus_depth=3.0)
    assert_rotations(poses)
    focus = invert(center) @ jnp.asarray([0.0, 0.0, 3.0, 1.0])
    pixels, _ = _pixels_of_each(poses, focus[:3])
    assert_close(pixels, np.broadcast_to([32.0, 24.0], (48, 2)), atol=1e-3)
    # In the central camera's axes: right rx cos a, up -ry sin a, forward -rz sin(a / 2), at a = 2 pi 2 i / 48.
    offsets = (np.asarray(center) @ np.concatenate([centers_of(poses), np.ones((48, 1))], 1).T).T[:, :3]
    angles = 4 * np.pi * np.arange(48) / 48
    expected = np.stack([0.4 * np.cos(angles), 0.2 * np.sin(angles), -0.1 * np.sin(angles / 2)], -1)  # y points down
    assert_close(offsets, expected, atol=2e-6)


def test_average_pose_of_a_symmetric_ring_is_its_middle():
    target = jnp.asarray([0.0, 0.0, -4.0])
    eyes = [[0.5 * np.cos(a), 0.5 * np.sin(a), 1.0] for a in 2 * np.pi * np.arange(8) / 8]
    poses = jax.jit(jax.vmap(paths.look_at, in_axes=(0, None)))(jnp.asarray(eyes), target)
    assert_close(jax.jit(paths.average_pose)(poses), _look_at(jnp.asarray([0.0, 0.0, 1.0]), target), atol=2e-6)


@pytest.mark.parametrize("elevations", [(0.0, np.pi / 2), (-0.2, 0.9)])
def test_random_cameras_are_uniform_by_area(key, elevations):
    num = 4000
    sample = functools.partial(paths.random_hemisphere, num_views=num, radius=2.0, elevation_range=elevations)
    poses = jax.jit(sample)(key)
    centers = centers_of(poses)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=-1), 2.0, rtol=1e-5)
    # Archimedes: heights are uniform, and so are azimuths. Kolmogorov's bound for 4000 draws at one in 1e6.
    low, high = 2 * np.sin(elevations[0]), 2 * np.sin(elevations[1])
    heights = np.sort((centers[:, 1] - low) / (high - low))
    azimuths = np.sort(np.arctan2(centers[:, 0], centers[:, 2]) / (2 * np.pi) % 1.0)
    for values in (heights, azimuths):
        assert np.max(np.abs(values - (np.arange(num) + 0.5) / num)) < 2.7 / np.sqrt(num)
    pixels, _ = _pixels_of_each(poses, jnp.zeros(3))
    assert_close(pixels, np.broadcast_to([32.0, 24.0], (num, 2)), atol=1e-3)


def test_fibonacci_cameras_are_spread_more_evenly_than_random_ones(key):
    num = 256
    directions = {
        "even": centers_of(paths.fibonacci_hemisphere(num, 1.0)),
        "random": centers_of(paths.random_hemisphere(key, num, 1.0)),
    }
    nearest = {}
    for name, points in directions.items():
        cosines = points @ points.T - 2 * np.eye(num)
        nearest[name] = np.arccos(np.clip(cosines.max(1), -1, 1)).min()
    # The best packing of 256 caps on a hemisphere has spacing sqrt(2 pi / 256 * 2 / sqrt 3) = 0.168.
    assert nearest["even"] > 0.1 > nearest["random"]
    np.testing.assert_allclose(directions["even"].mean(0), [0.0, 0.5, 0.0], atol=5e-3)  # centroid of a hemisphere


def keyframes(num=5, seed=0):
    rng = np.random.default_rng(seed)
    deltas = np.cumsum(rng.normal(size=(num, 6)) * [0.4, 0.4, 0.4, 1.0, 1.0, 1.0], axis=0)
    return _exponentials(jnp.asarray(deltas))


@pytest.mark.parametrize("interpolation", ["smooth", "linear"])
def test_path_passes_through_its_poses(interpolation):
    with jax.enable_x64(True):
        poses = keyframes()
        path = _path(poses, num_views=4 * 3 + 1, interpolation=interpolation)
        assert_close(path[::3], poses, atol=1e-12)
        closed = _path(poses, num_views=5 * 3, closed=True, interpolation=interpolation)
        assert_close(closed[::3], poses, atol=1e-12)
        rotation = np.asarray(path)[:, :3, :3]
        assert_close(rotation @ np.swapaxes(rotation, 1, 2), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-12)


def test_linear_path_by_hand():
    with jax.enable_x64(True):
        start = jnp.eye(4)
        end = invert(se3_exp(jnp.asarray([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])).at[:3, 3].set(jnp.asarray([2.0, 4.0, 6.0])))
        middle = invert(_path(jnp.stack([start, end]), num_views=5, interpolation="linear"))[1]
        assert_close(middle[:3, 3], [0.5, 1.0, 1.5], atol=1e-13)
        assert_close(so3_log(middle[:3, :3]), [0.0, 0.25, 0.0], atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [False, True])
def test_smooth_path_has_a_continuous_velocity(closed):
    with jax.enable_x64(True):

        def largest_velocity_step(centers, per_segment):
            if closed:
                centers = np.concatenate([centers, centers[:2]])
            return np.abs(np.diff(centers, n=2, axis=0) * per_segment).max()

        num = 5 * 128 if closed else 4 * 128 + 1
        smooth = centers_of(_path(keyframes(), num_views=num, closed=closed))
        # Velocity steps shrink with the step length; at a corner (the linear path) they stay.
        fine, coarse = largest_velocity_step(smooth, 128), largest_velocity_step(smooth[::2], 64)
        assert fine < 0.6 * coarse
        corner = centers_of(_path(keyframes(), num_views=num, closed=closed, interpolation="linear"))
        assert largest_velocity_step(corner, 128) > 5 * fine


@pytest.mark.slow
def test_even_speed_makes_equal_steps():
    with jax.enable_x64(True):
        poses = keyframes(6, seed=3)
        lengths = {}
        for even in (True, False):
            path = _path(poses, num_views=120, even_speed=even)
            lengths[even] = np.linalg.norm(np.diff(centers_of(path), axis=0), axis=-1)
            assert_close(path[jnp.asarray([0, -1])], poses[jnp.asarray([0, -1])], atol=1e-10)
        spread = {even: steps.max() / steps.min() for even, steps in lengths.items()}
        assert spread[True] < 1.04 < 2.0 < spread[False]  # chords are a little shorter than arcs in bends
        turning = _exponentials(jnp.asarray([[0.0, a, 0.0, 0.0, 0.0, 0.0] for a in (0.0, 0.5, 1.0)]))
        assert np.isfinite(_path(turning, num_views=120, even_speed=True)).all()


def test_a_path_needs_two_poses():
    with pytest.raises(ValueError, match="at least 2 poses .* got 1"):
        paths.interpolate_path(jnp.eye(4)[None], 4)


def test_float32_stays_float32_under_x64(key):
    with jax.enable_x64(True):
        poses = keyframes().astype(jnp.float32)
        functions = [
            lambda: paths.orbit(3, 2.0, elevation=0.1),
            lambda: paths.random_hemisphere(key, 3, 2.0),
            lambda: paths.fibonacci_hemisphere(3, 2.0),
            lambda: paths.spiral(poses[0], 3, radii=jnp.ones(3, jnp.float32), focus_depth=1.0),
            lambda: paths.average_pose(poses),
            lambda: paths.interpolate_path(poses, 4, even_speed=True),
        ]
        assert {jax.eval_shape(function).dtype for function in functions} == {jnp.dtype("float32")}
