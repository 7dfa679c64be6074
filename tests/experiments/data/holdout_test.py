"""The rule of --holdout."""

import pytest

from experiments.data.captures import split_holdout
from experiments.errors import InputError

NAMES = [f"{i:04d}.jpg" for i in range(1, 21)]


def test_a_number_takes_every_nth_sorted_name_from_the_first():
    shuffled = NAMES[::-1]
    train, test = split_holdout(shuffled, "8")
    assert [shuffled[i] for i in sorted(test, reverse=True)] == ["0001.jpg", "0009.jpg", "0017.jpg"]
    assert sorted([*train, *test]) == list(range(20)) and list(train) == sorted(train)


@pytest.mark.parametrize("holdout", ["0004", "0004.jpg", " 0004 ,", "0004,0004.jpg"])
def test_digits_with_a_leading_zero_are_a_name(holdout):
    assert split_holdout(NAMES, holdout)[1].tolist() == [3]


def test_names_match_with_and_without_folder_and_suffix():
    names = ["left/a.png", "right/a.png", "right/b.png"]
    assert split_holdout(names, "b, left/a")[1].tolist() == [0, 2]
    assert split_holdout(names, "right/a.png")[1].tolist() == [1]
    with pytest.raises(InputError, match="fits 2 views"):
        split_holdout(names, "a")


def test_empty_means_the_data_sets_own_split_or_none():
    assert split_holdout(NAMES, "", ("0002.jpg",))[1].tolist() == [1]
    assert split_holdout(NAMES, "")[1].tolist() == []


@pytest.mark.parametrize(
    ("holdout", "reason"),
    [
        ("0044", "nearest names are 00"),
        ("1", "nothing is left"),
        (",", "names no view"),
        ("0", "no view is called '0'"),
    ],
)
def test_a_split_that_cannot_be_made_says_why(holdout, reason):
    with pytest.raises(InputError, match=reason):
        split_holdout(NAMES, holdout)


def test_a_stride_longer_than_the_list_holds_out_the_first():
    assert split_holdout(NAMES, "9" * 5000)[1].tolist() == [0]
