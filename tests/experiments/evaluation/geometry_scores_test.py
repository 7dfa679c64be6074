"""Distances, F-scores and volumes against formulas; the nearest object of a class is the object itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import geometry, objects
from experiments.data.blocks.descriptions import parse
from experiments.evaluation import geometry_scores
from experiments.evaluation.geometry_scores import ClassObjects, Samples
from renderers.meshes.mesh import Mesh

_CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
_SIDES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]], np.int32
)  # fmt: skip


def box(low, high):
    vertices = np.asarray(low) + _CUBE * (np.asarray(high) - np.asarray(low))
    return Mesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(_SIDES))


def sphere(radius, count=4000):
    directions = np.random.default_rng(0).standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Samples(radius * directions, directions, np.full((count, 3), 0.5))


@pytest.mark.parametrize(
    ("gap", "f_scores"), [(0.0, (1, 1, 1)), (0.015, (0, 1, 1)), (0.03, (0, 0, 1)), (0.06, (0, 0, 0))]
)
def test_spheres_of_radius_r_and_r_plus_d_are_d_apart(gap, f_scores):
    found = geometry_scores.compare(sphere(0.3), sphere(0.3 + gap))
    # From the larger sphere the nearest sample may be beside the one below it, and never farther
    assert found.completeness == pytest.approx(gap, rel=1e-9) and found.accuracy == pytest.approx(gap, rel=1e-9)
    assert found.chamfer == pytest.approx(gap, rel=1e-9)
    assert found.f_scores == pytest.approx(f_scores)
    assert found.normal_consistency == pytest.approx(1.0)


def test_half_of_a_shape_is_accurate_but_not_complete():
    whole = sphere(0.3)
    upper = Samples(*(rows[whole.points[:, 1] > 0] for rows in whole))
    found = geometry_scores.compare(upper, whole)
    assert found.accuracy == 0 and found.completeness > 0.05
    recall = np.mean(whole.points[:, 1] > -0.01)
    assert found.f_scores[0] == pytest.approx(2 * recall / (1 + recall), abs=0.02)


def test_volumes_of_boxes_intersect_by_the_formula():
    exact = objects.build(parse("a red box"), np.random.default_rng(0))
    low, high = geometry.bounds(exact)
    side = high - low

    def iou(shift):
        return geometry_scores.volume_iou(box(low + shift, high + shift), exact, 20_000, 0)

    assert iou(0.0) > 0.99  # edges of the world's boxes are rounded a little
    # Of what is beyond the truth's box only the margin of a twentieth counts
    assert iou(np.array([0.2, 0, 0]) * side) == pytest.approx(0.8 / 1.05, abs=0.02)
    assert iou(np.array([3.0, 0, 0])) == 0.0


@pytest.mark.slow
def test_an_object_of_the_class_is_recognized_and_scores_as_itself():
    given = ClassObjects(parse("a red box left of a blue sphere"), count=3, seed=0, points=20_000)
    mesh = geometry.mesh(given.objects[1], 48)
    surface = geometry_scores.samples_of_mesh(mesh, 20_000, 0)
    assert given.nearest(surface) == 1
    found = geometry_scores.compare(surface, given.samples(1))
    assert found.f_scores[1] == 1.0 and found.normal_consistency > 0.97
    assert geometry_scores.volume_iou(mesh, given.objects[1], 5000, 0) > 0.98
    others = geometry_scores.compare(surface, given.samples(2))
    assert others.chamfer > 2 * found.chamfer
    # Colours of samples are those of the solids they are on
    exact = np.asarray(given.objects[1].colors)[geometry.nearest_solids(given.objects[1], surface.points)]
    assert np.mean(np.abs(surface.colors - exact).max(axis=1) < 0.01) > 0.97


@pytest.mark.slow
def test_textures_and_factors_make_colours():
    """A quad whose texture is red below and green above; samples of its faces are where the picture says."""
    texture = np.zeros((8, 8, 3), np.float32)
    texture[:4, :, 1] = texture[4:, :, 0] = 1.0  # row 0 is the top
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    mesh = Mesh(jnp.asarray(corners), jnp.asarray(faces), uv=jnp.asarray(corners[:, :2]), texture=jnp.asarray(texture))
    found = geometry_scores.samples_of_mesh(mesh, 500, 0)
    above = found.points[:, 1] > 0.5
    np.testing.assert_allclose(found.colors, np.where(above[:, None], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]), atol=1e-6)
