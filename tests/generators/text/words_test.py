import numpy as np
import pytest

from generators.text.words import WordTokenizer

WORDS = WordTokenizer(("<pad>", "<null>", "red", "box", "on"), length=4)


def test_numbers_are_places_in_the_vocabulary_and_read_back():
    numbers = WORDS.encode(["red", "box", "on"])
    assert [WORDS.vocabulary[n] for n in numbers] == ["red", "box", "on", "<pad>"]
    assert numbers.dtype == np.int32


def test_nothing_said_is_another_sentence_than_one_without_words():
    np.testing.assert_array_equal(WORDS.nothing(), [1, 1, 1, 1])
    np.testing.assert_array_equal(WORDS.encode([]), [0, 0, 0, 0])


def test_unknown_words_are_named_once_in_order():
    assert WORDS.unknown(["blue", "box", "above", "blue"]) == ["blue", "above"]
    with pytest.raises(ValueError, match="blue, above"):
        WORDS.encode(["blue", "box", "above"])


def test_too_many_words_and_double_ones_are_refused():
    with pytest.raises(ValueError, match="at most 4 words, got 5"):
        WORDS.encode(["red"] * 5)
    with pytest.raises(ValueError, match="twice"):
        WordTokenizer(("a", "b", "a"), 4)
