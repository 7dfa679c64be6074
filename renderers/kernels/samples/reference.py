"""The definition: every Gaussian at every sample, in depth order, differentiated by JAX."""

import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from renderers.kernels.composite.reference import ALPHA_THRESHOLD, MAX_ALPHA, MIN_TRANSMITTANCE, _at_pixels


def blending_weights(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    probe: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    positions: Float[Array, "m 2"],
    drawn: Bool[Array, " m"],
) -> tuple[Float[Array, "n m"], Float[Array, " m"]]:
    """Weight alpha T of each Gaussian (in the order given) at each sample, and the transmittance left; O(n m).

    Args:
      means2d: pixels.
      conics: inverse 2D covariances (xx, xy, yy).
      opacities: in [0, 1]; 0 drops a Gaussian.
      probe: its cotangent is the absolute-valued gradient of means2d, summed over samples; its value is not read.
      depths: order only, equal depths keep the order given; no gradient.
      positions: pixels (x, y).
      drawn: False leaves a sample empty, with transmittance 1.
    """
    order = jnp.argsort(depths, stable=True)

    @jax.checkpoint
    def blend(carry, gaussian):
        transmittance, alive = carry
        mean, conic, opacity, mean_probe = gaussian
        offset = positions - typing.cast(jax.Array, _at_pixels(mean, mean_probe, (1, len(positions))))[0]
        dx, dy = offset[:, 0], offset[:, 1]
        sigma = 0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) + conic[1] * dx * dy
        alpha = jnp.minimum(MAX_ALPHA, opacity * jnp.exp(-jnp.maximum(sigma, 0.0)))
        alpha = jnp.where((sigma >= 0) & (alpha >= ALPHA_THRESHOLD), alpha, 0.0)
        behind = transmittance * (1 - alpha)
        alive = alive & (behind > MIN_TRANSMITTANCE)
        weight = jnp.where(alive, alpha * transmittance, 0.0)
        return (jnp.where(alive, behind, transmittance), alive), weight

    front = jnp.ones_like(positions[:, 0])
    (transmittance, _), weights = lax.scan(
        blend, (front, drawn), tuple(v[order] for v in (means2d, conics, opacities, probe))
    )
    return weights[jnp.argsort(order)], transmittance
