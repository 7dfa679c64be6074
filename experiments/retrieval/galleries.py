"""Objects of no training among whose captions the right one is looked for."""

import dataclasses

import numpy as np
from jaxtyping import Float

from experiments.data import blockworld
from experiments.data.blocks import rendering
from experiments.data.blocks.descriptions import Split
from experiments.prior import rings
from experiments.retrieval import model
from experiments.retrieval.settings import TowerSettings


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Objects with their captions.

    Attributes:
      captions: no two say the same.
      rings: the objects from the canonical cameras.
    """

    captions: tuple[str, ...]
    rings: rings.Rings


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Mistake:
    """An object to which another's caption fits better than its own.

    Attributes:
      picture: its four views side by side, colours in [0, 1].
      own: its caption.
      found: the caption that is nearest.
    """

    picture: Float[np.ndarray, "h w 3"]
    own: str
    found: str


def make_gallery(seed: int, split: Split, count: int, *, size: int) -> Gallery:
    """The first objects of a split whose captions all say something else, see `Description`.

    Args:
      seed: of the world.
      split: of the world.
      count: of the objects.
      size: pixels along a side of their views.
    """
    captions: dict[int, str] = {}
    said, number = set(), 0
    while len(captions) < count:
        item = blockworld.item(seed, split, number)
        if item.description not in said:
            captions[number] = item.caption
            said.add(item.description)
        number += 1
    shown = rings.make_rings(seed, split, list(captions), size=size, canonical=1.0)
    return Gallery(captions=tuple(captions.values()), rings=shown)


def cosines(settings: TowerSettings, params, gallery: Gallery) -> Float[np.ndarray, "b b"]:
    """Similarities of a gallery's objects, in rows, and all its captions."""
    views = rendering.from_bytes(gallery.rings.views)
    return np.asarray(model.similarities(settings, params, views, gallery.rings.words))


def mistakes(gallery: Gallery, similar: Float[np.ndarray, "b b"], most: int) -> list[Mistake]:
    """Objects whose own caption is not the nearest, those first that miss it by most.

    Args:
      gallery: objects and captions.
      similar: see `cosines`.
      most: of them that are told.
    """
    behind = similar.max(axis=1) - np.diagonal(similar)
    found = []
    for row in np.argsort(-behind)[:most]:
        if behind[row] > 0:
            views = 0.5 * np.asarray(rendering.from_bytes(gallery.rings.views[row]))[..., :3] + 0.5
            picture = np.clip(np.concatenate(list(views), axis=1), 0.0, 1.0)
            nearest = gallery.captions[int(similar[row].argmax())]
            found.append(Mistake(picture=picture, own=gallery.captions[row], found=nearest))
    return found
