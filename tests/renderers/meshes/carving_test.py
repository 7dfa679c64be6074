"""Space carving: the hull holds the object, is no larger than the outlines allow, and finds holes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from renderers.cameras.camera import Camera, project
from renderers.cameras.rays import camera_rays
from renderers.cameras.trajectories import fibonacci_hemisphere
from renderers.meshes import connectivity
from renderers.meshes.carving import carve, visual_hull
from renderers.meshes.mesh import enclosed_volume
from renderers.meshes.rasterize import rasterize_mesh

_SIZE = 48
_BOX = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def _cameras(model="pinhole", count=8):
    focal = {"pinhole": 1.1 * _SIZE, "orthographic": _SIZE / 2.6, "fisheye": 1.1 * _SIZE}[model]
    poses = fibonacci_hemisphere(count, 3.0, elevation_range=(-1.5, 1.5))
    middle = jnp.full(2, _SIZE / 2, jnp.float32)
    return [Camera(pose, jnp.full(2, focal, jnp.float32), middle, (_SIZE, _SIZE), model) for pose in poses]


def _ball_masks(center, radius, cameras, margin=1.5):
    """Masks of a ball: pixels whose ray passes its centre within the radius and `margin` pixels."""
    masks = []
    for camera in cameras:
        rays = camera_rays(camera)
        offset = center - np.asarray(rays.origins)
        along = (offset * np.asarray(rays.directions)).sum(-1)
        distance = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0))
        pixel = 2.6 / _SIZE if camera.model == "orthographic" else along / (1.1 * _SIZE)
        masks.append((distance < radius + margin * pixel).astype(np.float32))
    return masks


@pytest.mark.parametrize("model", ["pinhole", "orthographic", "fisheye"])
def test_no_point_of_a_ball_is_carved_away(model):
    center, radius = np.array([0.25, -0.2, 0.1]), 0.5
    cameras = _cameras(model, 6)
    masks = _ball_masks(center, radius, cameras)
    inside = np.random.default_rng(0).normal(size=(4000, 3))
    inside = center + radius * inside / np.linalg.norm(inside, axis=1, keepdims=True)  # on the surface itself
    values = np.asarray(carve(jnp.asarray(inside, jnp.float32), masks, cameras))
    assert values.min() > 0
    far = center + 1.4 * (inside - center)
    assert np.median(np.asarray(carve(jnp.asarray(far, jnp.float32), masks, cameras))) == 0


def test_hull_of_a_ball_is_the_ball_at_its_true_size():
    center = np.array([0.1, 0.2, -0.1])
    cameras = _cameras(count=12)
    masks = _ball_masks(center, 0.6, cameras, margin=0)
    hull = visual_hull(masks, cameras, _BOX, resolution=40)
    assert connectivity.is_watertight(np.asarray(hull.faces))
    assert connectivity.euler_characteristic(np.asarray(hull.faces)) == 2
    distance = np.linalg.norm(np.asarray(hull.vertices) - center, axis=1)
    # outside the ball but for half a pixel (0.03) and the grid; 12 outlines leave corners
    assert distance.min() > 0.6 - 0.035 and distance.max() < 0.6 * 1.25
    volume = float(enclosed_volume(hull.vertices, hull.faces))
    assert 0.97 < volume / (4 / 3 * np.pi * 0.6**3) < 1.2


def test_hull_finds_the_hole_of_a_ring():
    ring = trimesh.creation.torus(0.65, 0.22, major_sections=40, minor_sections=16)
    vertices, faces = jnp.asarray(ring.vertices, jnp.float32), jnp.asarray(ring.faces)
    cameras = _cameras()
    mask_of = jax.jit(lambda camera: rasterize_mesh(vertices, faces, camera, antialias=False).mask)
    hull = visual_hull([mask_of(camera) for camera in cameras], cameras, _BOX, resolution=40)
    assert connectivity.euler_characteristic(np.asarray(hull.faces)) == 0


def test_soft_masks_move_the_surface_continuously_and_the_least_view_counts():
    cameras = _cameras(count=3)
    points = jnp.asarray(np.random.default_rng(1).uniform(-0.3, 0.3, (200, 3)), jnp.float32)
    levels = [0.8, 0.3, 0.6]
    masks = [np.full((_SIZE, _SIZE), level, np.float32) for level in levels]
    np.testing.assert_allclose(carve(points, masks, cameras), 0.3, atol=1e-6)
    ramp = np.broadcast_to((np.arange(_SIZE) + 0.5) / _SIZE, (_SIZE, _SIZE)).astype(np.float32)
    pixels, _ = project(cameras[0], points)
    np.testing.assert_allclose(carve(points, [ramp], cameras[:1]), pixels[:, 0] / _SIZE, atol=1e-5)


def test_what_a_view_does_not_show_is_carved_or_left():
    camera = _cameras(count=1)[0]
    behind = -3.0 * camera.camera_from_world[2, :3] * 2
    beside = jnp.asarray([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]], jnp.float32)
    points = jnp.concatenate([beside, behind[None]])
    mask = [np.ones((_SIZE, _SIZE), np.float32)]
    assert np.asarray(carve(points, mask, [camera])).tolist() == [1.0, 0.0, 0.0]
    assert np.asarray(carve(points, mask, [camera], outside="keep")).tolist() == [1.0, 1.0, 1.0]


def test_impossible_input_is_said_in_one_line():
    cameras = _cameras(count=2)
    empty = [np.zeros((_SIZE, _SIZE), np.float32)] * 2
    with pytest.raises(ValueError, match="left nothing"):
        visual_hull(empty, cameras, _BOX, resolution=8)
    with pytest.raises(ValueError, match="one camera for each"):
        carve(jnp.zeros((1, 3)), empty[:1], cameras)
    with pytest.raises(ValueError, match="size"):
        carve(jnp.zeros((1, 3)), [np.zeros((4, 4), np.float32)] * 2, cameras)
    with pytest.raises(ValueError, match="level"):
        visual_hull(empty, cameras, _BOX, level=1.0)
