"""Mesh losses: zero where their quantity is, values that geometry knows, gradients against float64 differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from renderers.meshes import connectivity, losses
from renderers.meshes.mesh import surface_area
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match


def _ball(subdivisions=2, radius=1.0):
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.asarray(ball.vertices), np.asarray(ball.faces)


def _crumpled_plane(rng):
    """A triangulated square whose inner vertices are moved about within the plane z = 0.3 x - 0.2 y."""
    x, y = (grid.reshape(-1) for grid in np.meshgrid(np.arange(5.0), np.arange(5.0)))
    inside = (x % 4 != 0) & (y % 4 != 0)
    x, y = x + 0.3 * inside * rng.uniform(-1, 1, 25), y + 0.3 * inside * rng.uniform(-1, 1, 25)
    corners = (np.arange(4)[:, None] * 5 + np.arange(4)).reshape(-1, 1)
    faces = np.concatenate([corners + [0, 1, 6], corners + [0, 6, 5]])
    return np.stack([x, y, 0.3 * x - 0.2 * y], axis=1), faces, inside


def _faceted(rng):
    vertices, faces = _ball(1)
    return vertices * rng.uniform(0.8, 1.2, (len(vertices), 1)), faces


def test_cotangent_laplacian_is_the_gradient_of_the_area():
    with jax.enable_x64(True):
        vertices, faces = _faceted(np.random.default_rng(0))
        expected = jax.grad(surface_area)(jnp.asarray(vertices), jnp.asarray(faces))
        actual = losses.cotangent_laplacian(jnp.asarray(vertices), jnp.asarray(faces))
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_cotangent_laplacian_is_twice_the_mean_curvature_normal():
    """On a sphere of radius r the mean curvature is 1 / r: `2 H n` times the area around the vertex."""
    vertices, faces = _ball(4, radius=2.0)
    laplacian = np.asarray(losses.cotangent_laplacian(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)))
    total = np.einsum("ij,ij->", laplacian, vertices / 2.0)
    np.testing.assert_allclose(total, 2 * (1 / 2.0) * 4 * np.pi * 4, rtol=2e-3)


def test_planes_are_flat_however_they_are_triangulated():
    vertices, faces, inside = _crumpled_plane(np.random.default_rng(1))
    edges = connectivity.unique_edges(faces)
    pairs = connectivity.adjacent_faces(faces)
    vertices = jnp.asarray(vertices, jnp.float32)
    weights = jnp.asarray(inside, jnp.float32)
    assert losses.face_normal_consistency(vertices, faces, pairs) < 1e-6
    assert losses.vertex_normal_consistency(vertices, faces, edges) < 1e-6
    assert losses.cotangent_laplacian_loss(vertices, faces, weights=weights) < 1e-5
    assert losses.laplacian_loss(vertices, edges, weights=weights) > 0.1  # uniform weights see the triangulation


def test_uniform_laplacian_is_degree_minus_adjacency():
    vertices, faces = _faceted(np.random.default_rng(2))
    edges = connectivity.unique_edges(faces)
    adjacency = np.zeros((len(vertices), len(vertices)))
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1
    matrix = np.diag(adjacency.sum(1)) - adjacency
    actual = losses.uniform_laplacian(jnp.asarray(vertices, jnp.float32), edges)
    np.testing.assert_allclose(actual, matrix @ vertices, atol=1e-5)
    expected = np.linalg.norm(matrix @ vertices, axis=1).mean()
    assert losses.laplacian_loss(jnp.asarray(vertices, jnp.float32), edges) == pytest.approx(expected, rel=1e-5)


def test_known_values_of_cube_and_octahedron():
    cube = trimesh.creation.box((2.0, 2.0, 2.0))
    vertices, faces = jnp.asarray(cube.vertices, jnp.float32), np.asarray(cube.faces)
    edges, pairs = connectivity.unique_edges(faces), connectivity.adjacent_faces(faces)
    # 12 edges turn by a right angle, 6 diagonals of the squares do not turn
    assert losses.face_normal_consistency(vertices, faces, pairs) == pytest.approx(12 / 18, abs=1e-6)
    assert losses.edge_length_loss(vertices, edges, target=2.0) == pytest.approx(6 * (8**0.5 - 2) ** 2 / 18, rel=1e-5)
    mean = (12 * 2 + 6 * 8**0.5) / 18
    expected = (12 * (2 - mean) ** 2 + 6 * (8**0.5 - mean) ** 2) / 18
    assert losses.edge_length_variance(vertices, edges) == pytest.approx(expected, rel=1e-5)
    octahedron = jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    signs = [(a, b, c) for a in (0, 3) for b in (1, 4) for c in (2, 5)]
    sides = np.array([(a, b, c) if (a + b + c) % 2 else (a, c, b) for a, b, c in signs])
    its_edges = connectivity.unique_edges(sides)
    assert connectivity.is_watertight(sides)
    assert losses.edge_length_variance(octahedron, its_edges) < 1e-12  # regular
    # the normals of its vertices are their axes: every edge turns by a right angle
    assert losses.vertex_normal_consistency(octahedron, sides, its_edges) == pytest.approx(1.0, abs=1e-6)


def test_weights_leave_rows_out_and_spare_faces_change_nothing():
    vertices, faces = _faceted(np.random.default_rng(3))
    vertices = jnp.asarray(vertices, jnp.float32)
    pairs, edges = connectivity.adjacent_faces(faces), connectivity.unique_edges(faces)
    whole = losses.face_normal_consistency(vertices, faces, pairs)
    padded = np.concatenate([pairs, np.full((7, 2), len(faces))])
    weights = jnp.concatenate([jnp.ones(len(pairs)), jnp.zeros(7)])
    spare = np.concatenate([faces, np.zeros((3, 3), faces.dtype)])
    assert losses.face_normal_consistency(vertices, spare, padded, weights=weights) == pytest.approx(
        float(whole), rel=1e-6
    )
    some = jnp.asarray(np.arange(len(edges)) < 5, jnp.float32)
    expected = losses.edge_length_loss(vertices, edges[:5], target=0.3)
    assert losses.edge_length_loss(vertices, edges, target=0.3, weights=some) == pytest.approx(
        float(expected), rel=1e-6
    )
    assert losses.edge_length_loss(vertices, edges, weights=jnp.zeros(len(edges))) == 0.0


def _all(vertices, faces, edges, pairs):
    return jnp.stack(
        [
            losses.laplacian_loss(vertices, edges),
            losses.cotangent_laplacian_loss(vertices, faces),
            losses.face_normal_consistency(vertices, faces, pairs),
            losses.vertex_normal_consistency(vertices, faces, edges),
            losses.edge_length_loss(vertices, edges, target=0.2),
            losses.edge_length_variance(vertices, edges),
        ]
    )


def test_gradients_are_those_of_differences():
    with jax.enable_x64(True):
        vertices, faces = _faceted(np.random.default_rng(4))
        edges, pairs = connectivity.unique_edges(faces), connectivity.adjacent_faces(faces)
        assert_gradients_match(lambda x: _all(x, faces, edges, pairs), jnp.asarray(vertices), max_entries=24)


def test_gradients_are_finite_on_collapsed_faces_and_edges():
    vertices, faces = _faceted(np.random.default_rng(5))
    vertices[faces[0, 1]] = vertices[faces[0, 0]]
    edges, pairs = connectivity.unique_edges(faces), connectivity.adjacent_faces(faces)
    assert_finite_gradients(lambda x: _all(x, faces, edges, pairs).sum(), jnp.asarray(vertices, jnp.float32))
