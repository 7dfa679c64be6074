import pytest

from experiments.data.blocks.descriptions import vocabulary
from experiments.errors import InputError
from experiments.generation.prompts import LONGEST, check_prompt

KNOWN = vocabulary()


def refusal(prompt, **options):
    with pytest.raises(InputError) as caught:
        check_prompt(prompt, KNOWN, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_words_come_back_as_captions_spell_them():
    assert (
        check_prompt("A tiny blue BALL, on top of a green cube!", KNOWN)
        == "a small blue sphere on top of a green box".split()
    )


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_empty_prompts(prompt):
    assert "empty" in refusal(prompt)


def test_prompts_without_words():
    assert "no words" in refusal("?!, --")


def test_length_is_counted_not_read():
    assert "10,000 characters" in refusal("a red box " * 1000)
    fits = ("a red box " * 200)[:LONGEST].rstrip()
    assert check_prompt(fits, KNOWN)[0] == "a"


@pytest.mark.parametrize("prompt", ["ein grüner Würfel", "красный куб", "一个红色的盒子", "a réd box"])
def test_other_scripts_are_named(prompt):
    assert "English" in refusal(prompt)


def test_unknown_words_come_with_the_nearest_known_ones():
    message = refusal("a crimson elefant on a boks, greeen")
    for word in ("crimson", "elefant", "boks", "greeen"):
        assert repr(word) in message
    assert "box" in message.split("'boks'")[1].split(";")[0]
    assert "green" in message.split("'greeen'")[1]
    assert "'a'" not in message


def test_nearest_words_are_known_ones():
    small = ("<pad>", "<null>", "a", "red", "box")
    with pytest.raises(InputError) as caught:
        check_prompt("a greeen box", small)
    assert "green," not in str(caught.value) and "nothing is near" in str(caught.value)


def test_many_unknown_words_are_counted():
    message = refusal(" ".join(f"qzx{i}" for i in range(100)))
    assert "95 more" in message and len(message) < 500


def test_number_of_words():
    assert "4 words" in refusal("a big red box", most_words=3)
    assert len(check_prompt("a red box", KNOWN, most_words=3)) == 3
