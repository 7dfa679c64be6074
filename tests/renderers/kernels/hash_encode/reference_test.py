"""The definition of the hash encoding against the paper in scalar Python, laws of interpolation, and differences."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.hash_encode.api import hash_encode
from renderers.kernels.hash_encode.levels import HashLevels, dense_levels, hash_levels
from tests.helpers.gradients import assert_gradients_match

LEVELS = hash_levels(3, 4, 30, 8)


def brute_force(point, table, levels):
    """One point, vertex by vertex, with Python's integers."""
    features, offset = [], 0
    for resolution, size in zip(levels.resolutions, levels.sizes, strict=True):
        level = np.zeros(table.shape[1])
        position = [min(max(x, 0.0), 1.0) * (count - 1) for x, count in zip(point, resolution, strict=True)]
        cell = [min(int(p), count - 2) for p, count in zip(position, resolution, strict=True)]
        for corner in itertools.product((0, 1), repeat=3):
            vertex = [c + side for c, side in zip(cell, corner, strict=True)]
            weight = math.prod(1 - abs(p - v) for p, v in zip(position, vertex, strict=True))
            if math.prod(resolution) <= size:
                row = vertex[0] + resolution[0] * (vertex[1] + resolution[1] * vertex[2])
            else:
                row = (vertex[0] ^ (vertex[1] * 2654435761) ^ (vertex[2] * 805459861)) % 2**32 % size
            level += weight * table[offset + row]
        features.append(level)
        offset += size
    return np.concatenate(features)


def test_the_paper_in_scalar_python():
    rng = np.random.default_rng(0)
    levels = HashLevels((*LEVELS.resolutions, (9, 2, 40)), (*LEVELS.sizes, 256))
    assert levels.dense == (True, False, False, False)
    table = rng.normal(size=(levels.num_rows, 3))
    points = np.concatenate([rng.uniform(-0.2, 1.2, (30, 3)), rng.integers(0, 2, (6, 3))])
    with jax.enable_x64(True):
        found = hash_encode(jnp.asarray(points), jnp.asarray(table), levels, backend="reference")
        np.testing.assert_allclose(found, [brute_force(p, table, levels) for p in points], atol=1e-13)


def test_the_papers_levels():
    """Table 1 and equations 2, 3: from 16 to 2048 (ends met exactly), dense as long as 2^19 rows hold all vertices."""
    levels = hash_levels(16, 16, 2048, 19)
    edges = [resolution[0] for resolution in levels.resolutions]
    assert edges[0] == 16 and edges[-1] == 2048 and edges == sorted(edges)
    assert all(size == min(edge**3, 1 << 19) for edge, size in zip(edges, levels.sizes, strict=True))
    assert hash_levels(3, 16, None, 19, growth=1.5).resolutions == ((16,) * 3, (24,) * 3, (36,) * 3)
    assert levels.first(2).num_rows == levels.offsets[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hash_levels(0), "num_levels >= 1"),
        (lambda: hash_levels(4, 32, 16), "finest_resolution >= 32"),
        (lambda: hash_levels(4, 16, None, growth=0.5), "at least 1, got 0.5"),
        (lambda: dense_levels((1, 4, 4)), "at least 2 vertices"),
        (lambda: HashLevels(((4, 4, 4),), (60,)), "64 rows .dense. or a power of two, got 60"),
        (lambda: dense_levels((2000, 2000, 2000)), "32-bit"),
    ],
)
def test_impossible_levels_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("backend", ["reference", "xla", "cpu"])
def test_a_trilinear_function_in_a_dense_level_is_reproduced(backend):
    """Value and gradient: a + b.x + c xyz is in the span of the trilinear basis."""
    nx, ny, nz = 5, 4, 6
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in (nz, ny, nx)), indexing="ij")
    table = jnp.asarray((1 + 2 * x - 3 * y + 0.5 * z).reshape(-1, 1), jnp.float32)
    levels = dense_levels((nx, ny, nz))
    points = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (40, 3)), jnp.float32)
    found, pull = jax.vjp(lambda points: hash_encode(points, table, levels, backend=backend), points)
    np.testing.assert_allclose(found[:, 0], 1 + points @ jnp.asarray([2.0, -3.0, 0.5]), atol=2e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(found))[0], np.tile([2.0, -3.0, 0.5], (40, 1)), atol=1e-5)


def test_features_are_continuous_across_cells_and_derivatives_are_not():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        table = jnp.asarray(rng.normal(size=(LEVELS.num_rows, 2)))
        at = rng.uniform(0, 1, (50, 3))
        last = LEVELS.resolutions[-1][0] - 1
        at[:, 0] = np.round(at[:, 0] * last).clip(1, last - 1) / last
        before, after = (jnp.asarray(at + np.array([step, 0, 0])) for step in (-1e-9, 1e-9))
        encode, slope = (lambda p: hash_encode(p, table, LEVELS, backend="reference")), np.array([1.0, 0, 0])
        assert np.abs(encode(before) - encode(after)).max() < 1e-6
        sides = [jax.jvp(encode, (p,), (jnp.asarray(np.tile(slope, (50, 1))),))[1] for p in (before, after)]
        assert np.abs(sides[0] - sides[1]).max() > 1


@pytest.mark.slow
def test_vertices_that_share_a_row_add_up():
    """A table of one row is constant: weights sum to one, and its gradient counts every point."""
    levels = HashLevels(((9, 9, 9),), (1,))
    points = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (25, 3)), jnp.float32)
    for backend in ("reference", "xla", "cpu"):
        found, pull = jax.vjp(lambda t, b=backend: hash_encode(points, t, levels, backend=b), jnp.full((1, 2), 3.0))
        np.testing.assert_allclose(found, 3.0, rtol=1e-6)
        np.testing.assert_allclose(pull(jnp.ones_like(found))[0], 25.0, rtol=1e-6)


def test_gradients_are_central_differences_to_the_second_order():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        points, table = jnp.asarray(rng.uniform(0.02, 0.98, (6, 3))), jnp.asarray(rng.normal(size=(LEVELS.num_rows, 2)))
        g, direction = jnp.asarray(rng.normal(size=(6, 6))), jnp.asarray(rng.normal(size=(6, 3)))

        def slope(points, table, g, backend):
            pulled = jax.vjp(lambda p: hash_encode(p, table, LEVELS, backend=backend), points)[1](g)[0]
            return (pulled * direction).sum()

        assert_gradients_match(
            lambda points, table: hash_encode(points, table, LEVELS, backend="xla"), points, table, rtol=1e-5
        )
        for backend in ("reference", "xla"):
            assert_gradients_match(
                lambda points, table, g, b=backend: slope(points, table, g, b), points, table, g, rtol=1e-5, atol=1e-7
            )


def test_closed_levels_are_zero_and_weights_scale_theirs():
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(LEVELS.num_rows, 2)), jnp.float32)
    points = jnp.asarray(rng.uniform(0, 1, (7, 3)), jnp.float32)
    whole = np.asarray(hash_encode(points, table, LEVELS))
    two = hash_encode(points, table, LEVELS, active_levels=2)
    np.testing.assert_array_equal(two[:, :4], whole[:, :4])
    assert not np.asarray(two[:, 4:]).any()
    assert not np.asarray(hash_encode(points, table, LEVELS, active_levels=0)).any()
    weights = jnp.asarray([1.0, 0.5, 0.0])
    found = hash_encode(points, table, LEVELS, level_weights=weights)
    np.testing.assert_allclose(found, whole * np.repeat(np.asarray(weights), 2)[None], rtol=1e-6)
    with pytest.raises(ValueError, match="0..3, got 4"):
        hash_encode(points, table, LEVELS, active_levels=4)
