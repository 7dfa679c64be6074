"""A smooth signed distance from points with normals: the surface that noisy, incomplete observations agree on.

Smooth signed distances (Calakli and Taubin 2011, "SSD: Smooth Signed Distance Surface Reconstruction", eq. 4): the
field f on a grid that minimises

    sum_i w_i (f(p_i)^2 + |grad f(p_i) - n_i|^2) + smoothness * sum over nodes of |Hessian f|^2,

all lengths in cells, with two additions: bounds `f >= b` at nodes, which are known outside of outlines and in front of
what is seen, and Cauchy weights 1 / (1 + (f(p_i) / reach)^2), so that points that contradict most of the others lose
their say. Where nothing is known the field goes on as straight as it can, so holes close smoothly. Runs on the host,
from coarse to fine; solved by conjugate gradients.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage, sparse

from renderers.meshes.extraction import grid_points

Bound = Callable[[Float[np.ndarray, "x y z 3"], float], Float[np.ndarray, "x y z"]]
_COARSEST = 12  # nodes along a side that no coarser grid comes before
_FARTHEST = 6.0  # cells; beyond it the surface is far and only the sign of a bound counts
_TINY = 1e-4  # weight that keeps what was there where nothing at all is known


def smooth_distance(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    weights: Float[np.ndarray, " n"],
    box: Float[np.ndarray, "2 3"],
    resolution: int,
    *,
    at_least: Bound | None = None,
    smoothness: float = 0.02,
    reach: float = 0.03,
    rounds: int = 3,
    iterations: int = 40,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Signed distances, negative inside, at the nodes of a cubic grid; near the surface in world units.

    Args:
      points: on the surface, world units; those outside of the box are left out.
      normals: outward, unit length.
      weights: trust in each point, 0 or more; 1 for a point that stands for itself.
      box: lower and upper corner of a cube.
      resolution: nodes along a side.
      at_least: called with nodes and their spacing, gives lower bounds of the distance in world units; -inf where
        nothing is known.
      smoothness: weight of the second derivatives.
      reach: distance at which a point that contradicts the field counts half.
      rounds: of new weights and bounds on each grid.
      iterations: of conjugate gradients in a round.
      progress: called with the rounds done and in all.

    Raises:
      ValueError: no point in the box, a box that is no cube, or fewer than 4 nodes a side.
    """
    box = np.asarray(box, np.float64)
    side = box[1] - box[0]
    if resolution < 4 or not np.allclose(side, side[0]) or not side[0] > 0:
        raise ValueError(f"expected a cube and at least 4 nodes a side, got sides {side.tolist()}, {resolution} nodes")
    inside = ((points >= box[0]) & (points <= box[1])).all(-1) & (weights > 0)
    if not inside.any():
        raise ValueError(f"none of {len(points)} points has weight and lies in the box {box.tolist()}")
    points, normals, weights = (np.asarray(a, np.float64)[inside] for a in (points, normals, weights))
    grids = [resolution]
    while grids[0] >= 2 * _COARSEST:
        grids.insert(0, grids[0] // 2)
    field = np.zeros(0, np.float32)
    spacing = 1.0
    for level, nodes in enumerate(grids):
        spacing = side[0] / (nodes - 1)
        values, slopes = _interpolation((points - box[0]) / spacing, nodes)
        if at_least is None:
            bound = np.full((nodes,) * 3, -np.inf, np.float32)
        else:
            bound = (np.asarray(at_least(grid_points(box, nodes), spacing)) / spacing).astype(np.float32)
        if not field.size:
            field = _first_guess(points, normals, box, nodes, spacing, bound)
        else:
            finer = np.asarray(ndimage.zoom(field, nodes / len(field), order=1))
            field = finer * np.float32((nodes - 1) / (len(field) - 1))
        for done in range(rounds):
            apart = values @ field.ravel() * spacing
            trust = (weights / (1 + (apart / reach) ** 2)).astype(np.float32)
            field = _solved(field, values, slopes, normals.astype(np.float32), trust, bound, smoothness, iterations)
            if progress is not None:
                progress(level * rounds + done + 1, len(grids) * rounds)
    return field * np.float32(spacing)


def _first_guess(points, normals, box, nodes, spacing, bound):
    """Distance to the plane of the nearest point, in cells, not below the bounds."""
    from scipy.spatial import KDTree

    at = grid_points(box, nodes).reshape(-1, 3)
    _, nearest = KDTree(points).query(at)
    planes = ((at - points[nearest]) * normals[nearest]).sum(-1) / spacing
    return np.maximum(np.clip(planes, -_FARTHEST, _FARTHEST).reshape(bound.shape), np.minimum(bound, _FARTHEST)).astype(
        np.float32
    )


def _solved(field, values, slopes, normals, trust, bound, smoothness, iterations):
    """The minimum for fixed weights and fixed active bounds, from the field so far."""
    shape = field.shape
    weighted = sparse.diags(trust)
    data = (values.T @ weighted @ values + sum(s.T @ weighted @ s for s in slopes)).tocsr()
    active = (field < bound).astype(np.float32)
    right = active * np.clip(bound, -_FARTHEST, _FARTHEST) + _TINY * field
    for k, slope in enumerate(slopes):
        right += (slope.T @ (trust * normals[:, k])).reshape(shape)
    known = active + np.float32(_TINY)

    def apply(x):
        return (data @ x.ravel()).reshape(shape) + known * x + np.float32(smoothness) * _bending(x)

    # 6 nodes' squares of 1, -2, 1 and 4 nodes' of +-1, each mixed derivative counted twice
    diagonal = data.diagonal().reshape(shape) + known + np.float32(smoothness * (3 * 6 + 2 * 3 * 4))
    return _conjugate_gradients(apply, right.astype(np.float32), field, diagonal, iterations)


def _conjugate_gradients(apply, right, x, diagonal, iterations):
    residual = right - apply(x)
    direction = step = residual / diagonal
    energy = float(np.vdot(residual, step))
    for _ in range(iterations):
        if energy <= 1e-12:
            break
        image = apply(direction)
        length = np.float32(energy / max(float(np.vdot(direction, image)), 1e-30))
        x = x + length * direction
        residual = residual - length * image
        step = residual / diagonal
        before, energy = energy, float(np.vdot(residual, step))
        direction = step + np.float32(energy / before) * direction
    return x


def _bending(x):
    """Gradient of half the sum of squared second differences, mixed ones twice; nothing beyond the border."""
    out = np.zeros_like(x)
    for axis in range(3):
        rows, to = np.moveaxis(x, axis, 0), np.moveaxis(out, axis, 0)
        second = rows[2:] - 2 * rows[1:-1] + rows[:-2]
        to[2:] += second
        to[1:-1] -= 2 * second
        to[:-2] += second
    for first, other in ((0, 1), (0, 2), (1, 2)):
        rows, to = np.moveaxis(x, (first, other), (0, 1)), np.moveaxis(out, (first, other), (0, 1))
        mixed = 2 * (rows[1:, 1:] - rows[1:, :-1] - rows[:-1, 1:] + rows[:-1, :-1])
        to[1:, 1:] += mixed
        to[1:, :-1] -= mixed
        to[:-1, 1:] -= mixed
        to[:-1, :-1] += mixed
    return out


def _interpolation(places, nodes):
    """Matrices from node values to values, and to the three slopes, of trilinear interpolation at places in cells."""
    first = np.clip(np.floor(places).astype(np.int64), 0, nodes - 2)
    part = places - first
    row = np.arange(len(places))
    rows, columns, shares, along = [], [], [], ([], [], [])
    for corner in np.ndindex(2, 2, 2):
        factors = [part[:, k] if corner[k] else 1 - part[:, k] for k in range(3)]
        signs = [2 * corner[k] - 1 for k in range(3)]
        rows.append(row)
        columns.append(np.ravel_multi_index(tuple((first + corner).T), (nodes,) * 3))
        shares.append(factors[0] * factors[1] * factors[2])
        along[0].append(signs[0] * factors[1] * factors[2])
        along[1].append(factors[0] * signs[1] * factors[2])
        along[2].append(factors[0] * factors[1] * signs[2])

    def matrix(entries):
        places_of = (np.concatenate(rows), np.concatenate(columns))
        shape = (len(places), nodes**3)
        return sparse.csr_matrix((np.concatenate(entries).astype(np.float32), places_of), shape=shape)

    return matrix(shares), [matrix(entries) for entries in along]
