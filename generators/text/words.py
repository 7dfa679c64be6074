"""Captions of a closed vocabulary to numbers: one word, one number."""

from collections.abc import Sequence

import numpy as np


class WordTokenizer:
    """Numbers of words by their place in a vocabulary.

    Args:
      vocabulary: distinct words; the first stands for padding, the second for a caption that is left out.
      length: words of a caption, padding included.
    """

    def __init__(self, vocabulary: Sequence[str], length: int) -> None:
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("a vocabulary must not hold a word twice")
        self.vocabulary, self.length = tuple(vocabulary), length
        self._numbers = {word: number for number, word in enumerate(self.vocabulary)}

    def unknown(self, words: Sequence[str]) -> list[str]:
        """Those of the words that are not in the vocabulary, each once, in order."""
        return [word for word in dict.fromkeys(words) if word not in self._numbers]

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """Numbers of words, padded to `length`, int32.

        Raises:
          ValueError: a word is not in the vocabulary, or there are more than `length`.
        """
        if unknown := self.unknown(words):
            raise ValueError(f"words that the model does not know: {', '.join(unknown)}")
        if len(words) > self.length:
            raise ValueError(f"a caption has at most {self.length} words, got {len(words)}")
        numbers = np.zeros(self.length, np.int32)
        numbers[: len(words)] = [self._numbers[word] for word in words]
        return numbers

    def nothing(self) -> np.ndarray:
        """Numbers of the caption that is left out."""
        return np.ones(self.length, np.int32)
