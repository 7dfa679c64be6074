"""Bringing two shapes into one frame before they are compared: normalisation, yaw search, ICP. Runs on the host.

A similarity is a matrix `a_from_b`, 4 x 4, that maps points as columns; `transform` applies one.
"""

import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import KDTree

_CONVERGED = 1e-9  # relative change of the mean squared distance at which ICP ends


def transform(
    matrix: Float[np.ndarray | Array, "4 4"], points: Float[np.ndarray | Array, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Points mapped by an affine matrix, float64."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def unit_transform(vertices: Float[np.ndarray | Array, "v 3"]) -> Float[np.ndarray, "4 4"]:
    """`unit_from_world`: the bounding box's centre goes to the origin and its longest side becomes 1.

    Taken from the truth and applied to the prediction too.
    """
    vertices = np.asarray(vertices, np.float64)
    low, high = vertices.min(0), vertices.max(0)
    side = float((high - low).max())
    if not side > 0:
        raise ValueError("a shape to normalise needs an extent, got a single point")
    matrix = np.eye(4) / side
    matrix[:3, 3] = -(low + high) / 2 / side
    matrix[3, 3] = 1.0
    return matrix


def similarity(
    points: Float[np.ndarray | Array, "n 3"], targets: Float[np.ndarray | Array, "n 3"], *, scale: bool = False
) -> Float[np.ndarray, "4 4"]:
    """`target_from_point`: the rotation, translation and, if asked for, scale that fit matched points best.

    Least squares in closed form (Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991); never a reflection.
    """
    points, targets = np.asarray(points, np.float64), np.asarray(targets, np.float64)
    center, target_center = points.mean(0), targets.mean(0)
    u, s, vt = np.linalg.svd((targets - target_center).T @ (points - center))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = (u * signs) @ vt
    spread = ((points - center) ** 2).sum()
    factor = float((s * signs).sum() / spread) if scale and spread > 0 else 1.0
    matrix = np.eye(4)
    matrix[:3, :3] = factor * rotation
    matrix[:3, 3] = target_center - factor * rotation @ center
    return matrix


def icp(
    points: Float[np.ndarray | Array, "n 3"],
    targets: Float[np.ndarray | Array, "m 3"],
    *,
    initial: Float[np.ndarray | Array, "4 4"] | None = None,
    iterations: int = 50,
    scale: bool = False,
) -> Float[np.ndarray, "4 4"]:
    """`target_from_point` by iterated closest points: match each point to its nearest target, fit, repeat.

    Besl and McKay, 1992. Finds the nearest local optimum; ends early when nothing changes any more.
    """
    points, targets = np.asarray(points, np.float64), np.asarray(targets, np.float64)
    matrix = np.eye(4) if initial is None else np.asarray(initial, np.float64)
    tree, before = KDTree(targets), np.inf
    for _ in range(iterations):
        distance, index = tree.query(transform(matrix, points), workers=-1)
        error = float((distance**2).mean())
        if not error < before * (1 - _CONVERGED):
            break
        before = error
        matrix = similarity(points, targets[index], scale=scale)
    return matrix


def align(
    points: Float[np.ndarray | Array, "n 3"],
    targets: Float[np.ndarray | Array, "m 3"],
    *,
    steps: int = 72,
    scale: bool = False,
    iterations: int = 50,
) -> Float[np.ndarray, "4 4"]:
    """`target_from_point` for shapes whose heading is unknown: the best of `steps` turns about +Y, refined by ICP.

    Turns are about the points' mean, which is moved to the targets' mean, and are judged by the mean squared nearest
    distance both ways. Report numbers after alignment apart from those before it.
    """
    points, targets = np.asarray(points, np.float64), np.asarray(targets, np.float64)
    tree = KDTree(targets)
    best, best_error = np.eye(4), np.inf
    for yaw in 2 * np.pi * np.arange(steps) / steps:
        matrix = np.eye(4)
        matrix[:3, :3] = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
        matrix[:3, 3] = targets.mean(0) - matrix[:3, :3] @ points.mean(0)
        moved = transform(matrix, points)
        error = float((tree.query(moved)[0] ** 2).mean() + (KDTree(moved).query(targets)[0] ** 2).mean())
        if error < best_error:
            best, best_error = matrix, error
    return icp(points, targets, initial=best, iterations=iterations, scale=scale)
