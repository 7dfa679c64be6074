"""The Gaussians record: a splat scene in the parameters that are optimised and stored.

The rasterizer takes the activated values; the pre-activation form kept here is unconstrained and is what PLY files hold
(Kerbl et al. 2023, arXiv 2308.04079, section 5.1).
"""

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import KDTree

from renderers.harmonics import BAND_0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Gaussians:
    """A set of anisotropic 3D Gaussians with view-dependent colour.

    Attributes:
      means: Float["n 3"], centres in world units.
      quaternions: Float["n 4"], wxyz, not normalised.
      log_scales: Float["n 3"], natural logarithm of the standard deviations along the rotated axes.
      opacity_logits: Float["n"], the opacity is their sigmoid.
      sh: Float["n k 3"], spherical-harmonic coefficients, k = (degree + 1)^2; entry 0 is the constant band.
    """

    means: Float[Array, "n 3"]
    quaternions: Float[Array, "n 4"]
    log_scales: Float[Array, "n 3"]
    opacity_logits: Float[Array, " n"]
    sh: Float[Array, "n k 3"]


def sh_degree(gaussians: Gaussians) -> int:
    """Highest spherical-harmonic degree that the record has coefficients for."""
    return math.isqrt(gaussians.sh.shape[-2]) - 1


def from_points(
    points: Float[np.ndarray, "n 3"],
    colors: Float[np.ndarray, "n 3"],
    *,
    degree: int = 3,
    opacity: float = 0.1,
    scale_factor: float = 1.0,
) -> Gaussians:
    """One isotropic Gaussian a point, as wide as the distance to its neighbours.

    The standard deviation is `scale_factor` times the root mean square distance to the 3 nearest other points
    (arXiv 2308.04079, section 5.1; root mean square as in gsplat's `simple_trainer`). Distances are floored at 1e-7 of
    the cloud's extent, so that coincident points stay finite. Runs on the host.

    Args:
      points: world units.
      colors: in [0, 1].
      degree: spherical-harmonic degree to make room for; bands above 0 start at zero.
      opacity: initial opacity in (0, 1).
      scale_factor: factor on the neighbour distance.

    Returns:
      float32 Gaussians, in the order of the points.

    Raises:
      ValueError: fewer than 4 points, which have no 3 neighbours.
    """
    if len(points) < 4:
        raise ValueError(
            f"expected at least 4 points to take neighbour distances from, got {len(points)}; start from random points"
        )
    distances = KDTree(points).query(points, k=4, workers=-1)[0][:, 1:]
    extent = float(np.ptp(points, axis=0).max())
    scales = np.maximum(np.sqrt(np.mean(distances**2, axis=1)), max(1e-7 * extent, 1e-30)) * scale_factor
    sh = np.zeros((len(points), (degree + 1) ** 2, 3), np.float32)
    sh[:, 0] = (np.asarray(colors) - 0.5) / BAND_0
    quaternions = np.zeros((len(points), 4), np.float32)
    quaternions[:, 0] = 1.0
    return Gaussians(
        means=jnp.asarray(points, jnp.float32),
        quaternions=jnp.asarray(quaternions),
        log_scales=jnp.asarray(np.repeat(np.log(scales)[:, None], 3, axis=1), jnp.float32),
        opacity_logits=jnp.full(len(points), math.log(opacity / (1 - opacity)), jnp.float32),
        sh=jnp.asarray(sh),
    )
