"""How far two shapes are apart: Chamfer distances, F-score, normal consistency, volume and silhouette IoU, P2S.

All run on the host in float64 and return Python floats; to train with a Chamfer distance use `nearest.chamfer_loss`.
Notation: A, accuracy, is the mean distance from points of the prediction a to their nearest in the truth b, C,
completeness, that from b to a. Point sets are samples of surfaces, uniform by area (`sampling.sample_surface`); say
with every number how many, the seed, and how the shapes were normalised (`alignment.unit_transform`).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.spatial import KDTree

from renderers.cameras.camera import Camera, unproject
from renderers.meshes.distances import closest_points, contains
from renderers.meshes.sampling import sample_surface

# compiled as a whole: operation by operation every shape would cost dozens of small compilations
_sampled = jax.jit(sample_surface, static_argnames=("count", "stratified"))
_unproject = jax.jit(unproject)
Points = Float[np.ndarray | Array, "n 3"]
Others = Float[np.ndarray | Array, "m 3"]


def nearest_distances(points: Points, others: Others) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Distance from each point to the nearest of `others`, and that one's index.

    Raises:
        ValueError: an empty set, or numbers that are not finite.
    """
    points, others = _point_set("points", points), _point_set("others", others)
    distances, index = KDTree(others).query(points, workers=-1)
    return np.asarray(distances), np.asarray(index, np.int64)


def accuracy(points_a: Points, points_b: Others) -> float:
    """Mean distance from points of the prediction a to the truth b."""
    return float(nearest_distances(points_a, points_b)[0].mean())


def completeness(points_a: Points, points_b: Others) -> float:
    """Mean distance from points of the truth b to the prediction a."""
    return accuracy(points_b, points_a)


def chamfer_l1(points_a: Points, points_b: Others) -> float:
    """Chamfer-L1 of Occupancy Networks: (A + C) / 2 with distances that are not squared."""
    return 0.5 * (accuracy(points_a, points_b) + completeness(points_a, points_b))


def chamfer_l2_squared(points_a: Points, points_b: Others) -> float:
    """Chamfer-L2: the mean squared distance from a to b plus that from b to a (a sum, not a mean)."""
    there, back = nearest_distances(points_a, points_b)[0], nearest_distances(points_b, points_a)[0]
    return float((there**2).mean() + (back**2).mean())


def f_score(points_a: Points, points_b: Others, threshold: float) -> float:
    """2 P R / (P + R): precision P is the share of a nearer than `threshold` to b, recall R that of b to a; 0 to 1.

    Strictly nearer. Usual thresholds are 0.01, 0.02 and 0.05 of the truth's longest side; 0.2 in [-1, 1]^3 (some
    reconstruction models) is lenient.
    """
    return _f_score(
        nearest_distances(points_a, points_b)[0], nearest_distances(points_b, points_a)[0], float(threshold)
    )


def normal_consistency(points_a: Points, normals_a: Points, points_b: Others, normals_b: Others) -> float:
    """Mean |cosine| between a point's normal and that of its nearest neighbour, averaged over both directions.

    The sign of a normal does not count. Normals are unit vectors (or zero, which counts as perpendicular).
    """
    to_b, to_a = nearest_distances(points_a, points_b)[1], nearest_distances(points_b, points_a)[1]
    normals_a, normals_b = np.asarray(normals_a, np.float64), np.asarray(normals_b, np.float64)
    there = np.abs((normals_a * normals_b[to_b]).sum(-1)).mean()
    return float(0.5 * (there + np.abs((normals_b * normals_a[to_a]).sum(-1)).mean()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurfaceErrors:
    """Distances between samples of a predicted and a true surface, by the definitions of this module.

    `f_scores` has one value for each of `thresholds`. Noise floor: two independent sample sets of one surface of area S
    lie about 0.5 sqrt(S / count) apart.
    """

    chamfer_l1: float
    chamfer_l2_squared: float
    accuracy: float
    completeness: float
    normal_consistency: float
    thresholds: tuple[float, ...]
    f_scores: tuple[float, ...]
    count: int


def compare_surfaces(
    key: PRNGKeyArray,
    vertices_a: Float[np.ndarray | Array, "v 3"],
    faces_a: Int[np.ndarray | Array, "f 3"],
    vertices_b: Float[np.ndarray | Array, "w 3"],
    faces_b: Int[np.ndarray | Array, "g 3"],
    *,
    count: int = 100_000,
    thresholds: Sequence[float] = (0.01, 0.02, 0.05),
) -> SurfaceErrors:
    """All point-based distances of a prediction a from the truth b, from `count` samples of each.

    Units are those of the vertices; with b normalised to a longest side of 1, F-score at 0.01 is Tatarchenko's 1%.
    """
    key_a, key_b = jax.random.split(key)
    a, b = _sample(key_a, vertices_a, faces_a, count), _sample(key_b, vertices_b, faces_b, count)
    (there, to_b), (back, to_a) = nearest_distances(a.points, b.points), nearest_distances(b.points, a.points)
    normals_a, normals_b = np.asarray(a.normals, np.float64), np.asarray(b.normals, np.float64)
    cosines = [np.abs((normals_a * normals_b[to_b]).sum(-1)), np.abs((normals_b * normals_a[to_a]).sum(-1))]
    return SurfaceErrors(
        chamfer_l1=float(0.5 * (there.mean() + back.mean())),
        chamfer_l2_squared=float((there**2).mean() + (back**2).mean()),
        accuracy=float(there.mean()),
        completeness=float(back.mean()),
        normal_consistency=float(0.5 * (cosines[0].mean() + cosines[1].mean())),
        thresholds=tuple(float(t) for t in thresholds),
        f_scores=tuple(_f_score(there, back, float(t)) for t in thresholds),
        count=count,
    )


def point_to_surface(
    points: Points, vertices: Float[np.ndarray | Array, "v 3"], faces: Int[np.ndarray | Array, "f 3"]
) -> float:
    """P2S: mean exact distance from points to a surface (not to samples of it). Points of the truth, by custom."""
    return float(closest_points(points, vertices, faces).distances.mean())


def occupancy_iou(inside_a: Bool[np.ndarray | Array, " n"], inside_b: Bool[np.ndarray | Array, " n"]) -> float:
    """Intersection over union of two solids from whether points are inside; 1 if both are empty.

    From a mesh by `distances.contains`, from an SDF by `sdf < 0`.
    """
    a, b = np.asarray(inside_a), np.asarray(inside_b)
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def volume_iou(
    key: PRNGKeyArray,
    vertices_a: Float[np.ndarray | Array, "v 3"],
    faces_a: Int[np.ndarray | Array, "f 3"],
    vertices_b: Float[np.ndarray | Array, "w 3"],
    faces_b: Int[np.ndarray | Array, "g 3"],
    *,
    count: int = 100_000,
    margin: float = 0.1,
) -> float:
    """Volume IoU of two solids from uniform points in the bounding box of b, the truth, widened by `margin`.

    The box grows by `margin` of its sides in all, half of that at either end. Inside is by winding number, which wants
    closed meshes.
    """
    vertices_b = np.asarray(vertices_b, np.float64)
    low, high = vertices_b.min(0), vertices_b.max(0)
    low, high = low - 0.5 * margin * (high - low), high + 0.5 * margin * (high - low)
    points = low + (high - low) * np.asarray(jax.random.uniform(key, (count, 3)), np.float64)
    return occupancy_iou(contains(points, vertices_a, faces_a), contains(points, vertices_b, faces_b))


def silhouette_iou(masks_a: Float[np.ndarray | Array, "v h w"], masks_b: Float[np.ndarray | Array, "v h w"]) -> float:
    """Mean over views of sum(min) / sum(max) of two masks in [0, 1]; 1 for a view in which both are empty.

    Twenty cameras at the corners of a dodecahedron, 512 x 512, are the custom: robust to open meshes.
    """
    a, b = np.asarray(masks_a, np.float64), np.asarray(masks_b, np.float64)
    both, either = np.minimum(a, b).sum((1, 2)), np.maximum(a, b).sum((1, 2))
    return float(np.where(either > 0, both / np.where(either > 0, either, 1.0), 1.0).mean())


def visible_points(
    depths: Sequence[Float[np.ndarray | Array, "h w"]], cameras: Sequence[Camera]
) -> Float[np.ndarray, "n 3"]:
    """World points behind all pixels of depth maps (camera z, 0 or less where empty).

    Chamfer distances between such points of two shapes from 24 cameras or so compare what can be seen, which is fair to
    shapes with hollow or filled interiors.
    """
    parts = []
    for depth, camera in zip(depths, cameras, strict=True):
        depth = np.asarray(depth, np.float32)
        row, column = np.mgrid[: depth.shape[0], : depth.shape[1]]
        pixels = np.stack([column + 0.5, row + 0.5], -1).astype(np.float32)
        parts.append(np.asarray(_unproject(camera, jnp.asarray(pixels), jnp.asarray(depth)))[depth > 0])
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, 3))


def _f_score(there, back, threshold):
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _sample(key, vertices, faces, count):
    vertices, faces = np.asarray(vertices), np.asarray(faces, np.int32)
    if len(faces) == 0:
        raise ValueError("a surface to compare needs at least one face, got none")
    return _sampled(key, jnp.asarray(vertices, jnp.float32), jnp.asarray(faces), count)


def _point_set(name, points):
    points = np.asarray(points, np.float64)
    if len(points) == 0:
        raise ValueError(f"{name} must hold at least one point, got none; was the mesh or the image empty?")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite, point {np.argwhere(~np.isfinite(points))[0, 0]} is not")
    return points
