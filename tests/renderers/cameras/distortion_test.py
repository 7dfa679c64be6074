"""Lens distortion: scipy and bisection as oracles, analytic folds, a real capture's lens, implicit gradients."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from renderers.cameras import distortion as lens
from renderers.cameras.camera import Camera, project_camera_points, viewing_directions
from tests.helpers.close import assert_close
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match
from tests.helpers.shared import shared_path

# The lens of instant-ngp's fox capture: a phone, portrait.
FOX = dict(focal=(1375.52, 1374.49), principal=(554.558, 965.268), size=(1920, 1080))
FOX_LENS = (0.0578421, -0.0805099, -0.000980296, 0.00015575)
BROWN = {
    "none": (0.0,),
    "fox": FOX_LENS,
    "barrel": (-0.3,),
    "pincushion": (0.25, 0.1),
    "wavy": (-0.35, 0.2, 1e-3, -2e-3, -0.03),
    "rational": (0.9, 0.3, 5e-4, -8e-4, 0.02, 1.1, 0.4, 0.03),
    "pole": (0.1, 0.0, 0.0, 0.0, 0.0, -0.5),
}
FISHEYE = {"none": (0.0,), "gopro": (0.04, -0.01, 0.003, -0.0006), "barrel": (-0.1, -0.005, 0.0, 0.0)}
_undistort_brown = jax.jit(lens.undistort_brown)
_undistort_fisheye = jax.jit(lens.undistort_fisheye)


def opencv_distort(coefficients, x, y):
    """The formula of OpenCV's documentation, in its own arrangement."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(np.asarray(coefficients, float), (0, 8 - len(coefficients)))
    r = np.hypot(x, y)
    factor = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
    return (
        x * factor + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
        y * factor + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
    )


def fan(radii, num_directions=12):
    angles = np.linspace(0.0, 2 * np.pi, num_directions, endpoint=False) + 0.1
    radii = np.asarray(radii)
    return jnp.asarray(np.stack([np.outer(radii, np.cos(angles)), np.outer(radii, np.sin(angles))], -1))


@pytest.mark.parametrize("name", BROWN)
def test_forward_equals_opencv_formula(name):
    with jax.enable_x64(True):
        points = fan(np.linspace(0.0, 1.2, 9))
        x, y = opencv_distort(BROWN[name], points[..., 0], points[..., 1])
        assert_close(lens.distort_brown(jnp.asarray(BROWN[name]), points), np.stack([x, y], -1), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", BROWN)
def test_jacobian_is_the_derivative(name):
    with jax.enable_x64(True):
        coefficients, points = jnp.asarray(BROWN[name]), fan([0.0, 0.3, 0.9]).reshape(-1, 2)
        expected = jax.vmap(jax.jacfwd(lambda p: lens.distort_brown(coefficients, p)))(points)
        assert_close(lens.brown_jacobian(coefficients, points), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("coefficients", "limit"),
    [
        ((0.0,), 1e4),
        ((0.3, 0.1), 1e4),
        ((-0.3,), 1 / np.sqrt(0.9)),  # d(r - 0.3 r^3)/dr = 0
        ((0.0, -0.1), (1 / 0.5) ** 0.25),
        ((0.0, 0.0, 0.0, 0.0, 0.0, -0.5), np.sqrt(2.0)),  # r / (1 - r^2 / 2) rises to its pole
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.5), np.sqrt(2.0)),  # r / (1 + r^2 / 2) has its maximum there
    ],
)
def test_fold_of_brown_is_where_calculus_says(coefficients, limit):
    with jax.enable_x64(True):
        np.testing.assert_allclose(lens.brown_limit(jnp.asarray(coefficients)), limit, rtol=1e-12)


@pytest.mark.parametrize(
    ("coefficients", "limit"), [((0.0,), np.pi), ((0.01, 0.02), np.pi), ((-0.1,), np.sqrt(1 / 0.3))]
)
def test_fold_of_fisheye_is_where_calculus_says(coefficients, limit):
    with jax.enable_x64(True):
        np.testing.assert_allclose(lens.fisheye_limit(jnp.asarray(coefficients)), limit, rtol=1e-12)


@pytest.mark.parametrize("name", ["barrel", "pincushion", "none"])
def test_radial_inverse_equals_bisection(name):
    with jax.enable_x64(True):
        coefficients = jnp.asarray(BROWN[name])
        top = min(float(lens.brown_limit(coefficients)), 2.0)
        largest = opencv_distort(BROWN[name], top, 0.0)[0]
        for target in np.linspace(0.0, 0.999 * largest, 7):
            expected = scipy.optimize.bisect(
                lambda r, goal: opencv_distort(BROWN[name], r, 0.0)[0] - goal, 0.0, top, args=(target,), xtol=1e-15
            )
            found, valid = _undistort_brown(coefficients, jnp.asarray([[0.0, target]]))
            assert valid.all()
            np.testing.assert_allclose(found[0], [0.0, expected], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["fox", "wavy", "rational"])
def test_inverse_equals_scipy_root(name):
    with jax.enable_x64(True):
        points = fan([0.05, 0.4, 0.75], 5).reshape(-1, 2)
        targets = np.stack(opencv_distort(BROWN[name], points[:, 0], points[:, 1]), -1)
        found, valid = _undistort_brown(jnp.asarray(BROWN[name]), jnp.asarray(targets))
        assert valid.all()
        for target, solution in zip(targets, found, strict=True):
            root = scipy.optimize.root(
                lambda p, goal: np.subtract(opencv_distort(BROWN[name], *p), goal), target, (target,), tol=1e-14
            )
            np.testing.assert_allclose(solution, root.x, atol=1e-11)


@pytest.mark.parametrize("name", BROWN)
def test_inverse_undoes_distortion_up_to_the_fold(name):
    with jax.enable_x64(True):
        coefficients = jnp.asarray(BROWN[name])
        limit = min(float(lens.brown_limit(coefficients)), 20.0)
        tangential = any(BROWN[name][2:4])
        # With tangential terms the fold is not quite a circle: the last per cents belong to one side or the other.
        points = fan(limit * np.asarray([0.0, 1e-9, 0.1, 0.5, 0.9, 0.95, *([] if tangential else [0.9999, 0.999999])]))
        found, valid = _undistort_brown(coefficients, lens.distort_brown(coefficients, points))
        assert valid.all()
        # The curve is flat at the fold: an error of one rounding in the image moves the point by its square root.
        assert_close(found, points, atol=1e-11 * limit, quantile=0.7)
        assert_close(found, points, atol=2e-7 * limit)


def test_beyond_the_fold_the_point_of_the_fold_is_returned_and_masked():
    with jax.enable_x64(True):
        coefficients = jnp.asarray([-0.3])
        limit = 1 / np.sqrt(0.9)
        largest = limit - 0.3 * limit**3
        points, valid = _undistort_brown(coefficients, jnp.asarray([[0.0, 0.9999 * largest], [0.0, 1.001 * largest]]))
        np.testing.assert_array_equal(valid, [True, False])
        np.testing.assert_allclose(points[1], [0.0, limit], rtol=1e-9)
        slope = jax.jit(jax.jacrev(lambda d: lens.undistort_brown(coefficients, d)[0]))(jnp.asarray([0.0, 2.0]))
        np.testing.assert_array_equal(slope, np.zeros((2, 2)))
        angles, seen = _undistort_fisheye(jnp.asarray([-0.1]), jnp.asarray([1.0, 5.0]))
        np.testing.assert_array_equal(seen, [True, False])
        np.testing.assert_allclose(angles[1], np.sqrt(1 / 0.3), rtol=1e-9)


def test_any_lens_is_inverted_inside_its_fold():
    rng = np.random.default_rng(3)
    num = 2000
    with jax.enable_x64(True):
        coefficients = rng.uniform(-1, 1, (num, 8)) * [0.5, 0.5, 3e-3, 3e-3, 0.3, 0.3, 0.3, 0.3]
        coefficients *= rng.random((num, 8)) < 0.7  # many real lenses have few terms
        limits = jax.jit(jax.vmap(lens.brown_limit))(coefficients)
        radii = np.minimum(limits, 2.0) * rng.uniform(0.0, 0.9, num)
        angles = rng.uniform(0.0, 2 * np.pi, num)
        points = jnp.asarray(np.stack([radii * np.cos(angles), radii * np.sin(angles)], -1))
        distorted = jax.vmap(lens.distort_brown)(coefficients, points)
        # Tangential terms move the fold: keep the points that are inside by a margin.
        inside = np.linalg.det(jax.vmap(lens.brown_jacobian)(coefficients, points)) > 0.05
        assert inside.mean() > 0.9
        found, valid = jax.jit(jax.vmap(lens.undistort_brown))(coefficients, distorted)
        assert valid[inside].all()
        assert_close(found[inside], points[inside], atol=1e-11)


def test_wild_lenses_give_finite_points_and_honest_masks():
    rng = np.random.default_rng(4)
    coefficients = jnp.asarray(rng.uniform(-3.0, 3.0, (3000, 8)), jnp.float32)
    distorted = jnp.asarray(rng.uniform(-1.0, 1.0, (3000, 2)) * 10.0 ** rng.uniform(-3.0, 3.0, (3000, 1)), jnp.float32)
    points, valid = jax.jit(jax.vmap(lens.undistort_brown))(coefficients, distorted)
    assert np.isfinite(points).all()
    assert 0.1 < valid.mean() < 0.9
    back = jax.vmap(lens.distort_brown)(coefficients, points)
    slopes = jax.vmap(lens.brown_jacobian)(coefficients, points)
    felt = np.einsum("nij,nj->ni", np.abs(slopes), np.abs(points))
    assert_close(
        (back - distorted)[valid] / (1.0 + np.abs(distorted) + felt)[valid], np.zeros((int(valid.sum()), 2)), atol=2e-5
    )


@pytest.mark.slow
def test_round_trip_over_the_whole_fox_image():
    rows, columns = np.mgrid[0 : FOX["size"][0] : 8, 0 : FOX["size"][1] : 8]
    pixels = np.stack([columns + 0.5, rows + 0.5], -1).reshape(-1, 2)
    corners = np.asarray([[0.0, 0.0], [1080.0, 0.0], [0.0, 1920.0], [1080.0, 1920.0]])
    with jax.enable_x64(True):
        camera = Camera(
            jnp.eye(4),
            jnp.asarray(FOX["focal"]),
            jnp.asarray(FOX["principal"]),
            FOX["size"],
            distortion=jnp.asarray(FOX_LENS),
        )
        pixels = jnp.asarray(np.concatenate([corners, pixels]))
        directions, valid = jax.jit(viewing_directions)(camera, pixels)
        assert valid.all()
        assert_close(project_camera_points(camera, directions), pixels, atol=1e-9)  # asked for: 1e-6 pixels
        moved = pixels - project_camera_points(
            Camera(jnp.eye(4), camera.focal, camera.principal, camera.size), directions
        )
        assert np.abs(moved).max() > 5.0  # the lens does something: the corners move by several pixels
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), camera)
    directions, valid = jax.jit(viewing_directions)(narrow, pixels.astype(jnp.float32))
    assert valid.mean() > 0.999
    assert_close(project_camera_points(narrow, directions), pixels, atol=2e-3)  # 16 roundings at 1920 pixels


def test_constants_are_those_of_the_fox_capture():
    data = json.loads(shared_path("data", "captures", "fox", "transforms.json").read_text())
    assert tuple(data[key] for key in ("k1", "k2", "p1", "p2")) == FOX_LENS
    assert (data["fl_x"], data["fl_y"]) == FOX["focal"] and (data["cx"], data["cy"]) == FOX["principal"]


@pytest.mark.parametrize("name", FISHEYE)
def test_fisheye_inverse(name):
    with jax.enable_x64(True):
        coefficients = jnp.asarray(FISHEYE[name])
        angles = float(lens.fisheye_limit(coefficients)) * jnp.asarray([0.0, 1e-9, 0.2, 0.6, 0.9, 0.999])
        radii = lens.distort_fisheye(coefficients, angles)
        k = np.pad(np.asarray(FISHEYE[name]), (0, 4 - len(FISHEYE[name])))
        polynomial = sum(c * np.asarray(angles) ** p for c, p in zip([1.0, *k], [1, 3, 5, 7, 9], strict=True))
        assert_close(radii, polynomial, rtol=1e-13)
        found, valid = _undistort_fisheye(coefficients, radii)
        assert valid.all()
        assert_close(found, angles, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fox", "wavy", "rational", "barrel"])
def test_gradients_of_the_inverse_are_the_implicit_ones(name):
    with jax.enable_x64(True):
        points = fan([0.1, 0.6, 0.85], 4)
        coefficients = jnp.asarray(BROWN[name])
        distorted = lens.distort_brown(coefficients, points)
        assert_gradients_match(
            lambda c, d: lens.undistort_brown(c, d)[0], coefficients, distorted, rtol=1e-6, atol=1e-7
        )


def test_gradients_of_the_fisheye_inverse_are_the_implicit_ones():
    with jax.enable_x64(True):
        radii = jnp.asarray([0.05, 0.7, 1.3])
        assert_gradients_match(
            lambda c, r: lens.undistort_fisheye(c, r)[0], jnp.asarray(FISHEYE["gopro"]), radii, rtol=1e-6, atol=1e-7
        )


def test_gradients_are_finite_on_the_axis_at_the_fold_and_beyond():
    limit = 1 / np.sqrt(0.9)
    edge = limit - 0.3 * limit**3
    distorted = jnp.asarray([[0.0, 0.0], [edge, 0.0], [0.0, 2 * edge], [1e6, -1e6]], jnp.float32)
    assert_finite_gradients(lambda c, d: lens.undistort_brown(c, d)[0], jnp.asarray([-0.3]), distorted)
    radii = jnp.asarray([0.0, 1.217, 4.0], jnp.float32)
    assert_finite_gradients(lambda c, r: lens.undistort_fisheye(c, r)[0], jnp.asarray([-0.1]), radii)


def test_vmap_over_lenses_equals_single_ones():
    coefficients = jnp.asarray([[0.05, -0.08, 1e-3, 2e-4], [-0.2, 0.03, 0.0, 1e-3]])
    distorted = fan([0.1, 0.5], 3).astype(jnp.float32)
    together, _ = jax.jit(jax.vmap(lens.undistort_brown, in_axes=(0, None)))(coefficients, distorted)
    for one, row in zip(together, coefficients, strict=True):
        np.testing.assert_allclose(one, _undistort_brown(row, distorted)[0], atol=1e-6)


def test_too_many_coefficients_are_refused():
    with pytest.raises(ValueError, match="at most 8 .* got 12"):
        lens.distort_brown(jnp.zeros(12), jnp.zeros(2))
    with pytest.raises(ValueError, match="at most 4"):
        lens.undistort_fisheye(jnp.zeros(5), jnp.zeros(1))
