"""Classes of captions: what is left open, what is ruled out, and that a cache changes nothing."""

import numpy as np
import pytest

from experiments.data.blocks.descriptions import caption, parse
from experiments.prior.classes import ClassRenders, hard_negatives


def said(text, aspect):
    return [caption(other) for found, other in hard_negatives(parse(text)) if found == aspect]


def test_negatives_of_a_pair_differ_in_one_respect():
    text = "a green cone left of a flat yellow box"
    assert said(text, "relation") == [
        f"a green cone {relation} a flat yellow box"
        for relation in ("on top of", "under", "right of", "in front of", "behind")
    ]
    assert said(text, "binding") == ["a yellow cone left of a flat green box"]
    assert len(said(text, "shape")) == 12
    assert "a green cone left of a yellow sphere" in said(text, "shape")  # spheres are not flat


@pytest.mark.parametrize(
    ("text", "aspect", "counts"),
    [
        ("a red torus", "shape", 6),
        ("a red torus", "binding", 0),
        ("a red cone on top of a green sphere on top of a blue cylinder", "binding", 1),
        ("a red cone on top of a green sphere on top of a blue cylinder", "shape", 18),
        ("a blue chair with yellow legs", "binding", 1),
        ("a blue chair with yellow legs", "shape", 9),
        # The same two things: left of each other and right of each other is one class, as are swapped colours.
        ("a red box left of a red box", "relation", 4),
        ("a red box left of a red box", "binding", 0),
        ("a red box left of a red torus", "binding", 0),
        # A colour that is not said may be the other one.
        ("a red box left of a torus", "binding", 0),
        ("a box left of a red box", "relation", 4),
    ],
)
def test_what_an_object_of_the_class_could_be_is_no_negative(text, aspect, counts):
    assert len(said(text, aspect)) == counts


def test_the_caches_renders_are_those_made_anew_and_a_damaged_cache_is_made_anew(tmp_path):
    torus = parse("a red torus")
    plain, cached = ClassRenders(8, None), ClassRenders(8, tmp_path)
    first = cached(torus, 2)
    (file,) = tmp_path.rglob("*.npz")
    np.testing.assert_array_equal(plain(torus, 3)[:2], first)
    np.testing.assert_array_equal(cached(torus, 3), plain(torus, 3))  # more than are there
    for damage in (b"", b"PK\x03\x04 not a zip", file.read_bytes()[:-40]):
        file.write_bytes(damage)
        np.testing.assert_array_equal(cached(torus, 2), first)
    assert (plain.render(torus, 2, "exact") != first).any()  # another stream, other objects
