"""The grammar of the block world: what can be said about an object, and how it is said. Standard library only.

A description is the exact parse of a caption: parts with colour, shape, size and aspect, and the relation between them.
Left, right, front and behind are those of somebody who looks at the object from its front.
"""

import dataclasses
import difflib
import re
from typing import Literal

COLORS = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.88, 0.15),
    "green": (0.12, 0.62, 0.18),
    "cyan": (0.15, 0.80, 0.85),
    "blue": (0.12, 0.22, 0.85),
    "purple": (0.50, 0.15, 0.65),
    "pink": (0.97, 0.55, 0.72),
    "white": (0.96, 0.96, 0.96),
    "black": (0.08, 0.08, 0.08),
}
SHAPES = ("sphere", "box", "cylinder", "cone", "torus", "capsule", "pyramid")
SIZES = ("small", "large")
ASPECTS = ("flat", "tall")
STRETCHED = ("box", "cylinder", "cone", "pyramid")  # shapes of which some are flat or tall
# Each relation in the words of its captions, the first the usual ones.
RELATIONS = {
    "on top of": ("on top of", "on", "above"),
    "under": ("under", "below", "beneath"),
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "in front of": ("in front of", "standing in front of", "placed in front of"),
    "behind": ("behind", "standing behind", "placed behind"),
}
# Things of several solids, each with the part that has the second colour.
FAMILIES = {
    "table": "legs",
    "chair": "legs",
    "snowman": "nose",
    "mug": "handle",
    "rocket": "fins",
    "tree": "trunk",
    "car": "wheels",
    "mushroom": "stem",
    "dog": "head",
    "house": "roof",
    "lamp": "stand",
}
HELD_OUT_FAMILY = "lamp"  # never trained on: what reconstructs it has not learnt it by heart
SYNONYMS = {
    "ball": "sphere",
    "globe": "sphere",
    "orb": "sphere",
    "block": "box",
    "brick": "box",
    "cube": "box",
    "donut": "torus",
    "doughnut": "torus",
    "ring": "torus",
    "pill": "capsule",
    "tube": "cylinder",
    "puppy": "dog",
    "cup": "mug",
    "big": "large",
    "huge": "large",
    "tiny": "small",
    "little": "small",
    "violet": "purple",
    "magenta": "pink",
    "turquoise": "cyan",
    "scarlet": "red",
    "golden": "yellow",
    "short": "flat",
    "high": "tall",
}
_ARTICLES = ("a", "an", "one", "the")
_PADDING = "<pad>"  # fills a caption up
_NOTHING = "<null>"  # says that there is no caption
_GLUE = "a an one the with that has is and in tower of".split()

Split = Literal["train", "iid", "compositional", "family"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One noun with its adjectives; an empty string means that nothing is said.

    Attributes:
      shape: one of SHAPES, one of FAMILIES, or a family's second part.
      color: one of COLORS.
      size: one of SIZES.
      aspect: one of ASPECTS.
    """

    shape: str
    color: str = ""
    size: str = ""
    aspect: str = ""


@dataclasses.dataclass(frozen=True)
class Description:
    """One to three parts and how they stand to each other.

    Attributes:
      parts: the first one is what the caption is about; of a tower, from the top down.
      relation: one of RELATIONS; "with" between a family and its second part; empty with a single part.
    """

    parts: tuple[Part, ...]
    relation: str = ""

    @property
    def kind(self) -> Literal["single", "pair", "tower", "family"]:
        """Which rule of the grammar it follows."""
        if self.parts[0].shape in FAMILIES:
            return "family"
        return ("single", "pair", "tower")[len(self.parts) - 1]


def vocabulary() -> tuple[str, ...]:
    """All words of captions, the padding and the word for no caption first; those of the held-out family left out."""
    relations = [word for phrases in RELATIONS.values() for phrase in phrases for word in phrase.split()]
    nouns = [noun for family, part in FAMILIES.items() if family != HELD_OUT_FAMILY for noun in (family, part)]
    words = [*_GLUE, *relations, *SIZES, *ASPECTS, *COLORS, *SHAPES, *nouns]
    return (_PADDING, _NOTHING, *dict.fromkeys(words))


def caption(description: Description, wording: int = 0) -> str:
    """The description in words; wording 0, 1 or 2, the first the usual one."""
    first, *others = description.parts
    if description.kind == "single":
        return _single(first, wording)
    if description.kind == "family":
        return _family(first, others[0] if others else None, wording)
    if description.kind == "tower" and wording == 2:
        return f"a tower of {_noun(first)} {_noun(others[0])} and {_noun(others[1])}"
    between = f" {RELATIONS[description.relation][wording]} "
    return between.join(_noun(part) for part in description.parts)


def words_of(text: str) -> list[str]:
    """The words of a prompt as captions spell them: lower case, no punctuation, known synonyms replaced."""
    words: list[str] = re.findall(r"[^\W_]+", text.lower())
    return [SYNONYMS.get(word, word) for word in words]


def nearest_words(word: str) -> list[str]:
    """Words of captions that are spelt like one that is not among them, the likeliest first."""
    candidates = [*vocabulary()[2:], *SYNONYMS]
    near = difflib.get_close_matches(word, candidates, n=3, cutoff=0.6)
    return list(dict.fromkeys(SYNONYMS.get(other, other) for other in near))


def parse(text: str) -> Description:
    """The description that a caption, in any of its wordings, gives.

    Raises:
      ValueError: the sentence is not one of the grammar; says what is understood.
    """
    words = words_of(text)
    if words[:2] == ["there", "is"]:
        words = words[2:]
    tower = words[1:3] == ["tower", "of"] or words[:2] == ["tower", "of"]
    if tower:
        words = words[words.index("of") + 1 :]
        words = [word for word in words if word != "and"]
    first, rest = _read_noun(words, text)
    parts, relations = [first], []
    while rest:
        if tower:
            relations.append("on top of")
        else:
            found, rest = _read_relation(rest, text)
            relations.append(found)
        part, rest = _read_noun(rest, text)
        parts.append(part)
    return _checked(Description(tuple(parts), relations[0] if relations else ""), relations, text)


def is_compositional(description: Description) -> bool:
    """Whether it holds a combination that training never shows: colour and shape, relation and shapes, or colours.

    One in ten of each kind: every colour, shape and relation is seen, in other company.
    """
    parts = description.parts
    if description.kind == "family":
        family = list(FAMILIES).index(parts[0].shape)
        if len(parts) < 2 or not (parts[0].color and parts[1].color):
            return False
        first, second = (list(COLORS).index(part.color) for part in parts)
        return (family + 3 * first + 7 * second) % 10 == 0
    held = {(color, (3 * i) % len(SHAPES)) for i, color in enumerate(list(COLORS)[: len(SHAPES)])}
    if any((part.color, SHAPES.index(part.shape)) in held for part in parts):
        return True
    if description.kind != "pair":
        return False
    a, b = (SHAPES.index(part.shape) for part in parts)
    return (7 * a + b + 3 * list(RELATIONS).index(description.relation)) % 10 == 0


def _single(part: Part, wording: int) -> str:
    said = [word for word in (part.size, part.aspect, part.color) if word]
    if wording == 0 or not said:
        return _noun(part)
    if wording == 1:
        return _with_article([*reversed(said), part.shape])
    return f"{_with_article([part.shape])} that is {' and '.join(said)}"


def _family(first: Part, second: Part | None, wording: int) -> str:
    has = "that has" if wording == 2 else "with"
    whole = f"{_with_article([first.shape])} in {first.color}" if wording == 1 and first.color else _noun(first)
    if second is None:
        return whole
    return f"{whole} {has} {_noun(second)}"


def _noun(part: Part) -> str:
    words = [word for word in (part.size, part.aspect, part.color, part.shape) if word]
    return " ".join(words) if part.shape.endswith("s") and part.shape in FAMILIES.values() else _with_article(words)


def _with_article(words: list[str]) -> str:
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _read_noun(words: list[str], text: str) -> tuple[Part, list[str]]:
    """The noun phrase that words begin with, and the words behind it."""
    at = 1 if words and words[0] in _ARTICLES else 0
    said: dict[str, str] = {}
    nouns = (*SHAPES, *FAMILIES, *FAMILIES.values())
    while at < len(words) and words[at] not in nouns:
        _describe(said, words[at], text)
        at += 1
    if at == len(words):
        raise ValueError(f"no shape or thing is named in {' '.join(words) or 'the end'!r} of {_shown(text)}")
    shape, at = words[at], at + 1
    if words[at : at + 2] == ["that", "is"]:
        at += 2
        while at < len(words) and (words[at] == "and" or words[at] in (*SIZES, *ASPECTS, *COLORS)):
            if words[at] != "and":
                _describe(said, words[at], text)
            at += 1
    elif at + 1 < len(words) and words[at] == "in" and words[at + 1] in COLORS:
        _describe(said, words[at + 1], text)
        at += 2
    return Part(shape=shape, **said), words[at:]


def _describe(said: dict[str, str], word: str, text: str) -> None:
    for name, known in (("color", COLORS), ("size", SIZES), ("aspect", ASPECTS)):
        if word in known:
            if name in said:
                raise ValueError(
                    f"two words for the {name} of one thing, {said[name]!r} and {word!r}, in {_shown(text)}"
                )
            said[name] = word
            return
    raise ValueError(f"{word!r} is not understood where it stands in {_shown(text)}")


def _read_relation(words: list[str], text: str) -> tuple[str, list[str]]:
    """The relation that words begin with, in its longest wording, and the words behind it."""
    phrases = {tuple(phrase.split()): name for name, phrases in RELATIONS.items() for phrase in phrases}
    phrases |= {("with",): "with", ("that", "has"): "with"}
    for length in (4, 3, 2, 1):
        if tuple(words[:length]) in phrases:
            return phrases[tuple(words[:length])], words[length:]
    raise ValueError(f"{' '.join(words)!r} does not begin with a relation in {_shown(text)}")


def _checked(description: Description, relations: list[str], text: str) -> Description:
    parts = description.parts
    family = parts[0].shape in FAMILIES
    if family:
        second = FAMILIES[parts[0].shape]
        others = [part.shape for part in parts[1:]]
        if others not in ([], [second]) or relations not in ([], ["with"]):
            raise ValueError(f"a {parts[0].shape} is described with its {second}, if at all, not as in {_shown(text)}")
        if any(part.size or part.aspect for part in parts):
            raise ValueError(f"sizes are those of {', '.join(SHAPES)}, not as in {_shown(text)}")
        return description
    if any(part.shape not in SHAPES for part in parts) or "with" in relations:
        raise ValueError(f"relations are between {', '.join(SHAPES)}, not as in {_shown(text)}")
    if any(part.aspect and part.shape not in STRETCHED for part in parts):
        raise ValueError(f"only {', '.join(STRETCHED)} are flat or tall, not as in {_shown(text)}")
    if len(parts) > 3 or (len(parts) == 3 and set(relations) != {"on top of"}):
        raise ValueError(f"three things stand on top of each other, not as in {_shown(text)}")
    return description


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
