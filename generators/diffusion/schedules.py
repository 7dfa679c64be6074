"""Noise schedules: two functions of time, alpha and sigma; everything else is derived from them.

Notation: `z_t = alpha(t) x_0 + sigma(t) eps` with eps of unit variance. Time is continuous, 0 for data and 1 for noise,
or an integer timestep 0 .. T-1 of a table. All schedules here preserve variance, `alpha^2 + sigma^2 = 1`.
lambda = log(alpha^2 / sigma^2) is the log signal-to-noise ratio (variational diffusion models, arXiv 2107.00630).
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_HALF_PI = 0.5 * np.pi


class Schedule(typing.Protocol):
    """How much of the data and how much noise a noisy sample holds at a time."""

    def alpha(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data."""
        ...

    def sigma(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """The cosine schedule in continuous time (arXiv 2102.09672, without its offset), shifted in signal-to-noise.

    Attributes:
      shift: divides alpha / sigma at every time (simple diffusion, arXiv 2301.11093, eq. 10: image side / 64 there);
        above 1 for images with much redundancy, such as many views of one object.
    """

    shift: float = 1.0

    def alpha(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data."""
        return jnp.cos(self._angle(t))

    def sigma(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise."""
        return jnp.sin(self._angle(t))

    def _angle(self, t):
        return jnp.arctan2(self.shift * jnp.sin(_HALF_PI * t), jnp.cos(_HALF_PI * t))
