"""Pictures of meshes agree with sphere tracing of the same objects, and with what a flat picture must be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import geometry, mesh_pictures, objects, rendering
from experiments.data.blocks.descriptions import parse
from renderers.meshes.mesh import Mesh, plain_material
from renderers.meshes.textures import srgb_from_linear

_SIDE = 0.6


def quad(texture=None, color=(1.0, 1.0, 1.0, 1.0), mode="OPAQUE"):
    """A square that faces the front, upright, 0.6 m a side."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    return Mesh(
        vertices=jnp.asarray(0.5 * _SIDE * corners),
        faces=jnp.asarray([[0, 1, 2], [0, 2, 3]]),
        uv=jnp.asarray(0.5 * corners[:, :2] + 0.5),
        texture=None if texture is None else jnp.asarray(texture, jnp.float32),
        material=dataclasses.replace(plain_material(base_color=color), alpha_mode=mode),
    )


def rendered(mesh, azimuth=0.0, elevation=0.0):
    """Compiled once for all tests."""
    corners = mesh_pictures.taken_apart(mesh)
    return np.asarray(mesh_pictures.render_mesh_ring(corners, azimuth, elevation, size=32, supersampling=4))


def pixel(view, x, y):
    """The channels where a point of the plane z = 0 is seen from the front."""
    focal = 16 / np.tan(0.5 * rendering.FIELD_OF_VIEW)
    column, row = 16 + focal * x / rendering.DISTANCE, 16 - focal * y / rendering.DISTANCE
    return view[int(row), int(column)]


def test_meshes_look_as_sphere_tracing_shows_them():
    """PSNR of every channel above 30 dB, normals within a few degrees (at equal sampling, thoroughly traced)."""
    assembly = objects.build(parse("a small blue sphere on top of a green box"), np.random.default_rng(1))
    mesh = geometry.mesh(assembly, 56)
    assert len(mesh.faces) <= 1 << 14  # as in the other tests
    got = rendered(mesh, 0.3, 0.26)
    cameras = rendering.ring_cameras(0.3, 0.26, views=4, size=32)
    want = np.asarray(_traced(assembly, cameras))
    for channels in (slice(0, 3), slice(3, 6), slice(6, 7), slice(7, 8)):
        error = np.mean((0.5 * (got - want)[..., channels]) ** 2)
        assert -10 * np.log10(error) > 34
    full = (got[..., 7] > 0.99) & (want[..., 7] > 0.99)
    a, b = got[full][:, 3:6], want[full][:, 3:6]
    cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert angles.mean() < 2 and np.quantile(angles, 0.9) < 5


def _traced(assembly, cameras):
    def one(camera):
        return rendering.to_channels(rendering.render(assembly, camera, supersampling=4, steps=64), camera)

    return jax.jit(lambda: jax.lax.map(one, cameras))()


def test_a_flat_picture_is_what_it_must_be():
    """Colour factor and texture multiply as linear light; depth, normal and area follow from the distance."""
    texture = np.zeros((4, 4, 3), np.float32)
    texture[:2, :, 0], texture[2:, :, 1] = 1.0, 1.0  # red above, green below
    color = (0.5, 0.25, 1.0, 1.0)
    views = rendered(quad(texture, color))
    up, down = pixel(views[0], 0.0, 0.2), pixel(views[0], 0.1, -0.2)
    red, green = (float(srgb_from_linear(jnp.asarray(c))) for c in (0.5, 0.25))
    np.testing.assert_allclose(up[:3], [2 * red - 1, -1, -1], atol=2e-3)
    np.testing.assert_allclose(down[:3], [-1, 2 * green - 1, -1], atol=2e-3)
    np.testing.assert_allclose(up[3:], [0, 0, -1, 0, 1], atol=1e-4)  # it lies in the plane of the middle
    focal = 16 / np.tan(0.5 * rendering.FIELD_OF_VIEW)
    side = focal * _SIDE / rendering.DISTANCE
    assert (0.5 * (views[0][..., 7] + 1)).sum() == pytest.approx(side**2, rel=0.03)
    assert (0.5 * (views[1][..., 7] + 1)).sum() < 0.05 * side**2  # from the edge
    np.testing.assert_allclose(
        pixel(views[2], 0.0, 0.2)[3:], [0, 0, -1, 0, 1], atol=1e-4
    )  # behind: turned to the viewer


def test_cut_out_and_transparent_surfaces_cover_less():
    alpha = np.ones((64, 64, 4), np.float32)
    alpha[:, :32, 3] = 0.25  # the left half
    inner = [(-0.15, 0.0), (0.15, 0.0)]
    for mode, left in (("OPAQUE", 1.0), ("MASK", 0.0), ("BLEND", 0.25)):
        view = rendered(quad(alpha, mode=mode))[0]
        coverage = [0.5 * (pixel(view, *at)[7] + 1) for at in inner]
        assert coverage == pytest.approx([left, 1.0], abs=5e-3)


def test_normals_are_the_faces_where_the_mesh_has_none():
    """A shared vertex does not round an edge off; given normals are used as they are."""
    plain = quad()
    tent = Mesh(vertices=plain.vertices.at[0, 2].set(0.3), faces=plain.faces)
    corners = mesh_pictures.taken_apart(tent)
    a, b, c = corners.points.reshape(-1, 3, 3)[0]
    flat = np.cross(b - a, c - a)
    np.testing.assert_allclose(corners.normals[:3], np.broadcast_to(flat / np.linalg.norm(flat), (3, 3)), atol=1e-6)
    np.testing.assert_allclose(corners.normals[3:], corners.normals[3:4].repeat(3, 0), atol=1e-6)
    given = Mesh(vertices=plain.vertices, faces=plain.faces, normals=jnp.asarray([[0.6, 0.0, 0.8]] * 4))
    np.testing.assert_allclose(pixel(rendered(given)[0], 0.0, 0.0)[3:6], [0.6, 0, -0.8], atol=1e-4)


def test_too_many_triangles_are_refused(monkeypatch):
    monkeypatch.setattr(mesh_pictures, "MOST_FACES", 1)
    with pytest.raises(ValueError, match="2 triangles are more than the 1"):
        mesh_pictures.taken_apart(quad())
