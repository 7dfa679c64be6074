"""Whether an asset's own caption is the one that fits it best: retrieval precision at 1 (arXiv 2112.01455).

What judges is a function of pictures and captions, `Similarity`. Here it is the two-tower model that is trained on the
block world (proc-R-precision of shared/specs/generators/evaluation.md, section 4); a CLIP model whose weights are given
is another such function and joins with the pretrained models.
"""

import hashlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float

from experiments.data.blocks.descriptions import words_of
from experiments.errors import InputError
from experiments.prior import rings
from experiments.retrieval import model
from experiments.retrieval.weights import SHIPPED, Towers, load_towers

Similarity = Callable[[Float[np.ndarray, "b v h w 8"], Sequence[str]], Float[np.ndarray, "b p"]]
"""Cosines of objects, by their canonical rings in [-1, 1], and captions."""


def towers_of(path: str | None, *, size: int) -> Towers | None:
    """The two-tower model, or None where none is named and none came with the program.

    Args:
      path: of the weights.
      size: of the pictures that it is to judge.

    Raises:
      InputError: the weights cannot be used, or not for such pictures.
    """
    if path is None and not SHIPPED.is_file():
        return None
    towers = load_towers(path)
    if towers.settings.size != size:
        raise InputError(f"the towers look at pictures of {towers.settings.size} pixels, assets are shown at {size}")
    return towers


def judged_by(towers: Towers) -> Similarity:
    """The two-tower model's opinion; captions are of words that it knows, others count as unsaid."""

    def similarity(views, captions):
        read = rings.tokenizer()
        words = np.stack([read.encode(words_of(caption)) for caption in captions])
        return np.asarray(model.similarities(towers.settings, towers.params, views, words))

    return similarity


def retrieved(
    ring: Float[np.ndarray, "v h w 8"], own: str, others: Sequence[str], similarity: Similarity, *, at_once: int
) -> bool:
    """Whether a ring's own caption fits it better than all others do.

    Args:
      ring: of the canonical cameras.
      own: the caption.
      others: that say something else.
      similarity: what judges.
      at_once: captions in a call, filled up with the last one: few programs are compiled.
    """
    captions = [own, *others]
    filled = captions + [captions[-1]] * (at_once - len(captions))
    cosines = np.asarray(similarity(ring[None], filled))[:, : len(captions)]
    return model.r_precision(cosines) == 1.0


def digest(params) -> str:
    """The first 12 digits of the SHA-256 of weights, in half precision, in which files hold them."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.asarray(leaf, np.float16).tobytes())
    return found.hexdigest()[:12]
