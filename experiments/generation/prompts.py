"""Prompts are checked before anything else is done: what cannot be meant is said in one line."""

from collections.abc import Iterable

from experiments.data.blocks.descriptions import nearest_words, words_of
from experiments.errors import InputError

LONGEST = 1000  # characters


def check_prompt(prompt: str, vocabulary: Iterable[str], *, most_words: int | None = None) -> list[str]:
    """The words of a prompt as a prior reads them.

    Args:
      prompt: what the user asked for.
      vocabulary: words that the prior knows.
      most_words: how many it reads; None for any number.

    Raises:
      InputError: nothing is asked for, or too much, or in a script or words that the prior does not know.
    """
    if not prompt.strip():
        raise InputError('--prompt is empty; say what to make, as in --prompt="a blue sphere on top of a green box"')
    if len(prompt) > LONGEST:
        raise InputError(f"--prompt has {len(prompt):,} characters; at most {LONGEST:,} are read, one sentence is best")
    foreign = "".join(dict.fromkeys(letter for letter in prompt if letter.isalpha() and not letter.isascii()))
    if foreign:
        raise InputError(
            f"--prompt has letters that no English word has ({foreign[:12]!r}); the prior reads English only"
        )
    words = words_of(prompt)
    if not words:
        raise InputError(f"--prompt={prompt[:40]!r} has no words; say what to make, as in 'a red cone on a blue box'")
    known = frozenset(vocabulary)
    unknown = list(dict.fromkeys(word for word in words if word not in known))
    if unknown:
        raise InputError(f"--prompt has words that the prior does not know: {_named(unknown, known)}")
    if most_words is not None and len(words) > most_words:
        raise InputError(f"--prompt has {len(words)} words; the prior reads {most_words}: say it in fewer")
    return words


def _named(unknown: list[str], known: frozenset[str], most: int = 5) -> str:
    """Unknown words with what is spelt like them."""
    said = []
    for word in unknown[:most]:
        near = [other for other in nearest_words(word[:40]) if other in known]
        said.append(f"{word[:40]!r} ({'nearest: ' + ', '.join(near) if near else 'nothing is near'})")
    rest = len(unknown) - most
    return "; ".join(said) + (f"; and {rest} more" if rest > 0 else "")
