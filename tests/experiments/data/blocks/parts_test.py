"""Which solid is which part, and which side of an object tells its front."""

import numpy as np
import pytest

from experiments.data import blockworld
from experiments.data.blocks import geometry, objects, parts, rendering, solids
from experiments.data.blocks.descriptions import COLORS, FAMILIES, parse
from renderers.cameras.camera import Camera


def built(text, seed=0):
    return objects.build(parse(text), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a red sphere", (0,)),
        ("a red sphere left of a red box", (0, 1)),
        ("a red box on a red cone on a red sphere", (2, 1, 0)),  # built from the floor, said from the top
        ("a table", (0, 1, 1, 1, 1)),
        ("a mug with a handle", (0, 0, 1)),
        ("a red dog", (0, 1, 1, 0, 0, 0, 0, 0)),
        ("a house", (0, 1, 1)),
    ],
)
def test_solids_belong_to_their_parts(text, want):
    assert parts.part_of_solid(parse(text)) == want


def test_solids_of_a_part_share_its_color():
    """Over all kinds: as many solids as there are, in the colours that were said."""
    for index in range(150):
        item = blockworld.item(0, "train", index)
        of_solid = parts.part_of_solid(item.description)
        assert len(of_solid) == len(item.assembly.centers)
        colors = parts.part_colors(item.description, item.assembly)
        for number, color in zip(of_solid, item.assembly.colors, strict=True):
            np.testing.assert_array_equal(color, np.float32(COLORS[colors[number]]))
        for part, color in zip(item.description.parts, colors, strict=False):
            assert part.color in ("", color)


def test_markers_are_on_their_side():
    assert parts.front_marker(parse("a red sphere")) is None
    assert parts.front_marker(parse("a table")) is None
    for family in FAMILIES:
        marker = parts.front_marker(parse(f"a {family}"))
        if marker is None:
            continue
        toward = np.array([np.sin(marker.azimuth), 0.0, np.cos(marker.azimuth)])
        for seed in range(5):
            assembly = built(f"a {family}", seed)
            ahead = assembly.centers @ toward
            shown = ahead[list(marker.solids)].min()
            others = np.delete(ahead, marker.solids)
            assert shown > np.quantile(others, 0.4)
            assert shown > geometry.bounds(assembly).mean(axis=0) @ toward + 0.05
            assert {parts.part_of_solid(parse(f"a {family}"))[k] for k in marker.solids} == {marker.part}


@pytest.mark.slow
def test_markers_are_seen_from_their_side():
    cameras: Camera = rendering.ring_cameras(0.0, 0.1, views=8, size=24)
    for text in ("a white snowman with an orange nose", "a red house with a blue roof", "a red mug with a blue handle"):
        description = parse(text)
        marker = parts.front_marker(description)
        assert marker is not None
        shares = parts.marker_views(solids.padded(built(text), 4), marker, cameras)
        facing = round(marker.azimuth / (np.pi / 4)) % 8
        assert shares[facing] > 0.01
        assert shares[(facing + 4) % 8] < 0.5 * shares[facing]
        if "mug" not in text:  # its handle is broadest from the front, not from its own side
            assert shares[(facing + 4) % 8] == 0 and np.argmax(shares) in (facing, (facing + 1) % 8, (facing - 1) % 8)


def test_pixels_see_the_solid_that_their_color_says():
    assembly = solids.padded(built("a white snowman with an orange nose"), 4)
    camera = rendering.ring_cameras(0.0, 0.1, views=8, size=24)
    seen = np.asarray(parts._seen_by_all(assembly, camera, 48))[0]
    assert set(np.unique(seen)) == {-1, 0, 1, 2, 3}
    rows = [np.nonzero(seen == ball)[0].mean() for ball in range(3)]
    assert rows[0] > rows[1] > rows[2]  # the balls from below
    nose = np.argwhere(seen == 3)
    assert np.abs(nose.mean(axis=0)[1] + 0.5 - 12) < 0.6
