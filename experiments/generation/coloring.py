"""Base colours of a surface from points whose colours were seen: nearby, facing alike, and in parts of one colour.

Pixels are coarse against a texture, so a blend of them blurs where two parts meet. Objects of few plain colours are
recognised as such, and each place gets the colour for which most of the points around it vote: borders are then sharp,
and where half of a pixel's width says that they are. Anything else is blended.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from experiments.generation.observations import SurfacePoints

_NEIGHBOURS = 32
_ALIKE = 0.15  # distance of colours that are one paint
_SCARCE = 0.015  # share of the points below which a colour is none of the paints
_PLAIN = 0.9  # share of the points near one of the paints, or between two, that makes them all of the colours
_TIGHT, _TIGHTLY = 0.075, 0.7  # and share that must lie this near to one: a gradient spreads out
_DECIDED = 6  # power of the votes: 1 blends, infinity draws hard borders

ColorField = Callable[[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]], Float[np.ndarray, "n 3"]]


def color_field(seen: SurfacePoints, *, reach: float) -> ColorField:
    """Display-referred colours at places of the surface with given normals.

    Args:
      seen: points with colours.
      reach: metres over which they are blended; about half of the distance of pixels.

    Raises:
      ValueError: no point has weight.
    """
    trust = seen.weights * seen.facing
    used = trust > 1e-3
    if not used.any():
        raise ValueError(f"none of {len(trust)} points is seen well enough to have a colour")
    points, normals, colors, trust = (a[used] for a in (seen.points, seen.normals, seen.colors, trust))
    paints = palette(colors, trust)
    votes = colors if paints is None else np.eye(len(paints))[_nearest(colors, paints)]
    tree = KDTree(points)
    count = min(_NEIGHBOURS, len(points))

    def field(places, facing):
        distance, index = tree.query(np.asarray(places, np.float64), k=count)
        distance, index = (np.reshape(found, (-1, count)) for found in (distance, index))  # one neighbour has no axis
        closeness = np.exp(-0.5 * (distance**2 - distance[:, :1] ** 2) / reach**2)
        alike = np.maximum(np.einsum("nkd,nd->nk", normals[index], np.asarray(facing, np.float64)), 0.02) ** 2
        weight = closeness * alike * trust[index]
        mean = np.einsum("nk,nkc->nc", weight, votes[index]) / weight.sum(-1, keepdims=True)
        if paints is None:
            return mean.astype(np.float32)
        decided = mean**_DECIDED
        return (decided @ paints / decided.sum(-1, keepdims=True)).astype(np.float32)

    return field


def palette(colors: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, "k 3"] | None:
    """The few plain colours that all are, or are mixtures of two of at a border; None if there are no such.

    The colour with the most others alike is a paint; its like are set aside, and so on while enough are left.
    """
    left = np.ones(len(colors), bool)
    total, paints = weights.sum(), []
    while weights[left].sum() > _SCARCE * total and len(paints) < 8:
        rows = np.flatnonzero(left)
        alike = np.linalg.norm(colors[rows, None] - colors[None, rows], axis=-1) < _ALIKE
        # Mixtures have neighbours on both sides: the mode must be one in itself
        best = rows[np.argmax(alike @ weights[rows])]
        near = left & (np.linalg.norm(colors - colors[best], axis=-1) < _ALIKE)
        center = np.average(colors[near], axis=0, weights=weights[near])
        if weights[near].sum() > _SCARCE * total and not _is_mixture(center, paints):
            paints.append(center)
        left &= ~near
    if not paints:
        return None
    distance = np.linalg.norm(colors[:, None] - np.array(paints), axis=-1).min(-1)
    plain = (distance < 1.3 * _ALIKE) | np.array([_is_mixture(color, paints) for color in colors])
    are_all = weights[plain].sum() > _PLAIN * total and weights[distance < _TIGHT].sum() > _TIGHTLY * total
    return np.array(paints) if are_all else None


def _is_mixture(color, paints) -> bool:
    """Whether a colour lies between two of the paints."""
    for i, first in enumerate(paints):
        for second in paints[:i]:
            along = second - first
            part = np.clip(along @ (color - first) / max(along @ along, 1e-9), 0, 1)
            if 0.15 < part < 0.85 and np.linalg.norm(first + part * along - color) < 0.6 * _ALIKE:
                return True
    return False


def _nearest(colors, paints):
    return np.argmin(np.linalg.norm(colors[:, None] - paints, axis=-1), axis=-1)
