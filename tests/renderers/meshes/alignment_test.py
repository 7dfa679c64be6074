"""Alignment finds the transform that was applied, and normalisation is its definition."""

import numpy as np
import pytest

from renderers.meshes import alignment


def shape(count=300):
    """Points on a surface without symmetry."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return points * [1.0, 0.5, 0.7] + 0.3 * np.maximum(points[:, :1], 0) ** 2 * [0.5, 1.0, 0.2]


def motion(yaw, shift, scale=1.0):
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    matrix[:3, 3] = shift
    return matrix


def test_unit_transform_makes_the_longest_side_one():
    points = shape() * 7 + [3, 4, 5]
    unit = alignment.transform(alignment.unit_transform(points), points)
    np.testing.assert_allclose(np.ptp(unit, axis=0).max(), 1.0)
    np.testing.assert_allclose(unit.max(0) + unit.min(0), 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="an extent"):
        alignment.unit_transform(points[:1])


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_similarity_inverts_a_motion_of_matched_points(scale):
    points, matrix = shape(), motion(2.0, [1, 2, 3], scale)
    found = alignment.similarity(points, alignment.transform(matrix, points), scale=True)
    np.testing.assert_allclose(found, matrix, atol=1e-10)
    mirrored = alignment.similarity(points, points * [-1, 1, 1])
    np.testing.assert_allclose(np.linalg.det(mirrored[:3, :3]), 1.0)


def test_icp_and_yaw_search_find_a_motion_of_unmatched_points():
    points = shape()
    shuffled = points[np.random.default_rng(1).permutation(len(points))]
    small = motion(0.05, [0.02, 0.01, -0.03])
    np.testing.assert_allclose(alignment.icp(points, alignment.transform(small, shuffled)), small, atol=1e-6)
    large = motion(2.6, [1, -2, 0.5], 1.05)
    found = alignment.align(points, alignment.transform(large, shuffled), scale=True)
    np.testing.assert_allclose(found, large, atol=1e-5)
    assert not np.allclose(alignment.icp(points, alignment.transform(large, shuffled)), large, atol=0.1)
