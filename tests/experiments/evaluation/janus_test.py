"""Faces are counted: one of a snowman, two of one with a second nose behind."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.data.blocks import objects
from experiments.data.blocks.descriptions import COLORS, parse
from experiments.evaluation.janus import exact_ring, janus, regions

_TEXT = "a white snowman with an orange nose"
_BEHIND = np.diag([-1.0, 1.0, -1.0]).astype(np.float32)  # half a turn about the vertical


@pytest.fixture(scope="module")
def snowman():
    return objects.build(parse(_TEXT), np.random.default_rng(0))


def with_second_nose(snowman):
    again = jax.tree.map(lambda rows: np.concatenate([rows, rows[3:4]]), snowman)
    centers, turns = again.centers.copy(), again.world_from_solid.copy()
    head = centers[2]
    centers[4], turns[4] = head + _BEHIND @ (centers[4] - head), _BEHIND @ turns[4]
    return dataclasses.replace(again, centers=centers, world_from_solid=turns)


@pytest.mark.slow
def test_a_snowman_has_one_face_and_one_with_two_noses_two(snowman):
    said = parse(_TEXT)
    one = janus(exact_ring(snowman), said, snowman)
    assert one is not None and one.count == 1.0 and 3 <= one.expected < 8
    two = janus(exact_ring(with_second_nose(snowman)), said, snowman)
    assert two is not None and two.count == 2.0
    bare = jax.tree.map(lambda rows: rows[:3], snowman)
    none = janus(exact_ring(bare), said, snowman)
    assert none is not None and none.count == 0.0


@pytest.mark.slow
def test_the_rest_of_the_object_may_have_the_markers_colour():
    """A house's door and roof are of one colour: only doors are counted."""
    text = "a white house with a blue roof"
    house = objects.build(parse(text), np.random.default_rng(1))
    ring = exact_ring(house)
    assert regions(ring, "blue") > 8
    found = janus(ring, parse(text), house)
    assert found is not None and found.count == 1.0 and found.expected == regions(ring, "blue") - 8


def test_regions_hang_together_by_corners_and_specks_do_not_count():
    ring = np.zeros((2, 64, 64, 8), np.float32)
    ring[..., 7] = 1.0
    ring[..., :3] = 2 * np.array(COLORS["white"]) - 1
    orange = 2 * np.array(COLORS["orange"]) - 1
    ring[0, 5:9, 5:9, :3] = ring[0, 9:13, 9:13, :3] = orange  # one
    ring[0, 40:43, 40:43, :3] = orange  # two
    ring[0, 50, 50:53, :3] = orange  # a speck
    ring[1, 20:40, 20:40, :3] = 0.505 * orange  # half covered, and so multiplied
    ring[1, 20:40, 20:40, 7] = 0.01
    ring[1, :5, :5, :3], ring[1, :5, :5, 7] = orange, -1.0  # nothing is there
    assert regions(ring, "orange") == 3 and regions(ring, "blue") == 0 and regions(ring, "white") == 2


@pytest.mark.parametrize(
    "text", ["a red box", "a red chair with blue legs", "a snowman", "a white snowman with a white nose"]
)
def test_what_has_no_marker_of_a_colour_of_its_own_is_left_out(text):
    built = objects.build(parse(text), np.random.default_rng(0))
    assert janus(np.zeros((8, 64, 64, 8), np.float32), parse(text), built) is None
