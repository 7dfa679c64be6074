"""The normalised scene: frames, starts, views."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.demo import demo_capture
from experiments.errors import InputError
from experiments.splats import scene, views
from experiments.splats.settings import FitConfig
from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.rasterize import render


@pytest.fixture(scope="module")
def capture():
    made = demo_capture(size=(40, 48), views=10, num_points=400)
    shift = np.array([20.0, -14.0, 7.0])  # not centred, and another unit, as the frames of reconstructions are
    poses = made.camera_from_world.copy()
    poses[:, :3, 3] = 9.0 * poses[:, :3, 3] - np.einsum("vij,j->vi", poses[:, :3, :3], shift)
    return dataclasses.replace(made, camera_from_world=poses, points=9.0 * made.points + shift)


@pytest.mark.slow
def test_results_look_the_same_from_the_captures_cameras(capture):
    frame = scene.normalisation(capture)
    gaussians = scene.initial_gaussians(capture, frame, use_points=True, number=0, degree=1, most=10**6, seed=0)
    rng = np.random.default_rng(0)
    gaussians = dataclasses.replace(gaussians, sh=jnp.asarray(rng.normal(size=gaussians.sh.shape) * 0.3, jnp.float32))
    inside = render(gaussians, scene.cameras(capture, frame)[3], backend="xla", capacity=2**14)
    own = Camera(
        jnp.asarray(capture.camera_from_world[3], jnp.float32),
        jnp.asarray(capture.focal[3], jnp.float32),
        jnp.asarray(capture.principal[3], jnp.float32),
        capture.images[3].shape[:2],
    )
    outside = render(scene.to_capture_frame(gaussians, frame), own, backend="xla", capacity=2**14)
    difference = np.abs(np.asarray(inside.color - outside.color)).max(-1)
    # float32 positions 25 units from the origin are off by 1e-6, 1e-4 pixels here; a Gaussian whose alpha is within
    # that of 1/255 may be dropped in one of the two, which costs a pixel 1/255 of its colour
    assert np.quantile(difference, 0.98) < 1e-3 and difference.max() < 4 / 255
    np.testing.assert_allclose(outside.expected_depth, frame.scale * inside.expected_depth, rtol=2e-3, atol=1e-3)


def test_farthest_camera_is_at_distance_one(capture):
    frame = scene.normalisation(capture)
    centers = scene.camera_centers(np.stack([c.camera_from_world for c in scene.cameras(capture, frame)]).astype(float))
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1).max(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(centers.mean(0), 0.0, atol=1e-6)


def test_random_start_fills_the_silhouettes_and_takes_their_colours():
    base = demo_capture(size=(40, 40), views=6, num_points=10)
    frame = scene.normalisation(base)
    # a ball of radius 0.35 around the look-at point, drawn as a mask in every view
    images, ball = [], np.array([0.0, 0.22, 0.0])
    for view in scene.cameras(base, frame):
        middle = view.camera_from_world[:3, :3] @ ((ball - frame.center) / frame.scale) + view.camera_from_world[:3, 3]
        pixel = middle[:2] / middle[2] * view.focal + view.principal
        y, x = np.mgrid[:40, :40] + 0.5
        inside = np.hypot(x - pixel[0], y - pixel[1]) < view.focal[0] * 0.35 / frame.scale / middle[2]
        images.append(np.where(inside[..., None], [250, 20, 30, 255], 0).astype(np.uint8))
    masked = dataclasses.replace(base, images=tuple(images), points=None, point_colors=None)
    points, colors = scene.random_points(masked, frame, 300, np.random.default_rng(0))
    distance = np.linalg.norm(points * frame.scale + frame.center - ball, axis=1)
    assert len(points) == 300 and np.quantile(distance, 0.95) < 0.6  # the hull of six silhouettes, not a box of 1.5
    np.testing.assert_allclose(np.median(colors, 0), [250 / 255, 20 / 255, 30 / 255], atol=0.01)


def test_too_few_points_are_refused(capture):
    frame = scene.normalisation(capture)
    bare = dataclasses.replace(capture, points=capture.points[:3])
    with pytest.raises(InputError, match="--init=random"):
        scene.initial_gaussians(bare, frame, use_points=True, number=0, degree=0, most=10, seed=0)


def test_points_above_the_cap_are_thinned(capture):
    frame = scene.normalisation(capture)
    few = scene.initial_gaussians(capture, frame, use_points=True, number=0, degree=0, most=50, seed=0)
    assert few.means.shape == (50, 3)
    whole = (capture.points - frame.center) / frame.scale
    nearest = np.abs(np.asarray(few.means)[:, None] - whole[None]).max(-1).min(1)
    assert nearest.max() < 1e-5


def test_an_epoch_sees_every_training_view_once(capture):
    divided = views.divide(capture, scene.normalisation(capture), FitConfig(holdout="5", batch=2))
    assert divided.test == (0, 5) and len(divided.train) == 8
    batches = views.Batches(divided, FitConfig(batch=2, seed=3), None)
    for epoch in range(3):
        seen = [index for step in range(4 * epoch, 4 * epoch + 4) for index in batches.indices(step)]
        assert sorted(seen) == sorted(divided.train)
    batch = batches(5)
    for row, index in enumerate(batches.indices(5)):
        np.testing.assert_array_equal(batch.images[row], divided.images[index])
        np.testing.assert_array_equal(batch.cameras.camera_from_world[row], divided.cameras[index].camera_from_world)


def test_views_that_cannot_be_trained_on_are_refused(capture):
    frame = scene.normalisation(capture)
    with pytest.raises(InputError, match="all 10 views"):
        views.divide(capture, frame, FitConfig(holdout="1"))
    images = (capture.images[0][:30], *capture.images[1:])
    mixed = dataclasses.replace(capture, images=images)
    with pytest.raises(InputError, match="--batch=1"):
        views.divide(mixed, frame, FitConfig(holdout="0005,0006", batch=2))
    mesh = jax.make_mesh((4,), ("views",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(InputError, match="does not divide over 4 devices"):
        views.Batches(views.divide(capture, frame, FitConfig()), FitConfig(batch=3), mesh)


def test_cameras_in_one_place_still_give_a_scale():
    made = demo_capture(size=(16, 16), views=4, num_points=64)
    still = dataclasses.replace(made, camera_from_world=np.repeat(made.camera_from_world[:1], 4, axis=0))
    frame = scene.normalisation(still)
    center = scene.camera_centers(still.camera_from_world)[0]
    assert frame.scale == pytest.approx(np.median(np.linalg.norm(still.points - center, axis=1)))


def test_gaussians_record_keeps_its_fields_through_the_frame_change(capture):
    frame = scene.normalisation(capture)
    there = scene.to_capture_frame(
        Gaussians(
            means=jnp.zeros((1, 3)),
            quaternions=jnp.ones((1, 4)),
            log_scales=jnp.zeros((1, 3)),
            opacity_logits=jnp.ones(1),
            sh=jnp.ones((1, 4, 3)),
        ),
        frame,
    )
    np.testing.assert_allclose(there.means[0], frame.center, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(there.log_scales), frame.scale, rtol=1e-6)
    np.testing.assert_array_equal(there.sh, 1.0)
