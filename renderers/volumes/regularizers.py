"""Losses on the weights of rays: that they gather, that proposals bound them, that rays are empty or opaque.

Each is a value a ray; how to mean over rays is the caller's. Notation of `step_functions`; t in any unit, normalised
distances as a rule.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.volumes.step_functions import blurred_weights, inner_outer

_SMALLEST = 1e-7  # of a weight that something is divided by


def distortion_loss(t: Float[Array, "*r e"], w: Float[Array, "*r e-1"]) -> Float[Array, "*r"]:
    """Expected distance between two points of the histogram (mip-NeRF 360, arXiv:2111.12077, eq. 15).

    sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (t_(i+1) - t_i), m the middles of the intervals. In linear time, all
    terms positive: each gap between neighbouring middles counts once for every pair it separates.
    """
    middle = 0.5 * (t[..., 1:] + t[..., :-1])
    in_front = jnp.cumsum(w[..., :-1], -1)
    behind = jnp.flip(jnp.cumsum(jnp.flip(w[..., 1:], -1), -1), -1)
    return 2 * jnp.sum(jnp.diff(middle) * in_front * behind, -1) + jnp.sum(w**2 * jnp.diff(t), -1) / 3


def interlevel_loss(
    t: Float[Array, "*r e"],
    w: Float[Array, "*r e-1"],
    t_proposal: Float[Array, "*r q"],
    w_proposal: Float[Array, "*r q-1"],
) -> Float[Array, "*r"]:
    """How far the field's weights exceed what a proposal allows for (mip-NeRF 360, eq. 13-14); zero if nowhere.

    Gradient to the proposal's weights only: it is the proposal that must follow.
    """
    t, w, t_proposal = jax.lax.stop_gradient((t, w, t_proposal))
    _, bound = inner_outer(t, t_proposal, w_proposal)
    return jnp.sum(jnp.maximum(w - bound, 0.0) ** 2 / (w + _SMALLEST), -1)


def blurred_interlevel_loss(
    t: Float[Array, "*r e"],
    w: Float[Array, "*r e-1"],
    t_proposal: Float[Array, "*r q"],
    w_proposal: Float[Array, "*r q-1"],
    half_width: float,
) -> Float[Array, "*r"]:
    """Zip-NeRF's interlevel loss (arXiv:2304.06706, section 3.3): smooth in where the histograms lie.

    The field's weights are blurred by a box (half widths 0.03 and 0.003 of the normalised ray for two proposals) and
    taken anew on the proposal's intervals; the proposal's may not lie below. Gradient to its weights only.
    """
    t, w, t_proposal = jax.lax.stop_gradient((t, w, t_proposal))
    target = jnp.maximum(blurred_weights(t_proposal, t, w, half_width), 0.0)
    return jnp.sum(jnp.maximum(target - w_proposal, 0.0) ** 2 / (w_proposal + _SMALLEST), -1)


def sparsity_loss(opacity: Float[Array, "*r"]) -> Float[Array, "*r"]:
    """sqrt(opacity^2 + 0.01): rays had better see nothing (DreamFusion, arXiv:2209.14988, section 3.2)."""
    return jnp.sqrt(opacity**2 + 0.01)


def opaque_loss(opacity: Float[Array, "*r"]) -> Float[Array, "*r"]:
    """Binary entropy of the opacity, nats: rays had better see all or nothing. Flat within 0.001 of either."""
    p = jnp.clip(opacity, 1e-3, 1 - 1e-3)
    return -p * jnp.log(p) - (1 - p) * jnp.log1p(-p)
