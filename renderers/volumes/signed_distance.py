"""From signed distances to alphas and densities: surfaces as volumes that can be rendered, and learned.

The distance f is negative inside, metres. NeuS (Wang et al., arXiv:2106.10689) makes alphas of it whose weights peak on
the surface without bias, VolSDF (Yariv et al., arXiv:2106.12052) a density.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def alpha_between(
    distance_in: Float[Array, "*n"], distance_out: Float[Array, "*n"], sharpness: Float[Array, ""]
) -> Float[Array, "*n"]:
    """NeuS's alpha of an interval by the signed distances at its two ends (eq. 13).

    max(0, 1 - Phi(f_out) / Phi(f_in)), Phi the logistic function of sharpness times f: nothing where the ray leaves
    the surface. Computed from logarithms: exact where Phi itself is too small for float32.

    Args:
        distance_in: f where the ray enters the interval.
        distance_out: f where it leaves it.
        sharpness: s, one over the deviation in metres.
    """
    log_ratio = jax.nn.log_sigmoid(sharpness * distance_out) - jax.nn.log_sigmoid(sharpness * distance_in)
    return -jnp.expm1(jnp.minimum(log_ratio, 0.0))


def alpha_from_distance(
    distance: Float[Array, "*n"],
    cosine: Float[Array, "*n"],
    lengths: Float[Array, "*n"],
    sharpness: Float[Array, ""],
    *,
    anneal: float | Float[Array, ""] = 1.0,
) -> Float[Array, "*n"]:
    """NeuS's alpha of intervals by the signed distance in their middle, extended to the ends along its gradient.

    Args:
        distance: f in the middle.
        cosine: of the angle between the ray's direction and the gradient of f: negative where the ray goes in.
        lengths: of the intervals, metres.
        sharpness: one over the deviation in metres.
        anneal: 0 (start of training: rays that go out or along the surface count as well, so that there is a gradient
            everywhere) to 1 (the published formula).
    """
    going_in = jax.nn.relu(0.5 - 0.5 * cosine) * (1 - anneal) + jax.nn.relu(-cosine) * anneal
    half = 0.5 * going_in * lengths
    return alpha_between(distance + half, distance - half, sharpness)


def density_from_distance(distance: Float[Array, "*n"], scale: Float[Array, ""]) -> Float[Array, "*n"]:
    """VolSDF's density per metre (eq. 2-3): Laplace's cumulative distribution of -f, over its scale beta.

    Within 1 / beta far inside, half of it on the surface, falling off outside as exp(-f / beta).

    Args:
        distance: f.
        scale: beta, metres, above 0.
    """
    tail = 0.5 * jnp.exp(-jnp.abs(distance) / scale)
    return jnp.where(distance > 0, tail, 1 - tail) / scale
