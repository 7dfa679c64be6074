"""Whether points are inside a closed mesh, by counting how often rays leave it.

Rays along the three axes, each through the triangles of one cell of a grid only: about a hundred times faster than
winding numbers (`renderers.meshes.distances.contains`), for meshes that are closed or nearly so.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

_CELLS = 96  # along a side of the grid that triangles are sorted into
_PAIRS = 1 << 21  # of points and triangles, at a time


def inside(
    points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Bool[np.ndarray, " n"]:
    """Whether points are inside a mesh whose faces turn outward: at least two of three rays leave it more than enter.

    Args:
      points: none exactly in line with a vertex or an edge, as random ones are.
      vertices: of the mesh.
      faces: counter-clockwise from outside.
    """
    points, corners = np.asarray(points, np.float64), np.asarray(vertices, np.float64)[np.asarray(faces)]
    votes = np.zeros(len(points), int)
    for axis in range(3):
        turned = [(axis + 1) % 3, (axis + 2) % 3, axis]  # a turn, not a reflection: faces keep their sides
        votes += _winding(points[:, turned], corners[..., turned]) > 0
    return votes >= 2


def _winding(points, corners):
    """How often a ray upwards, along the last axis, leaves the mesh more than it enters it."""
    winding = np.zeros(len(points), int)
    low = corners[..., :2].min(axis=(0, 1))
    step = np.maximum(corners[..., :2].max(axis=(0, 1)) - low, 1e-12) / _CELLS
    order, first = _sorted_into_cells(corners, low, step)
    cell = np.floor((points[:, :2] - low) / step).astype(int)
    (asked,) = np.nonzero(np.all((cell >= 0) & (cell < _CELLS), axis=1))
    cell = cell[asked, 0] * _CELLS + cell[asked, 1]
    counts = first[cell + 1] - first[cell]
    ends = np.cumsum(counts)
    start = 0
    while start < len(asked):
        past = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, past + _PAIRS)), start + 1)
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        place = np.arange(len(rows)) - np.repeat(ends[start:stop] - counts[start:stop] - past, counts[start:stop])
        triangles = corners[order[first[cell[rows]] + place]]
        left = _left(points[asked[rows]], triangles)
        winding += np.bincount(asked[rows], weights=left, minlength=len(points)).astype(int)
        start = stop
    return winding


def _sorted_into_cells(corners, low, step):
    """Numbers of the triangles whose boxes touch each cell, and where each cell's begin."""
    least, most = (
        np.clip(np.floor((edge - low) / step), 0, _CELLS - 1).astype(int)
        for edge in (corners[..., :2].min(axis=1), corners[..., :2].max(axis=1))
    )
    sides = most - least + 1
    counts = sides.prod(axis=1)
    triangle = np.repeat(np.arange(len(corners)), counts)
    place = np.arange(len(triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = least[triangle, 0] + place // sides[triangle, 1]
    column = least[triangle, 1] + place % sides[triangle, 1]
    cell = row * _CELLS + column
    order = np.argsort(cell, kind="stable")
    return triangle[order], np.searchsorted(cell[order], np.arange(_CELLS**2 + 1))


def _left(points, triangles):
    """1 where the ray leaves through the triangle, -1 where it enters, 0 where it misses."""
    a, b, c = (triangles[:, k, :2] - points[:, :2] for k in range(3))
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    area = weights.sum(axis=1)
    hit = (np.all(weights > 0, axis=1) | np.all(weights < 0, axis=1)) & (area != 0)
    height = np.sum(weights * triangles[..., 2], axis=1) / np.where(area == 0, 1.0, area)
    return np.where(hit & (height > points[:, 2]), np.sign(area), 0.0)


def _cross(a, b):
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
