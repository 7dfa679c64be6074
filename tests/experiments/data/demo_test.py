"""The demo capture: deterministic, and its pictures, poses and points describe one scene."""

import numpy as np
import pytest

from experiments.data.captures import load_capture
from experiments.data.demo import demo_capture
from experiments.data.demo_scene import ITEMS, trace
from experiments.data.demo_shapes import Box, Cylinder, Sphere, Torus


@pytest.fixture(scope="module")
def capture():
    return demo_capture((64, 80), views=10, seed=3, num_points=500)


def test_the_same_seed_gives_the_same_bytes(capture):
    again = demo_capture((64, 80), views=10, seed=3, num_points=500)
    for a, b in zip(capture.images, again.images, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("camera_from_world", "points", "point_colors"):
        np.testing.assert_array_equal(getattr(capture, name), getattr(again, name))
    assert not np.array_equal(capture.points, demo_capture((8, 8), views=10, seed=4, num_points=500).points)


def test_points_have_the_colour_that_the_pictures_show_where_nothing_hides_them(capture):
    """Each point is projected with the record's cameras; where the ray caster sees it unhidden, colours agree."""
    differences = []
    for view, pose in enumerate(capture.camera_from_world):
        local = capture.points @ pose[:3, :3].T + pose[:3, 3]
        u, v = (capture.focal[view] * local[:, :2] / local[:, 2:] + capture.principal[view]).T
        assert ((u > 0) & (u < 80) & (v > 0) & (v < 64)).mean() > 0.97
        center = (-pose[:3, :3].T @ pose[:3, 3]).astype(np.float32)[:, None]
        away = capture.points.T.astype(np.float32) - center
        distance = np.linalg.norm(away, axis=0)
        seen = np.abs(trace(center, away / distance)[0] - distance) < 5e-3
        seen &= (u > 0) & (u < 80) & (v > 0) & (v < 64)
        shown = capture.images[view][v[seen].astype(int), u[seen].astype(int)].astype(float)
        differences.append(np.abs(shown - capture.point_colors[seen]).mean(axis=1))
    differences = np.concatenate(differences)
    assert len(differences) > 1500
    # Points on edges of the pattern share their pixel with another colour.
    assert np.median(differences) < 8 and np.quantile(differences, 0.75) < 30


def test_cameras_stand_on_a_hemisphere_and_the_table_is_in_the_middle_of_the_picture(capture):
    centers = np.array([-pose[:3, :3].T @ pose[:3, 3] for pose in capture.camera_from_world])
    np.testing.assert_allclose(np.linalg.norm(centers - [0, 0.22, 0], axis=1), 3.1, atol=1e-9)
    assert (centers[:, 1] > 0.3).all() and np.ptp(np.arctan2(centers[:, 0], centers[:, 2])) > 4
    np.testing.assert_allclose(np.linalg.det(capture.camera_from_world[:, :3, :3]), 1)
    for image in capture.images:
        assert (image[[0, -1]] == 255).all(axis=-1).mean() > 0.95
        assert (image[20:44, 30:50] != 255).any(axis=-1).mean() > 0.8


SHAPES = [item.shape for item in ITEMS] + [
    Sphere((0.1, 0.2, -0.1), 0.3), Box((0.0, 0.1, 0.0), (0.2, 0.3, 0.4), 0.7), Cylinder((0.1, 0.0, 0.0), 0.3, 0.5),
    Torus((0.0, 0.1, 0.0), (0.6, 0.8, 0.0), 0.4, 0.1),
]  # fmt: skip


def _inside(shape, points):
    """Membership by definition, apart from the code that intersects rays."""
    if isinstance(shape, Sphere):
        return np.linalg.norm(points - shape.center, axis=-1) < shape.radius
    if isinstance(shape, Box):
        c, s = np.cos(shape.yaw), np.sin(shape.yaw)
        local = (points - shape.center) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]).T
        return (np.abs(local) < shape.half).all(axis=-1)
    if isinstance(shape, Cylinder):
        local = points - shape.base
        return (
            (np.hypot(local[..., 0], local[..., 2]) < shape.radius)
            & (local[..., 1] > 0)
            & (local[..., 1] < shape.height)
        )
    height = (points - shape.center) @ np.array(shape.axis)
    flat = np.linalg.norm(points - shape.center - height[..., None] * np.array(shape.axis), axis=-1)
    return np.hypot(flat - shape.major, height) < shape.minor


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_rays_enter_shapes_where_marching_finds_the_inside(shape):
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(300, 3))
    origins *= 2.5 / np.linalg.norm(origins, axis=1, keepdims=True)
    center = np.array(getattr(shape, "center", None) or shape.base)
    aims = center + rng.normal(size=(300, 3)) * 0.25
    directions = (aims - origins) / np.linalg.norm(aims - origins, axis=1, keepdims=True)
    entered = shape.enter(origins.T.astype(np.float32), directions.T.astype(np.float32))
    steps = np.arange(0, 5, 2e-3)
    marched = _inside(shape, origins[:, None] + steps[:, None] * directions[:, None])
    first = np.where(marched.any(axis=1), steps[marched.argmax(axis=1)], np.inf)
    hit = np.isfinite(first)
    assert hit.sum() > 20
    assert np.isfinite(entered[hit]).mean() > 0.97
    both = hit & np.isfinite(entered)
    # Grazing rays may enter in a sliver that the march steps over.
    close = np.abs(entered[both] - first[both]) < 5e-3
    assert close.mean() > 0.98
    points = (origins + entered[:, None] * directions)[both].T.astype(np.float32)
    normals = shape.normals(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-3)
    outside, inside = (_inside(shape, (points + sign * 2e-3 * normals).T) for sign in (1, -1))
    assert (~outside).mean() > 0.97 and inside.mean() > 0.97


def test_the_front_door_knows_the_demo():
    assert load_capture("demo").names[0] == "0000.png"
