"""Baked textures give back what was baked: fields, photographs, other meshes; texels are where the triangles are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.cameras.trajectories import look_at
from renderers.meshes import baking
from renderers.meshes.mesh import Mesh
from renderers.meshes.textures import linear_from_srgb, sample_texture
from renderers.meshes.unwrapping import unwrap

SIZE = 40


@functools.cache
def ball():
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=2)
    return unwrap(Mesh(jnp.asarray(mesh.vertices, jnp.float32), jnp.asarray(mesh.faces, jnp.int32)), resolution=256)


@jax.jit
def colors_at(points):
    return 0.5 + 0.4 * jnp.sin(4 * points + jnp.array([[0.0, 1, 2]]))


def camera_at(eye):
    pose = look_at(jnp.array(eye, jnp.float32), jnp.zeros(3))
    return Camera(pose, jnp.full(2, 1.6 * SIZE), jnp.full(2, SIZE / 2), (SIZE, SIZE))


EYES = [(3.5, 0.4, 0), (-3.5, 0.3, 0.2), (0.3, 3.5, 0.1), (0, -3.5, 0.4), (0.2, 0, 3.5), (0.1, 0.3, -3.5)]


@functools.cache
def cast(eye):
    """Face, weights and depth of each pixel, by testing every ray against every triangle (Moeller and Trumbore)."""
    mesh, camera = ball(), camera_at(eye)
    pose = np.asarray(camera.camera_from_world, np.float64)
    x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    rays = (np.stack([x - SIZE / 2, y - SIZE / 2, 0 * x + 1.6 * SIZE], -1) / (1.6 * SIZE)).reshape(-1, 3) @ pose[:3, :3]
    corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)] + pose[:3, :3].T @ pose[:3, 3]
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(rays[:, None], ac)
    scale = 1 / np.einsum("pfd,fd->pf", across, ab)
    u, rest = -np.einsum("pfd,fd->pf", across, a) * scale, np.cross(-a, ab)
    v, depth = rays @ rest.T * scale, np.einsum("fd,fd->f", rest, ac) * scale
    depth = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (depth > 0), depth, np.inf)
    face = depth.argmin(1)
    hit = np.isfinite(depth.min(1))
    u, v, depth = (np.take_along_axis(x, face[:, None], 1)[:, 0] for x in (u, v, depth))
    weights = np.stack([1 - u - v, u, v], -1)
    return face.reshape(SIZE, SIZE), weights.reshape(SIZE, SIZE, 3), np.where(hit, depth, 0.0).reshape(SIZE, SIZE)


def at_pixels(values, faces, eye):
    face, weights, _ = cast(eye)
    return jnp.asarray(np.einsum("hwk,hwkd->hwd", weights, np.asarray(values)[np.asarray(faces)[face]]), jnp.float32)


def rendered_points(eye):
    return at_pixels(ball().vertices, ball().faces, eye), cast(eye)[2] > 0


def looked_up(texture, eye):
    """The texture as a camera sees it, and where it sees the mesh."""
    uv = at_pixels(ball().uv, ball().uv_faces, eye)
    return np.asarray(jax.jit(sample_texture)(jnp.asarray(texture), uv)), cast(eye)[2] > 0


def psnr_where(a, b, mask):
    return -10 * np.log10(np.mean((np.asarray(a)[mask] - np.asarray(b)[mask]) ** 2))


def test_texels_of_one_triangle_by_hand():
    # covers the lower left half of a 4 x 4 texture: texel (row, column) is centred at ((c + .5) / 4, 1 - (r + .5) / 4)
    texels = baking.map_texels(np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0, 1, 2]]), (4, 4))
    row, column = np.mgrid[:4, :4]
    u, v = (column + 0.5) / 4, 1 - (row + 0.5) / 4
    np.testing.assert_array_equal(texels.inside, u + v <= 1.0)
    np.testing.assert_allclose(texels.barycentric[texels.face_index >= 0][:, 1], u[texels.face_index >= 0], atol=1e-12)
    np.testing.assert_allclose(texels.barycentric[texels.face_index >= 0][:, 2], v[texels.face_index >= 0], atol=1e-12)
    # the diagonal's neighbours are within a texel on either axis, the far corner is not
    reached = texels.face_index >= 0
    np.testing.assert_array_equal(reached, row - column > -2)


def test_every_texel_that_a_look_up_reads_is_mapped_and_owned_by_its_triangle():
    rng = np.random.default_rng(0)
    uv, faces = rng.random((30, 2)) * 0.9 + 0.05, np.arange(30).reshape(-1, 3)
    texels = baking.map_texels(uv, faces, (24, 31))
    weights = rng.dirichlet(np.ones(3), 400)
    for face in faces:
        places = weights @ uv[face] * [31, -24] + [0, 24] - 0.5
        for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
            column, row = (np.floor(places).astype(int) + step).T
            assert (texels.face_index[row.clip(0, 23), column.clip(0, 30)] >= 0).all()
    row, column = np.nonzero(texels.inside)
    at = np.einsum("nk,nkd->nd", texels.barycentric[row, column], uv[faces[texels.face_index[row, column]]])
    np.testing.assert_allclose(at, np.stack([(column + 0.5) / 31, 1 - (row + 0.5) / 24], -1), atol=1e-9)
    assert texels.barycentric[row, column].min() > -1e-9


def test_a_field_baked_and_rendered_back():
    seen = []

    def field(points, normals):
        seen.append(len(points))
        assert points.shape == normals.shape
        return colors_at(points)

    done = []
    baked = baking.bake_field(ball(), field, (256, 256), chunk=20_000, progress=lambda a, b: done.append((a, b)))
    assert set(seen) == {20_000} and done[-1][0] == done[-1][1]
    for eye in EYES[:2]:
        image, mask = looked_up(baked.texture, eye)
        assert psnr_where(image, colors_at(rendered_points(eye)[0].reshape(-1, 3)).reshape(image.shape), mask) > 40


def test_normals_given_to_the_field_point_outward():
    baked = baking.bake_field(ball(), lambda points, normals: normals, (64, 64))
    points = baking.bake_field(ball(), lambda points, normals: points, (64, 64))
    cosine = (baked.texture * points.texture).sum(-1)[baked.known]
    assert cosine.min() > 0.9


def test_views_projected_and_rendered_back():
    images = []
    for eye in EYES:
        points, mask = rendered_points(eye)
        images.append(np.where(mask[..., None], colors_at(points.reshape(-1, 3)).reshape(points.shape), 0.0))
    cameras, depths = [camera_at(eye) for eye in EYES], [cast(eye)[2] for eye in EYES]
    baked = baking.bake_views(ball(), images, cameras, (128, 128), depths=depths, smallest_cosine=0.2)
    truth = baking.bake_field(ball(), lambda p, n: colors_at(p), (128, 128))
    assert baked.known[truth.known].mean() > 0.99
    assert psnr_where(baked.texture, truth.texture, baked.known) > 30  # images of 40 pixels: a pixel is 0.08 wide
    front = baking.bake_views(ball(), images[:1], cameras[:1], (128, 128), depths=depths[:1], smallest_cosine=0.4)
    points = baking.bake_field(ball(), lambda p, n: p, (128, 128)).texture
    assert (points[front.known][:, 0] > 0.3).all()  # only what faces +x
    # cosine 0.4 from 3.5 away: (3.5 x - 1) = 0.4 sqrt(13.25 - 7 x) at x = 0.625, a share of (1 - x) / 2
    np.testing.assert_allclose(front.known[truth.known].mean(), 0.1875, atol=0.03)
    assert np.abs(front.texture[truth.known]).sum(-1).min() > 0.1  # holes are filled


@pytest.mark.parametrize("own_depth", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_surface_hides_what_is_behind_it(own_depth):
    quad = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    vertices = np.concatenate([quad, 0.5 * quad + [0, 0, 1.0]])  # the small one is in front
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    corners = np.array([[0.02, 0.1], [0.42, 0.1], [0.42, 0.9], [0.02, 0.9]])
    mesh = Mesh(
        jnp.asarray(vertices, jnp.float32),
        jnp.asarray(faces),
        uv=jnp.asarray(np.concatenate([corners, corners + [0.5, 0]]), jnp.float32),
    )
    camera = camera_at((0, 0, 5.0))
    offset = np.abs(np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2).max(0) / (1.6 * SIZE)
    depth = np.where(offset * 4 < 0.5, 4.0, np.where(offset * 5 < 1, 5.0, 0.0))
    if own_depth:
        np.testing.assert_allclose(baking._depth_of(mesh, camera), depth, atol=1e-5)
    depths = None if own_depth else [depth]
    baked = baking.bake_views(mesh, [jnp.ones((SIZE, SIZE, 1))], [camera], (64, 64), depths=depths, padding=0)
    points = baking.bake_field(mesh, lambda p, n: p, (64, 64), padding=0)
    back = points.known & (points.texture[..., 2] < 0.5)
    # from 5 away the square of half-width 0.5 at z = 1 hides 0.625 at z = 0
    reach = np.abs(points.texture[..., :2]).max(-1)
    assert not baked.known[back & (reach < 0.55)].any() and baked.known[back & (reach > 0.7) & (reach < 0.95)].all()
    assert baked.known[points.known & ~back & (reach < 0.48)].all()


def test_colours_move_to_another_mesh():
    import trimesh

    fine = trimesh.creation.icosphere(subdivisions=3)
    source = Mesh(
        jnp.asarray(fine.vertices, jnp.float32),
        jnp.asarray(fine.faces, jnp.int32),
        vertex_colors=jax.jit(linear_from_srgb)(colors_at(jnp.asarray(fine.vertices, jnp.float32))),
    )
    truth = baking.bake_field(ball(), lambda p, n: colors_at(p / jnp.linalg.norm(p, axis=-1, keepdims=True)), (64, 64))
    moved = baking.transfer_texture(source, ball(), (64, 64))
    assert psnr_where(moved.texture, truth.texture, truth.known) > 33
    textured = dataclasses.replace(ball(), texture=jnp.asarray(truth.texture))
    again = baking.transfer_texture(textured, ball(), (64, 64))
    assert psnr_where(again.texture, truth.texture, truth.known) > 35
    with pytest.raises(ValueError, match="a source with a texture"):
        baking.transfer_texture(dataclasses.replace(source, vertex_colors=None), ball())


def test_dilation_takes_the_nearest_colour_as_far_as_asked():
    texture, known = np.zeros((9, 9, 1), np.float32), np.zeros((9, 9), bool)
    texture[4, 0], texture[4, 8] = 1.0, 2.0
    known[4, 0] = known[4, 8] = True
    near, all_of_it = baking.dilate(texture, known, 2), baking.dilate(texture, known, None)
    row, column = np.mgrid[:9, :9]
    left, right = np.hypot(row - 4, column), np.hypot(row - 4, column - 8)
    expected = np.where(left < right, 1.0, 2.0)
    np.testing.assert_array_equal(all_of_it[..., 0][left != right], expected[left != right])
    np.testing.assert_array_equal(near[..., 0], np.where(np.minimum(left, right) <= 2, expected, 0))
    np.testing.assert_array_equal(baking.dilate(texture, np.zeros((9, 9), bool), 4), texture)


def test_baking_needs_texture_coordinates():
    with pytest.raises(ValueError, match="unwrapping.unwrap makes them"):
        baking.bake_field(dataclasses.replace(ball(), uv=None, uv_faces=None), lambda p, n: p, (8, 8))
