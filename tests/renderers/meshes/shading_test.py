"""Reflectance against integrals: normalisation, energy, reciprocity, image-based light, rotation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes import environment, lights, shading
from tests.helpers.gradients import assert_finite_gradients


def points_of(cosine, roughness, metallic, color=1.0):
    """Surfaces with normal +Y, seen under the given angles."""
    cosine = jnp.asarray(cosine, jnp.float32)
    shape = cosine.shape
    views = jnp.stack([jnp.sqrt(1 - cosine**2), cosine, jnp.zeros_like(cosine)], -1)
    return shading.SurfacePoints(
        positions=jnp.zeros((*shape, 3)),
        normals=jnp.broadcast_to(jnp.asarray([0.0, 1.0, 0.0]), (*shape, 3)),
        views=views,
        base_color=jnp.full((*shape, 3), color),
        metallic=jnp.full(shape, float(metallic)),
        roughness=jnp.full(shape, float(roughness)),
        emissive=jnp.zeros((*shape, 3)),
        occlusion=jnp.ones(shape),
    )


def hemisphere(rows):
    """Directions about +Y and weights, by equal steps of the cosine."""
    up, around = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(2 * rows) + 0.5) / rows * math.pi)
    side = np.sqrt(1 - up**2)
    directions = np.stack([side * np.cos(around), up, side * np.sin(around)], -1).reshape(-1, 3)
    return jnp.asarray(directions, jnp.float32), 2 * math.pi / len(directions)


def reflected_share(cosine, roughness, metallic):
    """Of uniform light, by brute force over directional lights."""
    directions, weight = hemisphere(260)
    surface = points_of(cosine, roughness, metallic)
    return np.asarray(_under_all(surface, directions, jnp.ones_like(directions)))[..., 0] * weight / math.pi


@jax.jit
def _under_all(surface, directions, colors):
    """Sum over directional lights."""

    def one(toward, color):
        return shading.shade(surface, lights.DirectionalLight(toward=toward, color=color))

    return jnp.sum(jax.vmap(one)(directions, colors), 0)


@pytest.mark.parametrize("roughness", [0.5, 0.75, 1.0])
def test_the_lobe_of_microfacets_has_projected_area_one(roughness):
    directions, weight = hemisphere(400)
    density = shading.ggx_distribution(directions[:, 1], jnp.full(len(directions), roughness**2))
    assert float(jnp.sum(density * directions[:, 1]) * weight) == pytest.approx(1, abs=2e-3)


COSINES = np.asarray([0.25, 0.6, 0.95])
WHITE = lights.AmbientLight(color=jnp.ones(3))
shade = jax.jit(shading.shade)


@pytest.mark.parametrize("roughness", [0.4, 0.8])
def test_no_metal_reflects_more_than_arrives_and_the_split_sum_agrees(roughness):
    """White furnace: uniform light of 1; brute force, and the image-based form with its table."""
    share = reflected_share(COSINES, roughness, 1.0)
    assert (share < 1.005).all() and (share > 0.5).all()
    found = shade(points_of(COSINES, roughness, 1.0), WHITE)[..., 0]
    np.testing.assert_allclose(found, share, atol=0.015)


def test_dielectrics_keep_their_energy_under_light_from_everywhere():
    """glTF's sum of coat and base gains up to 12% at grazing views of direct light; that of ambient light does not."""
    share = reflected_share(COSINES, 0.4, 0.0)
    assert (share < 1.12).all() and (share > 0.9).all()
    found = shade(points_of(COSINES, 0.4, 0.0), WHITE)[..., 0]
    assert (found <= 1.001).all() and (found > 0.97).all()


def test_a_smooth_metal_is_a_mirror_of_everything():
    ambient = lights.AmbientLight(color=jnp.asarray([0.2, 0.5, 1.0]))
    found = shade(points_of(COSINES, 0.0, 1.0), ambient)
    np.testing.assert_allclose(found, np.broadcast_to([0.2, 0.5, 1.0], (3, 3)), atol=0.01)


def test_reflection_is_the_same_both_ways():
    """Helmholtz: light and viewer exchanged, the cosine apart."""
    rng = np.random.default_rng(0)
    a, b = (np.abs(rng.normal(size=(20, 3))) * [1, 1, 1] + [0, 0.1, 0] for _ in range(2))
    a, b = (jnp.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), jnp.float32) for v in (a, b))

    def value(toward, view):
        surface = points_of(np.ones(()), 0.45, 0.7, 0.6)
        surface = type(surface)(**{**vars(surface), "views": view})
        light = lights.DirectionalLight(toward=toward, color=jnp.ones(3))
        return shading.shade(surface, light)[0] / toward[1]

    both = jax.jit(jax.vmap(value))
    there, back = both(a, b), both(b, a)
    np.testing.assert_allclose(there, back, rtol=2e-4)


def test_a_uniform_map_is_uniform_light_at_every_roughness():
    light = environment.prepare_environment(jnp.full((16, 32, 3), 0.7), levels=4)
    ambient = lights.AmbientLight(color=jnp.full(3, 0.7))
    for roughness in (0.0, 0.37, 1.0):
        surface = points_of(COSINES, roughness, 0.5)
        np.testing.assert_allclose(shade(surface, light), shade(surface, ambient), atol=1e-3)


def test_image_based_light_is_close_to_the_integral_over_the_map():
    """A rough metal and a matte dielectric under a soft map against a sum over its texels; Karis' split costs 10%."""
    size = (24, 48)
    radiance = environment.studio_map(size)
    light = environment.prepare_environment(jnp.asarray(radiance))
    directions = jnp.asarray(environment.map_directions(size)).reshape(-1, 3)
    power = jnp.asarray(radiance.reshape(-1, 3) * environment.solid_angles(size).reshape(-1, 1)) / math.pi
    for roughness, metallic in ((0.6, 1.0), (0.9, 0.0)):
        surface = points_of(np.asarray([0.7, 0.95]), roughness, metallic, 0.8)
        expected = _under_all(surface, directions, power)
        np.testing.assert_allclose(shade(surface, light), expected, rtol=0.12)


def test_turning_light_and_object_together_changes_nothing():
    turn = jnp.asarray([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # a quarter about +Y
    radiance = jnp.asarray(environment.studio_map((16, 32)))
    lit = environment.prepare_environment(radiance)
    turned = environment.prepare_environment(jnp.roll(radiance, -8, axis=1))
    surface = points_of(COSINES, 0.4, 0.5, 0.8)
    other = type(surface)(**{**vars(surface), "views": surface.views @ turn.T, "normals": surface.normals @ turn.T})
    np.testing.assert_allclose(shade(surface, lit), shade(other, turned), rtol=1e-3)


def test_mirrors_show_the_map_in_the_mirrored_direction():
    radiance = jnp.asarray(environment.studio_map((32, 64)))
    light = environment.prepare_environment(radiance, levels=3)
    found = environment.mirrored_light(light, jnp.asarray(environment.map_directions((32, 64))), jnp.zeros((32, 64)))
    np.testing.assert_allclose(found, radiance, atol=1e-3)


def test_random_shadings_are_the_three_of_the_paper():
    rng = np.random.default_rng(0)
    albedo, normals = jnp.asarray(rng.uniform(size=(5, 3)), jnp.float32), jnp.asarray([[0.0, 1.0, 0.0]] * 5)
    lamp = lights.PointLight(position=jnp.asarray([0.0, 3.0, 4.0]), color=jnp.ones(3), falloff=False)
    received = 0.1 + 0.9 * 0.6
    rows = [albedo, jnp.full_like(albedo, received), albedo * received]
    for weights, expected in zip(jnp.eye(3), rows, strict=True):
        found = shading.shade_randomly(albedo, normals, jnp.zeros((5, 3)), lamp, weights)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_flat_normal_map_bends_nothing_and_plus_x_leans_along_u():
    normals = jnp.asarray([[0.0, 1.0, 0.0]])
    along_u, along_v = jnp.asarray([[2.0, 0.3, 0.0]]), jnp.asarray([[0.0, 0.1, -5.0]])
    flat = shading.bent_normals(normals, along_u, along_v, jnp.asarray([[0.5, 0.5, 1.0]]))
    np.testing.assert_allclose(flat, normals, atol=1e-6)
    leaning = shading.bent_normals(normals, along_u, along_v, jnp.asarray([[0.8, 0.5, 0.9]]))
    np.testing.assert_allclose(leaning, [[0.6, 0.8, 0.0]], atol=1e-5)
    leaning = shading.bent_normals(normals, along_u, along_v, jnp.asarray([[0.5, 0.8, 0.9]]))
    np.testing.assert_allclose(leaning, [[0.0, 0.8, -0.6]], atol=1e-5)


def test_gradients_are_finite_where_light_grazes_and_surfaces_degenerate():
    light = environment.prepare_environment(jnp.asarray(environment.studio_map((8, 16))), levels=3)
    lamp = lights.PointLight(position=jnp.asarray([0.0, 1.0, 0.0]), color=jnp.ones(3))
    for cosine, roughness in ((1.0, 0.0), (0.0, 1.0)):
        surface = points_of(np.asarray([cosine]), roughness, 0.5)
        assert_finite_gradients(lambda s, sky: shading.shade(s, (lamp, sky)), surface, light)
