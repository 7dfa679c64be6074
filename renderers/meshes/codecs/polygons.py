"""Polygons as triangles: fans for convex ones, ear clipping for the others."""

import numpy as np
from jaxtyping import Float, Int

# ear clipping takes up to the cube of a polygon's corners: once their squares add up to this the rest become fans
_CLIPPING_BUDGET = 100_000


def triangulated(
    corners: Int[np.ndarray, " c"], counts: Int[np.ndarray, " p"], points: Float[np.ndarray, "v 3"]
) -> tuple[Int[np.ndarray, "f 3"], Int[np.ndarray, " f"]]:
    """Splits polygons into triangles that keep their orientation.

    Convex polygons become fans around their first corner, concave quads around their inward one; larger concave ones
    are clipped ear by ear in the plane of their area vector, up to a bound on the work. Polygons of fewer than three
    corners vanish.

    Args:
        corners: vertex indices of all polygons, one after the other.
        counts: corners of each polygon.
        points: positions of the vertices.

    Returns:
        For each triangle three indices into `corners` (so that texture corners can follow), and its polygon.
    """
    starts = np.cumsum(counts) - counts
    triangles = np.maximum(counts - 2, 0)
    polygon = np.repeat(np.arange(len(counts)), triangles)
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    first = starts[polygon]
    fans = np.stack([first, first + step + 1, first + step + 2], axis=1)
    which, inward = _concave(corners, counts, starts, points)
    rows = np.cumsum(triangles) - triangles
    quads = counts[which] == 4
    fan = (np.array([[0, 1, 2], [0, 2, 3]]) + inward[quads][:, None, None]) % 4
    fans[rows[which[quads]][:, None] + np.arange(2)] = starts[which[quads]][:, None, None] + fan
    large = which[~quads]
    for p in large[np.cumsum(counts[large] ** 2) <= _CLIPPING_BUDGET]:
        clipped = _clip_ears(points[corners[starts[p] : starts[p] + counts[p]]])
        fans[rows[p] : rows[p] + triangles[p]] = starts[p] + clipped
    return fans, polygon


def _concave(corners: np.ndarray, counts: np.ndarray, starts: np.ndarray, points: np.ndarray):
    """Indices of polygons that turn against their own orientation at some corner, and the corner that does so most."""
    concave, inward = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for count in np.unique(counts[counts > 3]):
        which = np.flatnonzero(counts == count)
        shape = points[corners[starts[which][:, None] + np.arange(count)]].astype(np.float64)
        edges = np.roll(shape, -1, axis=1) - shape
        turns = np.cross(np.roll(edges, 1, axis=1), edges)
        normal = np.cross(shape - shape[:, :1], np.roll(shape, -1, axis=1) - shape[:, :1]).sum(axis=1)
        against = (turns * normal[:, None]).sum(axis=2)
        size = (normal**2).sum(axis=1)
        bad = (against < -1e-9 * size[:, None]).any(axis=1)
        concave.append(which[bad])
        inward.append(np.argmin(against[bad], axis=1))
    return np.concatenate(concave), np.concatenate(inward)


def _clip_ears(shape: np.ndarray) -> np.ndarray:
    """Triangles of one simple polygon; where no ear is left (it crosses itself) the next corner is cut off."""
    shape = shape.astype(np.float64)
    normal = np.cross(shape - shape[0], np.roll(shape, -1, axis=0) - shape[0]).sum(axis=0)
    keep = [axis for axis in range(3) if axis != int(np.argmax(np.abs(normal)))]
    flat = shape[:, keep]
    x, y = flat.T
    if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0:
        flat = flat * (1, -1)
    left, triangles = list(range(len(flat))), []
    while len(left) > 3:
        ear = next((i for i in range(len(left)) if _is_ear(flat, left, i)), 0)
        triangles.append((left[ear - 1], left[ear], left[(ear + 1) % len(left)]))
        del left[ear]
    return np.array([*triangles, tuple(left)])


def _is_ear(flat: np.ndarray, left: list[int], i: int) -> bool:
    a, b, c = flat[left[i - 1]], flat[left[i]], flat[left[(i + 1) % len(left)]]
    if _cross(b - a, c - b) <= 0:
        return False
    others = [j for j in left if j not in (left[i - 1], left[i], left[(i + 1) % len(left)])]
    p = flat[others]
    inside = (_cross(b - a, p - a) >= 0) & (_cross(c - b, p - b) >= 0) & (_cross(a - c, p - c) >= 0)
    # a corner at the same place as one of the ear's (a bridge to a hole) does not block it
    same = (p[:, None] == np.stack([a, b, c])[None]).all(axis=2).any(axis=1)
    return not (inside & ~same).any()


def _cross(u, v):
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
