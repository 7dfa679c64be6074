"""Which views train and which are held out."""

import difflib
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from experiments.errors import InputError


def split_holdout(
    names: Sequence[str], holdout: str, test_names: Sequence[str] | frozenset[str] = ()
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """Splits views into training and held-out ones.

    Args:
        names: of the views.
        holdout: a whole number n without a leading zero: every nth view in the order of sorted names, from the first.
            Empty: `test_names`. Anything else: comma-separated view names, with or without folder and suffix.
        test_names: the data set's own test views.

    Returns:
        Indices into `names`, ascending.

    Raises:
        InputError: if a name is unknown (the nearest ones are shown) or fits several views, or nothing is left to
            train on.
    """
    holdout = holdout.strip()
    if not holdout:
        chosen = {index for index, name in enumerate(names) if name in frozenset(test_names)}
    elif holdout.isascii() and holdout.isdigit() and not holdout.startswith("0"):
        # A stride with more digits than any list of views is one that holds out the first view only.
        stride = int(holdout[:12])
        chosen = set(sorted(range(len(names)), key=lambda index: names[index])[::stride])
    else:
        words = [word.strip() for word in holdout.split(",")]
        chosen = {find_view(names, word, "--holdout") for word in words if word}
        if not chosen:
            raise InputError(f"--holdout={holdout!r} names no view; expected a number, or names separated by commas")
    if len(chosen) == len(names):
        raise InputError(f"--holdout={holdout} holds out all {len(names)} views; nothing is left to train on")
    train = [index for index in range(len(names)) if index not in chosen]
    return np.array(train, np.int64), np.array(sorted(chosen), np.int64)


def find_view(names: Sequence[str], word: str, flag: str) -> int:
    """Index of the view that a word means: its name, with or without folder and suffix.

    Raises:
        InputError: if the word fits no view (the nearest ones are shown) or several; the message begins with `flag`.
    """
    for spell in (str, _basename, _without_suffix, _stem):
        found = [index for index, name in enumerate(names) if spell(name) == word]
        if len(found) == 1:
            return found[0]
        if found:
            examples = ", ".join(names[index] for index in found[:3])
            raise InputError(f"{flag}: {word!r} fits {len(found)} views ({examples}); give the folder too")
    near = difflib.get_close_matches(word, sorted({_stem(name) for name in names}), n=3, cutoff=0.0)
    raise InputError(f"{flag}: no view is called {word[:80]!r}; the nearest names are {', '.join(near)}")


def _basename(name: str) -> str:
    return pathlib.PurePosixPath(name).name


def _without_suffix(name: str) -> str:
    return str(pathlib.PurePosixPath(name).with_suffix(""))


def _stem(name: str) -> str:
    return pathlib.PurePosixPath(name).stem
