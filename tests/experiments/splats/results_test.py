import numpy as np
import pytest

from experiments.data.demo import demo_capture
from experiments.splats import results, scene, views
from experiments.splats.settings import FitConfig


def _views(capture):
    return views.divide(capture, scene.normalisation(capture), FitConfig())


def _centers(path):
    return scene.camera_centers(np.stack([np.asarray(camera.camera_from_world, float) for camera in path]))


def test_a_surrounded_scene_is_circled_at_the_cameras_distance_and_height():
    divided = _views(demo_capture(size=(16, 16), views=16, num_points=16))
    path = results.flight(divided.cameras, 24)
    given, focus = scene.focus_point(divided.cameras)
    offsets = _centers(path) - focus
    distance = np.linalg.norm(offsets, axis=1)
    np.testing.assert_allclose(distance, np.median(np.linalg.norm(given - focus, axis=1)), rtol=1e-4)
    steps = np.linalg.norm(np.diff(offsets, axis=0, append=offsets[:1]), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)  # a full turn, in equal steps, closed
    for camera, offset in zip(path, offsets, strict=True):
        np.testing.assert_allclose(camera.camera_from_world[2, :3], -offset / np.linalg.norm(offset), atol=1e-4)


@pytest.mark.slow
def test_a_scene_seen_from_one_side_is_passed_there_and_back():
    capture = demo_capture(size=(16, 16), views=40, num_points=16)
    azimuth = np.arctan2(*scene.camera_centers(capture.camera_from_world)[:, [0, 2]].T)
    front = np.flatnonzero(np.abs(azimuth) < 0.6)
    some = type(capture)(
        names=tuple(capture.names[i] for i in front),
        images=tuple(capture.images[i] for i in front),
        camera_from_world=capture.camera_from_world[front],
        focal=capture.focal[front],
        principal=capture.principal[front],
    )
    divided = _views(some)
    path = _centers(results.flight(divided.cameras, 30))
    given = _centers(divided.cameras)
    assert np.linalg.norm(path[0] - path[-1]) < 0.25 * np.linalg.norm(np.ptp(given, axis=0))
    # it stays where photographs were taken, a spline's overshoot apart
    distance = np.linalg.norm(path[:, None] - given[None], axis=-1).min(1)
    assert distance.max() < 0.5 * np.linalg.norm(np.ptp(given, axis=0))


def test_focus_is_where_the_axes_meet():
    capture = demo_capture(size=(16, 16), views=12, num_points=16)
    frame = scene.normalisation(capture)
    _, focus = scene.focus_point(scene.cameras(capture, frame))
    np.testing.assert_allclose(focus * frame.scale + frame.center, [0.0, 0.22, 0.0], atol=0.05)
