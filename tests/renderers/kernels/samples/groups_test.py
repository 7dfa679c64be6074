"""Samples by tile, and lists of the tiles that hold some, against plain counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels import tiling
from renderers.kernels.samples import groups, shapes
from tests.renderers.kernels.composite import scenes as lattice
from tests.renderers.kernels.samples import scenes

TILES = 15


def _tile(at):
    return np.where(scenes.inside(at), (at[:, 1] // 16) * 5 + at[:, 0] // 16, TILES)


@pytest.mark.parametrize("width", [1, 8, 64])
def test_each_sample_has_one_place_in_a_group_of_its_tile(width):
    at = scenes.positions()
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(_tile(at), nan=TILES).astype(int)
    drawn = np.random.default_rng(1).random(len(at)) < 0.9
    expected[~drawn] = TILES
    tile = groups.tile_of(jnp.asarray(at), jnp.asarray(drawn), scenes.SIZE)
    np.testing.assert_array_equal(tile, expected)
    grouping, place = groups.sample_groups(jnp.asarray(at), tile, scenes.SIZE, width)
    place, held = np.asarray(place), expected < TILES
    assert grouping.x.shape == (min(len(at), TILES + len(at) // width), width)
    assert len(set(place[held])) == held.sum() and (place[~held] >= grouping.x.size).all()
    np.testing.assert_array_equal(np.asarray(grouping.tiles)[place[held] // width], expected[held])
    np.testing.assert_array_equal(np.stack([grouping.x, grouping.y], -1).reshape(-1, 2)[place[held]], at[held])
    drawn_places = np.flatnonzero(np.asarray(grouping.drawn))
    np.testing.assert_array_equal(drawn_places, np.sort(place[held]))


def test_groups_are_as_wide_as_a_tile_has_samples():
    found = [groups.default_width(count, scenes.SIZE) for count in (1, 14, 15, 29, 30, 15 * 256, 10**6)]
    assert found == [1, 1, 1, 1, 2, 256, 256]


def test_the_bound_on_groups_is_met_by_the_worst_samples():
    """One more than fills its groups in every tile, in as many tiles as there are."""
    width = 4
    corners = np.asarray([(16 * x + 1, 16 * y + 1) for y in range(3) for x in range(5)] * (width + 1), np.float32)
    tile = groups.tile_of(jnp.asarray(corners), jnp.ones(len(corners), bool), scenes.SIZE)
    grouping, place = groups.sample_groups(jnp.asarray(corners), tile, scenes.SIZE, width)
    assert int(np.asarray(grouping.drawn).any(1).sum()) == 2 * TILES <= len(grouping.tiles)
    assert int(jnp.max(place)) < grouping.x.size


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_lists_of_used_tiles_are_those_of_all_tiles_where_used_and_empty_elsewhere(share):
    scene = lattice.degenerate()
    boxes = [jnp.asarray(scene[name]) for name in ("means2d", "extents", "depths")]
    used = np.random.default_rng(2).random(TILES) < share
    everything = tiling.bin_gaussians(*boxes, scenes.SIZE, 8192)
    found = jax.jit(groups.bin_used_tiles, static_argnums=(4, 5))(*boxes, jnp.asarray(used), scenes.SIZE, 8192)
    offsets, all_offsets = np.asarray(found.offsets), np.asarray(everything.offsets)
    count = 0
    for tile in range(TILES):
        ids = np.asarray(found.ids)[offsets[tile] : offsets[tile + 1]]
        expected = np.asarray(everything.ids)[all_offsets[tile] : all_offsets[tile + 1]] if used[tile] else []
        np.testing.assert_array_equal(ids, expected)
        count += len(expected)
    counted = groups.count_intersections(*boxes[:2], jnp.asarray(used), scenes.SIZE)
    assert int(counted) == count == offsets[-1]
    assert share == 0 or count > 100
    short = groups.bin_used_tiles(*boxes, jnp.asarray(used), scenes.SIZE, 64)
    assert int(found.overflow) == 0 and int(short.overflow) == max(0, count - 64)


def test_a_patch_is_binned_at_the_cost_of_its_tiles():
    """A window of 64 x 64 in a full HD image meets 20 to 25 of 8,160 tiles; so much less is sorted and walked."""
    at, size = jnp.asarray(shapes.positions(shapes.PATCH)), shapes.PATCH.scene.size
    used = groups.used_tiles(groups.tile_of(at, jnp.ones(len(at), bool), size), size)
    assert 16 <= int(used.sum()) <= 25
    rng = np.random.default_rng(0)
    means = jnp.asarray(rng.uniform(0, 1, (20_000, 2)) * np.asarray(size)[::-1], jnp.float32)
    extents = jnp.full((20_000, 2), 6.0)
    whole = int(tiling.count_intersections(means, extents, size))
    patch = int(groups.count_intersections(means, extents, used, size))
    assert 0 < patch < whole / 200


def test_shapes_are_what_their_names_say():
    random, patch = (shapes.positions(shapes.SHAPES[name]) for name in ("random_pixels", "patch"))
    assert random.shape == patch.shape == (4096, 2)
    assert (random.max(0) > (1900, 1060)).all() and (random >= 0).all()
    np.testing.assert_array_less(np.ptp(patch, axis=0), (64.01, 64.01))
