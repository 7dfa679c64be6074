"""Tile lists in plain XLA against a listing by loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderers.kernels import tiling

TILE = 16


@functools.partial(jax.jit, static_argnums=(3, 4))
def _bin(means, extents, depths, size, capacity):
    return tiling.bin_gaussians(means, extents, depths, size, capacity)


def _scene(n=60, size=(70, 100), seed=0):
    rng = np.random.default_rng(seed)
    means = rng.uniform(-20, 20, (n, 2)) + rng.uniform(0, 1, (n, 2)) * np.asarray(size)[::-1]
    extents = np.exp(rng.normal(2, 1, (n, 2)))
    extents[rng.uniform(size=n) < 0.2] = 0
    depths = rng.choice(np.round(rng.uniform(-3, 9, n // 2), 2), n)  # many ties, some negative
    means[:3], extents[:3] = [[16.0, 32.0], [0.0, 0.0], [200.0, 8.0]], [[16.0, 16.0], [0.5, 0.5], [5.0, 5.0]]
    return (np.asarray(a, np.float32) for a in (means, extents, depths))


def _listed(means, extents, depths, size):
    """Gaussians of each tile, row-major, near to far, by the definition: the closed box meets the half-open tile."""
    rows, columns = -(-size[0] // TILE), -(-size[1] // TILE)
    order = np.argsort(depths, kind="stable")
    lists = []
    for row in range(rows):
        for column in range(columns):
            low, high = np.asarray([column, row]) * TILE, np.asarray([column + 1, row + 1]) * TILE
            meets = (means + extents >= low).all(1) & (means - extents < high).all(1) & (extents > 0).all(1)
            lists.append([int(i) for i in order if meets[i]])
    return lists


def _runs(lists):
    ids, offsets = np.asarray(lists.ids), np.asarray(lists.offsets)
    return [ids[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_lists_are_those_of_the_definition(seed):
    size = (70, 100)
    means, extents, depths = _scene(seed=seed)
    expected = _listed(means, extents, depths, size)
    total = sum(map(len, expected))
    for capacity in (total, 2048):
        lists = _bin(means, extents, depths, size, capacity)
        assert _runs(lists) == expected and lists.overflow == 0
        assert not np.asarray(lists.ids)[total:].any()
    assert int(tiling.count_intersections(jnp.asarray(means), jnp.asarray(extents), size)) == total


def test_many_tiles_and_gaussians_take_the_key_of_two_words():
    """513 x 512 tiles (19 bits and one beyond) and 8,193 Gaussians (14 bits) do not fit one word of 32."""
    n, size = 8193, (8208, 8192)
    assert (n - 1).bit_length() + (513 * 512).bit_length() > 32
    rng = np.random.default_rng(0)
    means = rng.uniform(0, 1, (n, 2)) * np.asarray(size)[::-1]
    extents = rng.uniform(1, 20, (n, 2))
    depths = rng.integers(0, 50, n)
    means, extents, depths = (np.asarray(a, np.float32) for a in (means, extents, depths))
    lists = _bin(means, extents, depths, size, 1 << 17)
    ids, offsets = np.asarray(lists.ids), np.asarray(lists.offsets)
    assert lists.overflow == 0 and offsets.shape == (513 * 512 + 1,)
    order = np.argsort(depths, kind="stable")
    first, last = (
        np.clip(np.floor(v / TILE), [0, 0], [511, 512]).astype(int) for v in (means - extents, means + extents)
    )
    found = {}
    for i in order:
        for row in range(first[i, 1], last[i, 1] + 1):
            for column in range(first[i, 0], last[i, 0] + 1):
                found.setdefault(row * 512 + column, []).append(int(i))
    assert offsets[-1] == sum(map(len, found.values()))
    for tile, expected in found.items():
        assert ids[offsets[tile] : offsets[tile + 1]].tolist() == expected


def test_what_does_not_fit_is_counted_exactly_and_the_nearest_stay():
    size = (70, 100)
    means, extents, depths = _scene()
    expected = _listed(means, extents, depths, size)
    total = sum(map(len, expected))
    whole = _bin(means, extents, depths, size, total)
    ranks = np.argsort(np.argsort(depths, kind="stable"))
    for capacity in (1, 17, total - 1):
        lists = _bin(means, extents, depths, size, capacity)
        assert lists.overflow == total - capacity
        kept = _runs(lists)
        assert sum(map(len, kept)) == capacity
        for short, full in zip(kept, expected, strict=True):
            assert short == full[: len(short)], "a tile keeps the front of its list"
        dropped = [i for short, full in zip(kept, expected, strict=True) for i in full[len(short) :]]
        shown = [i for short in kept for i in short]
        assert max(ranks[shown]) <= min(ranks[dropped]), "the farthest Gaussians go first"
    assert whole.overflow == 0


@pytest.mark.parametrize("capacity", [1024, 90, 17])
def test_places_number_the_intersections_gaussian_by_gaussian(capacity):
    """Each intersection of the lists has a number of its own, within its Gaussian's run, tiles in row-major order."""
    size = (70, 100)
    means, extents, depths = _scene()
    lists = _bin(means, extents, depths, size, capacity)
    places, runs = (np.asarray(a) for a in jax.jit(tiling.places)(lists))
    seen = {}
    for tile, ids in enumerate(_runs(lists)):
        row, column = divmod(tile, -(-size[1] // TILE))
        for i in ids:
            number = places[i, 0] + places[i, 1] * row + column
            assert runs[i, 0] <= number < runs[i, 1]
            seen.setdefault(i, []).append(int(number))
    total = int(lists.offsets[-1])
    assert sorted(sum(seen.values(), [])) == list(range(total)), "no two share a place, and none is left out"
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert sum(last - first for first, last in runs) == total


def test_nothing_visible_gives_empty_lists():
    zeros = np.zeros((3, 2), np.float32)
    lists = _bin(zeros, zeros, zeros[:, 0], (20, 20), 8)
    assert not np.asarray(lists.offsets).any() and lists.overflow == 0


def test_not_differentiated_but_harmless_to_differentiate_around():
    means, extents, depths = (jnp.asarray(a) for a in _scene(10))
    gradient = jax.grad(lambda m: _bin(jax.lax.stop_gradient(m), extents, depths, (32, 32), 64).overflow + m.sum())(
        means
    )
    np.testing.assert_array_equal(gradient, 1.0)


@given(st.integers(0, 10**8))
def test_next_capacity_is_the_smallest_power_of_two(count):
    capacity = tiling.next_capacity(count)
    assert capacity >= max(count, 1024) and capacity & (capacity - 1) == 0
    assert capacity == 1024 or capacity // 2 < count


@given(st.integers(1, 10**6), st.integers(1, 4000), st.integers(1, 4000))
def test_default_capacity_is_bounded_by_what_there_can_be(n, height, width):
    capacity = tiling.default_capacity(n, (height, width))
    tiles = -(-height // TILE) * -(-width // TILE)
    assert capacity >= min(16 * n, n * tiles)
    assert capacity <= max(1024, 2 * min(16 * n, n * tiles))
