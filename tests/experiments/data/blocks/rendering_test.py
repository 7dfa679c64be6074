"""Pictures of the block world against what a pinhole camera sees of a sphere, and where things stand in them."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial

from experiments.data import blockworld
from experiments.data.blocks import objects, rendering, solids
from experiments.data.blocks.descriptions import COLORS, parse
from experiments.data.blocks.rendering import DEPTH_RANGE, DISTANCE, ELEVATION

_SIZE = 48
_ring = jax.jit(rendering.render_ring, static_argnames=("views", "size"))


@functools.cache
def ring(text, azimuth=0.0, elevation=ELEVATION, seed=0):
    assembly = objects.build(parse(text), np.random.default_rng(seed))
    return np.asarray(_ring(solids.padded(assembly, 2), azimuth, elevation, size=_SIZE)), assembly


def share_of(view, color):
    """Coverage-weighted mask of what has a colour, from unlit channels."""
    coverage = 0.5 * (view[..., 7] + 1)
    shown = 0.5 * (view[..., :3] + coverage[..., None]) / np.maximum(coverage, 1e-3)[..., None]
    return np.where(np.abs(shown - COLORS[color]).max(-1) < 0.1, coverage, 0.0)


def column(mask):
    return (mask.sum(0) * (np.arange(mask.shape[1]) + 0.5)).sum() / mask.sum()


def row(mask):
    return column(mask.T)


def test_a_sphere_is_seen_as_the_pinhole_sees_it():
    views, assembly = ring("a large red sphere")
    radius = float(assembly.half_sizes[0, 0])
    focal = 0.5 * _SIZE / math.tan(math.radians(20.0))
    # The tangent cone cuts a circle out of the picture; what comes within 1 mm of the surface counts as seen
    least, most = (math.pi * (focal * math.tan(math.asin(r / DISTANCE))) ** 2 for r in (radius, radius + 0.001))
    for view in views:
        coverage = 0.5 * (view[..., 7] + 1)
        assert 0.995 * least < coverage.sum() < 1.005 * most
    # normals and depth of every full pixel: where the ray through its middle meets the sphere
    middle = (np.arange(_SIZE) + 0.5 - _SIZE / 2) / focal
    x, y = np.meshgrid(middle, middle)
    rays = np.stack([x, y, np.ones_like(x)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    along = DISTANCE * rays[..., 2]
    hit = along**2 - DISTANCE**2 + radius**2
    inner = hit > 0.1 * radius**2  # away from the outline, where depth and normal change within a pixel
    points = rays * (along - np.sqrt(np.maximum(hit, 0)))[..., None]
    normals = (points - [0, 0, DISTANCE]) / radius
    for view in views:
        np.testing.assert_allclose(view[inner][:, 3:6], normals[inner], atol=0.02)
        nearness = (DISTANCE - points[..., 2]) / DEPTH_RANGE
        np.testing.assert_allclose(view[inner][:, 6], nearness[inner], atol=0.01)
        colors = np.broadcast_to(2 * np.array(COLORS["red"]) - 1, (inner.sum(), 3))
        np.testing.assert_allclose(view[inner][:, :3], colors, atol=1e-5)
    assert views[0, 0, 0].tolist() == [0, 0, 0, 0, 0, 0, -1, -1]  # the background
    assert views[0, _SIZE // 2, _SIZE // 2, 6] == pytest.approx(radius / DEPTH_RANGE, abs=5e-3)


def test_the_four_views_are_front_right_back_and_left():
    views, _ = ring("a red sphere left of a blue sphere")
    front, right, back, left = ((share_of(view, "red"), share_of(view, "blue")) for view in views)
    assert column(front[0]) < column(front[1])
    assert column(back[0]) > column(back[1])
    # who stands on the right hides the other from there
    assert right[1].sum() > 1.3 * right[0].sum() and left[0].sum() > 1.3 * left[1].sum()
    assert column(right[1]) == pytest.approx(_SIZE / 2, abs=0.5)


def test_in_front_is_nearer_and_lower_in_the_picture():
    views, _ = ring("a red sphere in front of a blue sphere")
    red, blue = share_of(views[0], "red"), share_of(views[0], "blue")
    nearness = [np.median(views[0][..., 6][mask > 0.9]) for mask in (red, blue)]
    assert nearness[0] > nearness[1] + 0.3
    assert row(red) > row(blue)
    # seen from the right, what is in front is on the left hand
    assert column(share_of(views[1], "red")) < column(share_of(views[1], "blue"))


def test_turning_the_camera_is_turning_the_ring():
    still, _ = ring("a red box left of a blue box")
    turned, _ = ring("a red box left of a blue box", azimuth=math.pi / 2)
    assert np.abs(np.roll(still, -1, axis=0) - turned).mean() < 2e-3


def test_a_box_has_its_three_normals():
    views, _ = ring("a green box", elevation=0.0)
    full = views[0][..., 7] > 0.99
    ahead = np.median(views[0][full][:, 3:6], axis=0)
    np.testing.assert_allclose(ahead, [0, 0, -1], atol=1e-3)  # the front looks at the camera
    above, _ = ring("a green box")
    up = above[0][above[0][..., 7] > 0.99][:, 3:6]
    top = up[up[:, 1] < -0.8]
    want = [0, -math.cos(ELEVATION), -math.sin(ELEVATION)]
    np.testing.assert_allclose(np.median(top, axis=0), want, atol=1e-3)


def test_a_flat_side_is_seen_whole_where_rays_skim_it():
    """The outline of a slab just below the cameras' height is the convex hull of its corners' projections."""
    half = np.array([0.44, 0.03, 0.44])
    center = np.array([0.0, 0.31, 0.0])
    slab = dataclasses.replace(
        objects.build(parse("a red box"), np.random.default_rng(0)),
        centers=center[None].astype(np.float32),
        half_sizes=half[None].astype(np.float32),
        corner_radii=np.full(1, 1e-4, np.float32),
        edge_radii=np.full(1, 1e-4, np.float32),
    )
    camera = jax.tree.map(lambda leaf: leaf[0], rendering.ring_cameras(0.0, ELEVATION, views=4, size=_SIZE))
    corners = center + half * (2.0 * np.array(list(np.ndindex(2, 2, 2))) - 1.0)
    pose = np.asarray(camera.camera_from_world, np.float64)
    seen = corners @ pose[:3, :3].T + pose[:3, 3]
    pixels = seen[:, :2] / seen[:, 2:] * np.asarray(camera.focal, np.float64)
    want = spatial.ConvexHull(pixels).volume  # of a polygon: its area
    coverage = jax.jit(lambda: rendering.render(slab, camera, supersampling=8).coverage)()
    assert float(coverage.sum()) == pytest.approx(want, rel=0.015)


def test_lit_is_lamberts_law():
    color, coverage = np.array([0.8, 0.4, 0.2]), 0.5
    normal = np.array([0.0, 0.6, -0.8])
    pixel = np.concatenate([(2 * color - 1) * coverage, normal * coverage, [0.0], [2 * coverage - 1]]).astype(
        np.float32
    )
    light = np.array([0.0, 0.0, -1.0], np.float32)
    for ambient in (0.0, 0.4, 1.0):
        shade = ambient + (1 - ambient) * 0.8
        got = rendering.lit(jnp.asarray(pixel), jnp.asarray(light), ambient)
        np.testing.assert_allclose(got, (2 * color * shade - 1) * coverage, atol=1e-6)
    behind = rendering.lit(jnp.asarray(pixel), jnp.asarray(-light), 0.25)
    np.testing.assert_allclose(behind, (2 * color * 0.25 - 1) * coverage, atol=1e-6)
    empty = jnp.asarray([0, 0, 0, 0, 0, 0, -1, -1], jnp.float32)
    np.testing.assert_array_equal(rendering.lit(empty, jnp.asarray(light), 0.4), np.zeros(3))


def test_a_share_of_the_objects_is_in_one_light_each():
    """White balls seen twice, as discs of normals: shades obey Lambert's law with 0.3 to 0.9 ambient, views agree."""
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, 9), np.linspace(-0.7, 0.7, 9))
    normals = np.stack([x, y, -np.sqrt(1 - x**2 - y**2)], -1)
    ones = np.ones((9, 9, 1))
    pixels = np.concatenate([ones, ones, ones, normals, 0 * ones, ones], -1).astype(np.float32)
    objects = np.tile(pixels, (400, 2, 1, 1, 1))
    draw = jax.jit(rendering.in_some_light)
    shades = 0.5 * (np.asarray(draw(jax.random.key(0), objects, 0.25), np.float64)[..., 0] + 1)
    np.testing.assert_array_equal(shades[:, 0], shades[:, 1])
    in_light = (shades < 1 - 1e-4).any(axis=(1, 2, 3))
    assert 0.2 < in_light.mean() < 0.3
    assert shades.min() >= 0.3 - 1e-6 and shades.max() <= 1 + 1e-6
    for shade in shades[in_light, 0]:  # affine in the normal where the light falls, whatever the light
        falls = shade > shade.min() + 1e-4
        basis = np.concatenate([normals, ones], -1)[falls]
        if len(basis) > 40:
            fitted = basis @ np.linalg.lstsq(basis, shade[falls], rcond=None)[0]
            np.testing.assert_allclose(fitted, shade[falls], atol=1e-4)
    np.testing.assert_array_equal(draw(jax.random.key(0), objects, 0.0), objects[..., :3])
    single = draw(jax.random.key(0), objects[:, 0], 0.25)  # of one view each: the same objects, the same light
    np.testing.assert_allclose(0.5 * (single[..., 0] + 1), shades[:, 0], atol=1e-6)


def test_bytes_lose_little_and_keep_the_background():
    values = np.linspace(-1, 1, 1001, dtype=np.float32)
    stored = rendering.to_bytes(values)
    assert stored.dtype == np.uint8
    assert np.abs(np.asarray(rendering.from_bytes(stored)) - values).max() < 0.00401
    for exact in (-1.0, 0.0, 1.0):
        assert float(rendering.from_bytes(rendering.to_bytes(np.float32(exact)))) == exact


def test_pictures_are_those_that_models_were_trained_on():
    """Sums of each channel over the rings of a few objects of at most two solids."""
    drawn = [blockworld.item(0, "train", index).assembly for index in range(12)]
    drawn = [assembly for assembly in drawn if len(assembly.centers) <= 2][:3]
    sums = [np.asarray(_ring(solids.padded(a, 2), 0.3, 0.2, size=_SIZE)).mean(axis=(0, 1, 2)) for a in drawn]
    np.testing.assert_allclose(sums, MEANS, atol=2e-4)


MEANS = [
    [-0.01496, -0.00771, -0.04245, 0.0009, -0.0146, -0.03845, -0.92536, -0.87809],
    [0.11156, 0.11156, 0.11156, 0.00465, 0.01001, -0.09205, -0.84986, -0.75749],
    [-0.06581, 0.02078, -0.05542, -0.0, 0.00871, -0.06525, -0.90004, -0.82682],
]
