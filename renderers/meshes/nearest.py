"""Nearest neighbours of point sets in jax, and Chamfer distances to train with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_PAIRS = 1 << 22  # distances in work at a time


def nearest_indices(points: Float[Array, "n 3"], others: Float[Array, "m 3"]) -> Int[Array, " n"]:
    """Index of the nearest of `others` for each point, by brute force in chunks; any device, static shapes.

    No gradient: pick `others[indices]` and differentiate that.
    """
    points, others = jax.lax.stop_gradient((points, others))

    def nearest(point):
        gap = others - point[None]
        return jnp.argmin(jnp.sum(gap * gap, axis=-1)).astype(jnp.int32)

    return jax.lax.map(nearest, points, batch_size=max(1, _PAIRS // max(len(others), 1)))


def chamfer_loss(
    points_a: Float[Array, "n 3"], points_b: Float[Array, "m 3"], *, squared: bool = True
) -> Float[Array, ""]:
    """Chamfer distance with gradients to both sets, jit-able; the matching itself is constant.

    Args:
        points_a: one set.
        points_b: the other set.
        squared: True is `metrics.chamfer_l2_squared` (mean squared both ways, summed), False is `metrics.chamfer_l1`
            (mean distance both ways, halved), whose gradient is zero for points that coincide.
    """
    there = points_b[nearest_indices(points_a, points_b)] - points_a
    back = points_a[nearest_indices(points_b, points_a)] - points_b
    if squared:
        return jnp.mean(jnp.sum(there * there, -1)) + jnp.mean(jnp.sum(back * back, -1))
    return 0.5 * (jnp.mean(_lengths(there)) + jnp.mean(_lengths(back)))


def _lengths(vectors):
    squared = jnp.sum(vectors * vectors, -1)
    some = squared > 0  # the inner where keeps the square root's infinite derivative away
    return jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0)
