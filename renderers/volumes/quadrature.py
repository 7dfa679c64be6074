"""What a ray gathers: from densities or alphas of its samples to weights, and from weights to colour, depth, opacity.

Sample i fills an interval of length d[i] with density sigma[i] (NeRF, arXiv:2003.08934, eq. 3):

    alpha[i] = 1 - exp(-sigma[i] d[i])      T[i] = prod_{j < i} (1 - alpha[j])      w[i] = T[i] alpha[i]

so that the weights and the transmittance behind the last sample sum to 1. Distances t are metres along the ray (not
depths). Samples of one ray lie along the last axis, any axes of rays before; for rays with samples of differing number
see `renderers.volumes.packed`, which computes the same. Everything is differentiable, finite for densities up to
float32's largest and for alphas of exactly 0 and 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.volumes.step_functions import weighted_percentile

_SMALLEST_OPACITY = 1e-10


def alpha_from_density(density: Float[Array, "*n"], lengths: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Share of light that an interval of constant density stops: 1 - exp(-density * length)."""
    return -jnp.expm1(-density * lengths)


def weights_from_density(
    density: Float[Array, "*r s"], lengths: Float[Array, "*r s"], *, opaque_background: bool = False
) -> tuple[Float[Array, "*r s"], Float[Array, "*r s"]]:
    """Weights of samples, and the transmittance in front of each.

    Args:
        density: per metre, non-negative.
        lengths: of the intervals, metres; 0 leaves a sample out.
        opaque_background: the last sample stops all light that reaches it, so that every ray is opaque.
    """
    optical_depth = density * lengths
    in_front = jnp.cumsum(optical_depth[..., :-1], -1)
    transmittance = jnp.exp(-jnp.concatenate([jnp.zeros_like(optical_depth[..., :1]), in_front], -1))
    alpha = -jnp.expm1(-optical_depth)
    return transmittance * (_with_opaque_end(alpha) if opaque_background else alpha), transmittance


def weights_from_alpha(
    alpha: Float[Array, "*r s"], *, opaque_background: bool = False
) -> tuple[Float[Array, "*r s"], Float[Array, "*r s"]]:
    """Weights of samples, and the transmittance in front of each, from alphas in [0, 1]."""
    alpha = _with_opaque_end(alpha) if opaque_background else alpha
    in_front = jnp.cumprod(1 - alpha[..., :-1], -1)
    transmittance = jnp.concatenate([jnp.ones_like(alpha[..., :1]), in_front], -1)
    return transmittance * alpha, transmittance


def _with_opaque_end(alpha):
    return jnp.concatenate([alpha[..., :-1], jnp.ones_like(alpha[..., :1])], -1)


def opacity(weights: Float[Array, "*r s"]) -> Float[Array, "*r"]:
    """Share of light that the samples stop."""
    return jnp.sum(weights, -1)


def composite(weights: Float[Array, "*r s"], values: Float[Array, "*r s c"]) -> Float[Array, "*r c"]:
    """Sum of values by weight, any number of channels; nothing behind the last sample."""
    return jnp.einsum("...s,...sc->...c", weights, values, precision=jax.lax.Precision.HIGHEST)


def over_background(
    color: Float[Array, "*r c"], ray_opacity: Float[Array, "*r"], background: Float[Array, "*r c"] | Float[Array, " c"]
) -> Float[Array, "*r c"]:
    """Colour of the samples with the background, one or one a ray, behind them."""
    background = jnp.broadcast_to(background, color.shape)
    return color + (1 - ray_opacity)[..., None] * background


def expected_distance(weights: Float[Array, "*r s"], t: Float[Array, "*r s"]) -> Float[Array, "*r"]:
    """Mean distance of what is seen, by weight; t are the middles of the intervals. 0 on rays that see nothing."""
    return jnp.sum(weights * t, -1) / jnp.maximum(opacity(weights), _SMALLEST_OPACITY)


def distance_variance(weights: Float[Array, "*r s"], t: Float[Array, "*r s"]) -> Float[Array, "*r"]:
    """Variance of the distance of what is seen (HiFA's z-variance, arXiv:2305.18766, eq. 13); 0 where nothing is."""
    offset = t - expected_distance(weights, t)[..., None]
    return jnp.sum(weights * offset * offset, -1) / jnp.maximum(opacity(weights), _SMALLEST_OPACITY)


def median_distance(edges: Float[Array, "*r e"], weights: Float[Array, "*r e-1"]) -> Float[Array, "*r"]:
    """Distance by which half of what is seen lies in front, within its interval in proportion.

    Robust where a ray sees two surfaces. On rays that see nothing it is the middle of the ray.
    """
    half = jnp.full((*weights.shape[:-1], 1), 0.5, weights.dtype)
    return weighted_percentile(edges, weights, half)[..., 0]
