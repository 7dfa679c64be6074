"""Normals, areas and volume against solids, the divergence theorem and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import trimesh

from renderers.meshes import mesh as m
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match
from tests.renderers.meshes import rasterizer_scenes as shapes


def _box(sides):
    made = trimesh.creation.box(sides)
    return jnp.asarray(made.vertices, jnp.float32), jnp.asarray(made.faces, jnp.int32)


def test_a_box_far_away_keeps_its_volume_area_and_normals():
    vertices, faces = _box((1.0, 2.0, 3.0))
    far = vertices + jnp.asarray([[100.0, -50.0, 70.0]])
    np.testing.assert_allclose(m.enclosed_volume(far, faces), 6.0, rtol=1e-5)
    np.testing.assert_allclose(m.surface_area(far, faces), 22.0, rtol=1e-5)
    np.testing.assert_allclose(m.enclosed_volume(vertices, faces[:, ::-1]), -6.0, rtol=1e-6)
    normals = np.asarray(m.face_normals(vertices, faces))
    middles = np.asarray(vertices[faces].mean(1)) / (0.5, 1.0, 1.5)
    assert (np.abs(normals).max(1) == 1).all()
    np.testing.assert_allclose((normals * middles).sum(1), 1.0, atol=1e-6)  # outward


def test_a_sphere_converges_to_its_volume_and_normals():
    """Errors of a polyhedron fall with the square of its edges: by four a subdivision."""
    errors = []
    for level in (2, 3):
        vertices, faces = shapes.icosphere(level)
        normals = m.vertex_normals(vertices, faces)
        volume, area = float(m.enclosed_volume(vertices, faces)), float(m.surface_area(vertices, faces))
        errors.append((4 / 3 * np.pi - volume, 4 * np.pi - area, 1 - float((normals * vertices).sum(1).min())))
    ratios = np.asarray(errors[0]) / np.asarray(errors[1])
    assert (np.asarray(errors) > 0).all()
    np.testing.assert_allclose(ratios[:2], 4, atol=0.3)
    assert errors[1][2] < 1e-3


def test_volume_grows_by_the_vector_area_around_each_vertex():
    """dV / dv = sum of (face area normal) / 3 over the faces at v, and it sums to zero over a closed surface."""
    vertices, faces = shapes.torus()
    gradient = jax.grad(m.enclosed_volume)(vertices, faces)
    cross = m.face_cross_products(vertices, faces)
    want = jnp.zeros_like(vertices).at[faces.reshape(-1)].add(jnp.repeat(cross, 3, axis=0)) / 6
    np.testing.assert_allclose(gradient, want, atol=1e-6)
    np.testing.assert_allclose(gradient.sum(0), 0, atol=1e-5)


def test_normals_do_not_depend_on_where_a_face_begins_and_turn_with_the_mesh():
    vertices, faces = shapes.soup(20)
    normals = m.face_normals(vertices, faces)
    np.testing.assert_allclose(m.face_normals(vertices, jnp.roll(faces, 1, 1)), normals, atol=1e-5)
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0], jnp.float32)
    turn = turn * jnp.sign(jnp.linalg.det(turn))
    np.testing.assert_allclose(m.face_normals(vertices @ turn.T, faces), normals @ turn.T, atol=1e-5)


def test_gradients_match_differences():
    with jax.enable_x64(True):
        vertices, faces = shapes.soup(4, dtype=np.float64)

        def measures(vertices):
            return m.face_normals(vertices, faces), m.face_areas(vertices, faces), m.vertex_normals(vertices, faces)

        assert_gradients_match(measures, vertices)


def test_faces_without_area_have_no_normal_and_finite_gradients():
    vertices = jnp.asarray([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]])
    faces = jnp.asarray([[0, 1, 2], [1, 1, 3], [0, 0, 0], [0, 1, 3]])

    def measures(vertices):
        return m.face_normals(vertices, faces), m.face_areas(vertices, faces), m.vertex_normals(vertices, faces)

    normals, areas, _ = measures(vertices)
    np.testing.assert_allclose(normals, [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(areas, [0, 0, 0, 0.5])
    assert_finite_gradients(measures, vertices)
    assert_finite_gradients(measures, jnp.zeros_like(vertices))


def test_records_are_pytrees_with_static_choices():
    material = m.plain_material(base_color=(1.0, 0.5, 0.25, 1.0))
    doubled = jax.tree.map(
        lambda leaf: 2 * leaf, m.Mesh(jnp.ones((3, 3)), jnp.ones((1, 3), jnp.int32), material=material)
    )
    assert doubled.material.alpha_mode == "OPAQUE" and float(doubled.material.base_color[1]) == 1.0
    assert doubled.uv is None and float(doubled.vertices[0, 0]) == 2.0
