"""Corrections of cameras: what stays in place, what comes apart, and that every camera nearby can be reached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers import least_squares
from renderers.cameras import camera as cameras
from renderers.cameras.camera import Camera
from renderers.cameras.pose import se3_exp
from renderers.cameras.refinement import corrected, correction_length, differences, disturbed

DISTANCE = 3.5
PIVOT = jnp.asarray([0.0, 0.0, DISTANCE])


POSE = np.asarray(se3_exp(jnp.asarray([0.4, -1.1, 0.3, 0.2, -0.5, 4.0])))


def _camera(distortion=None):
    return Camera(
        jnp.asarray(POSE), jnp.asarray([90.0, 95.0]), jnp.asarray([40.0, 33.0]), (64, 80), "pinhole", distortion
    )


def _in_world(points):
    return jnp.asarray((np.asarray(points) - POSE[:3, 3]) @ POSE[:3, :3], jnp.float32)


CLOUD = _in_world(np.random.default_rng(0).normal(0, 0.5, (200, 3)) + [0, 0, DISTANCE])


def _pixels(camera, points=CLOUD):
    return cameras.project(camera, points)[0]


def _at(camera, x):
    return corrected(camera, jnp.asarray(x, jnp.float32), PIVOT)


def test_nothing_is_corrected_by_zero():
    camera = _camera(jnp.asarray([0.1, 0.02, 0.0, 0.0]))
    for length in (6, 8, 10, 14):
        same = _at(camera, np.zeros(length))
        for one, other in zip(jax.tree.leaves(same), jax.tree.leaves(camera), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_pivot_stays_in_place_when_the_camera_turns():
    camera = _camera()
    pivot = _in_world(PIVOT)
    moved = _at(camera, [0.3, -0.2, 0.5, 0, 0, 0, 0.2, 0.2])
    np.testing.assert_allclose(_pixels(moved, pivot[None]), _pixels(camera, pivot[None]), atol=1e-3)
    shifted = _at(camera, [0, 0, 0, 0.1, 0, 0])  # a tenth of the distance, to the right
    np.testing.assert_allclose(
        _pixels(shifted, pivot[None])[0], np.asarray(camera.principal) + [0.1 * camera.focal[0], 0], atol=1e-3
    )


def test_zooming_keeps_the_size_at_the_pivot():
    camera = _camera()
    square = _in_world([[a, b, DISTANCE] for a in (-1, 1) for b in (-1, 1)])
    zoomed = _at(camera, [0, 0, 0, 0, 0, 0, 0.4, 0.4])
    np.testing.assert_allclose(_pixels(zoomed, square), _pixels(camera, square), atol=2e-3)
    np.testing.assert_allclose(zoomed.focal, camera.focal * np.exp(0.4), rtol=1e-6)


def test_parameters_come_apart_about_the_pivot():
    """Condition of the normal matrix with a unit diagonal, which is what plain descent suffers from."""

    def condition(pivot):
        columns = jax.jit(jax.jacfwd(lambda x: _pixels(corrected(_camera(), x, pivot)).ravel()))(jnp.zeros(8))
        columns = np.asarray(columns, np.float64)
        columns /= np.linalg.norm(columns, axis=0)
        return np.linalg.cond(columns.T @ columns)

    assert condition(PIVOT) < 0.3 * condition(jnp.asarray([0.0, 0.0, 1e-2]))


def test_jacobians_agree_with_central_differences():
    with jax.enable_x64(True):
        camera = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), _camera(jnp.asarray([0.1, 0.02, 0.01, 0.02]))
        )
        points, pivot = jnp.asarray(CLOUD[:5], jnp.float64), jnp.asarray(PIVOT, jnp.float64)

        @jax.jit
        def pixels(x):
            return _pixels(corrected(camera, x, pivot), points)

        for x in (jnp.zeros(14), jnp.asarray(np.random.default_rng(3).normal(0, 0.1, 14))):
            steps = 1e-6 * jnp.eye(14)
            expected = jnp.stack([(pixels(x + step) - pixels(x - step)) / 2e-6 for step in steps], -1)
            for mode in (jax.jacfwd, jax.jacrev):
                np.testing.assert_allclose(
                    jax.jit(mode(pixels))(x), expected, atol=1e-6 * float(jnp.abs(expected).max())
                )


def test_a_disturbance_has_the_size_it_was_asked_for():
    camera = _camera()
    rng = np.random.default_rng(2)
    axis, way = rng.normal(size=(2, 3)) / [[3.0], [10.0]]
    moved = disturbed(
        camera, jnp.asarray(axis, jnp.float32), jnp.asarray(way, jnp.float32), jnp.log(jnp.asarray([1.02, 0.97]))
    )
    degrees, distance, focal = differences(moved, camera)
    np.testing.assert_allclose(degrees, np.rad2deg(np.linalg.norm(axis)), rtol=1e-4)
    np.testing.assert_allclose(distance, np.linalg.norm(way), rtol=1e-4)
    np.testing.assert_allclose(focal, 0.03, rtol=1e-4)
    np.testing.assert_allclose(cameras.camera_center(moved) - cameras.camera_center(camera), way, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_every_camera_nearby_is_a_correction_away(seed):
    """Also a check of both halves together: points seen by the true camera pin it down to rounding."""
    rng = np.random.default_rng(seed)
    true = _camera()
    axis, way, zoom = rng.normal(0, 0.05, 3), rng.normal(0, 0.1, 3), rng.normal(0, 0.05, 2)
    wrong = disturbed(true, *(jnp.asarray(v, jnp.float32) for v in (axis, way, zoom)))
    seen = _pixels(true)
    search = least_squares.start(jnp.zeros(8))
    advance = jax.jit(lambda s: least_squares.step(lambda x: _pixels(corrected(wrong, x, PIVOT)) - seen, s))
    for _ in range(8):
        search = advance(search)
    errors = [float(error) for error in differences(corrected(wrong, search.x, PIVOT), true)]
    assert errors[0] < 1e-3 and errors[1] < 1e-4 and errors[2] < 1e-5, errors


def test_parts_build_on_each_other():
    ideal, distorted = _camera(), _camera(jnp.zeros(5))
    assert correction_length(ideal, focal=False) == 6 and correction_length(ideal) == 8
    assert correction_length(distorted, principal=True, distortion=True) == 15
    with pytest.raises(ValueError, match="only with focal lengths"):
        correction_length(ideal, focal=False, principal=True)
    with pytest.raises(ValueError, match="ideal lens"):
        correction_length(ideal, principal=True, distortion=True)
