"""Whole pictures: colours that come back, meshes that hide each other, transparency, materials, frames."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.cameras.trajectories import look_at
from renderers.meshes import lights
from renderers.meshes.mesh import Mesh, plain_material
from renderers.meshes.render import render_mesh, render_normals
from renderers.meshes.textures import linear_from_srgb, srgb_from_linear

SIZE = (12, 16)
FACING = Camera(look_at(jnp.asarray([0.0, 0.0, 4.0]), jnp.zeros(3)), jnp.full(2, 16.0), jnp.asarray([8.0, 6.0]), SIZE)
UV = jnp.asarray([[0.0, 0.0], [1, 0], [1, 1], [0, 1]])


def board(center=(0.0, 0.0, 0.0), half=(2.0, 1.5), **fields):
    """A rectangle that faces +Z; seen by FACING the default fills the picture exactly."""
    x, y = half
    corners = jnp.asarray([[-x, -y, 0], [x, -y, 0], [x, y, 0], [-x, y, 0]], jnp.float32) + jnp.asarray([center])
    return Mesh(corners, jnp.asarray([[0, 1, 2], [0, 2, 3]]), uv=UV, **fields)


def picture(mesh, camera=FACING, **options):
    return jax.jit(lambda mesh: render_mesh(mesh, camera, **options))(mesh)


def test_a_texture_that_fills_the_picture_comes_back_pixel_by_pixel():
    texture = jnp.asarray(np.random.default_rng(0).uniform(size=(*SIZE, 3)), jnp.float32)
    image = picture(board(texture=texture), light="none", antialias=False)
    np.testing.assert_allclose(image.color, texture, atol=2e-3)
    np.testing.assert_allclose(image.alpha, 1.0, atol=1e-5)
    np.testing.assert_allclose(image.depth, 4.0, atol=1e-5)
    np.testing.assert_allclose(image.normal[..., 2], 1.0, atol=1e-5)


def test_colours_go_from_linear_factors_to_display_values():
    material = plain_material(base_color=(0.5, 0.2, 0.8, 1.0))
    colors = jnp.full((4, 3), 0.5)
    mesh = board(material=material, vertex_colors=colors)
    image = picture(mesh, light="none", antialias=False)
    expected = srgb_from_linear(jnp.asarray([0.25, 0.1, 0.4]))
    np.testing.assert_allclose(image.color, jnp.broadcast_to(expected, (*SIZE, 3)), atol=1e-5)
    linear = picture(mesh, light="none", linear=True, antialias=False)
    np.testing.assert_allclose(linear.color[5, 5], [0.25, 0.1, 0.4], atol=1e-6)


def test_a_matte_white_surface_that_faces_the_light_shows_its_colour():
    sun = lights.DirectionalLight(toward=jnp.asarray([0.0, 0.0, 1.0]), color=jnp.asarray([0.4, 0.3, 0.2]))
    black_gloss = plain_material(roughness=1.0)
    image = picture(board(material=black_gloss), light=sun, linear=True, antialias=False)
    # 4% of the light is mirrored by the dielectric's coat, which at roughness 1 comes back to within a percent or two
    np.testing.assert_allclose(image.color[6, 8], [0.4, 0.3, 0.2], rtol=0.05)


def test_backgrounds_show_through_by_area_in_linear_light():
    half = board(half=(0.6, 0.5), material=plain_material(base_color=(1.0, 1.0, 1.0, 1.0)))
    sky = jnp.asarray([0.2, 0.4, 0.6])
    image = picture(half, light="none", background=sky)
    assert float(jnp.sum(image.alpha)) == pytest.approx(1.2 * 1.0 * 16, rel=1e-5)  # 4 pixels a metre at 4 m
    behind = linear_from_srgb(sky).reshape(1, 1, 3)
    expected = srgb_from_linear(image.alpha[..., None] + (1 - image.alpha[..., None]) * behind)
    np.testing.assert_allclose(image.color, expected, atol=1e-5)
    np.testing.assert_allclose(image.color[0, 0], sky, atol=1e-5)


def test_nearer_meshes_hide_others_and_glass_tints_what_is_behind():
    red = board((0, 0, -1.0), (4, 3), material=plain_material(base_color=(1.0, 0, 0, 1.0)))
    green = board((0, 0, 0.0), (0.5, 0.5), material=plain_material(base_color=(0, 1.0, 0, 1.0)))
    glass = dataclasses.replace(plain_material(base_color=(0, 0, 1.0, 0.25)), alpha_mode="BLEND")
    pane = board((1.0, 0, 0.5), (1.0, 0.5), material=glass)
    image = picture([pane, red, green], light="none", linear=True, antialias=False)
    np.testing.assert_allclose(image.color[6, 2], [1, 0, 0])
    np.testing.assert_allclose(image.color[6, 7], [0, 1, 0])
    np.testing.assert_allclose(image.color[6, 9], [0, 0.75, 0.25])
    np.testing.assert_allclose(image.color[6, 13], [0.75, 0, 0.25])
    owner = np.asarray(image.face_index) // 2
    assert owner[6, 2] == 1 and owner[6, 7] == 2 and owner[6, 9] == 0
    hidden = dataclasses.replace(pane, vertices=pane.vertices - jnp.asarray([[0, 0, 3.0]]))
    behind = picture([hidden, red, green], light="none", linear=True, antialias=False)
    np.testing.assert_allclose(behind.color[6, 13], [1, 0, 0])


def test_a_mesh_that_is_glass_in_part_shows_its_own_opaque_faces_through_it():
    """What reading a file with one pane as one mesh makes: alpha mode BLEND all over, alpha 1 in most of the atlas."""
    texture = (
        jnp.ones((4, 8, 4)).at[:, :4].set(jnp.asarray([1.0, 0, 0, 1.0])).at[:, 4:].set(jnp.asarray([0, 0, 1.0, 0.25]))
    )
    wall, pane = board((0, 0, -1.0), (4, 3)), board((1.0, 0, 0), (1.0, 0.5))
    mesh = Mesh(
        jnp.concatenate([wall.vertices, pane.vertices]),
        jnp.concatenate([pane.faces + 4, wall.faces]),
        uv=jnp.concatenate([jnp.asarray([[0.2, 0.5]] * 4), jnp.asarray([[0.8, 0.5]] * 4)]),
        texture=texture,
        material=dataclasses.replace(plain_material(), alpha_mode="BLEND"),
    )
    image = picture(mesh, light="none", linear=True, antialias=False)
    np.testing.assert_allclose(image.color[6, 2], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(image.color[6, 12], [0.75, 0, 0.25], atol=1e-6)
    np.testing.assert_allclose(image.alpha, 1.0)
    assert int(image.face_index[6, 2]) >= 2 > int(image.face_index[6, 12])


def test_cut_outs_show_the_background():
    texture = jnp.concatenate([jnp.ones((*SIZE, 3)), jnp.zeros((*SIZE, 1)).at[:, 8:].set(1.0)], -1)
    cut = dataclasses.replace(plain_material(), alpha_mode="MASK")
    image = picture(board(texture=texture, material=cut), light="none", background=jnp.full(3, 0.2), antialias=False)
    np.testing.assert_allclose(image.color[:, :7], 0.2, atol=1e-5)
    np.testing.assert_allclose(image.color[:, 9:], 1.0, atol=1e-5)
    np.testing.assert_array_equal(image.alpha, np.asarray(image.face_index) >= 0)


def test_textures_meet_the_surface_the_right_way_round_for_normal_maps():
    """A map that leans along u turns a surface towards a light at +X, one along v to a light above."""
    size = (4, 4, 3)
    for axis, toward in ((0, [1.0, 0, 0]), (1, [0, 1.0, 0])):
        value = jnp.asarray([0.5, 0.5, 0.5]).at[axis].set(1.0)
        material = dataclasses.replace(plain_material(), normal_texture=jnp.broadcast_to(value, size))
        sun = lights.DirectionalLight(toward=jnp.asarray(toward), color=jnp.ones(3))
        lit = picture(board(material=material), light=sun, linear=True, antialias=False)
        flat = picture(board(material=plain_material()), light=sun, linear=True, antialias=False)
        assert float(lit.color[6, 8].mean()) > 0.8 and float(flat.color[6, 8].mean()) < 1e-6


def test_supersampling_keeps_what_is_known_exactly():
    mesh = board((0.13, 0.08, 0), (0.7, 0.6), material=plain_material())
    fine = picture(mesh, light="none", linear=True, supersampling=3)
    coarse = picture(mesh, light="none", linear=True, antialias=False)

    def shares(low, high, count):
        return np.asarray([np.diff(np.clip([low, high], k, k + 1)) for k in range(count)])

    # 4 pixels a metre, rows go down
    exact = shares(6 - 4 * 0.68, 6 + 4 * 0.52, 12) * shares(8 - 4 * 0.57, 8 + 4 * 0.83, 16).T
    np.testing.assert_allclose(fine.alpha, exact, atol=1e-4)
    np.testing.assert_array_equal(fine.face_index, coarse.face_index)


def test_normals_as_colours_in_both_frames():
    side = Camera(look_at(jnp.asarray([4.0, 0.0, 0.0]), jnp.zeros(3)), FACING.focal, FACING.principal, SIZE)
    turn = jnp.asarray([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    mesh = board()
    turned = dataclasses.replace(mesh, vertices=mesh.vertices @ turn.T)  # faces +X, towards the camera
    draw = jax.jit(render_normals, static_argnames="frame")
    np.testing.assert_allclose(draw(turned, side)[6, 8], [1.0, 0.5, 0.5, 1.0], atol=1e-5)
    for camera, shape in ((side, turned), (FACING, mesh)):
        np.testing.assert_allclose(draw(shape, camera, frame="camera")[6, 8], [0.5, 0.5, 1.0, 1.0], atol=1e-5)


def test_pictures_have_finite_gradients_in_all_that_is_float():
    texture = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, size=(4, 4, 3)), jnp.float32)
    mesh = board(half=(1.1, 0.9), texture=texture, material=plain_material(roughness=0.5))
    lamp = lights.PointLight(position=jnp.asarray([0.5, 1.0, 2.0]), color=jnp.full(3, 3.0))

    @jax.jit
    def total(floats, lamp, camera):
        vertices, texture, material = floats
        image = render_mesh(
            dataclasses.replace(mesh, vertices=vertices, texture=texture, material=material), camera, light=lamp,
            background=jnp.full(3, 0.3),
        )  # fmt: skip
        return jnp.sum(image.color * image.color)

    gradients = jax.grad(total, (0, 1, 2))((mesh.vertices, texture, mesh.material), lamp, FACING)
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
    assert float(jnp.abs(gradients[0][1]).min()) > 0  # every texel is seen


def test_what_cannot_be_rendered_is_said():
    with pytest.raises(ValueError, match="0 meshes"):
        render_mesh([], FACING)
    with pytest.raises(ValueError, match="supersampling 0"):
        render_mesh(board(), FACING, supersampling=0)
