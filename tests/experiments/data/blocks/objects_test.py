"""Objects keep what their descriptions say: relations, sizes, aspects, colours, and the cube that they fit."""

import numpy as np
import pytest

from experiments.data.blocks import geometry, objects
from experiments.data.blocks.descriptions import COLORS, FAMILIES, RELATIONS, SHAPES, STRETCHED, parse
from experiments.data.blocks.solids import Assembly

_SEEDS = 40


def boxes(assembly):
    """Lower and upper corner of each solid's box."""
    leaves = vars(assembly).items()
    one = [Assembly(**{name: leaf[k : k + 1] for name, leaf in leaves}) for k in range(len(assembly.centers))]
    return [geometry.bounds(solid) for solid in one]


def built(text, seed):
    return objects.build(parse(text), np.random.default_rng(seed))


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold(relation):
    """Said of the first: it is above, left (smaller x), in front (larger z) ... and touches or leaves a gap."""
    axis, sign = {
        "on top of": (1, 1),
        "under": (1, -1),
        "right of": (0, 1),
        "left of": (0, -1),
        "in front of": (2, 1),
        "behind": (2, -1),
    }[relation]
    for seed in range(_SEEDS):
        rng = np.random.default_rng(seed)
        a, b = rng.choice(SHAPES, 2)
        first, second = boxes(built(f"a red {a} {relation} a blue {b}", seed))
        low, high = (second, first) if sign > 0 else (first, second)
        gap = high[0][axis] - low[1][axis]
        if axis == 1:
            assert -0.011 < gap < 0  # they touch
            others = (0, 2)
        else:
            assert 0 < gap < 0.08  # they do not
            assert first[0][1] == pytest.approx(second[0][1], abs=1e-6)  # they stand on one floor
            others = (2 - axis,)
        for other in others:
            assert first[:, other].mean() == pytest.approx(second[:, other].mean(), abs=1e-6)


def test_towers_are_said_from_the_top():
    for seed in range(_SEEDS):
        tower = built("a red box on top of a green cone on top of a blue sphere", seed)
        floors = boxes(tower)
        names = [list(COLORS)[np.abs(np.array(list(COLORS.values())) - c).sum(1).argmin()] for c in tower.colors]
        order = [names.index(name) for name in ("red", "green", "blue")]
        for upper, lower in zip(order, order[1:], strict=False):
            assert -0.011 < floors[upper][0][1] - floors[lower][1][1] < 0


def test_sizes_and_aspects_keep_their_meaning():
    for seed in range(_SEEDS):
        small, large = boxes(built("a small red sphere left of a large blue sphere", seed))
        assert np.ptp(large[:, 1]) > 1.5 * np.ptp(small[:, 1])
        for shape in ("box", "cylinder", "cone", "pyramid"):
            flat, tall = (
                np.ptp(boxes(built(f"a {aspect} red {shape}", seed))[0], axis=0) for aspect in ("flat", "tall")
            )
            assert flat[1] < 0.9 * flat[0] and tall[1] > 1.2 * tall[0]
        singles = [np.ptp(boxes(built(f"a {size} red sphere", seed))[0][:, 0]) for size in ("small", "", "large")]
        assert singles[0] < singles[1] < singles[2]


def test_families_fill_the_cube_and_stand_upright():
    for family in FAMILIES:
        for seed in range(10):
            box = geometry.bounds(built(f"a red {family}", seed))
            assert 0.859 < np.ptp(box, axis=0).max() < 0.941
            np.testing.assert_allclose(box.mean(axis=0), 0.0, atol=1e-6)


def test_singles_fit_the_cube():
    for shape in SHAPES:
        for size in ("small ", "", "large "):
            for aspect in ("", "flat ", "tall ") if shape in STRETCHED else ("",):
                for seed in range(5):
                    box = geometry.bounds(built(f"a {size}{aspect}red {shape}", seed))
                    assert np.abs(box).max() <= 0.475 + 1e-6


def test_the_handle_ends_in_the_wall_of_the_mug():
    for seed in range(10):
        mug = built("a red mug with a blue handle", seed)
        alone = Assembly(**{name: leaf[2:3] for name, leaf in vars(mug).items()})
        inside = mug.half_sizes[0, 0] - 2 * mug.half_shells[0]
        assert geometry.bounds(alone)[0, 0] > mug.centers[0, 0] + inside


@pytest.mark.parametrize(
    ("text", "below", "above"),
    [
        ("a red table with blue legs", "blue", "red"),
        ("a red lamp with a blue stand", "blue", "red"),
        ("a red tree with a blue trunk", "blue", "red"),
        ("a red mushroom with a blue stem", "blue", "red"),
        ("a red car with blue wheels", "blue", "red"),
        ("a red house with a blue roof", "red", "blue"),
    ],
)
def test_parts_are_where_they_belong(text, below, above):
    for seed in range(5):
        assembly = built(text, seed)
        heights = {name: [c[1] for c, color in zip(assembly.centers, assembly.colors, strict=True)
                          if np.allclose(color, COLORS[name])] for name in (below, above)}  # fmt: skip
        assert max(heights[above]) > max(heights[below])


def test_unsaid_colors_are_drawn():
    seen = {tuple(built("a sphere", seed).colors[0]) for seed in range(60)}
    assert seen == {tuple(np.float32(color)) for color in COLORS.values()}
