"""Multiresolution hash grid (arXiv 2201.05989) as a learnable encoding."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from renderers.kernels.dispatch import Backend
from renderers.kernels.hash_encode.api import hash_encode
from renderers.kernels.hash_encode.levels import HashLevels, hash_levels

_INITIAL = 1e-4  # paper, section 4: entries start uniform in +- this


@dataclasses.dataclass(frozen=True, kw_only=True)
class HashGridConfig:
    """Sizes; the default is the paper's (table 1, with 2^19 rows a level).

    Attributes:
      num_levels: lattices from coarse to fine.
      base_resolution, finest_resolution: vertices along an axis of the first and the last.
      log2_table_size: a level has at most 2 to this power rows.
      features: a row.
    """

    num_levels: int = 16
    base_resolution: int = 16
    finest_resolution: int = 2048
    log2_table_size: int = 19
    features: int = 2

    @property
    def levels(self) -> HashLevels:
        """The lattices."""
        return hash_levels(self.num_levels, self.base_resolution, self.finest_resolution, self.log2_table_size)


class HashGrid(nnx.Module):
    """Features of points in the unit cube, interpolated in hashed lattices."""

    def __init__(
        self,
        config: HashGridConfig = HashGridConfig(),  # noqa: B008 - frozen
        *,
        backend: Backend | None = None,
        rngs: nnx.Rngs,
    ):
        """A table that starts uniform in +-1e-4.

        Args:
          config: sizes.
          backend: of the kernel; None takes the platform's default.
          rngs: stream `params`.
        """
        self.levels = config.levels
        self.backend: Backend | None = backend
        self.num_levels, self.num_features = config.num_levels, config.num_levels * config.features
        shape = (self.levels.num_rows, config.features)
        self.table = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -_INITIAL, _INITIAL))

    def __call__(
        self,
        points: Float[Array, "*n 3"],
        *,
        level_weights: Float[Array, " l"] | None = None,
        active_levels: int | None = None,
    ) -> Float[Array, "*n f"]:
        """Features; `level_weights`, as of `frequency.band_windows`, and `active_levels` as for `hash_encode`."""
        features = hash_encode(
            points.reshape(-1, 3),
            self.table[...],
            self.levels,
            level_weights=level_weights,
            active_levels=active_levels,
            backend=self.backend,
        )
        return features.reshape(*points.shape[:-1], self.num_features)
