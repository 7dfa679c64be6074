"""Distances against brute force, trimesh and closed forms; winding numbers of closed, open and nested surfaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes import distances, winding
from tests.helpers.gradients import assert_gradients_match

_exact = jax.jit(winding.winding_numbers)
_angles = jax.jit(winding.solid_angles)


def sphere_mesh(subdivisions=2):
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.array(mesh.vertices), np.array(mesh.faces)


def soup(count=60, seed=0):
    """Triangles of very unequal sizes, slivers, segments and points among them."""
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(count, 1, 3)) + np.exp(rng.uniform(-6, 1, (count, 1, 1))) * rng.normal(
        size=(count, 3, 3)
    )
    corners[:5, 2] = corners[:5, 1]
    corners[5:8] = corners[5:8, :1]
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def test_regions_of_one_triangle_by_hand():
    corners = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    points = np.array([[1.0, 1, 3], [-1, -1, 0], [2, -2, 0], [6, -1, 0], [3, 3, 1], [-2, 2, 0], [0, 7, 0]])
    expected = np.array([[1.0, 1, 0], [0, 0, 0], [2, 0, 0], [4, 0, 0], [2, 2, 0], [0, 2, 0], [0, 4, 0]])
    weights = distances.closest_barycentrics(points, np.tile(corners, (len(points), 1, 1)))
    np.testing.assert_allclose(weights @ corners, expected, atol=1e-12)
    found = distances.closest_points(points, corners, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(found.points, expected, atol=1e-12)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_search_equals_brute_force_on_triangles_of_all_sizes(seed):
    vertices, faces = soup(seed=seed)
    points = 2 * np.random.default_rng(seed + 10).normal(size=(200, 3))
    found = distances.closest_points(points, vertices, faces)
    corners = vertices[faces]
    pairs = np.broadcast_to(points[:, None], (200, len(faces), 3)), np.broadcast_to(corners, (200, *corners.shape))
    weights = distances.closest_barycentrics(*pairs)
    everything = np.linalg.norm(points[:, None] - np.einsum("nfk,fkd->nfd", weights, corners), axis=-1)
    np.testing.assert_allclose(found.distances, everything.min(1), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found.points - points, axis=-1), found.distances, rtol=1e-12)
    rebuilt = distances.surface_points(vertices, faces, found.face_index, found.barycentric)
    np.testing.assert_allclose(rebuilt, found.points, atol=1e-12)
    assert (found.barycentric >= -1e-12).all() and np.allclose(found.barycentric.sum(1), 1)
    dense = distances.brute_force_distances(
        *(jnp.asarray(x, jnp.float32) for x in (points, vertices)), jnp.asarray(faces)
    )
    np.testing.assert_allclose(dense, found.distances, rtol=2e-4, atol=1e-5)


def test_no_point_of_a_sampled_surface_is_nearer():
    # an oracle without any formula for triangles: dense barycentric grids on every face
    vertices, faces = sphere_mesh(1)
    points = np.random.default_rng(0).normal(size=(40, 3))
    steps = np.array([(i, j, 30 - i - j) for i in range(31) for j in range(31 - i)]) / 30
    cloud = np.einsum("sk,fkd->fsd", steps, vertices[faces]).reshape(-1, 3)
    dense = np.linalg.norm(points[:, None] - cloud[None], axis=-1).min(1)
    found = distances.closest_points(points, vertices, faces).distances
    assert (found <= dense + 1e-12).all() and (dense - found < 0.01).all()


def test_gradients_of_distances_by_the_envelope_theorem():
    with jax.enable_x64(True):
        vertices, faces = soup(14)
        points = jnp.asarray(np.random.default_rng(3).normal(size=(9, 3)))
        vertices, faces = jnp.asarray(vertices[24:]), jnp.asarray(faces[8:] - 24)  # without the degenerate ones
        assert_gradients_match(
            lambda p, v: distances.brute_force_distances(p, v, faces), points, vertices, rtol=1e-5, max_entries=12
        )
        on = jnp.eye(3)[:1]  # exactly on the surface
        gradient = jax.grad(lambda p: distances.brute_force_distances(p, jnp.eye(3), jnp.array([[0, 1, 2]]))[0])(on)
        np.testing.assert_array_equal(gradient, 0.0)


def test_small_triangles_may_count_as_their_edges():
    vertices, faces = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]])
    point = np.array([[0.2, 0.3, 0.4]])
    arguments = jnp.asarray(point, jnp.float32), jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)
    np.testing.assert_allclose(distances.brute_force_distances(*arguments, smallest_area=0.4), 0.4, rtol=1e-6)
    wire = distances.brute_force_distances(*arguments, smallest_area=0.6)
    np.testing.assert_allclose(wire, np.hypot(0.2, 0.4), rtol=1e-6)


def test_solid_angles_of_an_octant_and_of_a_far_triangle():
    octant = jnp.eye(3)
    np.testing.assert_allclose(_angles(jnp.zeros(3), octant), np.pi / 2, rtol=1e-6)
    np.testing.assert_allclose(_angles(jnp.zeros(3), octant[::-1]), -np.pi / 2, rtol=1e-6)
    far = _angles(jnp.array([-30.0, -30, -30]), octant)
    area, distance = np.sqrt(3) / 2, np.sqrt(3) * (30 + 1 / 3)
    np.testing.assert_allclose(far, area / distance**2, rtol=1e-3)


def test_winding_numbers_count_shells_and_cover_holes():
    vertices, faces = sphere_mesh()
    both = np.concatenate([vertices, 0.5 * vertices]), np.concatenate([faces, faces + len(vertices)])
    points = np.array([[0.0, 0, 0], [0.1, 0.7, 0.1], [0, 0, 1.5]])
    exact = _exact(*(jnp.asarray(x, jnp.float32) for x in (points, both[0])), jnp.asarray(both[1]))
    np.testing.assert_allclose(exact, [2, 1, 0], atol=1e-5)
    np.testing.assert_allclose(winding.fast_winding_numbers(points, *both), [2, 1, 0], atol=0.02)
    cap = vertices[faces].mean(1)[:, 1] < 0.9  # a hole at the top: the winding number loses its solid angle
    opened = _exact(jnp.zeros((1, 3)), jnp.asarray(vertices, jnp.float32), jnp.asarray(faces[cap]))
    gone = _angles(jnp.zeros((int((~cap).sum()), 3)), jnp.asarray(vertices[faces[~cap]], jnp.float32)).sum()
    np.testing.assert_allclose(opened[0], 1 - gone / (4 * np.pi), atol=1e-5)
    inside = distances.contains(np.array([[0.0, 0.5, 0], [0, 1.2, 0]]), vertices, faces[cap])
    assert inside.tolist() == [True, False]


def test_fast_winding_numbers_are_near_the_exact_ones():
    vertices, faces = sphere_mesh(3)
    vertices = vertices * [1.0, 0.3, 0.6] + 5.0
    points = 5.0 + np.random.default_rng(0).uniform(-1.2, 1.2, (300, 3)) * [1.0, 0.3, 0.6]
    fast = winding.fast_winding_numbers(points, vertices, faces)
    exact = _exact(*(jnp.asarray(x, jnp.float32) for x in (points, vertices)), jnp.asarray(faces))
    np.testing.assert_allclose(fast, exact, atol=0.02)
    np.testing.assert_array_equal(fast > 0.5, np.asarray(exact) > 0.5)


def test_signed_distance_of_a_sphere():
    vertices, faces = sphere_mesh(3)
    points = np.random.default_rng(1).uniform(-1.5, 1.5, (200, 3))
    found, expected = distances.signed_distances(points, vertices, faces), np.linalg.norm(points, axis=-1) - 1
    assert (found >= expected - 1e-9).all()  # the polyhedron lies inside the sphere
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_bad_input_is_refused():
    vertices, faces = sphere_mesh(1)
    with pytest.raises(ValueError, match="at least one face"):
        distances.closest_points(vertices, vertices, faces[:0])
    with pytest.raises(ValueError, match=r"points must be finite, entry \[1, 2\]"):
        distances.closest_points(np.array([[0.0, 0, 0], [0, 0, np.nan]]), vertices, faces)
    assert len(distances.closest_points(np.zeros((0, 3)), vertices, faces).points) == 0
