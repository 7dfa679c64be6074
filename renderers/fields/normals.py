"""Gradients of fields, the normals they make, and losses on both.

A field here is any function of points `[n, 3]` to numbers `[n]`, each by its own point: a density, a signed distance.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Callable[[Array], Array]
Stencil = Literal["central", "tetrahedron"]

_SMALLEST_SQUARED = 1e-24  # of a gradient that has a direction


def value_and_gradient(field: Scalar, points: Float[Array, "n 3"]) -> tuple[Float[Array, " n"], Float[Array, "n 3"]]:
    """Values, and derivatives with respect to the points. Differentiable again, in whatever the field depends on."""
    values, pull = jax.vjp(field, points)
    return values, pull(jnp.ones_like(values))[0]


def finite_gradient(
    field: Scalar, points: Float[Array, "n 3"], step: float | Float[Array, ""], *, stencil: Stencil = "central"
) -> Float[Array, "n 3"]:
    """Gradient by differences over `step`, which also smooths what is finer (Neuralangelo, arXiv:2306.03092, eq. 4).

    "central" takes six values and is exact for quadratics; "tetrahedron" takes four, and is exact for linear fields and
    for the squares (not the products) of coordinates.
    """
    if stencil == "central":
        offsets = jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
        factor = 1 / 2
    elif stencil == "tetrahedron":
        offsets = jnp.asarray([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
        factor = 1 / 4
    else:
        raise ValueError(f"expected stencil central or tetrahedron, got {stencil!r}")
    offsets = offsets.astype(points.dtype)
    around = points[:, None] + step * offsets[None]
    values = field(around.reshape(-1, 3)).reshape(around.shape[:2])
    return jnp.matmul(values, offsets, precision=jax.lax.Precision.HIGHEST) * (factor / step)


def unit(vectors: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Vectors of length one; zero, with zero gradient, where there is no direction."""
    squared = jnp.sum(vectors * vectors, -1, keepdims=True)
    some = squared > _SMALLEST_SQUARED
    return jnp.where(some, vectors / jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0)


def density_normals(density: Scalar, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Unit normals of a density field: against its gradient, towards where there is less."""
    return -unit(value_and_gradient(density, points)[1])


def distance_normals(distance: Scalar, points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Unit normals of a signed distance that is negative inside: along its gradient."""
    return unit(value_and_gradient(distance, points)[1])


def orientation_loss(
    weights: Float[Array, "*n"], normals: Float[Array, "*n 3"], directions: Float[Array, "*n 3"]
) -> Float[Array, "*n"]:
    """weight * max(0, n . d)^2 of each sample: what is seen faces the eye (Ref-NeRF, arXiv:2112.03907, eq. 11).

    Sum over a ray's samples. DreamFusion stops the gradient to the weights, so that matter turns but does not fade.
    """
    away = jnp.sum(normals * directions, -1)
    return weights * jnp.maximum(away, 0.0) ** 2


def predicted_normal_loss(
    weights: Float[Array, "*n"], normals: Float[Array, "*n 3"], predicted: Float[Array, "*n 3"]
) -> Float[Array, "*n"]:
    """weight * |n - predicted|^2 of each sample (Ref-NeRF, eq. 10): ties a network's smooth normals to the field's."""
    return weights * jnp.sum((normals - predicted) ** 2, -1)


def eikonal_loss(gradients: Float[Array, "*n 3"]) -> Float[Array, "*n"]:
    """(|gradient| - 1)^2 of each point: what makes a field a distance (IGR, arXiv:2002.10099, eq. 2).

    Where the gradient is zero the loss is 1 and its own gradient is taken as zero.
    """
    squared = jnp.sum(gradients * gradients, -1)
    some = squared > _SMALLEST_SQUARED
    return (jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0) - 1) ** 2
