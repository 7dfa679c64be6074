"""Other programs' conventions: one point, seen by hand in each of them, lands on the same pixel of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras import conversions as convert
from renderers.cameras.camera import Camera, camera_center, project
from renderers.cameras.pose import invert, se3_exp, transform_points
from tests.helpers.close import assert_close

FOCAL, PRINCIPAL, SIZE = jnp.asarray([100.0, 100.0]), jnp.asarray([64.0, 48.0]), (96, 128)
# 1 m to the left, 0.5 m up and 2 m in front of the camera: 50 px left and 25 px above the principal point.
PIXEL = (64.0 - 50.0, 48.0 - 25.0)
FRONT_LEFT_UP = {
    "opencv": (-1.0, -0.5, 2.0),
    "opengl": (-1.0, 0.5, -2.0),
    "llff": (-0.5, -1.0, -2.0),
    "pytorch3d": (1.0, 0.5, 2.0),
}
POSE = se3_exp(jnp.asarray([0.4, -1.1, 0.3, 0.5, -0.2, 1.5]))


def pixel_of(camera_from_world, point_world):
    pixel, depth = project(Camera(camera_from_world, FOCAL, PRINCIPAL, SIZE), jnp.asarray(point_world))
    np.testing.assert_allclose(depth, 2.0, rtol=1e-5)
    return pixel


def rotation_and_center():
    """Some placement of another program's camera axes in the world."""
    placed = np.asarray(POSE)
    return placed[:3, :3], placed[:3, 3]


def test_opengl_point_front_left_up():
    rotation, center = rotation_and_center()
    world_from_opengl = jnp.asarray(np.vstack([np.column_stack([rotation, center]), [0, 0, 0, 1]]))
    point = rotation @ np.asarray(FRONT_LEFT_UP["opengl"]) + center
    np.testing.assert_allclose(pixel_of(convert.from_opengl(world_from_opengl), point), PIXEL, rtol=1e-5)


def test_llff_point_front_left_up():
    rotation, center = rotation_and_center()  # columns: down, right, backward
    point = rotation @ np.asarray(FRONT_LEFT_UP["llff"]) + center
    pose = convert.from_llff(jnp.asarray(np.column_stack([rotation, center])))
    np.testing.assert_allclose(np.linalg.det(pose[:3, :3]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(pixel_of(pose, point), PIXEL, rtol=1e-5)


def test_pytorch3d_point_front_left_up():
    rotation, center = rotation_and_center()
    # X_cam = X R + T for row vectors.
    point = (np.asarray(FRONT_LEFT_UP["pytorch3d"]) - center) @ np.linalg.inv(rotation)
    np.testing.assert_allclose(point @ rotation + center, FRONT_LEFT_UP["pytorch3d"], atol=1e-6)
    pose = convert.from_pytorch3d(jnp.asarray(rotation), jnp.asarray(center))
    np.testing.assert_allclose(pixel_of(pose, point), PIXEL, rtol=1e-5)


def test_colmap_point_front_left_up():
    # A quarter turn about y, q = (cos 45, 0, sin 45, 0), maps x to -z and z to x.
    half = np.sqrt(0.5)
    pose = convert.from_colmap(jnp.asarray([half, 0.0, half, 0.0]), jnp.asarray([0.0, 0.0, 5.0]))
    np.testing.assert_allclose(transform_points(pose, jnp.asarray([1.0, 0.0, 0.0])), [0.0, 0.0, 4.0], atol=1e-6)
    # Camera point (-1, -0.5, 2) = (z_w, y_w, 5 - x_w).
    np.testing.assert_allclose(pixel_of(pose, [3.0, -0.5, -1.0]), PIXEL, rtol=1e-5)


def test_blender_camera_by_hand():
    # Blender's default: an unrotated camera looks along -Z with +Y up; 4 units up it sees the origin.
    world_from_blender = jnp.eye(4).at[2, 3].set(4.0)
    camera = convert.from_blender(world_from_blender, np.pi / 2, (80, 100))
    np.testing.assert_allclose(camera.focal, [50.0, 50.0], rtol=1e-6)  # 90 degrees: focal is half the width
    np.testing.assert_allclose(camera_center(camera), [0.0, 0.0, 4.0])
    pixel, depth = project(camera, jnp.asarray([-1.0, 0.5, 0.0]))
    np.testing.assert_allclose(pixel, [50 - 12.5, 40 - 6.25])
    assert depth == 4.0
    matrix, angle = convert.to_blender(camera)
    assert_close(matrix, world_from_blender)
    np.testing.assert_allclose(angle, np.pi / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (convert.to_opengl, convert.from_opengl),
        (convert.to_llff, convert.from_llff),
        (convert.to_pytorch3d, lambda parts: convert.from_pytorch3d(*parts)),
        (convert.to_colmap, lambda parts: convert.from_colmap(*parts)),
        (convert.world_to_z_up, convert.world_to_y_up),
    ],
)
def test_conversions_are_inverse_to_each_other(there, back):
    poses = jax.vmap(se3_exp)(jax.random.normal(jax.random.key(1), (5, 6)))
    assert_close(back(there(poses)), poses, atol=2e-6)


def test_colmap_quaternion_has_positive_real_part_and_unit_length():
    poses = jax.vmap(se3_exp)(3.0 * jax.random.normal(jax.random.key(2), (20, 6)))
    quaternion, _ = convert.to_colmap(poses)
    assert (quaternion[:, 0] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=-1), 1.0, rtol=1e-6)


def test_pytorch3d_ndc_by_hand():
    # A 96 x 128 image: half the shorter side is 48, of each side (64, 48). x points left, y up.
    focal, principal = convert.intrinsics_from_ndc(
        jnp.asarray([2.0, 2.0]), jnp.asarray([0.25, -0.5]), SIZE, "ndc_isotropic"
    )
    np.testing.assert_allclose(focal, [96.0, 96.0])
    np.testing.assert_allclose(principal, [64.0 - 12.0, 48.0 + 24.0])
    focal, principal = convert.intrinsics_from_ndc(
        jnp.asarray([2.0, 2.0]), jnp.asarray([0.25, -0.5]), SIZE, "ndc_norm_image_bounds"
    )
    np.testing.assert_allclose(focal, [128.0, 96.0])
    np.testing.assert_allclose(principal, [64.0 - 16.0, 48.0 + 24.0])


@pytest.mark.parametrize("ndc", ["ndc_isotropic", "ndc_norm_image_bounds"])
def test_pytorch3d_ndc_agrees_with_its_definition_of_the_image(ndc):
    """A point at NDC (+1, +1) of the bounds is the image's left upper corner."""
    bounds = jnp.asarray([SIZE[1], SIZE[0]]) / (
        min(SIZE) if ndc == "ndc_isotropic" else jnp.asarray([SIZE[1], SIZE[0]])
    )
    focal, principal = convert.intrinsics_from_ndc(jnp.ones(2), jnp.zeros(2), SIZE, ndc)
    pose = convert.from_pytorch3d(jnp.eye(3), jnp.zeros(3))
    corner = jnp.concatenate([bounds, jnp.ones(1)])
    np.testing.assert_allclose(project(Camera(pose, focal, principal, SIZE), corner)[0], [0.0, 0.0], atol=1e-5)
    back = convert.intrinsics_to_ndc(*convert.intrinsics_from_ndc(jnp.ones(2), 0.3 * jnp.ones(2), SIZE, ndc), SIZE, ndc)
    np.testing.assert_allclose(np.concatenate(back), [1.0, 1.0, 0.3, 0.3], rtol=1e-6)


def test_z_up_world_by_hand():
    # Front +X becomes front +Z, up +Z becomes up +Y, left +Y becomes +X.
    np.testing.assert_array_equal(convert.points_to_y_up(jnp.eye(3)), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(convert.points_to_z_up(convert.points_to_y_up(jnp.eye(3))), np.eye(3))
    np.testing.assert_allclose(np.linalg.det(convert.points_to_y_up(jnp.eye(3))), 1.0)  # no mirroring


def test_cameras_and_points_move_to_the_y_up_world_together():
    points = jax.random.normal(jax.random.key(3), (6, 3))
    seen = transform_points(POSE, points)
    assert_close(transform_points(convert.world_to_y_up(POSE), convert.points_to_y_up(points)), seen, atol=1e-6)
    center = invert(POSE)[:3, 3]
    assert_close(invert(convert.world_to_y_up(POSE))[:3, 3], convert.points_to_y_up(center), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters", "model", "focal", "distortion"),
    [
        ("SIMPLE_PINHOLE", (5.0, 2.0, 3.0), "pinhole", (5.0, 5.0), None),
        ("PINHOLE", (5.0, 6.0, 2.0, 3.0), "pinhole", (5.0, 6.0), None),
        ("SIMPLE_RADIAL", (5.0, 2.0, 3.0, 0.1), "pinhole", (5.0, 5.0), (0.1, 0, 0, 0)),
        ("RADIAL", (5.0, 2.0, 3.0, 0.1, 0.2), "pinhole", (5.0, 5.0), (0.1, 0.2, 0, 0)),
        ("OPENCV", (5.0, 6.0, 2.0, 3.0, 0.1, 0.2, 0.3, 0.4), "pinhole", (5.0, 6.0), (0.1, 0.2, 0.3, 0.4)),
        ("OPENCV_FISHEYE", (5.0, 6.0, 2.0, 3.0, 0.1, 0.2, 0.3, 0.4), "fisheye", (5.0, 6.0), (0.1, 0.2, 0.3, 0.4)),
        ("RADIAL_FISHEYE", (5.0, 2.0, 3.0, 0.1, 0.2), "fisheye", (5.0, 5.0), (0.1, 0.2, 0, 0)),
    ],
)
def test_colmap_lenses(name, parameters, model, focal, distortion):
    camera = convert.colmap_camera(name, jnp.asarray(parameters), (4, 6), jnp.eye(4))
    assert camera.model == model and camera.size == (4, 6)
    np.testing.assert_allclose(camera.focal, focal)
    np.testing.assert_allclose(camera.principal, [2.0, 3.0])
    if distortion is None:
        assert camera.distortion is None
    else:
        np.testing.assert_allclose(camera.distortion, distortion, rtol=1e-6)
    written, values = convert.to_colmap_lens(camera)
    again = convert.colmap_camera(written, values, (4, 6), jnp.eye(4))
    point = jnp.asarray([0.3, -0.2, 1.0])
    np.testing.assert_allclose(project(again, point)[0], project(camera, point)[0], rtol=1e-6)


def test_full_opencv_keeps_the_order_of_its_rational_coefficients():
    parameters = jnp.asarray([5.0, 6.0, 2.0, 3.0, 0.1, 0.2, 0.01, 0.02, 0.3, 0.4, 0.5, 0.6])
    camera = convert.colmap_camera("FULL_OPENCV", parameters, (4, 6), jnp.eye(4))
    name, values = convert.to_colmap_lens(camera)
    assert name == "FULL_OPENCV"
    np.testing.assert_array_equal(values, parameters)
    np.testing.assert_array_equal(camera.distortion, parameters[4:])


def test_bad_lenses_are_refused_in_one_line():
    with pytest.raises(ValueError, match="got FOV; run"):
        convert.colmap_camera("FOV", jnp.ones(5), (4, 6), jnp.eye(4))
    with pytest.raises(ValueError, match="OPENCV takes 8 parameters, got 7"):
        convert.colmap_camera("OPENCV", jnp.ones(7), (4, 6), jnp.eye(4))
    with pytest.raises(ValueError, match="orthographic"):
        convert.to_colmap_lens(Camera(jnp.eye(4), FOCAL, PRINCIPAL, SIZE, "orthographic"))
