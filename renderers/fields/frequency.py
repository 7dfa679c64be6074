"""Sines and cosines of points: positional encoding, its average over Gaussians, and windows that open band by band.

Band k has the angular frequency 2^k along each axis, times pi where `pi` is set: equation 4 of NeRF (arXiv 2003.08934)
has pi, its published code and mip-NeRF (arXiv 2103.13415) have not, and neither is the default here. Columns are
grouped by band: for each band the sines of all axes, then the cosines of all axes.
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


def positional_encoding(
    points: Float[Array, "*n d"],
    num_bands: int,
    *,
    first_band: int = 0,
    pi: bool = False,
    identity: bool = False,
    windows: Float[Array, " b"] | None = None,
) -> Float[Array, "*n f"]:
    """Sines and cosines of coordinates at octaves (NeRF, equation 4).

    Args:
      points: any unit; the coarsest band repeats every 2 pi of it (2 with `pi`), times 2^-first_band.
      num_bands: static; 0 leaves the identity alone.
      first_band: exponent k of the first band.
      pi: multiply frequencies by pi, for coordinates in [-1, 1].
      identity: put the coordinates themselves in front, as NeRF's code does.
      windows: factor of each band, see `band_windows`.

    Returns:
      f = 2 d num_bands, and d more with `identity`.
    """
    mean = _angles(points, num_bands, first_band, pi)
    return _columns(points, mean, jnp.ones_like(mean), identity, windows)


def integrated_encoding(
    mean: Float[Array, "*n d"],
    variance: Float[Array, "*n d"],
    num_bands: int,
    *,
    first_band: int = 0,
    pi: bool = False,
    windows: Float[Array, " b"] | None = None,
) -> Float[Array, "*n f"]:
    """Expected positional encoding of a Gaussian (mip-NeRF, equation 14): bands finer than it is wide fade to zero.

    Args:
      mean: of the Gaussian.
      variance: along each axis, the diagonal of its covariance, at least 0; equal to `positional_encoding` where zero.
      num_bands, first_band, pi, windows: as for `positional_encoding`.

    Returns:
      f = 2 d num_bands.
    """
    angles = _angles(mean, num_bands, first_band, pi)
    squared = _frequencies(num_bands, first_band, pi, mean.dtype) ** 2
    fading = jnp.exp(-0.5 * jnp.expand_dims(squared, tuple(range(mean.ndim - 1))) * variance[..., None, :])
    return _columns(mean, angles, fading, False, windows)


def lifted_gaussian(
    mean: Float[Array, "*n d"], covariance: Float[Array, "*n d d"], basis: Float[Array, "k d"]
) -> tuple[Float[Array, "*n k"], Float[Array, "*n k"]]:
    """Means and variances of a Gaussian along directions, for `integrated_encoding` (mip-NeRF 360, equation 7)."""
    along = jnp.einsum("...ij,kj->...ki", covariance, basis)
    basis = jnp.expand_dims(basis, tuple(range(mean.ndim - 1)))
    return (mean[..., None, :] * basis).sum(-1), (along * basis).sum(-1)


def icosahedral_basis(subdivisions: int = 2) -> np.ndarray:
    """Unit directions, float64 [k, 3], no two opposite, of the vertices of an icosahedron with its edges subdivided.

    Those along which mip-NeRF 360 (arXiv 2111.12077, appendix) encodes: 21 with two parts an edge, 6 with one.
    """
    golden = (1 + math.sqrt(5)) / 2
    signs = list(itertools.product((-1, 1), repeat=2))
    corners = np.array([np.roll((0, a, b * golden), shift) for shift in range(3) for a, b in signs])
    distances = np.linalg.norm(corners[:, None] - corners[None], axis=-1)
    near = np.isclose(distances, 2.0)  # the edges' length for these coordinates
    points = []
    for i, j, k in itertools.combinations(range(len(corners)), 3):
        if near[i, j] and near[j, k] and near[i, k]:
            for a, b in itertools.product(range(subdivisions + 1), repeat=2):
                if a + b <= subdivisions:
                    points.append(a * corners[i] + b * corners[j] + (subdivisions - a - b) * corners[k])
    unit = np.array(points) / np.linalg.norm(points, axis=1, keepdims=True)
    kept: list[np.ndarray] = []
    for direction in unit:
        if all(abs(abs(direction @ other) - 1) > 1e-9 for other in kept):
            kept.append(direction)
    return np.array(kept)


def band_windows(progress: Float[Array, ""] | float, num_bands: int) -> Float[Array, " b"]:
    """Factors in [0, 1] that open bands or levels from coarse to fine: (1 - cos(pi clip(a - k, 0, 1))) / 2.

    BARF (arXiv 2104.06405, equation 14) and nerfies (arXiv 2011.12948, equation 8), with a = progress num_bands.

    Args:
      progress: 0 closes all, 1 opens all; may be traced.
      num_bands: of the encoding, or levels of a hash grid.
    """
    opened = jnp.clip(progress * num_bands - jnp.arange(num_bands), 0.0, 1.0)
    return 0.5 * (1 - jnp.cos(jnp.pi * opened))


class FrequencyEncoding(nnx.Module):
    """Positional encoding as a module; no parameters. See `positional_encoding`."""

    def __init__(
        self,
        num_bands: int = 10,
        *,
        first_band: int = 0,
        pi: bool = False,
        identity: bool = True,
        num_dimensions: int = 3,
    ):
        """NeRF's: 10 bands and the identity for points, 4 for directions."""
        self.num_bands, self.first_band, self.pi, self.identity = num_bands, first_band, pi, identity
        self.num_features = num_dimensions * (2 * num_bands + identity)

    def __call__(
        self, points: Float[Array, "*n d"], *, windows: Float[Array, " b"] | None = None
    ) -> Float[Array, "*n f"]:
        """Features of points."""
        return positional_encoding(
            points, self.num_bands, first_band=self.first_band, pi=self.pi, identity=self.identity, windows=windows
        )


class IntegratedEncoding(nnx.Module):
    """Integrated positional encoding as a module; no parameters. See `integrated_encoding`."""

    def __init__(
        self, num_bands: int = 16, *, first_band: int = 0, directions: int | None = None, num_dimensions: int = 3
    ):
        """Along the axes (mip-NeRF: 16 bands), or along `icosahedral_basis(directions)` (mip-NeRF 360: 2, 12 bands)."""
        self.num_bands, self.first_band, self.directions = num_bands, first_band, directions
        along = num_dimensions if directions is None else len(icosahedral_basis(directions))
        self.num_features = 2 * num_bands * along

    def __call__(
        self,
        mean: Float[Array, "*n d"],
        covariance: Float[Array, "*n d d"],
        *,
        windows: Float[Array, " b"] | None = None,
    ) -> Float[Array, "*n f"]:
        """Features of Gaussians; along the axes only the diagonal of the covariance is read."""
        if self.directions is None:
            variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
        else:
            basis = jnp.asarray(icosahedral_basis(self.directions), mean.dtype)
            mean, variance = lifted_gaussian(mean, covariance, basis)
        return integrated_encoding(mean, variance, self.num_bands, first_band=self.first_band, windows=windows)


def _frequencies(num_bands: int, first_band: int, pi: bool, dtype) -> Float[Array, "b 1"]:
    scale = math.pi if pi else 1.0
    return jnp.asarray([[scale * 2.0**band] for band in range(first_band, first_band + num_bands)], dtype)


def _angles(points: Float[Array, "*n d"], num_bands: int, first_band: int, pi: bool) -> Float[Array, "*n b d"]:
    if num_bands == 0:
        return jnp.zeros((*points.shape[:-1], 0, points.shape[-1]), points.dtype)
    frequencies = _frequencies(num_bands, first_band, pi, points.dtype)
    return jnp.expand_dims(frequencies, tuple(range(points.ndim - 1))) * points[..., None, :]


def _columns(
    points: Float[Array, "*n d"],
    angles: Float[Array, "*n b d"],
    factors: Float[Array, "*n b d"],
    identity: bool,
    windows: Float[Array, " b"] | None,
) -> Float[Array, "*n f"]:
    waves = jnp.concatenate([jnp.sin(angles) * factors, jnp.cos(angles) * factors], -1)
    if windows is not None:
        waves = waves * jnp.expand_dims(windows.astype(waves.dtype)[:, None], tuple(range(points.ndim - 1)))
    flat = waves.reshape(*points.shape[:-1], -1)
    return jnp.concatenate([points, flat], -1) if identity else flat
