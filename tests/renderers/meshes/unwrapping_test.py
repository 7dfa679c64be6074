"""Charts lie in the square, overlap nowhere, keep their distance and are not turned over."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import KDTree

from renderers.meshes.baking import map_texels
from renderers.meshes.cleanup import face_components
from renderers.meshes.mesh import Mesh
from renderers.meshes.unwrapping import chart_coordinates, unwrap

RESOLUTION, PADDING = 128, 4


@functools.cache
def shape():
    import trimesh

    mesh = trimesh.creation.annulus(r_min=0.5, r_max=1.0, height=1.0, sections=24)
    return np.array(mesh.vertices), np.array(mesh.faces)


@functools.cache
def charts():
    return chart_coordinates(*shape(), resolution=RESOLUTION, padding=PADDING)


def signed_areas(uv, uv_faces):
    a, b, c = (np.asarray(uv, np.float64)[uv_faces[:, k]] for k in range(3))
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def test_coordinates_are_in_the_square_and_keep_orientation():
    uv, uv_faces = charts()
    assert uv.min() >= 0 and uv.max() <= 1 and len(uv_faces) == len(shape()[1])
    assert (signed_areas(uv, uv_faces) > 0).all()


def test_charts_do_not_overlap_and_keep_their_distance():
    uv, uv_faces = charts()
    texels = map_texels(uv, uv_faces, (512, 512))
    covered = texels.inside.sum() / texels.inside.size
    np.testing.assert_allclose(covered, signed_areas(uv, uv_faces).sum(), rtol=0.01)  # an overlap would count twice
    assert covered > 0.3
    labels = face_components(uv_faces)
    row, column = np.nonzero(texels.inside)
    chart, places = labels[texels.face_index[row, column]], np.stack([row, column], -1) / 512 * RESOLUTION
    for label in range(labels.max() + 1):
        others = places[chart != label]
        if len(others):
            gap = KDTree(others).query(places[chart == label])[0].min()
            assert gap >= PADDING - 1.0  # centres of texels at four times the resolution


def test_every_chart_is_a_piece_of_the_surface_and_little_distorted():
    vertices, faces = shape()
    uv, uv_faces = charts()
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    true_areas = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    ratio = signed_areas(uv, uv_faces) / true_areas
    assert ratio.max() / ratio.min() < 3


def test_the_same_mesh_gives_the_same_charts():
    again = chart_coordinates(*shape(), resolution=RESOLUTION, padding=PADDING)
    np.testing.assert_array_equal(again[0], charts()[0])
    np.testing.assert_array_equal(again[1], charts()[1])


def test_degenerate_faces_and_scales_do_no_harm():
    vertices, faces = shape()
    extra = np.array([[0, 0, 1], [2, 2, 2]])
    mesh = Mesh(
        jnp.asarray(1e-4 * vertices, jnp.float32), jnp.asarray(np.concatenate([faces[:9], extra, faces[9:]]), jnp.int32)
    )
    unwrapped = unwrap(mesh, resolution=RESOLUTION)
    areas = signed_areas(unwrapped.uv, np.asarray(unwrapped.uv_faces))
    assert (areas[9:11] == 0).all() and (np.delete(areas, [9, 10]) > 0).all()


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.eye(3), np.array([[0, 0, 1]]), "a face with an area"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "vertices must be finite"),
        (np.eye(3), np.array([[0, 1, 3]]), "must index 3 vertices, got 0 to 3"),
    ],
)
def test_what_cannot_be_unwrapped_is_refused(vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        chart_coordinates(vertices, faces)
