"""Exact objects have all words of their captions; objects of captions with one word changed lack that one."""

import numpy as np
import pytest

from experiments.data.blocks import objects
from experiments.data.blocks.descriptions import caption, parse
from experiments.evaluation import attributes
from experiments.evaluation.geometry_scores import Samples
from experiments.prior.classes import ClassRenders, as_channels

_TEXT = "a small red box left of a large blue sphere"
_WRONG = {
    "relation": "a small red box right of a large blue sphere",
    "binding": "a small blue box left of a large red sphere",
    "size": "a large red box left of a large blue sphere",
}


@pytest.mark.slow
def test_each_word_is_heard_by_itself():
    renders = ClassRenders(16, None)
    negatives = [(aspect, parse(text)) for aspect, text in _WRONG.items()]
    given = [as_channels(renders.render(parse(text), 1, "exact"))[0] for text in (_TEXT, *_WRONG.values())]
    right, *wrong = attributes.told_apart(given, parse(_TEXT), negatives, renders)
    assert right == dict.fromkeys(_WRONG, True)
    for aspect, row in zip(_WRONG, wrong, strict=True):
        assert row[aspect] is False, aspect


def test_opposites_of_sizes_are_those_that_are_said():
    found = [caption(other) for _, other in attributes.opposite_sizes(parse("a small red box on a flat blue cone"))]
    assert found == ["a large red box on top of a flat blue cone", "a small red box on top of a tall blue cone"]
    assert not list(attributes.opposite_sizes(parse("a red dog")))


@pytest.mark.parametrize(
    ("built", "said", "share"),
    [
        ("a red box left of a blue sphere", "a red box left of a blue sphere", 1.0),
        ("a blue box left of a red sphere", "a red box left of a blue sphere", 0.0),
        ("a red box left of a green sphere", "a red box left of a blue sphere", 0.5),
        ("a red box left of a green sphere", "a red box left of a sphere", 1.0),
        ("a red box left of a green sphere", "a box left of a sphere", None),
    ],
)
def test_colours_are_those_of_the_parts_that_have_them(built, said, share):
    exact = objects.build(parse(built), np.random.default_rng(0))
    points = np.asarray(exact.centers) + 0.01 * np.random.default_rng(0).standard_normal((50, *exact.centers.shape))
    colors = np.broadcast_to(exact.colors, points.shape)
    surface = Samples(points.reshape(-1, 3), points.reshape(-1, 3), colors.reshape(-1, 3))
    assert attributes.parts_colored(surface, parse(said), exact) == share
