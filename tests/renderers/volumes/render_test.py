"""Rays and images of fields whose picture is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera
from renderers.cameras.rays import camera_rays
from renderers.cameras.trajectories import look_at
from renderers.fields import normals
from renderers.volumes import render, samplers
from renderers.volumes.render_surfaces import render_neus, render_volsdf
from tests.helpers.records import assert_record

BOX = jnp.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
CENTER, RADIUS = jnp.array([0.1, 0.0, -0.1]), 0.6
RED = jnp.array([0.9, 0.2, 0.1])


def distance(points):
    return jnp.linalg.norm(points - CENTER[None], axis=-1) - RADIUS


def density(points):
    return 400 * jax.nn.sigmoid(-100 * distance(points))


def field(points, directions):
    return density(points), jnp.broadcast_to(RED, points.shape)


def sphere(points, directions):
    from renderers.fields.sdf import SurfacePoints

    value, gradient = normals.value_and_gradient(distance, points)
    return SurfacePoints(distance=value, gradient=gradient, color=jnp.broadcast_to(RED, points.shape))


def camera(size=(9, 14)):
    height, width = size
    pose = look_at(jnp.array([0.3, 0.4, 2.2]), jnp.zeros(3))
    return Camera(pose, jnp.full(2, 1.2 * width), jnp.array([width / 2, height / 2]), size)


def hits(origins, directions):
    """Distance to the ball of each ray, and how deep the ray passes below its surface."""
    offset = np.asarray(origins) - np.asarray(CENTER)
    along = -(offset * directions).sum(-1)
    closest = np.linalg.norm(offset + along[..., None] * directions, axis=-1)
    return along - np.sqrt(np.maximum(RADIUS**2 - closest**2, 0)), RADIUS - closest


@jax.jit
def picture(rays):
    near, far, _ = samplers.ray_box(rays.origins, rays.directions, BOX)
    return render.render_rays(
        jax.random.key(0), field, rays.origins, rays.directions, near, far,
        num_samples=48, num_fine_samples=48, jitter="none", background=jnp.ones(3),
        normals=lambda p: normals.density_normals(density, p),
    )  # fmt: skip


def test_a_ball_looks_like_a_ball():
    """Colour, both distances and normals inside the outline; the background, and nothing else, outside it."""
    progress = []
    seen = render.render_image(picture, camera(), chunk=50, progress=lambda done, total: progress.append((done, total)))
    assert_record(seen)
    assert seen.color.shape == (9, 14, 3) and progress == [(50, 126), (100, 126), (126, 126)]
    rays = camera_rays(camera())
    distance, depth = hits(rays.origins, rays.directions)
    inside, outside = depth > 0.1, depth < -0.1
    assert inside.sum() > 15 and outside.sum() > 15
    np.testing.assert_allclose(seen.color[inside], np.broadcast_to(RED, (inside.sum(), 3)), atol=0.01)
    np.testing.assert_allclose(seen.color[outside], 1, atol=5e-3)
    np.testing.assert_allclose(seen.opacity[inside], 1, atol=1e-3)
    # the skin is soft: it begins to be opaque about 0.02 above the surface, on slanted rays twice as far
    np.testing.assert_allclose(seen.distance[inside], distance[inside], atol=0.05)
    np.testing.assert_allclose(seen.median_distance[inside], distance[inside], atol=0.05)
    points = np.asarray(rays.origins) + np.asarray(distance)[..., None] * np.asarray(rays.directions)
    expected = (points - np.asarray(CENTER)) / RADIUS
    np.testing.assert_allclose(seen.normal[inside], expected[inside], atol=0.05)


@pytest.mark.slow
def test_chunks_do_not_show():
    whole = render.render_image(picture, camera((3, 5)), chunk=15)
    parts = render.render_image(picture, camera((3, 5)), chunk=4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, parts)
    with pytest.raises(ValueError, match="at least one ray"):
        render.render_image(picture, camera(), chunk=0)


@pytest.mark.parametrize("kind", ["neus", pytest.param("volsdf", marks=pytest.mark.slow)])
def test_a_signed_distance_is_seen_where_it_is_zero(kind):
    rays = camera_rays(camera())
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    near, far, _ = samplers.ray_box(origins, directions, BOX)
    edges = samplers.stratified_edges(jax.random.key(0), near, far, 160, jitter="none")
    function, width = (render_neus, 150.0) if kind == "neus" else (render_volsdf, 0.008)
    seen, said = jax.jit(
        lambda e: function(sphere, origins, directions, e, jnp.asarray(width), background=jnp.ones(3))
    )(edges)
    np.testing.assert_allclose(normals.eikonal_loss(said.gradient), 0, atol=1e-8)
    distance, depth = hits(origins, directions)
    inside, outside = depth > 0.1, depth < -0.1
    np.testing.assert_allclose(seen.median_distance[inside], distance[inside], atol=0.03)
    np.testing.assert_allclose(seen.color[inside], np.broadcast_to(RED, (inside.sum(), 3)), atol=0.02)
    np.testing.assert_allclose(seen.color[outside], 1, atol=1e-3)
    facing = np.sum(np.asarray(seen.normal) * directions, -1)
    assert (facing[inside] < -0.2).all()
