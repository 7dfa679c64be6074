"""Light against brute-force integrals over the sphere, and under rotation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.harmonics import sh_basis
from renderers.meshes import environment, lights

NORMALS = np.random.default_rng(0).normal(size=(6, 3))
NORMALS = jnp.asarray(NORMALS / np.linalg.norm(NORMALS, axis=1, keepdims=True), jnp.float32)


def sphere(rows=200):
    """Directions and solid angles that a quadrature over the sphere runs over."""
    size = (rows, 2 * rows)
    return environment.map_directions(size).reshape(-1, 3), environment.solid_angles(size).reshape(-1)


def test_solid_angles_and_directions_cover_the_sphere():
    directions, weights = sphere()
    assert weights.sum() == pytest.approx(4 * math.pi, rel=1e-6)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights @ directions, 0, atol=1e-4)
    second = np.einsum("n,na,nb->ab", weights, directions, directions)
    np.testing.assert_allclose(second, np.eye(3) * 4 * math.pi / 3, atol=1e-3)


def test_map_coordinates_invert_map_directions():
    size = (8, 16)
    uv = environment.map_coordinates(jnp.asarray(environment.map_directions(size)))
    np.testing.assert_allclose(uv[..., 0] * 16, np.broadcast_to(np.arange(16) + 0.5, size), atol=1e-4)
    np.testing.assert_allclose((1 - uv[..., 1]) * 8, np.broadcast_to(np.arange(8)[:, None] + 0.5, size), atol=1e-4)
    np.testing.assert_allclose(environment.map_coordinates(jnp.asarray([0.0, 0.0, -1.0])), 0.5, atol=1e-6)
    assert float(environment.map_coordinates(jnp.asarray([1.0, 0.0, 0.0]))[0]) == pytest.approx(0.75)


@pytest.mark.parametrize("degree", [0, 1, 2, 4])
def test_irradiance_of_harmonics_is_the_integral_over_the_hemisphere(degree):
    coefficients = jnp.asarray(np.random.default_rng(1).normal(size=((degree + 1) ** 2, 3)), jnp.float32)
    directions, weights = sphere()
    radiance = np.asarray(sh_basis(jnp.asarray(directions), degree) @ coefficients)
    cosine = np.maximum(np.asarray(NORMALS) @ directions.T, 0)
    expected = (cosine * weights) @ radiance / math.pi
    found = lights.harmonic_diffuse(coefficients, NORMALS)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_bands_of_the_cosine_are_the_published_ones():
    expected = [math.pi, 2 * math.pi / 3, math.pi / 4, 0, -math.pi / 24, 0, math.pi / 64]
    np.testing.assert_allclose([lights.cosine_band(band) for band in range(7)], expected, rtol=1e-12)


def test_degree_two_holds_nearly_all_of_a_positive_light():
    """Ramamoorthi and Hanrahan: average error of irradiance below 3% for any light; here the studio's."""
    light = environment.studio_map((48, 96))
    directions = environment.map_directions((48, 96)).reshape(-1, 3)
    weights = environment.solid_angles((48, 96)).reshape(-1)
    exact = (np.maximum(np.asarray(NORMALS) @ directions.T, 0) * weights) @ light.reshape(-1, 3) / math.pi
    found = lights.harmonic_diffuse(environment.harmonics_of_map(jnp.asarray(light)), NORMALS)
    assert np.abs(found - exact).mean() < 0.03 * exact.mean()


def test_points_lights_fall_off_with_the_square_and_directions_do_not():
    lamp = lights.PointLight(position=jnp.asarray([0.0, 2.0, 0.0]), color=jnp.ones(3))
    toward, color = lights.light_from(lamp, jnp.asarray([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    np.testing.assert_allclose(color[0], 0.25)
    np.testing.assert_allclose(toward, [[0, 1, 0], [0, 0, 0]])
    assert np.isfinite(jax.grad(lambda p: jnp.sum(lights.light_from(lamp, p)[1]))(lamp.position[None])).all()
    sun = lights.DirectionalLight(toward=jnp.asarray([3.0, 0.0, 4.0]), color=jnp.ones(3))
    np.testing.assert_allclose(lights.light_from(sun, jnp.zeros((1, 3)))[0], [[0.6, 0, 0.8]], atol=1e-6)
    with pytest.raises(TypeError, match="light_from"):
        lights.diffuse_color(sun, jnp.zeros((1, 3)))


@pytest.mark.parametrize("kind", ["dreamfusion", "magic3d"])
def test_random_lights_are_on_the_cameras_side(kind):
    camera = jnp.asarray([0.0, 1.0, 2.0])
    keys = jax.random.split(jax.random.key(0), 2000)
    lamps = jax.vmap(lambda key: lights.random_light(key, camera, kind=kind).position)(keys)
    distance = np.linalg.norm(lamps, axis=1)
    assert 0.8 <= distance.min() < 0.82 and 1.48 < distance.max() <= 1.5
    cosine = np.asarray(lamps @ camera) / distance / math.sqrt(5)
    if kind == "magic3d":
        assert cosine.min() > 0.499  # 30 degrees above the plane across the view
        elevation = np.arcsin(np.clip(cosine, -1, 1))
        assert elevation.mean() == pytest.approx(math.pi / 3, abs=0.02)
    else:
        assert 0.6 < cosine.mean() < 0.95


def test_random_shading_draws_one_of_three_at_the_published_rates():
    weights = jax.vmap(lambda key: lights.random_shading(key))(jax.random.split(jax.random.key(1), 4000))
    np.testing.assert_array_equal(jnp.sum(weights, 1), 1)
    np.testing.assert_allclose(jnp.mean(weights, 0), [0.25, 0.375, 0.375], atol=0.03)
    first = jax.vmap(lambda key: lights.random_shading(key, albedo=jnp.asarray(1.0)))(
        jax.random.split(jax.random.key(2), 50)
    )
    np.testing.assert_array_equal(first, jnp.tile(jnp.asarray([[1.0, 0, 0]]), (50, 1)))
