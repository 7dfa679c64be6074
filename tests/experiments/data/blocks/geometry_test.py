"""Exact geometry against formulas, against counting, and one way of getting it against another."""

import jax
import numpy as np
import pytest

from experiments.data import blockworld
from experiments.data.blocks import geometry, objects
from experiments.data.blocks.descriptions import COLORS, FAMILIES, parse
from experiments.data.blocks.solids import Assembly
from renderers.meshes import connectivity
from renderers.meshes.textures import linear_from_srgb

_RESOLUTION = 48


def built(text, seed=0):
    return objects.build(parse(text), np.random.default_rng(seed))


def two_balls(distance=0.2, radii=(0.2, 0.15)):
    """Balls that overlap along x."""
    one = vars(built("a red sphere"))
    rows = {name: np.concatenate([leaf, leaf]) for name, leaf in one.items()}
    rows["centers"] = np.array([[0, 0, 0], [distance, 0, 0]], np.float32)
    rows["half_sizes"] = np.repeat(np.array(radii, np.float32)[:, None], 3, 1)
    rows["corner_radii"] = rows["edge_radii"] = np.array(radii, np.float32)
    rows["colors"] = np.array([COLORS["red"], COLORS["blue"]], np.float32)
    return Assembly(**rows)


def ball_volume(r):
    return 4 / 3 * np.pi * r**3


def formula(shape, half, edge):
    """Volumes; of what has rounded edges by Steiner's formula for what is within `edge` of a smaller solid."""
    a, h = half[0], half[1]
    if shape == "sphere":
        return ball_volume(a)
    if shape == "box":
        x, y, z = 2 * (half - edge)
        return x * y * z + 2 * edge * (x * y + y * z + z * x) + np.pi * edge**2 * (x + y + z) + ball_volume(edge)
    if shape == "cylinder":
        r, tall = a - edge, 2 * (h - edge)
        curvature = np.pi * (tall + np.pi * r)
        return np.pi * r**2 * tall + edge * 2 * np.pi * r * (tall + r) + edge**2 * curvature + ball_volume(edge)
    if shape == "capsule":
        return np.pi * a**2 * 2 * (h - a) + ball_volume(a)
    if shape == "torus":
        return 2 * np.pi**2 * (a - h) * h**2
    return (np.pi * a**2 if shape == "cone" else 4 * a**2) * 2 * h / 3


@pytest.mark.parametrize("shape", ["sphere", "box", "cylinder", "capsule", "torus", "cone", "pyramid"])
def test_volumes_are_the_formulas(shape):
    assembly = built(f"a red {shape}")
    want = formula(shape, assembly.half_sizes[0].astype(np.float64), float(assembly.edge_radii[0]))
    # rounded rims take a little from what narrows
    assert geometry.volume(assembly, _RESOLUTION) == pytest.approx(
        want, rel=0.01 if shape in ("cone", "pyramid") else 0.006
    )


def test_points_on_a_sphere_are_uniform():
    assembly = built("a red sphere")
    radius = float(assembly.half_sizes[0, 0])
    count = 6000
    points, normals, colors = geometry.surface_points(assembly, count, np.random.default_rng(0))
    assert points.shape == (count, 3) and points.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), radius, atol=1e-6)
    np.testing.assert_allclose(normals, points / radius, atol=1e-6)
    np.testing.assert_allclose(colors, np.broadcast_to(COLORS["red"], (count, 3)), atol=1e-7)
    # A coordinate of a uniform point of a sphere is uniform (Archimedes)
    for axis in range(3):
        heights = np.sort(points[:, axis] / radius)
        gap = np.abs(heights - np.linspace(-1, 1, count)).max() / 2
        assert gap < 1.63 / np.sqrt(count) * 1.25  # Kolmogorov, a hundredth; crossings of one line are not independent


def test_sides_of_a_box_get_points_by_their_area():
    assembly = built("a flat red box", seed=5)
    count = 8000
    points, normals, _ = geometry.surface_points(assembly, count, np.random.default_rng(1))
    half, edge = assembly.half_sizes[0].astype(np.float64), float(assembly.edge_radii[0])
    x, y, z = 2 * (half - edge)
    area = 2 * (x * y + y * z + z * x) + np.pi * 2 * edge * (x + y + z) + 4 * np.pi * edge**2
    for axis, side in enumerate((y * z, z * x, x * y)):
        for sign in (-1, 1):
            share = np.mean(sign * normals[:, axis] > 1 - 1e-9)
            assert share == pytest.approx(side / area, abs=4.5 * np.sqrt(side / area / count))
    assert geometry.surface_area(assembly, 20000, np.random.default_rng(2)) == pytest.approx(area, rel=0.05)


def test_hidden_surfaces_get_no_points():
    """Two balls that overlap show caps: each has the area 2 pi r (r + distance of its middle from the cut)."""
    balls = two_balls()
    count = 6000
    points, _, colors = geometry.surface_points(balls, count, np.random.default_rng(3))
    cut = (0.2**2 + 0.2**2 - 0.15**2) / (2 * 0.2)
    caps = 2 * np.pi * np.array([0.2 * (0.2 + cut), 0.15 * (0.15 + 0.2 - cut)])
    red = np.abs(colors - COLORS["red"]).max(axis=1) < 1e-6
    assert red.mean() == pytest.approx(caps[0] / caps.sum(), abs=0.03)
    assert np.all(points[red, 0] < cut + 1e-9) and np.all(points[~red, 0] > cut - 1e-9)
    parts = geometry.signed_distances(balls, points)
    assert np.abs(parts.min(axis=1)).max() < 1e-9
    assert geometry.surface_area(balls, 20000, np.random.default_rng(4)) == pytest.approx(caps.sum(), rel=0.05)


def test_inside_is_inside():
    balls = two_balls()
    points = np.random.default_rng(0).uniform(-0.4, 0.5, (5000, 3))
    want = np.min(
        [np.linalg.norm(points - c, axis=1) - r for c, r in zip(balls.centers, (0.2, 0.15), strict=True)], axis=0
    )
    np.testing.assert_array_equal(geometry.inside(balls, points)[np.abs(want) > 1e-5], (want < 0)[np.abs(want) > 1e-5])
    assert geometry.inside(balls, np.zeros((0, 3))).shape == (0,)


def check_mesh(assembly, resolution, rng):
    mesh = geometry.mesh(assembly, resolution)
    faces, vertices = np.asarray(mesh.faces), np.asarray(mesh.vertices, np.float64)
    assert connectivity.is_watertight(faces)
    spacing = np.ptp(geometry.bounds(assembly), axis=0).max() / resolution
    off = np.abs(geometry.signed_distances(assembly, vertices).min(axis=1))
    assert np.quantile(off, 0.99) < 1e-5 and off.max() < spacing
    box = geometry.bounds(assembly)
    assert np.all(vertices.min(axis=0) > box[0] - 1e-4) and np.all(vertices.max(axis=0) < box[1] + 1e-4)
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    cross = np.cross(b - a, c - a)
    areas = 0.5 * np.linalg.norm(cross, axis=1)
    assert areas.sum() == pytest.approx(geometry.surface_area(assembly, 20000, rng), rel=0.05)
    cosine = np.sum(cross * np.asarray(mesh.normals)[faces[:, 0]], axis=1) / np.maximum(2 * areas, 1e-20)
    assert np.sum(areas[cosine > 0.9]) > 0.85 * areas.sum()
    palette = np.asarray(linear_from_srgb(jax.numpy.array(list(COLORS.values()))))
    assert np.abs(np.asarray(mesh.vertex_colors)[:, None] - palette).max(axis=2).min(axis=1).max() < 1e-6
    return faces


def test_meshes_are_watertight_and_on_the_surface():
    rng = np.random.default_rng(0)
    assert connectivity.euler_characteristic(check_mesh(built("a red torus"), _RESOLUTION, rng)) == 0
    assert connectivity.euler_characteristic(check_mesh(two_balls(), _RESOLUTION, rng)) == 2
    with pytest.raises(ValueError, match="8 to 512"):
        geometry.mesh(two_balls(), 4)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_meshes_of_families(family):
    check_mesh(built(f"a red {family}"), 160, np.random.default_rng(0))


@pytest.mark.slow
def test_volume_is_what_counting_finds():
    """Of families, by random points of their boxes; and every distance is a bound of the way to the surface."""
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        assembly = built(f"a red {family}")
        low, high = geometry.bounds(assembly)
        points = rng.uniform(low, high, (40000, 3))
        share = geometry.inside(assembly, points).mean()
        counted = share * np.prod(high - low)
        error = np.sqrt((1 - share) / share / len(points))
        assert geometry.volume(assembly, 192) == pytest.approx(counted, rel=4 * error + 0.01)


@pytest.mark.slow
def test_no_sphere_of_the_distance_reaches_the_surface():
    """A step of |d| over the largest slope never passes a surface point, for all kinds of objects."""
    from scipy.spatial import KDTree

    rng = np.random.default_rng(1)
    for index in range(20):
        assembly = blockworld.item(0, "train", index).assembly
        surface, _, _ = geometry.surface_points(assembly, 20000, rng)
        points = rng.uniform(-0.6, 0.6, (2000, 3))
        way, _ = KDTree(surface).query(points)
        slope = float(assembly.tapers.max())
        steepest = np.sqrt(1 + slope / np.hypot(1, slope))
        assert np.all(np.abs(geometry.signed_distances(assembly, points).min(axis=1)) <= steepest * way + 1e-9)


def test_host_functions_leave_the_precision_of_others_alone():
    geometry.inside(two_balls(), np.zeros((3, 3)))
    assert jax.numpy.asarray(1.5).dtype == np.float32
