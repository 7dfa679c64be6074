"""Depth maps of a sphere, computed in closed form, fused to that sphere."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera, camera_center
from renderers.cameras.trajectories import look_at
from renderers.meshes.connectivity import euler_characteristic, is_watertight
from renderers.meshes.fusion import fuse_depths, volume_mesh
from renderers.meshes.mesh import enclosed_volume
from renderers.meshes.textures import linear_from_srgb

CENTER, RADIUS, SIZE = np.array([0.05, 0.1, -0.02]), 0.6, 48
BOX = np.array([[-0.8, -0.75, -0.85], [0.9, 0.9, 0.8]])


def sphere_view(eye):
    """A camera at `eye`, and the depth and the positions of the sphere in it."""
    camera = Camera(
        look_at(jnp.array(eye), jnp.array(CENTER, jnp.float32)), jnp.full(2, 60.0), jnp.full(2, SIZE / 2), (SIZE, SIZE)
    )
    pose = np.asarray(camera.camera_from_world, np.float64)
    x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    rays = np.stack([(x - SIZE / 2) / 60, (y - SIZE / 2) / 60, np.ones_like(x)], -1) @ pose[:3, :3]
    offset = np.asarray(camera_center(camera), np.float64) - CENTER
    a, b, c = (rays**2).sum(-1), rays @ offset, offset @ offset - RADIUS**2
    root = b**2 - a * c
    depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 0.0)
    return camera, depth, offset + CENTER + depth[..., None] * rays


@functools.cache
def fused(colors=True, views=6, empty_is_free=True):
    eyes = [[2.2, 0.2, 0], [-2.2, 0.1, 0.1], [0.1, 2.2, 0], [0, -2.2, 0.2], [0.1, 0, 2.2], [0, 0.2, -2.2]][:views]
    cameras, depths, points = zip(*(sphere_view(np.array(eye, np.float32)) for eye in eyes), strict=True)
    images = [np.where(d[..., None] > 0, 0.5 + 0.5 * p, 0.0) for d, p in zip(depths, points, strict=True)]
    return fuse_depths(depths, cameras, BOX, (28, 27, 29), colors=images, empty_is_free=empty_is_free)


def test_six_views_of_a_sphere_make_a_closed_sphere_with_its_colours():
    mesh = volume_mesh(fused())
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    assert is_watertight(faces) and euler_characteristic(faces) == 2
    off = np.abs(np.linalg.norm(vertices - CENTER, axis=-1) - RADIUS)
    assert off.max() < 0.05 and off.mean() < 0.015  # a node's spacing is 0.06, a pixel 0.04
    np.testing.assert_allclose(enclosed_volume(mesh.vertices, mesh.faces), 4 / 3 * np.pi * RADIUS**3, rtol=0.02)
    expected = np.asarray(linear_from_srgb(jnp.asarray(0.5 + 0.5 * vertices)))
    assert np.abs(np.asarray(mesh.vertex_colors) - expected).mean() < 0.02


def test_distances_are_those_of_the_sphere_near_its_surface():
    volume = fused()
    axes = [np.linspace(BOX[0, k], BOX[1, k], n) for k, n in enumerate((28, 27, 29))]
    true = np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij"), -1) - CENTER, axis=-1) - RADIUS
    distance, weight = np.asarray(volume.distance), np.asarray(volume.weight)
    assert (distance[(true > 0.1) & (weight > 0)] > 0).all() and (weight[np.abs(true) < 0.1] > 0).mean() > 0.99
    assert (weight[true < -0.45] == 0).all() and (np.asarray(volume.hidden)[true < -0.45] == 6).all()
    band = (np.abs(true) < 0.08) & (weight > 0)
    assert (np.sign(distance[band & (np.abs(true) > 0.03)]) == np.sign(true[band & (np.abs(true) > 0.03)])).all()


def test_one_view_knows_the_front_only():
    volume = fused(views=1)
    solid, sheet = volume_mesh(volume), volume_mesh(volume, unseen="outside")
    # behind the front everything is hidden: the shadow up to the border of the box, or a sheet of one truncation
    assert np.asarray(solid.vertices)[:, 0].min() < -0.75
    assert np.asarray(sheet.vertices)[:, 0].min() > -0.4
    assert enclosed_volume(sheet.vertices, sheet.faces) < 0.7 * enclosed_volume(solid.vertices, solid.faces)


def test_empty_pixels_may_say_nothing():
    free, silent = np.asarray(fused().weight), np.asarray(fused(empty_is_free=False).weight)
    assert (free > 0)[0, 0, 0] and not (silent > 0)[0, 0, 0]
    assert (silent <= free).all()


def test_sizes_must_fit():
    camera, depth, _ = sphere_view(np.array([2.0, 0, 0], np.float32))
    with pytest.raises(ValueError, match="as many cameras as depth maps, got 1 and 2"):
        fuse_depths([depth, depth], [camera], BOX, 8)
    with pytest.raises(ValueError, match=r"depth map 0 is \(9, 48\), its camera \(48, 48\)"):
        fuse_depths([depth[:9]], [camera], BOX, 8)
