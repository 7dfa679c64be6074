"""Marching tetrahedra against spheres and tori in closed form, and against the topology that they must have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes import tetrahedra
from renderers.meshes.connectivity import euler_characteristic, is_watertight
from renderers.meshes.distances import closest_points
from renderers.meshes.mesh import enclosed_volume, face_normals, surface_area, vertex_normals
from tests.helpers.gradients import assert_gradients_match

_march = jax.jit(tetrahedra.marching_tetrahedra)
BOX = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
KINDS = ["bcc", "kuhn"]
BREADTH = ["bcc", pytest.param("kuhn", marks=pytest.mark.slow)]


@functools.cache
def grid_of(resolution, kind="bcc"):
    return tetrahedra.tetrahedral_grid(resolution, BOX, kind=kind)


def torus_distances(nodes, large, small):
    ring = jnp.sqrt(nodes[:, 0] ** 2 + nodes[:, 2] ** 2 + 1e-12) - large
    return jnp.sqrt(ring**2 + nodes[:, 1] ** 2 + 1e-12) - small


def sphere(nodes, radius):
    return tetrahedra.sphere_distances(nodes, jnp.array([0.03, -0.02, 0.01], nodes.dtype), radius)


@functools.partial(jax.jit, static_argnames="shape")
def volume_and_area_gradients(shape, sizes, grid):
    def measures(sizes):
        surface = tetrahedra.marching_tetrahedra(grid.nodes, shape(grid.nodes, *sizes), grid)
        volume, area = (f(surface.vertices, surface.faces) for f in (enclosed_volume, surface_area))
        return jnp.stack([volume, area])

    return measures(sizes), jax.jacrev(measures)(sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_grid_fills_the_box_and_its_faces_meet(kind):
    grid = grid_of(3, kind)
    nodes, cells = np.asarray(grid.nodes, np.float64), np.asarray(grid.tetrahedra)
    a, b, c, d = (nodes[cells[:, k]] for k in range(4))
    volumes = np.einsum("td,td->t", np.cross(b - a, c - a), d - a) / 6
    assert (volumes > 0).all()
    np.testing.assert_allclose(volumes.sum(), 8.0, rtol=1e-6)
    sides = np.sort(cells[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]].reshape(-1, 3), axis=1)
    unique, counts = np.unique(sides, axis=0, return_counts=True)
    lonely = unique[counts == 1]
    assert counts.max() == 2
    on_one_side = (np.abs(np.abs(nodes[lonely]) - 1) < 1e-6).all(1).any(-1)
    assert on_one_side.all() and np.asarray(grid.border)[lonely].all()
    ends = np.asarray(grid.edges)[np.asarray(grid.tetrahedron_edges)]
    pairs = np.sort(cells[:, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]], axis=-1)
    np.testing.assert_array_equal(np.sort(ends, axis=-1), pairs)
    assert len(np.unique(np.asarray(grid.edges), axis=0)) == len(grid.edges)


def test_every_pattern_of_the_table_separates_the_signs():
    table, corners = tetrahedra.triangle_table(), np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    middles = corners[[[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]].mean(1)
    for pattern, triangles in enumerate(table):
        positive = np.array([pattern >> k & 1 for k in range(4)], bool)
        count = {0: 0, 1: 1, 2: 2, 3: 1, 4: 0}[positive.sum()]
        assert (triangles[:, 0] >= 0).sum() == count
        for triangle in triangles[:count]:
            a, b, c = middles[triangle]
            normal = np.cross(b - a, c - a)
            heights = (corners - a) @ normal
            assert (heights[positive] > 0).all() and (heights[~positive] < 0).all()


@pytest.mark.parametrize("kind", BREADTH)
def test_gradients_of_volume_and_area_of_a_sphere(kind):
    grid, r = grid_of(20 if kind == "bcc" else 24, kind), 0.6
    values, gradients = volume_and_area_gradients(sphere, jnp.array([r]), grid)
    np.testing.assert_allclose(values, [4 / 3 * np.pi * r**3, 4 * np.pi * r**2], rtol=0.01)
    np.testing.assert_allclose(gradients[:, 0], [4 * np.pi * r**2, 8 * np.pi * r], rtol=0.02)


def test_gradients_of_volume_and_area_of_a_torus():
    grid, large, small = grid_of(24), 0.6, 0.25
    values, gradients = volume_and_area_gradients(torus_distances, jnp.array([large, small]), grid)
    pi2 = np.pi**2
    np.testing.assert_allclose(values, [2 * pi2 * large * small**2, 4 * pi2 * large * small], rtol=0.02)
    expected = [[2 * pi2 * small**2, 4 * pi2 * large * small], [4 * pi2 * small, 4 * pi2 * large]]
    np.testing.assert_allclose(gradients, expected, rtol=0.02)


@pytest.mark.parametrize("kind", BREADTH)
def test_surfaces_are_watertight_manifolds_of_the_right_genus(kind):
    import manifold3d

    grid = grid_of(14, kind)
    for distances, euler in ((sphere(grid.nodes, 0.6), 2), (torus_distances(grid.nodes, 0.6, 0.27), 0)):
        mesh = tetrahedra.compact(_march(grid.nodes, distances, grid))
        faces = np.asarray(mesh.faces)
        assert is_watertight(faces) and euler_characteristic(faces) == euler
        solid = manifold3d.Manifold(manifold3d.Mesh(np.array(mesh.vertices, np.float32), np.array(faces, np.uint32)))
        assert solid.status() == manifold3d.Error.NoError and solid.genus() == 1 - euler // 2
        np.testing.assert_allclose(solid.volume(), enclosed_volume(mesh.vertices, mesh.faces), rtol=1e-4)
    centers = np.asarray(mesh.vertices)[faces].mean(1)
    outward = jax.grad(lambda x: jnp.sum(torus_distances(x, 0.6, 0.27)))(jnp.asarray(centers))
    normals = np.asarray(face_normals(mesh.vertices, mesh.faces))
    assert (np.sum(normals * np.asarray(outward), -1)[np.linalg.norm(normals, axis=-1) > 0] > 0).all()


def test_the_surface_converges_with_the_square_of_the_spacing():
    import trimesh

    errors = []
    fine = trimesh.creation.icosphere(subdivisions=3, radius=0.6).vertices * 1.0 + [0.03, -0.02, 0.01]
    for resolution in (5, 10, 20):
        grid = grid_of(resolution)
        mesh = tetrahedra.compact(_march(grid.nodes, sphere(grid.nodes, 0.6), grid))
        there = np.abs(np.linalg.norm(np.asarray(mesh.vertices) - [0.03, -0.02, 0.01], axis=-1) - 0.6).mean()
        back = closest_points(fine, mesh.vertices, mesh.faces).distances.mean()
        errors.append((there + back) / 2)
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (order > 1.6).all() and (order < 2.6).all(), order


def test_smooth_normals_of_slots_are_radial():
    grid = grid_of(14)
    surface = _march(grid.nodes, sphere(grid.nodes, 0.6), grid)
    normals, mask = np.asarray(vertex_normals(surface.vertices, surface.faces)), np.asarray(surface.vertex_mask)
    radial = (np.asarray(surface.vertices) - [0.03, -0.02, 0.01]) / 0.6
    assert np.sum(normals * radial, -1)[mask].min() > 0.97
    assert not normals[~mask].any()
    np.testing.assert_array_equal(
        np.unique(np.asarray(surface.faces)[np.asarray(surface.face_mask)]), np.flatnonzero(mask)
    )


def test_random_distances_give_closed_surfaces_and_gradients():
    grid = grid_of(3)
    noise = jnp.asarray(np.random.default_rng(0).normal(size=len(grid.nodes)), jnp.float32)
    mesh = tetrahedra.compact(_march(grid.nodes, tetrahedra.closed(grid, noise), grid))
    assert is_watertight(np.asarray(mesh.faces)) and enclosed_volume(mesh.vertices, mesh.faces) > 0
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, grid)

        def measures(distances, offsets):
            surface = tetrahedra.marching_tetrahedra(tetrahedra.deformed(wide, offsets), distances, wide)
            return enclosed_volume(surface.vertices, surface.faces), surface_area(surface.vertices, surface.faces)

        offsets = jnp.asarray(np.random.default_rng(1).normal(size=wide.nodes.shape))
        assert_gradients_match(measures, noise.astype(jnp.float64), offsets, rtol=1e-5, atol=1e-7, max_entries=20)


def test_nodes_at_zero_leave_values_and_gradients_finite():
    grid = grid_of(8)
    distances = jnp.abs(grid.nodes).sum(-1) - 0.75
    assert (np.asarray(distances) == 0).sum() > 5

    def area(distances):
        surface = tetrahedra.marching_tetrahedra(grid.nodes, distances, grid)
        return surface_area(surface.vertices, surface.faces)

    assert np.isfinite(np.asarray(jax.jit(jax.grad(area))(distances))).all()
    surface = _march(grid.nodes, distances, grid)
    assert is_watertight(np.asarray(tetrahedra.compact(surface).faces))


@pytest.mark.parametrize("kind", KINDS)
def test_deformation_inverts_no_tetrahedron(kind):
    grid = grid_of(3, kind)
    signs = np.random.default_rng(0).choice([-50.0, 50.0], (20, len(grid.nodes), 3))
    for offsets in signs:
        nodes = np.asarray(tetrahedra.deformed(grid, jnp.asarray(offsets, jnp.float32)))
        a, b, c, d = (nodes[np.asarray(grid.tetrahedra)[:, k]] for k in range(4))
        assert (np.einsum("td,td->t", np.cross(b - a, c - a), d - a) > 0).all()


def test_sign_change_loss_by_hand():
    loss = jax.jit(tetrahedra.sign_change_loss)
    distances = jnp.array([0.5, -1.0, 2.0])
    edges = jnp.array([[0, 1], [0, 2], [1, 2]])

    def entropy(x, label):
        p = 1 / (1 + np.exp(-x))
        return -np.log(p if label else 1 - p)

    expected = (entropy(0.5, 0) + entropy(-1.0, 1) + entropy(-1.0, 1) + entropy(2.0, 0)) / 2
    np.testing.assert_allclose(loss(distances, edges), expected, rtol=1e-6)
    assert loss(jnp.abs(distances), edges) == 0.0
    before, gradient = jax.jit(jax.value_and_grad(tetrahedra.sign_change_loss))(distances, edges)
    assert loss(distances - 0.1 * gradient, edges) < before


def test_a_field_of_one_sign_and_bad_grids_are_refused():
    grid = grid_of(3)
    with pytest.raises(ValueError, match="no surface"):
        tetrahedra.compact(_march(grid.nodes, jnp.ones(len(grid.nodes)), grid))
    with pytest.raises(ValueError, match="at least 1"):
        tetrahedra.tetrahedral_grid(0, BOX)
    with pytest.raises(ValueError, match="lower and its upper corner"):
        tetrahedra.tetrahedral_grid(2, BOX[::-1])
