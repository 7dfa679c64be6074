"""Generalised winding numbers: inside and outside of meshes that need not be closed.

Jacobson et al., "Robust inside-outside segmentation using generalized winding numbers", 2013: the sum over all faces of
the solid angle under which a point sees them, over 4 pi. 1 inside and 0 outside of a closed surface; holes and overlaps
give values in between, so "greater than a half" is a robust test.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_PAIRS = 1 << 18  # point-triangle or point-group pairs in work at a time
_LEAF = 16  # faces a group of the fast version
_FAR = 2.5  # radii of a group from which on it is one dipole


def winding_numbers(
    points: Float[Array, "n 3"], vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]
) -> Float[Array, " n"]:
    """Winding numbers of a mesh around points, exact, differentiable, jit-able; O(n f) in chunks of points."""
    corners = vertices[faces]

    def around(point):
        return jnp.sum(solid_angles(jnp.broadcast_to(point, (len(faces), 3)), corners)) / (4 * math.pi)

    return jax.lax.map(around, points, batch_size=max(1, _PAIRS // max(len(faces), 1)))


def solid_angles(points: Float[Array, "*n 3"], corners: Float[Array, "*n 3 3"]) -> Float[Array, "*n"]:
    """Signed solid angle under which each point sees its triangle, in (-2 pi, 2 pi); positive from its inner side.

    Van Oosterom and Strackee, "The solid angle of a plane triangle", 1983. From a point on the triangle's plane: 0.
    """
    a, b, c = (corners[..., k, :] - points for k in range(3))
    la, lb, lc = (jnp.sqrt(jnp.sum(v * v, -1)) for v in (a, b, c))
    ab, bc, ca = jnp.sum(a * b, -1), jnp.sum(b * c, -1), jnp.sum(c * a, -1)
    return 2.0 * jnp.arctan2(jnp.sum(a * jnp.cross(b, c), -1), la * lb * lc + ab * lc + bc * la + ca * lb)


def fast_winding_numbers(
    points: Float[np.ndarray | Array, "n 3"],
    vertices: Float[np.ndarray | Array, "v 3"],
    faces: Int[np.ndarray | Array, "f 3"],
) -> Float[np.ndarray, " n"]:
    """Winding numbers of large meshes: far groups of faces count as one dipole each. Runs on the host, in float32.

    The first-order expansion of Barill et al., "Fast winding numbers for soups and clouds", 2018, on one level of
    groups; off by about 0.01 at most, which the test against a half does not notice (near faces are exact).

    Raises:
        ValueError: a mesh without faces.
    """
    faces = np.asarray(faces)
    if len(faces) == 0:
        raise ValueError("winding numbers need a mesh with at least one face, got none")
    corners, points = np.asarray(vertices, np.float64)[faces], np.asarray(points, np.float64)
    middle = corners.mean((0, 1))  # float32 is finest around zero
    corners, points = corners - middle, (points - middle).astype(np.float32)
    groups = _groups(corners)
    weights = np.linalg.norm(_area_vectors(groups), axis=-1) + np.finfo(float).tiny
    centers = (weights[..., None] * groups.mean(2)).sum(1) / weights.sum(1)[:, None]
    reach = _FAR * np.linalg.norm(groups - centers[:, None, None], axis=-1).max((1, 2))
    far = [jnp.asarray(x, jnp.float32) for x in (centers, _area_vectors(groups).sum(1), reach**2)]
    groups = jnp.asarray(groups, jnp.float32)
    winding = np.zeros(len(points))
    size = max(1, _PAIRS // len(centers))
    for start in range(0, len(points), size):
        some = points[start : start + size]
        dipoles, near = _far_angles(jnp.asarray(_padded(some, size)), *far)
        query, group = np.nonzero(np.asarray(near)[: len(some)])
        winding[start : start + size] = np.asarray(dipoles)[: len(some)]
        for first in range(0, len(query), _PAIRS // _LEAF):
            rows = slice(first, first + _PAIRS // _LEAF)
            who, where = _padded(query[rows], _PAIRS // _LEAF), _padded(group[rows], _PAIRS // _LEAF)
            angles = _near_angles(jnp.asarray(some[who]), groups, jnp.asarray(where))
            winding[start : start + size] += np.bincount(
                query[rows], weights=np.asarray(angles)[: len(query[rows])], minlength=len(some)
            )
    return winding / (4 * math.pi)


def _area_vectors(corners):
    return 0.5 * np.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])


@jax.jit
def _far_angles(points, centers, dipoles, reach_squared):
    """Solid angle of all far groups as dipoles, and which groups are near."""

    def around(point):
        offset = centers - point[None]
        squared = jnp.sum(offset * offset, -1)
        near = squared < reach_squared
        safe = jnp.where(near, 1.0, jnp.maximum(squared, 1e-30))
        return jnp.sum(jnp.where(near, 0.0, jnp.sum(offset * dipoles, -1) / (safe * jnp.sqrt(safe)))), near

    return jax.vmap(around)(points)


@jax.jit
def _near_angles(points, groups, which):
    corners = groups[which]
    return jnp.sum(solid_angles(jnp.broadcast_to(points[:, None], corners.shape[:2] + (3,)), corners), axis=-1)


def _padded(values, size):
    return np.pad(values, [(0, size - len(values)), *[(0, 0)] * (values.ndim - 1)])


def _groups(corners):
    """Triangles in groups of near neighbours, `g _LEAF 3 3`; the last group is filled up with points of no area.

    Along a Z-order curve of 2^10 cells a side.
    """
    centers = corners.mean(1)
    low = centers.min(0)
    side = max(float((centers.max(0) - low).max()), np.finfo(float).tiny)
    cells = ((centers - low) / side * 1023).astype(np.int64)
    code = np.zeros(len(centers), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    order = np.argsort(code, kind="stable")
    filler = np.repeat(corners[order[-1], :1][None], -len(order) % _LEAF, axis=0).repeat(3, axis=1)
    return np.concatenate([corners[order], filler]).reshape(-1, _LEAF, 3, 3)
