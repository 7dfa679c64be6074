"""Exact distances from points to triangle meshes: closest points, unsigned and signed distances, winding numbers.

The closest point of a triangle with corners v_i is p = sum_i w_i v_i. By the envelope theorem the derivative of
|q - p|^2 with respect to q and v_i is that at constant weights w, so that `surface_points` with the weights found here
gives exact gradients while the search itself stays on the host.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial import KDTree

from renderers.meshes.winding import fast_winding_numbers

_PAIRS = 1 << 20  # point-triangle pairs in work at a time: bounds memory to some 300 MB
_FIRST_NEIGHBOURS = 8
_PROXIES_PER_FACE = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosestPoints:
    """For each query its nearest point on a mesh. Host arrays.

    Attributes:
        points: nearest points of the surface.
        distances: lengths, not squared.
        face_index: face on which the point lies.
        barycentric: weights of that face's corners.
    """

    points: Float[np.ndarray, "n 3"]
    distances: Float[np.ndarray, " n"]
    face_index: Int[np.ndarray, " n"]
    barycentric: Float[np.ndarray, "n 3"]


def closest_barycentrics(
    points: Float[np.ndarray | Array, "*n 3"],
    corners: Float[np.ndarray | Array, "*n 3 3"],
    *,
    smallest_area: float = 0.0,
) -> Float[np.ndarray | Array, "*n 3"]:
    """Barycentric weights of each triangle's point nearest to a point; numpy or jax, as the arguments are.

    The foot of the perpendicular where it falls inside, else the best point of the three edges, which also covers
    triangles that are segments or points. Faces of an area up to `smallest_area` count as their three edges only.
    """
    xp = corners.__array_namespace__()
    p = _components(points)
    a, b, c = (_components(corners[..., k, :]) for k in range(3))
    # numpy is several times faster on components than on short last axes; XLA does not mind
    best, best_squared = None, None
    zero = xp.zeros_like(p[0])
    for start, end, place in ((a, b, 0), (b, c, 1), (c, a, 2)):
        edge, offset = _minus(end, start), _minus(p, start)
        length = _dot(edge, edge)
        t = xp.clip(_dot(offset, edge) / xp.where(length > 0, length, 1.0), 0.0, 1.0)
        gap = tuple(o - t * e for o, e in zip(offset, edge, strict=True))
        squared = _dot(gap, gap)
        weights = [zero, zero, zero]
        weights[place], weights[(place + 1) % 3] = 1.0 - t, t
        if best is None:
            best, best_squared = weights, squared
        else:
            nearer = squared < best_squared
            best = [xp.where(nearer, new, old) for new, old in zip(weights, best, strict=True)]
            best_squared = xp.where(nearer, squared, best_squared)
    ab, ca = _minus(b, a), _minus(a, c)
    normal = _cross(ca, ab)
    doubled = _dot(normal, normal)
    scale = xp.where(doubled > 0, doubled, 1.0)
    # signed areas of the triangles that the foot of the perpendicular makes with the edges c-a and a-b
    second = _dot(_cross(ca, _minus(p, c)), normal) / scale
    third = _dot(_cross(ab, _minus(p, a)), normal) / scale
    first = 1.0 - second - third
    inside = (xp.minimum(xp.minimum(first, second), third) >= 0) & (doubled > 4.0 * smallest_area**2)
    return xp.stack([xp.where(inside, w, old) for w, old in zip((first, second, third), best, strict=True)], -1)


def _components(vectors):
    return tuple(vectors[..., k] for k in range(3))


def _minus(a, b):
    return tuple(x - y for x, y in zip(a, b, strict=True))


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def surface_points(
    vertices: Float[np.ndarray | Array, "v 3"],
    faces: Int[np.ndarray | Array, "f 3"],
    face_index: Int[np.ndarray | Array, "*n"],
    barycentric: Float[np.ndarray | Array, "*n 3"],
) -> Float[np.ndarray | Array, "*n 3"]:
    """Points of a surface given by face and barycentric weights; differentiable in vertices and weights."""
    return (vertices[faces[face_index]] * barycentric[..., None]).sum(-2)


def closest_points(
    points: Float[np.ndarray | Array, "n 3"],
    vertices: Float[np.ndarray | Array, "v 3"],
    faces: Int[np.ndarray | Array, "f 3"],
) -> ClosestPoints:
    """The nearest point of a mesh for each point, exact. Runs on the host, in float64.

    Triangles are covered by balls of one radius; a k-d tree of the balls' centres names candidates, and more are
    asked for until no ball left out can hold anything nearer.

    Raises:
        ValueError: a mesh without faces, or numbers that are not finite.
    """
    points = _finite("points", points)
    corners = _corners(vertices, faces)
    centers, owners, radius = _cover(corners)
    tree = KDTree(centers)
    found = [_nearest(points[rows], tree, owners, radius, corners) for rows in _chunks(len(points), 1 << 14)]
    index = np.concatenate([part[0] for part in found]) if found else np.zeros(0, np.int64)
    weights = np.concatenate([part[1] for part in found]) if found else np.zeros((0, 3))
    nearest = (corners[index] * weights[..., None]).sum(-2)
    return ClosestPoints(
        points=nearest,
        distances=np.linalg.norm(points - nearest, axis=-1),
        face_index=index,
        barycentric=weights,
    )


def _cover(corners):
    """Centres of balls of one radius that cover all triangles, the triangle of each, and the radius."""
    longest = np.sqrt(((corners - np.roll(corners, -1, axis=1)) ** 2).sum(-1).max(-1))
    # a triangle lies within 2/3 of its longest edge of its centroid (no median is longer than the longest edge)
    radius = 2.0 / 3.0 * max(float(np.median(longest)), 1e-3 * float(longest.max()), np.finfo(float).tiny)
    while (np.ceil(np.maximum(2 * longest / (3 * radius), 1)) ** 2).sum() > _PROXIES_PER_FACE * len(corners) + 4096:
        radius *= 1.25
    pieces = np.ceil(np.maximum(2 * longest / (3 * radius), 1)).astype(int)
    centers, owners = [], []
    for count in np.unique(pieces):
        which = np.flatnonzero(pieces == count)
        i, j = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
        up, down = i + j <= count - 1, i + j <= count - 2
        first = np.concatenate([3 * i[up] + 1, 3 * i[down] + 2]) / (3 * count)
        second = np.concatenate([3 * j[up] + 1, 3 * j[down] + 2]) / (3 * count)
        weights = np.stack([first, second, 1 - first - second], -1)
        centers.append(np.einsum("sk,fkd->fsd", weights, corners[which]).reshape(-1, 3))
        owners.append(np.repeat(which, len(weights)))
    # a little more than the bound, for rounding: a candidate too many costs nothing
    return np.concatenate(centers), np.concatenate(owners), radius * (1 + 1e-9)


def _nearest(points, tree, owners, radius, corners):
    """Face and weights of the nearest point of each of some points."""
    index, weights = np.zeros(len(points), np.int64), np.zeros((len(points), 3))
    left, count = np.arange(len(points)), _FIRST_NEIGHBOURS
    while len(left):
        count = min(count, len(owners))
        unsure = []
        for rows in _chunks(len(left), max(1, _PAIRS // count)):
            some = left[rows]
            distance, ball = tree.query(points[some], k=np.arange(1, count + 1), workers=-1)
            query, place = np.nonzero(distance - radius <= distance[:, :1])  # the first ball's centre is on the surface
            face = owners[ball[query, place]]
            pair_weights = closest_barycentrics(points[some][query], corners[face])
            gap = points[some][query] - np.einsum("nk,nkd->nd", pair_weights, corners[face])
            squared = _dot(*2 * (_components(gap),))
            order = np.lexsort((face, squared, query))
            first = order[np.r_[True, np.diff(query[order]) > 0]]
            index[some], weights[some] = face[first], pair_weights[first]
            if count < len(owners):
                unsure.append(some[np.sqrt(squared[first]) > distance[:, -1] - radius])
        left, count = np.concatenate(unsure) if unsure else np.zeros(0, np.int64), 4 * count
    return index, weights


def contains(
    points: Float[np.ndarray | Array, "n 3"],
    vertices: Float[np.ndarray | Array, "v 3"],
    faces: Int[np.ndarray | Array, "f 3"],
) -> Bool[np.ndarray, " n"]:
    """Whether points are inside a mesh: winding number above a half. Runs on the host; the mesh may have holes."""
    return fast_winding_numbers(points, vertices, faces) > 0.5


def signed_distances(
    points: Float[np.ndarray | Array, "n 3"],
    vertices: Float[np.ndarray | Array, "v 3"],
    faces: Int[np.ndarray | Array, "f 3"],
) -> Float[np.ndarray, " n"]:
    """Distances to a mesh, negative inside. Runs on the host; the sign is that of `contains`."""
    distances = closest_points(points, vertices, faces).distances
    return np.where(contains(points, vertices, faces), -distances, distances)


@functools.partial(jax.jit, static_argnames="smallest_area")
def brute_force_distances(
    points: Float[Array, "n 3"],
    vertices: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    *,
    smallest_area: float = 0.0,
) -> Float[Array, " n"]:
    """Distances from points to a mesh by looking at every face; O(n f), any device, gradients to points and vertices.

    Args:
        points: queries.
        vertices: of the mesh.
        faces: of the mesh.
        smallest_area: faces of an area up to this count as their edges only (see `closest_barycentrics`).
    """
    corners = vertices[faces]

    def nearest(point):
        spread = jnp.broadcast_to(point, (len(faces), 3))
        weights = jax.lax.stop_gradient(closest_barycentrics(spread, corners, smallest_area=smallest_area))
        gap = spread - (corners * weights[..., None]).sum(-2)
        squared = jnp.min(jnp.sum(gap * gap, -1))
        some = squared > 0
        return jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0)

    return jax.lax.map(nearest, points, batch_size=max(1, _PAIRS // max(len(faces), 1)))


def _chunks(count, size):
    return [slice(start, start + size) for start in range(0, count, size)]


def _finite(name, values):
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, entry {np.argwhere(~np.isfinite(values))[0].tolist()} is not")
    return values


def _corners(vertices, faces):
    vertices, faces = _finite("vertices", vertices), np.asarray(faces)
    if len(faces) == 0:
        raise ValueError("distances need a mesh with at least one face, got none")
    return vertices[faces]
