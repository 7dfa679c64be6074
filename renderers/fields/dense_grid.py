"""Dense grids of values, interpolated trilinearly: learnable voxels, and look-ups of occupancy, density or distance.

Values [nz, ny, nx, c] lie at vertices that span the unit cube, borders included: vertex (i, j, k) along (x, y, z) is at
(i / (nx - 1), j / (ny - 1), k / (nz - 1)) and in `values[k, j, i]`. It is a hash encoding with one level that is not
hashed (`kernels.hash_encode`), with its backends and derivatives.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from renderers.kernels.dispatch import Backend
from renderers.kernels.hash_encode.api import hash_encode
from renderers.kernels.hash_encode.levels import dense_levels


def sample_grid(
    values: Float[Array, "nz ny nx c"], points: Float[Array, "n 3"], *, backend: Backend | None = None
) -> Float[Array, "n c"]:
    """Values at points, trilinear. Differentiable in both, twice.

    Args:
      values: at the vertices, at least 2 along each axis.
      points: in [0, 1]^3; others take the value at the border's nearest point.
      backend: of the kernel; None takes the platform's default.
    """
    nz, ny, nx, channels = values.shape
    return hash_encode(points, values.reshape(-1, channels), dense_levels((nx, ny, nz)), backend=backend)


def sample_grid_with_gradient(
    values: Float[Array, "nz ny nx c"], points: Float[Array, "n 3"], *, backend: Backend | None = None
) -> tuple[Float[Array, "n c"], Float[Array, "n c 3"]]:
    """Values at points and their derivatives by the point, which jump from cell to cell. Differentiable again."""
    found, pull = jax.vjp(lambda points: sample_grid(values, points, backend=backend), points)
    columns = [jnp.zeros_like(found).at[:, channel].set(1.0) for channel in range(values.shape[3])]
    return found, jnp.stack([pull(column)[0] for column in columns], 1)


def grid_total_variation(values: Float[Array, "nz ny nx c"]) -> Float[Array, ""]:
    """Mean squared difference of values that are neighbours, along each of the axes, added; 0 for constant grids."""
    total = jnp.zeros((), values.dtype)
    for axis in range(3):
        if values.shape[axis] > 1:
            total = total + jnp.mean(jnp.diff(values, axis=axis) ** 2)
    return total


class DenseGrid(nnx.Module):
    """A learnable dense grid over the unit cube."""

    def __init__(
        self,
        size: tuple[int, int, int] = (128, 128, 128),
        channels: int = 1,
        *,
        initial: float = 0.0,
        scale: float = 0.0,
        backend: Backend | None = None,
        rngs: nnx.Rngs,
    ):
        """Values that start at `initial`, plus normal noise.

        Args:
          size: vertices (nz, ny, nx).
          channels: of a vertex.
          initial: value at the start.
          scale: standard deviation of the noise.
          backend: of the kernel; None takes the platform's default.
          rngs: stream `params`.
        """
        self.backend: Backend | None = backend
        self.num_features = channels
        noise = jax.random.normal(rngs.params(), (*size, channels), jnp.float32)
        self.values = nnx.Param(initial + scale * noise)

    def __call__(self, points: Float[Array, "*n 3"]) -> Float[Array, "*n c"]:
        """Values at points in [0, 1]^3."""
        found = sample_grid(self.values[...], points.reshape(-1, 3), backend=self.backend)
        return found.reshape(*points.shape[:-1], self.num_features)

    def total_variation(self) -> Float[Array, ""]:
        """See `grid_total_variation`."""
        return grid_total_variation(self.values[...])
