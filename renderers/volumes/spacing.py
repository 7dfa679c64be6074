"""Curved axes along rays: a distance t in [near, far] as a normalised distance s in [0, 1], and back, exactly.

Samples that are even in s are dense near the camera and sparse far away, by the curve chosen. With g the curve,
s = (g(t) - g(near)) / (g(far) - g(near)) (mip-NeRF 360, arXiv:2111.12077, eq. 11). Curves:

    linear      g(t) = t
    disparity   g(t) = 1 / t, needs near > 0; far may be infinite
    log         g(t) = log(t), needs near > 0
    power       g(t) = (|a - 1| / a) ((2 t / |a - 1| + 1)^a - 1) with a = -1.5 (Zip-NeRF, arXiv:2304.06706, its power
                transformation): linear at the camera and like t^-1.5 far away; near may be 0
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Spacing = Literal["linear", "disparity", "log", "power"]

_POWER = -1.5
_SCALE = 2.0  # how much farther than a metre the power curve's linear part ends, inverted


def normalized_distances(
    t: Float[Array, "*r s"], near: Float[Array, "*r"], far: Float[Array, "*r"], spacing: Spacing
) -> Float[Array, "*r s"]:
    """s in [0, 1] of distances along rays."""
    g0, g1 = _curve(near, spacing)[..., None], _curve(far, spacing)[..., None]
    return (_curve(t, spacing) - g0) / (g1 - g0)


def metric_distances(
    s: Float[Array, "*r s"], near: Float[Array, "*r"], far: Float[Array, "*r"], spacing: Spacing
) -> Float[Array, "*r s"]:
    """Distances along rays of s in [0, 1]: the inverse of `normalized_distances`; s = 0 is near, s = 1 is far."""
    g0, g1 = _curve(near, spacing)[..., None], _curve(far, spacing)[..., None]
    t = _inverse_curve(g0 * (1 - s) + g1 * s, spacing)
    return jnp.clip(t, near[..., None], far[..., None])


def _curve(t, spacing):
    if spacing == "linear":
        return t
    if spacing == "disparity":
        return 1 / t
    if spacing == "log":
        return jnp.log(t)
    if spacing == "power":
        return _power_factor() * jnp.expm1(_POWER * jnp.log1p(_SCALE * t / abs(_POWER - 1)))
    raise ValueError(f"expected spacing linear, disparity, log or power, got {spacing!r}")


def _inverse_curve(g, spacing):
    if spacing == "linear":
        return g
    if spacing == "disparity":
        return 1 / g
    if spacing == "log":
        return jnp.exp(g)
    return abs(_POWER - 1) / _SCALE * jnp.expm1(jnp.log1p(g / _power_factor()) / _POWER)


def _power_factor():
    return abs(_POWER - 1) / _POWER
