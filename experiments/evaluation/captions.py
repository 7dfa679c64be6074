"""Which captions assets are made of and compared with: fixed sets, the same for everybody."""

import dataclasses
import re
import typing
from collections.abc import Sequence

from experiments.data.blocks.descriptions import Description, Split, caption, parse
from experiments.prior import classes
from experiments.prior.evaluation import FIXED_PROMPTS, prompts_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caption:
    """One caption of a set.

    Attributes:
      split: name of the set.
      index: in it.
      text: as it is said.
      description: its exact parse.
    """

    split: str
    index: int
    text: str
    description: Description

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.split}_{self.index:03d}_" + re.sub(r"[^a-z]+", "_", self.text.lower())[:60].strip("_")


def caption_set(split: str, count: int) -> list[Caption]:
    """The first captions of a set: "fixed", or a split of the world with seed 0."""
    if split == "fixed":
        found = [(text, parse(text)) for text in FIXED_PROMPTS[:count]]
    else:
        found = prompts_of(_world_split(split), count)
    return [
        Caption(split=split, index=index, text=text, description=description)
        for index, (text, description) in enumerate(found)
    ]


def rivals(asked: Caption, pool: Sequence[Caption]) -> list[Caption]:
    """Captions of a pool that say something else, each thing once: an object of the one asked is of none of theirs."""
    others = {caption(other.description): other for other in pool}
    return [other for other in others.values() if not classes.may_agree(asked.description, other.description)]


def pool_of(splits: Sequence[str], count: int) -> list[Caption]:
    """Captions among which an asset's own is looked for: the first of each set."""
    return [caption for split in splits for caption in caption_set(split, count)]


def _world_split(name: str) -> Split:
    if name not in typing.get_args(Split):
        raise ValueError(f"expected a split of the world, got {name!r}")
    return typing.cast(Split, name)
