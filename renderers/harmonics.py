"""Real spherical harmonics of directions.

Basis order and signs are those of the 3D Gaussian Splatting files (arXiv 2308.04079): the real orthonormal harmonics
with the Condon-Shortley phase, band l at indices l^2 .. l^2 + 2l, so that band 1 is (-y, z, -x) times 0.4886.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_DEGREE = 4
BAND_0 = 0.5 / math.sqrt(math.pi)


def sh_basis(directions: Float[Array, "*batch 3"], degree: int) -> Float[Array, "*batch k"]:
    """Real spherical harmonics of unit directions, bands 0 .. degree.

    Args:
      directions: unit vectors; a polynomial in x, y, z, differentiable everywhere.
      degree: 0 .. 4, static.

    Returns:
      k = (degree + 1)^2 values a direction.

    Raises:
      ValueError: degree outside 0 .. 4.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"expected a spherical-harmonic degree in 0..{MAX_DEGREE}, got {degree}")
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    xx, yy, zz = x * x, y * y, z * z
    basis = [jnp.full_like(x, BAND_0)]
    if degree >= 1:
        a = math.sqrt(3 / (4 * math.pi))
        basis += [-a * y, a * z, -a * x]
    if degree >= 2:
        a, b = math.sqrt(15 / (4 * math.pi)), math.sqrt(5 / (16 * math.pi))
        basis += [a * x * y, -a * y * z, b * (3 * zz - 1), -a * x * z, a / 2 * (xx - yy)]
    if degree >= 3:
        a, b = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (4 * math.pi))
        c, d = math.sqrt(21 / (32 * math.pi)), math.sqrt(7 / (16 * math.pi))
        basis += [
            -a * y * (3 * xx - yy),
            b * x * y * z,
            -c * y * (5 * zz - 1),
            d * z * (5 * zz - 3),
            -c * x * (5 * zz - 1),
            b / 2 * z * (xx - yy),
            -a * x * (xx - 3 * yy),
        ]
    if degree >= 4:
        a, b = 3 / 4 * math.sqrt(35 / math.pi), 3 / 4 * math.sqrt(35 / (2 * math.pi))
        c, d = 3 / 4 * math.sqrt(5 / math.pi), 3 / 4 * math.sqrt(5 / (2 * math.pi))
        e = 3 / 16 / math.sqrt(math.pi)
        basis += [
            a * x * y * (xx - yy),
            -b * y * z * (3 * xx - yy),
            c * x * y * (7 * zz - 1),
            -d * y * z * (7 * zz - 3),
            e * (35 * zz * zz - 30 * zz + 3),
            -d * x * z * (7 * zz - 3),
            c / 2 * (xx - yy) * (7 * zz - 1),
            -b * x * z * (xx - 3 * yy),
            a / 4 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ]
    return jnp.stack(basis, -1)
