"""Covariance of a Gaussian from its quaternion and scales: Sigma = R S S^T R^T (arXiv 2308.04079, Eq. 6)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def normalise_quaternions(quaternions: Float[Array, "*batch 4"]) -> Float[Array, "*batch 4"]:
    """Unit quaternions; the zero quaternion stays zero, which `rotation_matrices` maps to the identity, gradient 0.

    Divides by the largest entry first, so that neither tiny nor huge quaternions overflow when squared.
    """
    largest = lax.stop_gradient(jnp.max(jnp.abs(quaternions), -1, keepdims=True))  # the result does not depend on it
    scaled = quaternions / jnp.where(largest > 0, largest, 1.0)
    squared = jnp.sum(scaled * scaled, -1, keepdims=True)
    return scaled / jnp.sqrt(jnp.where(squared > 0, squared, 1.0))


def rotation_matrices(quaternions: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of quaternions (wxyz, any length); identity for the zero quaternion."""
    q = normalise_quaternions(quaternions)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def principal_axes(quaternions: Float[Array, "n 4"], scales: Float[Array, "n 3"]) -> Float[Array, "n 3 3"]:
    """R S: its columns are the axes of the ellipsoid of one standard deviation.

    Args:
      quaternions: wxyz, any length.
      scales: standard deviations along the axes, world units.
    """
    return rotation_matrices(quaternions) * scales[:, None, :]


def covariances(quaternions: Float[Array, "n 4"], scales: Float[Array, "n 3"]) -> Float[Array, "n 3 3"]:
    """Sigma = (R S)(R S)^T, symmetric positive semi-definite; arguments as for `principal_axes`."""
    axes = principal_axes(quaternions, scales)
    return jnp.sum(axes[:, :, None, :] * axes[:, None, :, :], -1)
