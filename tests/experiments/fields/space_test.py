import dataclasses

import numpy as np

from experiments.fields import space
from tests.experiments.fields.captures import ball_capture

_CENTER = np.array([1.0, 0.0, 2.0])


def test_the_box_is_tight_about_a_ball_and_no_cell_of_it_is_carved_away():
    capture = ball_capture(views=10, size=(64, 64))
    found = space.find_space(capture, range(10), unbounded=False)
    # the hull of ten silhouettes, a coarse cell and the margin of 8% are beyond the ball
    np.testing.assert_allclose(found.frame.center, _CENTER, atol=0.08)
    assert 0.5 < found.frame.scale < 0.5 * 1.4
    kept = space.carve(capture, range(10), found, 32)
    corners = np.stack(np.meshgrid(*3 * (np.arange(32),), indexing="ij"), -1)
    nearest = (corners + np.clip((_CENTER - found.frame.center) / found.frame.scale * 16 + 16 - corners, 0, 1)) / 16 - 1
    distance = np.linalg.norm(nearest * found.frame.scale + found.frame.center - _CENTER, axis=-1)
    assert kept[distance < 0.5 - 0.05].all(), "a cell that holds a part of the ball was carved away"
    # ten silhouettes leave little beside the ball, whose share of the cube is pi / 6 at most
    assert not kept[distance > 0.75].any() and kept.mean() < 0.7


def test_silhouettes_of_test_views_carve_nothing():
    capture = ball_capture(views=4)
    blank = dataclasses.replace(capture, images=(*capture.images[:3], np.zeros_like(capture.images[3])))
    found = space.find_space(capture, range(3), unbounded=False)
    assert (space.carve(blank, range(3), found, 16) == space.carve(capture, range(3), found, 16)).all()
    assert not space.carve(blank, range(4), found, 16)[8, 8, 8]


def test_without_bounds_the_box_holds_all_cameras():
    capture = ball_capture()
    found = space.find_space(capture, range(6), unbounded=True)
    poses = capture.camera_from_world
    centers = -np.einsum("vji,vj->vi", poses[:, :3, :3], poses[:, :3, 3])
    reach = np.linalg.norm(centers - found.frame.center, axis=1) / found.frame.scale
    np.testing.assert_allclose(reach.max(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.frame.center, _CENTER, atol=0.02)


def test_an_object_is_told_by_its_alpha_channel_or_its_white_background():
    capture = ball_capture()
    opaque = tuple(image[..., :3] for image in capture.images)
    assert space.is_object(dataclasses.replace(capture, white_background=False))
    assert space.is_object(dataclasses.replace(capture, images=opaque))
    assert not space.is_object(dataclasses.replace(capture, images=opaque, white_background=False))
    solid = tuple(np.concatenate([image, np.full((24, 32, 1), 255, np.uint8)], -1) for image in opaque)
    assert not space.is_object(dataclasses.replace(capture, images=solid, white_background=False))
