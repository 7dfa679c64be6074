"""Repairs: each undoes one kind of damage done to a mesh whose repaired form is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes import cleanup
from renderers.meshes.connectivity import boundary_edges, euler_characteristic, half_edges, is_watertight
from renderers.meshes.hole_filling import boundary_loops, fill_holes
from renderers.meshes.mesh import Mesh


def sphere(subdivisions=2, radius=1.0, center=(0.0, 0.0, 0.0)):
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return make(mesh.vertices + np.array(center), mesh.faces)


def make(vertices, faces, **others):
    return Mesh(jnp.asarray(np.array(vertices), jnp.float32), jnp.asarray(np.array(faces), jnp.int32), **others)


def joined(*meshes):
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    faces = [np.asarray(mesh.faces) + start for mesh, start in zip(meshes, starts, strict=True)]
    return make(np.concatenate([np.asarray(mesh.vertices) for mesh in meshes]), np.concatenate(faces))


def volume(mesh):
    a, b, c = (np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)[:, k]] for k in range(3))
    return np.einsum("fd,fd->", a, np.cross(b, c)) / 6


def with_faces(mesh, faces):
    return dataclasses.replace(mesh, faces=jnp.asarray(faces, jnp.int32))


def test_merging_makes_a_soup_watertight_and_keeps_texture_coordinates():
    ball = sphere()
    corners = np.asarray(ball.vertices)[np.asarray(ball.faces)].reshape(-1, 3)
    count = len(corners)
    uv = jnp.asarray(np.random.default_rng(0).random((count, 2)), jnp.float32)
    colors = jnp.asarray(np.tile([[0.0], [0.3], [0.6]], (count // 3, 1)).repeat(3, 1), jnp.float32)
    soup = make(corners, np.arange(count).reshape(-1, 3), uv=uv, vertex_colors=colors, normals=jnp.asarray(corners))
    merged = cleanup.merge_vertices(soup)
    assert len(merged.vertices) == len(ball.vertices) and is_watertight(np.asarray(merged.faces))
    np.testing.assert_array_equal(np.asarray(merged.vertices)[np.asarray(merged.faces)].reshape(-1, 3), corners)
    np.testing.assert_array_equal(np.asarray(merged.uv)[np.asarray(merged.uv_faces)].reshape(-1, 2), uv)
    np.testing.assert_allclose(np.linalg.norm(merged.normals, axis=-1), 1.0, atol=1e-5)
    sums = np.zeros((len(ball.vertices), 4))
    for vertex, color in zip(np.asarray(merged.faces).reshape(-1), np.asarray(colors), strict=True):
        sums[vertex] += [*color, 1]
    np.testing.assert_allclose(merged.vertex_colors, sums[:, :3] / sums[:, 3:], atol=1e-6)


def test_merging_within_a_tolerance():
    ball = sphere()
    shaken = np.asarray(ball.vertices)[np.asarray(ball.faces)].reshape(-1, 3)
    shaken = shaken + np.random.default_rng(0).uniform(-1e-4, 1e-4, shaken.shape)
    soup = make(shaken, np.arange(len(shaken)).reshape(-1, 3))
    assert len(cleanup.merge_vertices(soup).vertices) == len(shaken)
    merged = cleanup.merge_vertices(soup, tolerance=1e-3)
    assert len(merged.vertices) == len(ball.vertices) and is_watertight(np.asarray(merged.faces))
    np.testing.assert_allclose(volume(merged), volume(ball), rtol=1e-3)


def test_degenerate_duplicate_and_unused_things_go():
    ball = sphere(1)
    faces, vertices = np.asarray(ball.faces), np.asarray(ball.vertices)
    extra = np.array([[0, 0, 1], [0, len(vertices) + 1, len(vertices) + 2], faces[3][[1, 2, 0]], faces[5][::-1]])
    line = vertices[0] + [[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]
    damaged = make(np.concatenate([vertices, line]), np.concatenate([faces, extra]))
    mended = cleanup.remove_unreferenced(cleanup.remove_duplicate_faces(cleanup.remove_degenerate_faces(damaged)))
    np.testing.assert_array_equal(mended.faces, faces)
    np.testing.assert_array_equal(mended.vertices, vertices)


def test_components_and_which_of_them_stay():
    big, small, tiny = sphere(3), sphere(1, 3.0, (9, 0, 0)), sphere(0, 0.1, (0, 9, 0))  # 1280, 80 and 20 faces
    mesh = joined(tiny, big, small)
    labels = cleanup.face_components(mesh.faces)
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], [20, 1280, 80]))
    assert len(cleanup.keep_large_components(mesh).faces) == 1380  # 20 is above 1% of 1280
    assert len(cleanup.keep_large_components(mesh, share=0.02).faces) == 1360
    assert len(cleanup.keep_large_components(mesh, share=0.5).faces) == 1280
    largest = cleanup.keep_large_components(mesh, share=0.5, by="area")
    assert len(largest.faces) == 80 and len(largest.vertices) == len(small.vertices)
    touching = make([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], [[0, 1, 2], [0, 3, 4]])
    assert cleanup.face_components(touching.faces).tolist() == [0, 1]  # a shared vertex is no joint


def test_orientation_is_restored_in_every_part():
    mesh = joined(sphere(), sphere(1, 0.5, (3, 0, 0)))
    faces = np.asarray(mesh.faces)
    uv_faces = jnp.asarray(faces)
    turned = np.random.default_rng(0).random(len(faces)) < 0.5
    damaged = np.where(turned[:, None], faces[:, [0, 2, 1]], faces)
    both = dataclasses.replace(with_faces(mesh, damaged), uv=mesh.vertices[:, :2], uv_faces=jnp.asarray(damaged))
    mended = cleanup.orient_faces(both)
    np.testing.assert_array_equal(np.sort(mended.faces, 1), np.sort(faces, 1))
    np.testing.assert_allclose(volume(mended), volume(mesh), rtol=1e-5)
    assert is_watertight(np.asarray(mended.faces))
    np.testing.assert_array_equal(mended.uv_faces, mended.faces)
    assert len(uv_faces) == len(faces)
    np.testing.assert_allclose(volume(cleanup.orient_faces(cleanup.flip_faces(mesh))), volume(mesh), rtol=1e-5)


def test_a_moebius_strip_stays_as_it_is():
    count = 12
    around, twist = 2 * np.pi * np.arange(count) / count, np.pi * np.arange(count) / count
    rings = [
        np.stack(
            [(1 + s * np.cos(twist)) * np.cos(around), s * np.sin(twist), (1 + s * np.cos(twist)) * np.sin(around)], -1
        )
        for s in (-0.3, 0.3)
    ]
    left, right = np.arange(count), count + np.arange(count)
    ahead, ahead_right = np.r_[left[1:], right[0]], np.r_[right[1:], left[0]]
    strip = make(np.concatenate(rings), np.concatenate([np.c_[left, right, ahead], np.c_[right, ahead_right, ahead]]))
    np.testing.assert_array_equal(cleanup.orient_faces(strip).faces, strip.faces)


def test_fins_are_cut_off():
    ball = sphere(1)
    faces = np.asarray(ball.faces)
    fins = np.array([[faces[0, 0], faces[0, 1], len(ball.vertices)], [faces[7, 0], faces[7, 1], len(ball.vertices)]])
    tip = 1.001 * np.asarray(ball.vertices)[faces[0, :2]].mean(0, keepdims=True)
    finned = make(np.concatenate([np.asarray(ball.vertices), tip]), np.concatenate([fins[:1], faces]))
    mended = cleanup.remove_non_manifold_edges(finned)
    np.testing.assert_array_equal(mended.faces, faces)
    _, counts = np.unique(np.sort(half_edges(np.asarray(mended.faces)), 1), axis=0, return_counts=True)
    assert counts.max() == 2


@pytest.mark.parametrize("missing", [1, 2, 6])
def test_holes_are_closed_without_new_vertices(missing):
    ball = sphere(3)
    faces = np.asarray(ball.faces)
    around = np.flatnonzero((faces == faces[0, 0]).any(1))
    kept = np.ones(len(faces), bool)
    kept[around[:missing]] = False
    kept[np.flatnonzero((faces == faces[700, 1]).any(1))] = False  # a whole fan elsewhere
    open_mesh = dataclasses.replace(with_faces(ball, faces[kept]), uv=ball.vertices[:, :2])
    assert len(boundary_loops(open_mesh.faces)) == 2
    mended = fill_holes(open_mesh)
    assert is_watertight(np.asarray(mended.faces))
    assert euler_characteristic(np.asarray(mended.faces)) == 2
    np.testing.assert_allclose(volume(mended), volume(ball), rtol=0.01)
    np.testing.assert_array_equal(mended.uv_faces, mended.faces)
    untouched = fill_holes(open_mesh, max_edges=2)
    assert len(untouched.faces) == kept.sum()


def test_a_planar_hole_is_filled_with_its_own_area():
    # an L-shaped border: the filling of least area is flat and stays inside
    outline = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2.0]])
    ring = np.concatenate([np.pad(outline, ((0, 0), (0, 1))), np.pad(outline, ((0, 0), (0, 1)), constant_values=-1.0)])
    n = len(outline)
    below, after = np.arange(n) + n, (np.arange(n) + 1) % n
    walls = np.concatenate([np.c_[below, below[after], np.arange(n)], np.c_[below[after], after, np.arange(n)]])
    closed = fill_holes(make(ring, walls))
    assert is_watertight(np.asarray(closed.faces))
    np.testing.assert_allclose(abs(volume(closed)), 3.0, rtol=1e-6)


def test_borders_that_meet_in_a_vertex_are_divided():
    faces = np.array([[0, 1, 2], [0, 3, 4]])
    assert sorted(sorted(loop) for loop in boundary_loops(faces)) == [[0, 1, 2], [0, 3, 4]]
    for loop in boundary_loops(faces):
        edges = {tuple(edge) for edge in boundary_edges(faces)}
        assert all((b, a) in edges for a, b in zip(loop, loop[1:] + loop[:1], strict=True))


def test_clean_repairs_everything_at_once():
    ball = sphere(3)
    corners = np.asarray(ball.vertices)[np.asarray(ball.faces)]
    turned = np.random.default_rng(1).random(len(corners)) < 0.3
    corners = np.where(turned[:, None, None], corners[:, ::-1], corners)
    floater = np.asarray(sphere(0, 0.01, (2, 0, 0)).vertices)[:3][None]
    pieces = np.concatenate([corners, corners[:4], floater]).reshape(-1, 3)
    mended = cleanup.clean(make(pieces, np.arange(len(pieces)).reshape(-1, 3)))
    assert is_watertight(np.asarray(mended.faces)) and len(mended.faces) == len(ball.faces)
    np.testing.assert_allclose(volume(mended), volume(ball), rtol=1e-5)
