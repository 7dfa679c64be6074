"""Tile lists of the host: every pair that matters is listed, few that do not, in the order of depth."""

import numpy as np
import pytest

from renderers.kernels.composite.cpu_tiles import bin_tiles, depth_order
from tests.renderers.kernels.composite import brute_force, scenes
from tests.renderers.kernels.tiling_test import _listed

TILE = 16


def _bin(scene, size):
    rows, columns = -(-size[0] // TILE), -(-size[1] // TILE)
    arrays = (scene[name] for name in ("means2d", "conics", "opacities", "extents", "depths"))
    offsets, ids = bin_tiles(*arrays, rows, columns)
    return [ids[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def _needed(scene, size):
    """By brute force in float64: tiles of each Gaussian that hold a pixel centre with alpha >= 1/255, padding
    included.
    """
    rows, columns = -(-size[0] // TILE), -(-size[1] // TILE)
    y, x = np.meshgrid(np.arange(rows * TILE) + 0.5, np.arange(columns * TILE) + 0.5, indexing="ij")
    arrays = {name: array.astype(np.float64) for name, array in scene.items()}
    needed = []
    for i in range(len(scene["depths"])):
        _, drawn, _ = brute_force.alpha_before_clamp(arrays, i, x, y)
        in_tile = drawn.reshape(rows, TILE, columns, TILE).any((1, 3)).ravel()
        needed.append(set(np.flatnonzero(in_tile)) if arrays["extents"][i, 0] > 0 else set())
    return needed


def _adversarial(kind, seed, n=150, size=(90, 140)):
    """Ellipses that graze tiles: needles at all angles, huge discs, specks, centres on tile borders or far outside."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-0.2, 1.2, (n, 2)) * np.asarray(size)[::-1]
    scales = np.exp(rng.normal(1.0, 1.0, (n, 2)))
    angles = rng.uniform(0, np.pi, n)
    opacities = 1 / (1 + np.exp(-rng.normal(0, 3, n)))
    if kind == "needles":
        scales[:, 0], scales[:, 1] = rng.uniform(10, 300, n), rng.uniform(0.0, 0.5, n)
        angles[: n // 3] = rng.choice([0, np.pi / 2, np.pi / 4, 1e-3, np.pi / 2 - 1e-3], n // 3)
    elif kind == "huge":
        scales = np.exp(rng.uniform(3, 12, (n, 2)))
        means *= rng.choice([1.0, 30.0], (n, 1))
        opacities = rng.uniform(0.004, 0.02, n)
    elif kind == "specks":
        scales[:] = 1e-6
        means = np.round(means / 8) * 8 + rng.choice([0, 0.5, 1e-3, -1e-3], (n, 2))
    elif kind == "borders":
        means = np.round(means / TILE) * TILE + rng.choice([0.0, 0.5, -0.5], (n, 2))
    return scenes.scene_of(
        means2d=means,
        scales=scales,
        angles=angles,
        opacities=opacities,
        features=np.zeros((n, 1)),
        depths=rng.choice([-3.0, -1.5, -0.0, 0.0, 0.5, 2.0], n),
    )


@pytest.mark.parametrize("kind", ["mixed", "needles", "huge", "specks", "borders"])
@pytest.mark.parametrize("seed", range(3))
def test_lists_every_pair_that_is_drawn_and_no_pair_outside_the_box(kind, seed):
    size = (90, 140)
    scene = _adversarial(kind, seed)
    lists = _bin(scene, size)
    # The box lists are made in float64 here: the host's slack of 0.01 pixel may reach one tile further.
    slack = np.where(scene["extents"] > 0, scene["extents"].astype(np.float64) + 0.0101, 0)
    boxes = _listed(scene["means2d"].astype(np.float64), slack, scene["depths"], size)
    listed = {(i, tile) for tile, ids in enumerate(lists) for i in ids}
    needed = {(i, tile) for i, tiles in enumerate(_needed(scene, size)) for tile in tiles}
    assert needed - listed == set(), "drawn somewhere but not listed"
    assert listed - {(i, tile) for tile, ids in enumerate(boxes) for i in ids} == set()
    assert len(needed) > 100
    for ids, box in zip(lists, boxes, strict=True):
        assert ids == [i for i in box if i in set(ids)], "near to far, equal depths in the order given"
    if kind == "needles":
        assert len(listed) < 0.5 * sum(map(len, boxes)), "the ellipse test is what needles need"
    assert len(listed) < 1.6 * len(needed) + 50


def test_depth_order_is_a_stable_sort_of_the_visible():
    rng = np.random.default_rng(0)
    depths = np.concatenate(
        [rng.normal(0, 100, 500), rng.choice([-0.0, 0.0, 1.5, -1.5, 1e-40, -1e-40, 3e38, -3e38], 500)]
    )
    depths = rng.permutation(depths).astype(np.float32)
    extents = np.where(rng.uniform(size=(1000, 1)) < 0.3, 0, np.ones((1000, 2))).astype(np.float32)
    visible = np.flatnonzero(extents[:, 0])
    expected = visible[np.argsort(depths[visible], kind="stable")]
    np.testing.assert_array_equal(depth_order(depths, extents), expected)


def test_nothing_visible_gives_empty_lists():
    scene = scenes.random_scene(n=5)
    scene["extents"][:] = 0
    assert _bin(scene, (40, 40)) == [[]] * 9
