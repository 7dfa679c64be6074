"""Cameras: hand-computed projections, inverse laws, parity with gsplat's projected centres, gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras import camera as cameras
from renderers.cameras.camera import Camera
from renderers.cameras.pose import se3_exp
from tests.helpers.close import assert_close
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match
from tests.helpers.records import assert_record
from tests.helpers.shared import shared_path

_project = jax.jit(cameras.project)
_unproject = jax.jit(cameras.unproject)
_directions = jax.jit(cameras.viewing_directions)

LENSES = {
    "pinhole": ("pinhole", None),
    "orthographic": ("orthographic", None),
    "fisheye": ("fisheye", None),
    "pinhole-opencv": ("pinhole", [0.05, -0.08, -1e-3, 2e-4]),
    "pinhole-rational": ("pinhole", [0.2, 0.05, 1e-3, -5e-4, 0.01, 0.15, 0.02, 0.001]),
    "fisheye-kb": ("fisheye", [-0.02, 0.005, -0.001, 0.0002]),
}
POSE = [0.3, -0.5, 0.2, 0.1, -0.4, 2.0]
# Centred in front of the camera, so that every lens can see them; a fisheye also sees the last, at 80 degrees.
POINTS_CAMERA = [[0.2, -0.3, 2.0], [-1.0, 0.5, 3.0], [0.0, 0.0, 1.0], [0.6, 0.4, 1.2]]


def make_camera(name, dtype=jnp.float32):
    model, distortion = LENSES[name]
    focal = [40.0, 44.0] if model != "orthographic" else [20.0, 22.0]
    return Camera(
        se3_exp(jnp.asarray(POSE, dtype)),
        jnp.asarray(focal, dtype),
        jnp.asarray([31.0, 25.5], dtype),
        (48, 64),
        model,
        None if distortion is None else jnp.asarray(distortion, dtype),
    )


def world_points(camera):
    return cameras.to_world_frame(camera, jnp.asarray(POINTS_CAMERA, camera.focal.dtype))


@pytest.mark.parametrize(
    ("model", "point", "pixel"),
    [
        ("pinhole", (1.0, 2.0, 4.0), (10.0 * 0.25 + 3.0, 20.0 * 0.5 + 5.0)),
        ("orthographic", (1.0, 2.0, 4.0), (10.0 + 3.0, 40.0 + 5.0)),
        ("fisheye", (1.0, 0.0, 1.0), (10.0 * np.pi / 4 + 3.0, 5.0)),  # 45 degrees off the axis
        ("fisheye", (0.0, -2.0, 0.0), (3.0, -20.0 * np.pi / 2 + 5.0)),  # 90 degrees
        ("fisheye", (3.0, 0.0, -3.0), (10.0 * 3 * np.pi / 4 + 3.0, 5.0)),  # behind the camera
    ],
)
def test_hand_computed_projections(model, point, pixel):
    camera = Camera(jnp.eye(4), jnp.asarray([10.0, 20.0]), jnp.asarray([3.0, 5.0]), (8, 8), model)
    found, depth = _project(camera, jnp.asarray(point))
    np.testing.assert_allclose(found, pixel, rtol=2e-6)
    assert depth == point[2]


def test_hand_computed_distortion_reaches_the_pixels():
    # x = y = 0.5, s = 0.5: a = 1 + 0.1 * 0.5 + 0.2 * 0.25 = 1.1; tangential: 0.01 * 2 * 0.25 and 0.01 * (0.5 + 0.5).
    camera = Camera(
        jnp.eye(4), jnp.asarray([100.0, 100.0]), jnp.zeros(2), (8, 8), distortion=jnp.asarray([0.1, 0.2, 0.01])
    )
    pixel, _ = _project(camera, jnp.asarray([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(pixel, [100 * (0.55 + 0.005), 100 * (0.55 + 0.01)], rtol=1e-6)


def test_pose_maps_world_to_camera_and_depth_is_camera_z():
    # Camera at (0, 0, 5) looking along -Z with y down: a turn by pi about x.
    pose = jnp.asarray([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1]])
    camera = Camera(pose, jnp.asarray([10.0, 10.0]), jnp.asarray([16.0, 16.0]), (32, 32))
    pixel, depth = _project(camera, jnp.asarray([1.0, 2.0, 1.0]))
    np.testing.assert_allclose(pixel, [16 + 10 / 4, 16 - 20 / 4])  # world up is image up
    assert depth == 4.0
    np.testing.assert_allclose(cameras.camera_center(camera), [0.0, 0.0, 5.0])


def test_camera_center_is_the_transpose_of_the_raw_entries():
    with jax.enable_x64(True):
        camera = make_camera("pinhole", jnp.float64)
        raw = camera.camera_from_world.at[:3, :3].multiply(1.1)  # not orthonormal: transpose and inverse differ
        camera = dataclasses.replace(camera, camera_from_world=raw)
        np.testing.assert_allclose(cameras.camera_center(camera), -np.asarray(raw[:3, :3]).T @ raw[:3, 3], rtol=1e-14)


@pytest.mark.parametrize("name", LENSES)
def test_unproject_inverts_project(name):
    with jax.enable_x64(True):
        camera = make_camera(name, jnp.float64)
        points = world_points(camera)
        pixels, depth = _project(camera, points)
        # gsplat's epsilon in the fisheye moves points by about 1e-7 of a metre; the other lenses are exact.
        tolerance = 1e-6 if camera.model == "fisheye" else 1e-12
        assert_close(_unproject(camera, pixels, depth), points, atol=tolerance)


@pytest.mark.parametrize("name", LENSES)
def test_viewing_directions_point_at_what_is_projected(name):
    with jax.enable_x64(True):
        camera = make_camera(name, jnp.float64)
        points = jnp.asarray(POINTS_CAMERA) * 1e3  # far away, where the fisheye's epsilon is nothing
        directions, valid = _directions(camera, cameras.project_camera_points(camera, points))
        expected = points / jnp.linalg.norm(points, axis=-1, keepdims=True)
        if camera.model == "orthographic":
            expected = jnp.zeros_like(points).at[:, 2].set(1.0)
        assert valid.all()
        assert_close(directions, expected, atol=1e-9)


def test_a_fisheye_sees_behind_itself_but_not_past_180_degrees():
    with jax.enable_x64(True):
        camera = Camera(jnp.eye(4), jnp.ones(2), jnp.zeros(2), (4, 4), "fisheye")
        directions, valid = _directions(camera, jnp.asarray([[2.5, 0.0], [0.0, 3.2], [0.0, 0.0]]))
        np.testing.assert_array_equal(valid, [True, False, True])
        np.testing.assert_allclose(directions[0], [np.sin(2.5), 0.0, np.cos(2.5)], atol=1e-12)
        np.testing.assert_allclose(directions[2], [0.0, 0.0, 1.0])


@pytest.mark.parametrize("fixture", ["rand_rgb", "rand_ortho", "rand_fisheye"])
def test_projected_centres_equal_gsplat(fixture):
    data = np.load(shared_path("fixtures", "gaussians", f"{fixture}.npz"))
    kind = {"rand_rgb": "pinhole", "rand_ortho": "orthographic", "rand_fisheye": "fisheye"}[fixture]
    with jax.enable_x64(True):
        for view in range(data["in_viewmats"].shape[0]):
            matrix = np.asarray(data["in_Ks"][view], np.float64)
            camera = Camera(
                jnp.asarray(data["in_viewmats"][view], jnp.float64),
                jnp.asarray([matrix[0, 0], matrix[1, 1]]),
                jnp.asarray(matrix[:2, 2]),
                tuple(data["out_colors"].shape[1:3]),
                kind,
            )
            np.testing.assert_allclose(cameras.intrinsic_matrix(camera), matrix)
            pixels, depth = _project(camera, jnp.asarray(data["in_means"], jnp.float64))
            seen = (data["pg_radii"][view] > 0).all(-1)
            assert seen.sum() > 10
            np.testing.assert_allclose(pixels[seen], data["pg_means2d"][view][seen], rtol=1e-11, atol=1e-9)
            np.testing.assert_allclose(depth[seen], data["pg_depths"][view][seen], rtol=1e-12)


@pytest.mark.parametrize("name", LENSES)
def test_resize_and_crop_move_pixels_as_the_image_is_moved(name):
    camera = make_camera(name)
    points = world_points(camera)
    pixels, _ = _project(camera, points)
    smaller = cameras.resize(camera, (12, 32))
    assert smaller.size == (12, 32)
    np.testing.assert_allclose(_project(smaller, points)[0], pixels * jnp.asarray([[0.5, 0.25]]), rtol=2e-5)
    window = cameras.crop(camera, 7, -3, (10, 20))
    assert window.size == (10, 20)
    np.testing.assert_allclose(_project(window, points)[0], pixels - jnp.asarray([[-3.0, 7.0]]), atol=2e-5)


def test_intrinsic_matrix_times_point_is_the_pixel():
    camera = make_camera("pinhole")
    points = cameras.to_camera_frame(camera, world_points(camera))
    homogeneous = points @ cameras.intrinsic_matrix(camera).T
    np.testing.assert_allclose(
        homogeneous[:, :2] / homogeneous[:, 2:], cameras.project_camera_points(camera, points), rtol=1e-5
    )


def test_stacked_cameras_under_vmap_equal_single_ones():
    views = [make_camera("pinhole"), make_camera("pinhole-opencv"), make_camera("pinhole-rational")]
    stacked = cameras.stack_cameras(views)
    assert stacked.distortion.shape == (3, 8)
    points = world_points(views[0])
    together, depth = jax.jit(jax.vmap(cameras.project, in_axes=(0, None)))(stacked, points)
    for index, view in enumerate(views):
        pixels, z = _project(view, points)
        np.testing.assert_allclose(together[index], pixels, rtol=1e-5)
        np.testing.assert_allclose(depth[index], z, rtol=1e-6)
    assert cameras.stack_cameras(views[:1]).distortion is None


def test_stack_refuses_what_cannot_be_stacked():
    with pytest.raises(ValueError, match="at least one"):
        cameras.stack_cameras([])
    with pytest.raises(ValueError, match=r"\(12, 32\)"):
        cameras.stack_cameras([make_camera("pinhole"), cameras.resize(make_camera("pinhole"), (12, 32))])


@pytest.mark.parametrize("name", LENSES)
def test_gradients_of_project_and_unproject(name):
    with jax.enable_x64(True):
        camera = make_camera(name, jnp.float64)
        points = world_points(camera)
        assert_gradients_match(cameras.project, camera, points, rtol=1e-6, atol=1e-7)
        pixels, depth = _project(camera, points)
        pixels = pixels + 0.1  # the third point lies on the axis, where the fisheye's epsilon has a kink
        assert_gradients_match(cameras.unproject, camera, pixels, depth, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", LENSES)
def test_degenerate_points_give_finite_values_and_gradients(name):
    camera = dataclasses.replace(make_camera(name), camera_from_world=jnp.eye(4))
    points = jnp.asarray([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.1, 0.2, 0.0], [-0.3, 0.2, -2.0]])
    assert np.isfinite(_project(camera, points)[0]).all()
    assert_finite_gradients(cameras.project, camera, points)
    pixels = jnp.asarray([[31.0, 25.5], [1e4, -1e4], [0.5, 0.5]])
    assert_finite_gradients(cameras.unproject, camera, pixels, jnp.asarray([1.0, 0.0, -1.0]))


@pytest.mark.parametrize("name", LENSES)
def test_float32_stays_float32_under_x64(name):
    with jax.enable_x64(True):
        camera = make_camera(name, jnp.float32)

        def everything(camera, points):
            pixels, depth = cameras.project(camera, points)
            results = [pixels, depth, cameras.unproject(camera, pixels, depth), cameras.intrinsic_matrix(camera)]
            results += [cameras.camera_center(camera), cameras.viewing_directions(camera, pixels)[0]]
            return results + [cameras.resize(camera, (5, 7)), cameras.crop(camera, 1, 2, (3, 4))]

        shapes = jax.eval_shape(everything, camera, jnp.zeros((5, 3), jnp.float32))
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_record_is_a_pytree_with_static_size_and_model():
    camera = make_camera("fisheye-kb")
    assert_record(camera)
    assert_record(make_camera("pinhole"))
    assert len(jax.tree.leaves(camera)) == 4
    assert jax.tree.map(lambda _: None, camera).size == (48, 64)
    assert jax.jit(lambda c: c)(camera).model == "fisheye"
    jax.eval_shape(lambda c: c, camera)
