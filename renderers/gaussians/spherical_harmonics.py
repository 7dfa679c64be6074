"""View-dependent colour as real spherical harmonics.

Basis order and signs are those of the 3D Gaussian Splatting files (arXiv 2308.04079): the real orthonormal harmonics
with the Condon-Shortley phase, band l at indices l^2 .. l^2 + 2l, so that band 1 is (-y, z, -x) times 0.4886.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera, camera_center

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


def sh_colors(
    coefficients: Float[Array, "n k c"], means: Float[Array, "n 3"], camera: Camera, degree: int
) -> Float[Array, "n c"]:
    """Colour of each Gaussian as the camera sees it: max(SH + 0.5, 0).

    The direction runs from the camera's centre (-R^T t) to the Gaussian's; for a Gaussian at the centre it is undefined
    and taken as zero, with no gradient. Differentiable in all inputs; zero gradient where the maximum cuts.

    Args:
      coefficients: any number of channels; the first (degree + 1)^2 of k are used.
      means: world units.
      camera: its pose only.
      degree: 0 .. 4, static.

    Raises:
      ValueError: more coefficients asked for than given.
    """
    used = (degree + 1) ** 2
    if used > coefficients.shape[-2]:
        raise ValueError(f"degree {degree} needs {used} coefficients a channel, got {coefficients.shape[-2]}")
    offset = means - camera_center(camera)[None]
    squared = jnp.sum(offset * offset, -1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))  # substitute before the root: no infinite derivative at 0
    basis = sh_basis(jnp.where(squared > 0, offset / norm, 0.0), degree)
    return jnp.maximum(_series(basis, coefficients[:, :used]) + 0.5, 0.0)


@jax.custom_jvp
def _series(basis: Float[Array, "n k"], coefficients: Float[Array, "n k c"]) -> Float[Array, "n c"]:
    """Sum over k, term by term: XLA fuses that with the basis into one pass, where a contraction writes both out."""
    total = basis[:, :1] * coefficients[:, 0]
    for k in range(1, basis.shape[1]):
        total = total + basis[:, k, None] * coefficients[:, k]
    return total


@_series.defjvp
def _series_jvp(primals, tangents):
    """Product rule, in the shapes whose transposes (an outer product, and a sum over channels) are one pass each.

    The transpose of the terms above would be k arrays of the size of the coefficients, padded and added.
    """
    (basis, coefficients), (basis_dot, coefficients_dot) = primals, tangents
    of_basis = [jnp.sum(basis_dot * coefficients[:, :, j], 1) for j in range(coefficients.shape[2])]
    of_coefficients = jnp.sum(basis[:, :, None] * coefficients_dot, 1)
    return _series(basis, coefficients), jnp.stack(of_basis, -1) + of_coefficients
