"""Connectivity against topology's numbers, brute force, and the traced twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from renderers.meshes import connectivity as c

SPHERE = np.asarray(trimesh.creation.icosphere(1).faces)
TORUS = np.asarray(trimesh.creation.torus(1.0, 0.3, major_sections=7, minor_sections=5).faces)


def _brute_opposite(faces):
    """By search: edges with equal ends, paired in order of appearance."""
    opposite = np.full(faces.shape, c.BOUNDARY)
    by_ends = {}
    for face in range(len(faces)):
        for k in range(3):
            ends = frozenset((int(faces[face, k]), int(faces[face, (k + 1) % 3])))
            by_ends.setdefault(ends, []).append((face, k))
    for uses in by_ends.values():
        for (f0, k0), (f1, k1) in zip(uses[::2], uses[1::2], strict=False):
            opposite[f0, k0], opposite[f1, k1] = faces[f1, (k1 + 2) % 3], faces[f0, (k0 + 2) % 3]
    return opposite


@pytest.mark.parametrize(("faces", "euler"), [(SPHERE, 2), (TORUS, 0)])
def test_closed_surfaces_have_their_topology(faces, euler):
    assert c.euler_characteristic(faces) == euler
    assert c.is_watertight(faces) and len(c.boundary_edges(faces)) == 0
    assert 2 * len(c.unique_edges(faces)) == 3 * len(faces)
    pairs = c.adjacent_faces(faces)
    assert len(pairs) == len(c.unique_edges(faces))
    for a, b in pairs:
        assert len(set(faces[a]) & set(faces[b])) == 2


def test_an_open_surface_is_bounded_by_one_loop():
    """A disc: a sphere without one vertex's faces."""
    faces = SPHERE[~(SPHERE == 0).any(1)]
    border = c.boundary_edges(faces)
    assert c.euler_characteristic(faces) == 1 and not c.is_watertight(faces)
    at, steps = border[0, 0], 0
    following = {int(a): int(b) for a, b in border}
    while steps == 0 or at != border[0, 0]:
        at, steps = following[int(at)], steps + 1
    assert steps == len(border)


def test_a_flipped_face_is_no_watertight_surface():
    faces = SPHERE.copy()
    faces[3] = faces[3, ::-1]
    assert not c.is_watertight(faces) and len(c.boundary_edges(faces)) == 0
    assert not c.is_watertight(np.zeros((0, 3), np.int32))


def test_opposite_half_edges_are_each_others():
    other = c.opposite_half_edges(TORUS).reshape(-1)
    assert (other[other] == np.arange(len(other))).all()
    edges = c.half_edges(TORUS)
    np.testing.assert_array_equal(edges[other], edges[:, ::-1])


def _soup(seed):
    """Few vertices: edges of three and more faces, faces twice, faces with a vertex twice."""
    return np.random.default_rng(seed).integers(0, 6, (23, 3)).astype(np.int32)


def test_opposite_vertices_are_those_found_by_search_and_by_the_traced_twin():
    traced = jax.jit(c.traced_opposite_vertices)
    meshes = [_soup(seed) for seed in range(4)] + [SPHERE.astype(np.int32), SPHERE[:20].astype(np.int32)]
    for faces in meshes:
        want = _brute_opposite(faces)
        np.testing.assert_array_equal(c.opposite_vertices(faces), want)
        if faces.shape == (23, 3):
            np.testing.assert_array_equal(traced(jnp.asarray(faces)), want)
    np.testing.assert_array_equal(traced(jnp.asarray(meshes[4])), c.opposite_vertices(meshes[4]))


def test_no_faces_have_no_neighbours():
    none = np.zeros((0, 3), np.int32)
    assert c.opposite_vertices(none).shape == (0, 3) == c.traced_opposite_vertices(jnp.asarray(none)).shape
    assert len(c.unique_edges(none)) == 0 == len(c.boundary_edges(none))
