"""Descriptions to objects: proportions within a class are drawn at random, what the description says is kept.

Built in units in which the largest object measures two, then scaled: all fit the cube of side 0.95 metres about the
origin. Towers and families fill 0.86 to 0.94 of a metre; singles and pairs keep their size where they fit, so that size
words mean something.
"""

import dataclasses

import numpy as np

from experiments.data.blocks.descriptions import COLORS, Description, Part
from experiments.data.blocks.solids import SOLID, Assembly

_SIZES = {"small": 0.72, "": 1.0, "large": 1.35}
_UNIT = 0.5  # metres
_LARGEST = 0.95  # units from the middle to a face of the box about an object
_AS_IS = np.eye(3)
_UP_TO_FRONT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_UP_TO_RIGHT = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_BESIDE = {"left of": (0, -1.0), "right of": (0, 1.0), "in front of": (2, 1.0), "behind": (2, -1.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Solid:
    center: tuple[float, float, float]
    half: tuple[float, float, float]  # right, up, front
    color: str
    corner: float = 0.02
    edge: float = 0.02
    shell: float = SOLID
    taper: float = 0.0
    turn: np.ndarray = dataclasses.field(default_factory=lambda: _AS_IS)

    @property
    def reach(self) -> np.ndarray:
        """Half sides of the axis-aligned box about it."""
        return np.abs(self.turn) @ np.array(self.half)

    def moved(self, offset) -> "_Solid":
        """The solid elsewhere."""
        return dataclasses.replace(self, center=tuple(np.asarray(self.center) + offset))


def build(description: Description, rng: np.random.Generator) -> Assembly:
    """One object of a description's class.

    Args:
      description: what is said; colours that it leaves open are drawn.
      rng: of the proportions.

    Returns:
      Arrays of numpy, float32, in metres.
    """
    if description.kind == "single":
        part = description.parts[0]
        radius = 0.58 * _SIZES[part.size] * rng.uniform(0.95, 1.05)
        solid = _shape(part, radius, rng)
        return _assembled([solid], min(1.0, _LARGEST / np.max(solid.reach)))
    if description.kind == "pair":
        solids, most = _pair(description, rng), 1.25  # so that size words keep their meaning
    elif description.kind == "tower":
        solids, most = _tower(description.parts, rng), np.inf
    else:
        colors = [part.color for part in description.parts]
        first, second = (_color(colors[i] if i < len(colors) else "", rng) for i in range(2))
        solids, most = _FAMILIES[description.parts[0].shape](first, second, rng), np.inf
    low, high = _bounds(solids)
    scale = rng.uniform(0.86, 0.94) / (0.5 * np.max(high - low))
    return _assembled([solid.moved(-0.5 * (low + high)) for solid in solids], min(scale, most))


def _bounds(solids):
    low = np.min([np.asarray(solid.center) - solid.reach for solid in solids], axis=0)
    high = np.max([np.asarray(solid.center) + solid.reach for solid in solids], axis=0)
    return low, high


def _assembled(solids: list[_Solid], scale: float) -> Assembly:
    scale = scale * _UNIT

    def rows(name, factor=1.0):
        return np.array([getattr(solid, name) for solid in solids], np.float64) * factor

    shells = np.array([SOLID if solid.shell == SOLID else solid.shell * scale for solid in solids])
    arrays = {
        "centers": rows("center", scale),
        "half_sizes": rows("half", scale),
        "world_from_solid": rows("turn"),
        "corner_radii": rows("corner", scale),
        "edge_radii": rows("edge", scale),
        "half_shells": shells,
        "tapers": rows("taper"),
        "colors": np.array([COLORS[solid.color] for solid in solids]),
    }
    return Assembly(**{name: array.astype(np.float32) for name, array in arrays.items()})


def _color(name: str, rng) -> str:
    return name or list(COLORS)[rng.integers(len(COLORS))]


def _shape(part: Part, r: float, rng) -> _Solid:
    """A single solid about the origin, of radius about r."""
    color, here = _color(part.color, rng), (0.0, 0.0, 0.0)
    wide, high = {"flat": (1.15, 0.42), "": (1.0, 1.0), "tall": (0.72, 1.35)}[part.aspect]
    between = rng.uniform
    if part.shape == "sphere":
        return _Solid(center=here, half=(r, r, r), color=color, corner=r, edge=r)
    if part.shape == "box":
        a, b, c = (r * between(0.75, 0.95) for _ in range(3))
        return _Solid(center=here, half=(wide * a, high * b, wide * c), color=color)
    if part.shape == "cylinder":
        q = wide * r * between(0.6, 0.8)
        return _Solid(center=here, half=(q, high * r * between(0.85, 1.0), q), color=color, corner=q)
    if part.shape == "cone":
        q, h = wide * r * between(0.75, 0.95), high * r * between(0.95, 1.1)
        return _Solid(center=here, half=(q, h, q), color=color, corner=q, edge=0.005, taper=q / (2 * h))
    if part.shape == "pyramid":
        q, h = wide * r * between(0.75, 0.95), high * r * between(0.9, 1.05)
        return _Solid(center=here, half=(q, h, q), color=color, corner=0.01, edge=0.005, taper=q / (2 * h))
    if part.shape == "torus":
        m = r * between(0.24, 0.34)
        return _Solid(center=here, half=(r, m, r), color=color, corner=r, edge=m, shell=m)
    q = r * between(0.42, 0.52)  # a capsule
    return _Solid(center=here, half=(q, r * between(1.05, 1.2), q), color=color, corner=q, edge=q)


def _pair(description: Description, rng) -> list[_Solid]:
    first, second = (
        _shape(part, 0.42 * _SIZES[part.size] * rng.uniform(0.95, 1.05), rng) for part in description.parts
    )
    a, b = first.reach, second.reach
    gap = rng.uniform(0.03, 0.12)
    offset = np.zeros(3)
    if description.relation in _BESIDE:
        axis, side = _BESIDE[description.relation]
        offset[axis] = side * (a[axis] + b[axis] + gap)
        offset[1] = a[1] - b[1]  # on the same floor
    else:
        offset[1] = (a[1] + b[1] - 0.01) * (1 if description.relation == "on top of" else -1)
    return [first.moved(offset), second]


def _tower(parts: tuple[Part, ...], rng) -> list[_Solid]:
    solids, floor = [], 0.0
    for part in reversed(parts):
        solid = _shape(part, 0.34 * _SIZES[part.size] * rng.uniform(0.9, 1.1), rng)
        solids.append(solid.moved((0.0, floor + solid.reach[1] - 0.01, 0.0)))
        floor += 2 * solid.reach[1] - 0.01
    return solids


def _legs(half: float, height: float, thick: float, depth: float, color: str) -> list[_Solid]:
    return [
        _Solid(center=(x * half, 0.0, z * depth), half=(thick, height, thick), color=color)
        for x in (-1, 1)
        for z in (-1, 1)
    ]


def _table(first, second, rng):
    a, b, h, t = rng.uniform(0.7, 0.9), rng.uniform(0.7, 0.9), rng.uniform(0.45, 0.65), rng.uniform(0.05, 0.09)
    q = rng.uniform(0.06, 0.1)
    top = _Solid(center=(0, h, 0), half=(a, t, b), color=first)
    return [top, *_legs(a - q - 0.04, h, q, b - q - 0.04, second)]


def _chair(first, second, rng):
    a, h, t, q = rng.uniform(0.45, 0.55), rng.uniform(0.35, 0.45), rng.uniform(0.05, 0.08), rng.uniform(0.05, 0.08)
    b = rng.uniform(0.4, 0.5)
    seat = _Solid(center=(0, h, 0), half=(a, t, a), color=first)
    back = _Solid(center=(0, h + b, t - a), half=(a, b, t), color=first)
    return [seat, back, *_legs(a - q, h, q, a - q, second)]


def _snowman(first, second, rng):
    radii = rng.uniform(0.42, 0.48), rng.uniform(0.3, 0.34), rng.uniform(0.2, 0.25)
    heights = 0.0, 0.85 * (radii[0] + radii[1]), 0.85 * (radii[0] + 2 * radii[1] + radii[2])
    balls = [
        _Solid(center=(0, height, 0), half=(r, r, r), color=first, corner=r, edge=r)
        for r, height in zip(radii, heights, strict=True)
    ]
    nose = _Solid(
        center=(0, heights[2], radii[2] + 0.14),
        half=(0.09, 0.2, 0.09),
        color=second,
        corner=0.09,
        edge=0.005,
        taper=0.225,
        turn=_UP_TO_FRONT,
    )
    return [*balls, nose]


def _mug(first, second, rng):
    r, h, m = rng.uniform(0.42, 0.5), rng.uniform(0.5, 0.6), rng.uniform(0.24, 0.3)
    wall = _Solid(center=(0, 0, 0), half=(r, h, r), color=first, corner=r, shell=0.05)
    floor = _Solid(center=(0, 0.06 - h, 0), half=(r, 0.06, r), color=first, corner=r)
    handle = _Solid(
        center=(r + m - 0.09, 0, 0), half=(m, 0.07, m), color=second, corner=m, edge=0.07, shell=0.07, turn=_UP_TO_FRONT
    )
    return [wall, floor, handle]


def _rocket(first, second, rng):
    r, h, n = rng.uniform(0.24, 0.3), rng.uniform(0.5, 0.65), rng.uniform(0.22, 0.3)
    body = _Solid(center=(0, 0, 0), half=(r, h, r), color=first, corner=r)
    tip = _Solid(center=(0, h + n, 0), half=(r, n, r), color=first, corner=r, edge=0.005, taper=r / (2 * n))
    fins = [
        _Solid(center=(0, 0.1 - h, 0), half=half, color=second)
        for half in ((r + 0.28, 0.22, 0.03), (0.03, 0.22, r + 0.28))
    ]
    return [body, tip, *fins]


def _tree(first, second, rng):
    r, h, a = rng.uniform(0.45, 0.55), rng.uniform(0.25, 0.35), rng.uniform(0.38, 0.45)
    trunk = _Solid(center=(0, 0, 0), half=(0.12, h, 0.12), color=second, corner=0.12)
    crown = [
        _Solid(center=(0, h + up * a, 0), half=(q, v, q), color=first, corner=q, edge=0.005, taper=q / (2 * v))
        for up, q, v in ((1.0, r, a), (1.9, 0.75 * r, 0.8 * a))
    ]
    return [trunk, *crown]


def _car(first, second, rng):
    a, b, h, w = rng.uniform(0.75, 0.85), rng.uniform(0.34, 0.4), rng.uniform(0.15, 0.2), rng.uniform(0.17, 0.2)
    body = _Solid(center=(0, 0, 0), half=(b, h, a), color=first, corner=0.04, edge=0.04)
    cabin = _Solid(center=(0, h + 0.16, -0.15), half=(0.85 * b, 0.18, 0.5 * a), color=first, corner=0.04, edge=0.04)
    wheels = [
        _Solid(center=(x * b, -h, z * 0.6 * a), half=(w, 0.08, w), color=second, corner=w, turn=_UP_TO_RIGHT)
        for x in (-1, 1)
        for z in (-1, 1)
    ]
    return [body, cabin, *wheels]


def _mushroom(first, second, rng):
    r, h, q = rng.uniform(0.5, 0.6), rng.uniform(0.35, 0.45), rng.uniform(0.15, 0.2)
    cap = _Solid(center=(0, h + 0.15, 0), half=(r, 0.25, r), color=first, corner=r, edge=0.2, taper=0.5)
    return [cap, _Solid(center=(0, 0, 0), half=(q, h, q), color=second, corner=q)]


def _dog(first, second, rng):
    a, b, h = rng.uniform(0.48, 0.58), rng.uniform(0.2, 0.26), rng.uniform(0.24, 0.32)
    r, q = rng.uniform(0.2, 0.25), rng.uniform(0.06, 0.08)
    body = _Solid(center=(0, h + b, 0), half=(b, a, b), color=first, corner=b, edge=0.9 * b, turn=_UP_TO_FRONT)
    head = _Solid(center=(0, h + 2 * b + 0.6 * r, a), half=(r, r, r), color=second, corner=r, edge=r)
    snout = _Solid(
        center=(0, h + 2 * b + 0.5 * r, a + r), half=(0.45 * r, 0.5 * r, 0.4 * r), color=second, corner=0.03,
        turn=_UP_TO_FRONT,
    )  # fmt: skip
    tail = _Solid(center=(0, h + 2 * b, -a), half=(0.05, 0.22, 0.05), color=first, corner=0.05, edge=0.04)
    legs = [leg.moved((0, 0.5 * h, 0)) for leg in _legs(b - q, 0.5 * h + 0.1, q, a - q - 0.06, first)]
    return [body, head, snout, tail, *legs]


def _house(first, second, rng):
    a, b, h, n = rng.uniform(0.5, 0.65), rng.uniform(0.5, 0.65), rng.uniform(0.35, 0.45), rng.uniform(0.22, 0.32)
    walls = _Solid(center=(0, 0, 0), half=(a, h, b), color=first)
    q = max(a, b) + 0.1
    roof = _Solid(center=(0, h + n - 0.01, 0), half=(q, n, q), color=second, corner=0.01, edge=0.005, taper=q / (2 * n))
    door = _Solid(center=(0, -0.35 * h, b), half=(0.16, 0.65 * h, 0.03), color=second)
    return [walls, roof, door]


def _lamp(first, second, rng):
    r, h, n = rng.uniform(0.35, 0.45), rng.uniform(0.55, 0.7), rng.uniform(0.22, 0.3)
    base = _Solid(center=(0, 0.05 - h, 0), half=(0.8 * r, 0.05, 0.8 * r), color=second, corner=0.8 * r)
    pole = _Solid(center=(0, 0, 0), half=(0.05, h, 0.05), color=second, corner=0.05)
    shade = _Solid(center=(0, h, 0), half=(r, n, r), color=first, corner=r, taper=0.5 * r / (2 * n))
    return [base, pole, shade]


_FAMILIES = {
    "table": _table,
    "chair": _chair,
    "snowman": _snowman,
    "mug": _mug,
    "rocket": _rocket,
    "tree": _tree,
    "car": _car,
    "mushroom": _mushroom,
    "dog": _dog,
    "house": _house,
    "lamp": _lamp,
}
