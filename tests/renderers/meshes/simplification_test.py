"""Decimation keeps shape, borders, colours and texture coordinates as far as the number of faces allows."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes.connectivity import boundary_edges, is_watertight
from renderers.meshes.distances import closest_points
from renderers.meshes.mesh import Mesh
from renderers.meshes.simplification import cluster_vertices, simplify


def sphere(subdivisions=3):
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return Mesh(jnp.asarray(mesh.vertices, jnp.float32), jnp.asarray(mesh.faces, jnp.int32))


def plate(n=12):
    """A flat square whose texture coordinates are cut along the middle: the right half lies elsewhere."""
    x, z = np.meshgrid(np.arange(n + 1.0) / n, np.arange(n + 1.0) / n, indexing="ij")
    vertices = np.stack([x, 0 * x, z], -1).reshape(-1, 3)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).reshape(-1)
    faces = np.concatenate(
        [np.c_[corner, corner + 1, corner + n + 1], np.c_[corner + 1, corner + n + 2, corner + n + 1]]
    )
    right = vertices[faces].mean(1)[:, 0] > 0.5
    uv = np.concatenate([vertices[:, [0, 2]] * 0.4, vertices[:, [0, 2]] * 0.4 + [0.5, 0.5]])
    uv_faces = np.where(right[:, None], faces + len(vertices), faces)
    return Mesh(
        jnp.asarray(vertices, jnp.float32),
        jnp.asarray(faces, jnp.int32),
        uv=jnp.asarray(uv, jnp.float32),
        uv_faces=jnp.asarray(uv_faces, jnp.int32),
        vertex_colors=jnp.asarray(vertices, jnp.float32),
    )


def test_a_sphere_stays_a_closed_sphere():
    ball = sphere()
    simple = simplify(ball, 200)
    assert 190 <= len(simple.faces) <= 200 and is_watertight(np.asarray(simple.faces))
    np.testing.assert_allclose(np.linalg.norm(simple.vertices, axis=-1), 1.0, atol=0.05)
    assert closest_points(ball.vertices, simple.vertices, simple.faces).distances.max() < 0.08
    assert simplify(ball, 5000) is ball


def test_attributes_follow_and_no_triangle_spans_a_seam():
    mesh = plate()
    for simple in (simplify(mesh, 100), cluster_vertices(mesh, 0.2)):
        assert len(simple.faces) < 0.5 * len(mesh.faces)
        vertices, faces = np.asarray(simple.vertices), np.asarray(simple.faces)
        np.testing.assert_allclose(simple.vertex_colors, vertices, atol=1e-6)  # colour was position
        uv = np.asarray(simple.uv)[np.asarray(simple.uv_faces)]
        home = 0.4 * vertices[faces][..., [0, 2]]
        right = (uv.mean((1, 2)) - home.mean((1, 2))) > 0.25
        off = np.abs(uv - np.where(right[:, None, None], home + 0.5, home))
        # a face's corner beyond its chart's border takes the border's coordinates
        assert right.any() and not right.all() and off.max() < 0.4 * 0.25
        assert np.ptp(uv, axis=1).max() < 0.35


def test_borders_stay_where_asked():
    mesh = plate()
    kept, free = simplify(mesh, 60), simplify(mesh, 60, keep_boundary=False)
    border = np.unique(boundary_edges(np.asarray(mesh.faces)))
    before = {tuple(p) for p in np.asarray(mesh.vertices)[border].round(5).tolist()}
    after = {tuple(p) for p in np.asarray(kept.vertices).round(5).tolist()}
    assert before <= after
    assert len(free.faces) <= 60 and len(boundary_edges(np.asarray(free.faces))) < len(border)
    edges = np.asarray(free.vertices)
    np.testing.assert_allclose([edges.min(0), edges.max(0)], [[0, 0, 0], [1, 0, 1]], atol=1e-5)


def test_clusters_are_means_of_their_vertices():
    mesh = sphere()
    coarse = cluster_vertices(mesh, 0.25)
    assert len(coarse.vertices) < 0.4 * len(mesh.vertices)
    assert closest_points(coarse.vertices, mesh.vertices, mesh.faces).distances.max() < 0.05
    alone = cluster_vertices(dataclasses.replace(mesh, vertex_colors=None), 1e-4)
    assert len(alone.faces) == len(mesh.faces)
    with pytest.raises(ValueError, match="must be positive"):
        cluster_vertices(mesh, 0.0)
    with pytest.raises(ValueError, match="at least 4"):
        simplify(mesh, 3)
