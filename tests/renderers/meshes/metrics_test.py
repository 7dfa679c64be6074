"""Metrics on spheres and planes in closed form, by hand, and against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.meshes import metrics
from renderers.meshes.nearest import chamfer_loss
from tests.helpers.gradients import assert_gradients_match

KEY = jax.random.key(0)


def sphere_mesh(radius=1.0, subdivisions=3):
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def box_mesh(low, high):
    import trimesh

    mesh = trimesh.creation.box(bounds=[low, high])
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def directions(count=400):
    vectors = np.random.default_rng(0).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_spheres_of_radius_r_and_r_plus_d_are_d_apart():
    a, b = 0.5 * directions(), 0.55 * directions()
    np.testing.assert_allclose(metrics.chamfer_l1(a, b), 0.05, rtol=1e-6)
    np.testing.assert_allclose(metrics.chamfer_l2_squared(a, b), 2 * 0.05**2, rtol=1e-6)
    np.testing.assert_allclose(metrics.chamfer_l1(jnp.asarray(a), jnp.asarray(b)), 0.05, rtol=1e-5)
    assert metrics.chamfer_l1(a, a) == 0.0 and metrics.chamfer_l2_squared(a, a) == 0.0


def test_both_conventions_by_hand():
    a, b = np.zeros((1, 3)), np.array([[3.0, 0, 0], [0, 4.0, 0]])
    assert metrics.accuracy(a, b) == 3.0 and metrics.completeness(a, b) == 3.5
    assert metrics.chamfer_l1(a, b) == 3.25
    assert metrics.chamfer_l2_squared(a, b) == 9.0 + 12.5


def test_metrics_equal_brute_force_on_unequal_sets():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(70, 3)), rng.normal(size=(90, 3)) + 0.1
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    there, back = distances.min(1), distances.min(0)
    np.testing.assert_allclose(metrics.chamfer_l1(a, b), (there.mean() + back.mean()) / 2)
    np.testing.assert_allclose(metrics.chamfer_l2_squared(a, b), (there**2).mean() + (back**2).mean())
    p, r = (there < 0.4).mean(), (back < 0.4).mean()
    np.testing.assert_allclose(metrics.f_score(a, b, 0.4), 2 * p * r / (p + r))
    np.testing.assert_allclose(metrics.f_score(a, b, 0.4), metrics.f_score(b, a, 0.4))


def test_f_score_is_a_step_at_the_distance_and_strict():
    x, y = np.meshgrid(np.arange(8.0), np.arange(8.0))
    plane = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], -1)
    above = plane + [0, 0, 0.25]
    assert metrics.f_score(plane, above, 0.25) == 0.0
    assert metrics.f_score(plane, above, np.nextafter(0.25, 1)) == 1.0
    # a half of the truth missing: precision 1, recall a half
    np.testing.assert_allclose(metrics.f_score(plane[:32], plane, 0.5), 2 / 3)


def test_normal_consistency_is_the_cosine_whatever_the_sign():
    points, angle = directions(50), 0.3
    normals = np.tile([0.0, 0.0, 1.0], (50, 1))
    turned = np.tile([0.0, np.sin(angle), -np.cos(angle)], (50, 1))
    np.testing.assert_allclose(metrics.normal_consistency(points, normals, points, turned), np.cos(angle))


def test_compare_surfaces_agrees_with_its_parts_and_with_the_gap():
    vertices, faces = sphere_mesh()
    errors = metrics.compare_surfaces(KEY, 0.8 * vertices, faces, vertices, faces, count=4000, thresholds=(0.1, 0.3))
    assert 0.2 < errors.chamfer_l1 < 0.21 and errors.f_scores == (0.0, 1.0)
    assert 0.2 < errors.accuracy < 0.21 and errors.normal_consistency > 0.99
    np.testing.assert_allclose(errors.chamfer_l1, 0.5 * (errors.accuracy + errors.completeness))
    same = metrics.compare_surfaces(KEY, vertices, faces, vertices, faces, count=4000)
    np.testing.assert_allclose(same.chamfer_l1, 0.5 * np.sqrt(4 * np.pi / 4000), rtol=0.05)  # the noise floor
    with pytest.raises(ValueError, match="at least one face"):
        metrics.compare_surfaces(KEY, vertices, faces[:0], vertices, faces)


def test_point_to_surface_is_exact_where_samples_are_coarse():
    vertices, faces = box_mesh([0, 0, 0], [1, 1, 1])
    points = np.array([[0.5, 0.5, 1.25], [0.4, 0.4, 0.5], [2, 1, 1]])
    np.testing.assert_allclose(metrics.point_to_surface(points, vertices, faces), (0.25 + 0.4 + 1) / 3)


def test_volume_iou_of_boxes():
    a, b = box_mesh([0, 0, 0], [1, 1, 1]), box_mesh([0.5, 0, 0], [1.5, 1, 1])
    # the box of b, widened by a tenth, sees [0.45, 1.55] of a and b in x: union 0.05 + 1, overlap 0.5
    found = metrics.volume_iou(KEY, *a, *b, count=20_000)
    np.testing.assert_allclose(found, 0.5 / 1.05, atol=0.02)
    assert metrics.volume_iou(KEY, *b, *b, count=500) == 1.0
    assert metrics.occupancy_iou(np.zeros(3, bool), np.zeros(3, bool)) == 1.0
    assert metrics.occupancy_iou(np.array([1, 1, 0], bool), np.array([0, 1, 1], bool)) == 1 / 3


def test_silhouette_iou_is_the_mean_over_views():
    a = np.zeros((3, 4, 4))
    b = a.copy()
    a[0, :2], b[0, 1:3] = 1.0, 1.0
    a[1, 0, 0], b[1, 0, 0] = 0.5, 1.0
    np.testing.assert_allclose(metrics.silhouette_iou(a, b), (1 / 3 + 0.5 + 1) / 3)


def test_visible_points_lie_where_the_depth_says():
    pose = jnp.eye(4).at[2, 3].set(2.0)  # looks along +z from z = -2
    camera = Camera(pose, jnp.array([4.0, 4.0]), jnp.array([2.0, 2.0]), (4, 4))
    depth = np.zeros((4, 4), np.float32)
    depth[1, 2], depth[3, 0] = 2.0, 3.0
    found = metrics.visible_points([depth], [camera])
    np.testing.assert_allclose(found, [[0.25, -0.25, 0.0], [-1.125, 1.125, 1.0]], atol=1e-6)


@pytest.mark.parametrize("squared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_chamfer_loss_is_the_metric_with_right_gradients(squared):
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        a, b = jnp.asarray(rng.normal(size=(20, 3))), jnp.asarray(rng.normal(size=(30, 3)))
        metric = metrics.chamfer_l2_squared if squared else metrics.chamfer_l1
        np.testing.assert_allclose(chamfer_loss(a, b, squared=squared), metric(a, b), rtol=1e-12)
        assert_gradients_match(lambda x, y: chamfer_loss(x, y, squared=squared), a, b, rtol=1e-6)
        gradient = jax.grad(lambda x: chamfer_loss(x, x, squared=squared))(a)
        np.testing.assert_array_equal(gradient, 0.0)


def test_empty_and_infinite_sets_are_refused():
    points = directions(5)
    with pytest.raises(ValueError, match="at least one point"):
        metrics.chamfer_l1(points, points[:0])
    with pytest.raises(ValueError, match="point 2 is not"):
        metrics.f_score(np.where(np.arange(5)[:, None] == 2, np.inf, points), points, 0.1)
