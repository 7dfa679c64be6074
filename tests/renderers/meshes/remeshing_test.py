"""Splits, collapses and flips keep closed manifolds what they are; the descent finds shapes and triangulates evenly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from renderers.meshes import connectivity, edge_tables, remeshing
from renderers.meshes.edge_operations import collapse_short_edges, flip_edges, split_long_edges
from renderers.meshes.remeshing import RemeshingRates


def _shape(kind):
    made = {
        "sphere": lambda: trimesh.creation.icosphere(subdivisions=3),
        "torus": lambda: trimesh.creation.torus(1.0, 0.4, major_sections=30, minor_sections=14),
        "box": lambda: trimesh.creation.box((1.0, 0.5, 2.0)).subdivide().subdivide(),
    }[kind]()
    return np.asarray(made.vertices, np.float32), np.asarray(made.faces, np.int32)


def _plane(rng, size=7):
    x, y = (grid.reshape(-1) for grid in np.meshgrid(np.arange(size, dtype=float), np.arange(size, dtype=float)))
    inside = (x % (size - 1) != 0) & (y % (size - 1) != 0)
    x, y = x + 0.3 * inside * rng.uniform(-1, 1, size**2), y + 0.3 * inside * rng.uniform(-1, 1, size**2)
    corner = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).reshape(-1, 1)
    faces = np.concatenate([corner + [0, 1, size + 1], corner + [0, size + 1, size]])
    return np.stack([x, y, 0 * x], axis=1).astype(np.float32), faces.astype(np.int32)


def _areas(vertices, faces):
    a, b, c = (vertices[faces[:, k], :3] for k in range(3))
    return 0.5 * np.cross(b - a, c - a)


def _volume(vertices, faces):
    a, b, c = (vertices[faces[:, k], :3].astype(np.float64) for k in range(3))
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def _edge_lengths(vertices, faces):
    edges = connectivity.unique_edges(faces)
    return np.linalg.norm(vertices[edges[:, 0], :3] - vertices[edges[:, 1], :3], axis=1)


def test_tables_agree_with_those_of_connectivity():
    rng = np.random.default_rng(0)
    vertices, faces = _plane(rng)
    faces = faces[rng.permutation(len(faces))[:50]]  # with borders and holes
    table = edge_tables.edge_table(faces, len(vertices))
    np.testing.assert_array_equal(table.ends, connectivity.unique_edges(faces))
    np.testing.assert_array_equal(
        edge_tables.opposite_by_half_edge(faces, table), connectivity.opposite_vertices(faces)
    )
    across = edge_tables.face_by_half_edge(faces, table).reshape(-1)
    pairs = np.stack([np.arange(len(across)) // 3, across], axis=1)[across >= 0]
    expected = connectivity.adjacent_faces(faces)
    np.testing.assert_array_equal(np.unique(np.sort(pairs, axis=1), axis=0), expected[np.lexsort(expected.T[::-1])])
    around = edge_tables.neighbors(table, len(vertices))
    for vertex in range(0, len(vertices), 7):
        ends = table.ends[(table.ends == vertex).any(axis=1)]
        np.testing.assert_array_equal(around.of(np.array([vertex]))[1], np.sort(ends[ends != vertex]))


def test_keys_too_long_to_pack_are_sorted_too():
    keys = np.array([5, 2, 5, 2, 9], np.int64)
    for bound in (10, 1 << 61):
        ordered, order = edge_tables.sort_with_order(keys, bound)
        assert ordered.tolist() == [2, 2, 5, 5, 9] and order.tolist() == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("kind", ["sphere", "torus", "box"])
def test_topology_and_volume_survive_edge_lengths_that_wander(kind):
    vertices, faces = _shape(kind)
    genus, volume, area = connectivity.euler_characteristic(faces), _volume(vertices, faces), None
    rows = np.concatenate([vertices, np.zeros((len(vertices), 1), np.float32)], axis=1)
    sizes = []
    for step in range(24):
        wanted = (0.14 + 0.08 * np.sin(3 * rows[:, 1] + step / 3)).astype(np.float32)
        rows, faces = collapse_short_edges(rows, faces, 0.5 * wanted)
        assert connectivity.is_watertight(faces) and connectivity.euler_characteristic(faces) == genus
        wanted = (0.14 + 0.08 * np.sin(3 * rows[:, 1] + step / 3)).astype(np.float32)
        rows, faces = split_long_edges(rows, faces, 1.5 * wanted)
        faces = flip_edges(rows[:, :3], faces)
        assert connectivity.is_watertight(faces) and connectivity.euler_characteristic(faces) == genus
        area = np.linalg.norm(_areas(rows, faces), axis=1)
        assert area.min() > 1e-6 and faces.max() == len(rows) - 1
        sizes.append(len(faces))
    assert max(sizes) > 1.1 * min(sizes), "nothing was to do: the test says nothing"
    # midpoints of chords cut corners: the shape shrinks, by little at this length
    assert 0.85 * volume < _volume(rows, faces) < 1.02 * volume


def test_split_leaves_the_surface_where_it_is_and_halves_what_is_too_long():
    vertices, faces = _shape("box")
    rng = np.random.default_rng(1)
    rows = np.concatenate([vertices, rng.normal(size=(len(vertices), 2)).astype(np.float32)], axis=1)
    rows[:, 4] = 3 * rows[:, 0] - rows[:, 1] + 2 * rows[:, 2]  # a linear function of the position stays one
    longest = _edge_lengths(rows, faces).max()
    new, new_faces = split_long_edges(rows, faces, np.full(len(rows), 0.2, np.float32))
    assert len(new_faces) > 2 * len(faces) and connectivity.is_watertight(new_faces)
    normals, before = _areas(new, new_faces), _areas(rows, faces)
    assert np.linalg.norm(normals, axis=1).sum() == pytest.approx(np.linalg.norm(before, axis=1).sum(), rel=1e-5)
    assert _volume(new, new_faces) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(new[:, 4], 3 * new[:, 0] - new[:, 1] + 2 * new[:, 2], atol=1e-5)
    assert _edge_lengths(new, new_faces).max() < 0.85 * longest
    same, same_faces = split_long_edges(rows, faces, np.full(len(rows), 9.0, np.float32))
    assert same is rows and same_faces is faces


def test_flips_bring_degrees_to_six_and_turn_nothing_over():
    vertices, faces = _shape("sphere")
    rng = np.random.default_rng(2)
    rows, faces = split_long_edges(vertices, faces, rng.uniform(0.05, 0.3, len(vertices)).astype(np.float32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def cost(faces):
        return ((np.bincount(faces.reshape(-1)) - 6) ** 2).sum()

    costs = [cost(faces)]
    for _ in range(12):
        faces = flip_edges(rows, faces)
        costs.append(cost(faces))
        assert (np.einsum("ij,ij->i", _areas(rows, faces), rows[faces].mean(axis=1)) > 0).all()
    assert all(b <= a for a, b in zip(costs, costs[1:], strict=False)) and costs[-1] < 0.6 * costs[0]
    degrees = np.bincount(faces.reshape(-1))
    assert np.bincount(degrees).argmax() == 6 and connectivity.is_watertight(faces)


def test_borders_keep_their_place():
    """A square that is coarsened keeps its area: no collapse pulls the border in, none leaves the plane."""
    vertices, faces = _plane(np.random.default_rng(3))
    rows, before = vertices, len(faces)
    for _ in range(6):
        rows, faces = collapse_short_edges(rows, faces, np.full(len(rows), 0.9, np.float32))
        faces = flip_edges(rows, faces)
    areas = _areas(rows, faces)
    assert len(faces) < before and (areas[:, 2] > 0).all()
    on_border = connectivity.boundary_edges(faces)
    assert areas[:, 2].sum() == pytest.approx(36.0, abs=1.0) and len(on_border) >= 4
    assert connectivity.euler_characteristic(faces) == 1


def test_tetrahedron_is_never_collapsed_and_folds_are_repaired():
    tetrahedron = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32)
    rows, kept = collapse_short_edges(tetrahedron, faces, np.full(4, 10.0, np.float32))
    np.testing.assert_array_equal(kept, faces)
    np.testing.assert_array_equal(rows, tetrahedron)
    vertices, faces = _shape("sphere")
    neighbor = faces[0, 1]
    vertices[faces[0, 0]] = vertices[neighbor] + 0.6 * (
        vertices[neighbor] - vertices[faces[0, 0]]
    )  # past its neighbour
    assert (np.einsum("ij,ij->i", _areas(vertices, faces), vertices[faces].mean(axis=1)) < 0).any()
    for _ in range(4):
        vertices, faces = collapse_short_edges(vertices, faces, np.zeros(len(vertices), np.float32))
    assert (np.einsum("ij,ij->i", _areas(vertices, faces), vertices[faces].mean(axis=1)) > 0).all()
    assert connectivity.is_watertight(faces)


def test_descent_follows_a_gradient_to_a_sphere_and_spreads_its_vertices():
    """From an off-centre cube to the unit sphere: |x| -> 1, edges within their limits, degrees around 6."""
    box = trimesh.creation.box((0.8, 0.8, 0.8)).subdivide().subdivide()
    rates = RemeshingRates(shortest=0.12, longest=0.25, smoothing=0.01)
    state = remeshing.start_remeshing(box.vertices + [0.2, 0.1, 0.0], box.faces, rates)

    @jax.jit
    def step(state, pace):
        def loss(x):
            used = jnp.arange(len(x)) < state.num_vertices
            return jnp.sum(jnp.where(used, (jnp.linalg.norm(x, axis=1) - 1) ** 2, 0.0))

        return remeshing.descend(state, jax.grad(loss)(state.vertices), rates, pace=pace)

    for number in range(80):
        state = remeshing.remesh(step(state, 1.0 if number < 50 else 0.2), rates)
    vertices, faces = remeshing.current_mesh(state)
    radii = np.linalg.norm(vertices, axis=1)
    assert np.abs(radii - 1).max() < 0.05 and np.abs(radii - 1).mean() < 0.01
    assert connectivity.is_watertight(faces) and connectivity.euler_characteristic(faces) == 2
    lengths = _edge_lengths(vertices, faces)
    assert np.quantile(lengths, 0.01) > 0.5 * rates.shortest and np.quantile(lengths, 0.99) < 1.5 * rates.longest
    assert np.bincount(np.bincount(faces.reshape(-1))).argmax() == 6
    spare = np.asarray(state.faces)[len(faces) :]
    assert len(state.faces) == 4096 and (spare == 0).all() and (np.asarray(state.opposite)[len(faces) :] == -1).all()


def test_first_step_is_adam_with_one_rate_a_vertex():
    """Of a first step against g, bias corrections leave g / |g|: rate * ramp * length along it."""
    vertices, faces = _shape("sphere")
    rates = RemeshingRates(longest=0.2)
    state = remeshing.start_remeshing(vertices, faces, rates)
    gradient = np.random.default_rng(4).normal(size=(2048, 3)).astype(np.float32)
    moved = remeshing.descend(state, jnp.asarray(gradient), rates)
    way = np.asarray(moved.vertices - state.vertices)[: len(vertices)]
    unit = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    np.testing.assert_allclose(way, -0.3 * 0.2 * 0.2 * unit[: len(vertices)], rtol=2e-3, atol=1e-6)
    # a gradient that keeps its direction moves at full relative speed, so the edges grow towards the longest
    assert np.asarray(moved.speed)[: len(vertices)] == pytest.approx(1.0, abs=1e-3)
    assert float(moved.lengths[0]) == pytest.approx(0.2)


def test_capacity_is_a_power_of_two_that_holds_both():
    assert remeshing.remeshing_capacity(10, 16) == 4096
    assert remeshing.remeshing_capacity(4098, 8192) == 16384 and remeshing.remeshing_capacity(4096, 8188) == 8192
    with pytest.raises(ValueError, match="indices"):
        remeshing.start_remeshing(np.zeros((3, 3)), np.array([[0, 1, 3]]), RemeshingRates())


def test_features_are_averaged_and_spare_rows_harmless():
    vertices, faces = _shape("sphere")
    rates = RemeshingRates(shortest=0.05, longest=0.1)  # half of what the sphere has: everything is split
    state = remeshing.start_remeshing(vertices, faces, rates, num_features=2)
    features = np.array(state.features)
    features[: len(vertices)] = vertices[:, :2]
    state = remeshing.remesh(dataclasses.replace(state, features=jnp.asarray(features)), rates)
    number = int(state.num_vertices)
    assert number > 1.5 * len(vertices)
    np.testing.assert_allclose(np.asarray(state.features)[:number], np.asarray(state.vertices)[:number, :2], atol=1e-6)
