"""The grammar: what is written is read back, what is not of the grammar is refused with a reason."""

import itertools
import zlib

import pytest

from experiments.data.blocks import descriptions
from experiments.data.blocks.descriptions import (
    COLORS,
    FAMILIES,
    RELATIONS,
    SHAPES,
    STRETCHED,
    Description,
    Part,
    caption,
    is_compositional,
    parse,
    vocabulary,
    words_of,
)


def all_parts():
    for shape, color, size in itertools.product(SHAPES, ("", "red", "orange"), ("", "small", "large")):
        for aspect in ("", "flat", "tall") if shape in STRETCHED else ("",):
            yield Part(shape=shape, color=color, size=size, aspect=aspect)


def some_descriptions():
    parts = list(all_parts())
    for number, part in enumerate(parts):
        yield Description((part,))
        others = parts[(7 * number) % len(parts)], parts[(13 * number + 5) % len(parts)]
        yield Description((part, others[0]), list(RELATIONS)[number % len(RELATIONS)])
        yield Description((part, *others), "on top of")
    for family, second in FAMILIES.items():
        for first, other in itertools.product(("", "orange", "red"), ("", "white")):
            yield Description((Part(shape=family, color=first),))
            yield Description((Part(shape=family, color=first), Part(shape=second, color=other)), "with")


def test_every_caption_is_read_back():
    known = set(vocabulary())
    count = 0
    for description, wording in itertools.product(some_descriptions(), range(3)):
        said = caption(description, wording)
        assert parse(said) == description, said
        words = words_of(said)
        assert len(words) <= 24
        if description.parts[0].shape != descriptions.HELD_OUT_FAMILY:
            assert known.issuperset(words), said
        count += 1
    assert count > 1000


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A tiny BLUE ball, above a green cube!", "a small blue sphere on top of a green box"),
        ("there is a big violet donut to the left of a golden brick", "a large purple torus left of a yellow box"),
        ("turquoise cup", "a cyan mug"),
        ("a tower of a red pill, a white block and a black tube", "a red capsule on a white box on a black cylinder"),
        ("a cone that is red and small", "a small red cone"),
        ("a puppy in pink that has a black head", "a pink dog with a black head"),
    ],
)
def test_other_words_for_the_same(text, same):
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no shape or thing"),
        ("a red", "no shape or thing"),
        ("a red green box", "two words for the color"),
        ("a shiny box", "'shiny' is not understood"),
        ("a red box beside a blue cone", "does not begin with a relation"),
        ("a red table with a blue roof", "a table is described with its legs"),
        ("a small table", "sizes are those of"),
        ("a tall sphere", "are flat or tall"),
        ("a red box on a dog", "relations are between"),
        ("a box left of a cone left of a sphere", "three things stand on top"),
        ("a box on a cone on a sphere on a torus", "three things stand on top"),
        ("a box with a cone", "relations are between"),
        (90 * "a red box on ", "no shape"),
    ],
)
def test_what_is_not_of_the_grammar_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        parse(text)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_a_tenth_of_each_kind_of_combination_is_held_out():
    singles = [Description((Part(shape=s, color=c),)) for s in SHAPES for c in COLORS]
    assert sum(map(is_compositional, singles)) / len(singles) == pytest.approx(0.1)
    held = [d.parts[0] for d in singles if is_compositional(d)]
    assert len({part.shape for part in held}) == len(held) == len({part.color for part in held})
    pairs = [Description((Part(shape=a), Part(shape=b)), r) for a in SHAPES for b in SHAPES for r in RELATIONS]
    held = [d for d in pairs if is_compositional(d)]
    assert sum(map(is_compositional, pairs)) / len(pairs) == pytest.approx(0.1, abs=0.02)
    assert {d.relation for d in held} == set(RELATIONS)
    whole = [
        Description((Part(shape=f, color=a), Part(shape=second, color=b)), "with")
        for f, second in FAMILIES.items()
        for a in COLORS
        for b in COLORS
    ]
    assert sum(map(is_compositional, whole)) / len(whole) == pytest.approx(0.1, abs=0.01)


def test_nearest_words_name_what_was_meant():
    assert "sphere" in descriptions.nearest_words("sphear")
    assert "box" in descriptions.nearest_words("cub")
    assert descriptions.nearest_words("qqqq") == []


def test_the_vocabulary_keeps_its_order():
    """Trained weights number words by their place."""
    words = vocabulary()
    assert len(words) == len(set(words)) == 67
    assert words[:4] == ("<pad>", "<null>", "a", "an")
    places = [words.index(word) for word in ("tower", "small", "red", "sphere", "table", "roof")]
    assert places == [12, 27, 31, 41, 48, 66]
    assert zlib.crc32(" ".join(words).encode()) == 3374886932
