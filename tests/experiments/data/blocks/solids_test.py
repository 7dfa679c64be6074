"""Signed distances of the block world's solids against closed forms, each written down independently."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import objects, solids
from experiments.data.blocks.descriptions import SHAPES, parse

_EXACT = ("sphere", "box", "cylinder", "torus", "capsule")


def one(shape, aspect="", seed=0):
    """A single solid and its half sizes, corner and edge radius, in float64."""
    assembly = objects.build(parse(f"a {aspect} red {shape}"), np.random.default_rng(seed))
    half = assembly.half_sizes[0].astype(np.float64)
    return assembly, half, float(assembly.corner_radii[0]), float(assembly.edge_radii[0])


_signed_distance = jax.jit(solids.signed_distance)
_slopes = jax.jit(jax.grad(lambda points, assembly: jnp.sum(solids.signed_distance(assembly, points))))


def distances(assembly, points):
    """Compiled for 8,000 points of objects of one, two or four solids only."""
    count = len(assembly.centers)
    packed = solids.padded(assembly, {1: 1, 2: 2}.get(count, 4))
    filled = np.resize(np.asarray(points, np.float32), (8000, 3))
    return np.asarray(_signed_distance(packed, filled), np.float64)[: len(points)]


def to_rectangle(across, up, width, height):
    """Signed distance in a plane to the rectangle |across| <= width, |up| <= height."""
    a, b = np.abs(across) - width, np.abs(up) - height
    return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0)


def closed_form(shape, points, half, edge):
    x, y, z = points.T
    radius = np.hypot(x, z)
    if shape == "sphere":
        return np.linalg.norm(points, axis=1) - half[0]
    if shape == "box":  # a box with everything within the edge's radius of it
        beyond = np.abs(points) - (half - edge)
        outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
        return outside + np.minimum(beyond.max(axis=1), 0) - edge
    if shape == "cylinder":
        return to_rectangle(radius, y, half[0] - edge, half[1] - edge) - edge
    if shape == "capsule":  # everything within half[0] of a segment
        above = np.maximum(np.abs(y) - (half[1] - half[0]), 0)
        return np.hypot(radius, above) - half[0]
    return np.hypot(radius - (half[0] - half[1]), y) - half[1]  # torus


@pytest.mark.parametrize("shape", _EXACT)
def test_distance_is_the_closed_form(shape):
    rng = np.random.default_rng(3)
    points = rng.uniform(-0.8, 0.8, (4000, 3))
    for aspect in ("", "tall", "flat") if shape in ("box", "cylinder") else ("",):
        assembly, half, corner, edge = one(shape, aspect)
        if shape == "box":
            assert corner == edge
        got, want = distances(assembly, points), closed_form(shape, points, half, edge)
        # Deep inside of rounded solids the distance is a bound: nothing there is nearer than it says
        outside = want > -1e-3 if shape in ("sphere", "capsule", "torus") else want > -0.9 * edge
        np.testing.assert_allclose(got[outside], want[outside], atol=2e-5)
        assert np.all(np.sign(got[~outside]) == np.sign(want[~outside]))
        assert np.all(np.abs(got[~outside]) <= np.abs(want[~outside]) + 2e-5)


@pytest.mark.parametrize("shape", ["cone", "pyramid"])
def test_what_narrows_has_its_slope(shape):
    """Beside the mantle the distance is that to its plane, below the base that to the base; inside is inside."""
    assembly, half, corner, edge = one(shape)
    slope = half[0] / (2 * half[1])
    assert assembly.tapers[0] == pytest.approx(slope)
    rng = np.random.default_rng(4)
    points = rng.uniform(-0.6, 0.6, (8000, 3))
    x, y, z = points.T
    across = np.hypot(x, z) if shape == "cone" else np.maximum(np.abs(x), np.abs(z))
    mantle = (across - half[0] + slope * (y + half[1])) / np.hypot(1, slope)
    got = distances(assembly, points)
    side = (np.abs(y) < half[1] - 0.01) & (mantle > 0)
    if shape == "pyramid":  # not around its four edges, where the distance is that to the edge
        side &= np.minimum(np.abs(x), np.abs(z)) < half[0] - corner
    np.testing.assert_allclose(got[side], mantle[side], atol=5e-5)
    middle = 0.02 if shape == "cone" else corner + 0.02
    below = (y < -half[1]) & (across < half[0] - middle)
    np.testing.assert_allclose(got[below], -half[1] - y[below], atol=5e-5)
    clear = np.maximum(mantle, np.abs(y) - half[1])
    sure = np.abs(clear) > corner * 0.5 + 2e-3 if shape == "pyramid" else np.abs(clear) > 2e-3
    np.testing.assert_array_equal(got[sure] < 0, clear[sure] < 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_lipschitz_and_unit_gradients(shape):
    """No solid's distance grows faster than the way, but above the rim of those that narrow, where two slopes add."""
    assembly, half, _, _ = one(shape)
    slope = float(assembly.tapers[0])
    steepest = np.sqrt(1 + slope / np.hypot(1, slope))
    rng = np.random.default_rng(5)
    here = rng.uniform(-0.7, 0.7, (8000, 3))
    there = here + rng.normal(0, 1, here.shape) * rng.choice([0.003, 0.03, 0.3], (8000, 1))
    ways = np.linalg.norm(here - there, axis=1)
    assert np.all(np.abs(distances(assembly, here) - distances(assembly, there)) <= steepest * ways + 4e-6)
    under = (here[:, 1] < half[1] - 0.02) & (there[:, 1] < half[1] - 0.02)
    apart = np.abs(distances(assembly, here) - distances(assembly, there))[under]
    assert np.all(apart <= ways[under] + 4e-6)
    lengths = np.linalg.norm(np.asarray(_slopes(here.astype(np.float32), assembly)), axis=1)
    outside = distances(assembly, here) > 1e-3
    if slope > 0:  # beyond the ends of what narrows it is a bound
        outside &= np.abs(here[:, 1]) < half[1] - 0.02
    np.testing.assert_allclose(lengths[outside], 1.0, atol=2e-3)


def test_a_shell_is_hollow():
    mug = objects.build(parse("a red mug with a blue handle"), np.random.default_rng(2))
    wall, floor = mug.half_sizes[0], mug.centers[1]
    thick = 2 * float(mug.half_shells[0])
    center = mug.centers[0] + [0, 0.9 * wall[1], 0]  # further from floor and handle than from the wall
    inner = center - [wall[0] - 0.5 * thick, 0, 0]
    points = np.stack([center, inner, floor])
    got = distances(mug, points)
    assert got[0] == pytest.approx(wall[0] - thick, abs=1e-5)  # from the axis to the wall
    assert got[1] == pytest.approx(-0.5 * thick, abs=1e-5)
    assert got[2] < 0


def test_turned_solids_are_turned():
    """The distance of a turned solid is that of the upright one at the point turned back."""
    capsule, _, _, _ = one("capsule")
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    lying = solids.Assembly(**{**vars(capsule), "world_from_solid": turn[None]})
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3))
    np.testing.assert_allclose(distances(lying, points), distances(capsule, points @ turn), atol=1e-6)


def test_padding_changes_nothing_and_stacks():
    small = objects.build(parse("a red sphere"), np.random.default_rng(0))
    large = objects.build(parse("a red snowman"), np.random.default_rng(0))
    stacked = solids.stacked([small, large])
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (100, 3)).astype(np.float32)
    both = jax.jit(jax.vmap(solids.signed_distance, (0, None)))(stacked, points)
    np.testing.assert_allclose(both[0], distances(small, points), atol=1e-6)
    np.testing.assert_allclose(both[1], distances(large, points), atol=1e-6)
    with pytest.raises(ValueError, match="4 solids does not fit into 3"):
        solids.padded(large, 3)


def test_colors_are_those_of_the_nearest_solid():
    pair = objects.build(parse("a red sphere on top of a green box"), np.random.default_rng(0))
    colors = np.asarray(jax.jit(solids.nearest_colors)(pair, pair.centers))
    np.testing.assert_array_equal(colors, pair.colors)
