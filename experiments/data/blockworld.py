"""The procedural world that the embedded models learn: objects by seed and number, with captions and exact geometry.

Objects are assemblies of coloured solids from a small grammar: single solids, pairs in a relation, towers of three, and
things such as tables, mugs and dogs. Number `index` of a split is a function of (seed, split, index) alone: nothing is
stored, and any part of a training set can be made anew. Frames: +Y up, front +Z, metres; captions speak from the front.

Splits: "train" and "iid" are drawn alike, in streams of their own; "compositional" holds only combinations that neither
of them holds (`descriptions.is_compositional`); "family" a kind of thing that no model is trained on.
"""

import dataclasses

import numpy as np

from experiments import keys
from experiments.data.blocks.descriptions import (
    ASPECTS,
    COLORS,
    FAMILIES,
    HELD_OUT_FAMILY,
    RELATIONS,
    SHAPES,
    SIZES,
    STRETCHED,
    Description,
    Part,
    Split,
    caption,
    is_compositional,
)
from experiments.data.blocks.objects import build
from experiments.data.blocks.solids import Assembly

# Shares by what is hard to learn: things side by side are.
_KINDS = {"single": 0.15, "stack": 0.15, "beside": 0.34, "tower": 0.08, "family": 0.28}
_USUAL_WORDING = 0.7  # the others share the rest
_UNSAID = 0.05  # colours left out of the description
_SIZED, _STRETCHED = 0.5, 0.25  # parts with a word for the size, for the aspect
_MONOCHROME = 0.08  # families described without their second part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One object of the world.

    Attributes:
      description: the exact parse of the caption.
      caption: in one of its wordings.
      assembly: the object, numpy arrays.
    """

    description: Description
    caption: str
    assembly: Assembly


def item(seed: int, split: Split, index: int) -> Item:
    """Object number `index` of a split."""
    rng = keys.host_rng(seed, f"blockworld {split}", index)
    whole = sample_description(rng, split)
    said = _left_out(whole, rng)
    wording = 0 if rng.random() < _USUAL_WORDING else int(rng.integers(1, 3))
    return Item(description=said, caption=caption(said, wording), assembly=build(whole, rng))


def sample_description(rng: np.random.Generator, split: Split) -> Description:
    """A description of a split's distribution with nothing left unsaid."""
    while True:
        description = _family(rng, HELD_OUT_FAMILY) if split == "family" else _any(rng)
        if split == "family" or is_compositional(description) == (split == "compositional"):
            return description


def _left_out(description: Description, rng) -> Description:
    """The description without some of its colours, or without a family's second part."""
    parts = [dataclasses.replace(part, color="") if rng.random() < _UNSAID else part for part in description.parts]
    if description.kind == "family" and rng.random() < _MONOCHROME:
        return Description((parts[0],))
    return Description(tuple(parts), description.relation)


def _any(rng) -> Description:
    kind = rng.choice(list(_KINDS), p=list(_KINDS.values()))
    if kind == "single":
        return Description((_part(rng),))
    if kind == "tower":
        return Description(tuple(_part(rng, sized=False) for _ in range(3)), "on top of")
    if kind == "family":
        return _family(rng, _one(rng, [family for family in FAMILIES if family != HELD_OUT_FAMILY]))
    relations = [name for name in RELATIONS if (name in ("on top of", "under")) == (kind == "stack")]
    return Description((_part(rng), _part(rng)), _one(rng, relations))


def _part(rng, *, sized: bool = True) -> Part:
    shape = _one(rng, SHAPES)
    stretched = shape in STRETCHED and rng.random() < _STRETCHED
    return Part(
        shape=shape,
        color=_one(rng, list(COLORS)),
        size=_one(rng, SIZES) if sized and rng.random() < _SIZED else "",
        aspect=_one(rng, ASPECTS) if stretched else "",
    )


def _family(rng, name: str) -> Description:
    first, second = (Part(shape=shape, color=_one(rng, list(COLORS))) for shape in (name, FAMILIES[name]))
    return Description((first, second), "with")


def _one(rng, choices) -> str:
    return choices[int(rng.integers(len(choices)))]
