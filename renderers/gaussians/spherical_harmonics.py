"""View-dependent colour as real spherical harmonics; their order and signs are those of `renderers.harmonics`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera, camera_center
from renderers.harmonics import sh_basis


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
