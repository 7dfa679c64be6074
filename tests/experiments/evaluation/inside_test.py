"""Counting crossings against winding numbers, on tori, whole and with a face missing."""

import numpy as np
import pytest

from experiments.evaluation.inside import inside
from renderers.meshes.distances import contains


def torus(tilt):
    """A closed surface with a hole through it, turned so that no axis is its own."""
    around, along = np.meshgrid(np.arange(24), np.arange(12), indexing="ij")
    a, b = 2 * np.pi * around / 24 + 0.1, 2 * np.pi * along / 12
    flat = np.stack([(0.3 + 0.1 * np.cos(b)) * np.cos(a), (0.3 + 0.1 * np.cos(b)) * np.sin(a), 0.1 * np.sin(b)], -1)
    number = lambda i, j: (i % 24) * 12 + j % 12  # noqa: E731
    corners = [number(around + i, along + j).ravel() for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    faces = np.concatenate([np.stack([corners[k] for k in three], -1) for three in ((0, 1, 2), (0, 2, 3))])
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return flat.reshape(-1, 3) @ turn.T, faces


@pytest.fixture(scope="module")
def ring():
    return torus(0.4)


def test_crossings_and_winding_numbers_agree(ring):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, 3))
    expected = contains(points, *ring)
    assert 0.02 < expected.mean() < 0.6
    np.testing.assert_array_equal(inside(points, *ring), expected)


def test_faces_that_are_turned_inside_out_hold_nothing(ring):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 3))
    assert not inside(points, ring[0], ring[1][:, ::-1]).any()


def test_two_rays_of_three_outvote_a_hole(ring):
    vertices, faces = ring
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (2000, 3))
    gone = int(np.argmax(vertices[faces].mean(axis=1)[:, 2]))
    kept = np.delete(faces, [gone], axis=0)
    assert np.mean(inside(points, vertices, kept) != inside(points, vertices, faces)) < 0.002


def test_solids_within_each_other_are_one(ring):
    vertices, faces = ring
    both = np.concatenate([vertices, vertices + [0.1, 0, 0]]), np.concatenate([faces, faces + len(vertices)])
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (1000, 3))
    either = inside(points, vertices, faces) | inside(points - [0.1, 0, 0], vertices, faces)
    np.testing.assert_array_equal(inside(points, *both), either)


def test_the_share_within_is_the_volume(ring):
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (20_000, 3))
    a, b, c = np.moveaxis(ring[0][ring[1]], 1, 0)
    volume = np.sum(a * np.cross(b, c)) / 6
    assert inside(points, *ring).mean() == pytest.approx(volume, abs=0.006) and volume > 0.04
