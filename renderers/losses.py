"""Photometric training losses between a rendered and a target image, values in [0, 1].

All take optional pixel weights. A pixel of weight zero is left out entirely: the rendered value there is replaced by
the target's before any window sees it, so the loss does not depend on it and its gradient is exactly zero. The mean is
over weights: `sum(w * error) / (c * sum(w))`, and 0 where all weights are zero.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.metrics import Padding, ssim_map


def l1(
    rendered: Float[Array, "*batch h w c"],
    target: Float[Array, "*batch h w c"],
    *,
    weights: Float[Array, "*batch h w"] | None = None,
) -> Float[Array, ""]:
    """Mean absolute difference."""
    return _mean(jnp.abs(_kept(rendered, target, weights) - target), weights)


def mse(
    rendered: Float[Array, "*batch h w c"],
    target: Float[Array, "*batch h w c"],
    *,
    weights: Float[Array, "*batch h w"] | None = None,
) -> Float[Array, ""]:
    """Mean squared difference."""
    return _mean((_kept(rendered, target, weights) - target) ** 2, weights)


def dssim(
    rendered: Float[Array, "*batch h w c"],
    target: Float[Array, "*batch h w c"],
    *,
    padding: Padding = "same",
    weights: Float[Array, "*batch h w"] | None = None,
) -> Float[Array, ""]:
    """`1 - SSIM`, in [0, 2); see `metrics.ssim_map` for the window and the padding ("same" as in 3DGS training).

    Reverse-mode differentiable; finite also for equal and for constant images.

    Raises:
        ValueError: with padding "valid", images of fewer than 11 rows or columns.
    """
    similarity = ssim_map(_kept(rendered, target, weights), target, padding=padding)
    if weights is not None and padding == "valid":
        weights = weights[..., 5:-5, 5:-5]
    return _mean(1.0 - similarity, weights)


def l1_ssim(
    rendered: Float[Array, "*batch h w c"],
    target: Float[Array, "*batch h w c"],
    *,
    ssim_weight: float = 0.2,
    padding: Padding = "same",
    weights: Float[Array, "*batch h w"] | None = None,
) -> Float[Array, ""]:
    """`(1 - ssim_weight) L1 + ssim_weight (1 - SSIM)`, the loss of 3D Gaussian splatting (arXiv:2308.04079, eq. 7).

    Value and gradient take 6 ms at 480 x 270 x 3 in float32 on 2 CPU cores (see `metrics` for what was compared).
    """
    similarity = dssim(rendered, target, padding=padding, weights=weights)
    return (1.0 - ssim_weight) * l1(rendered, target, weights=weights) + ssim_weight * similarity


def _kept(rendered, target, weights):
    if weights is None:
        return rendered
    return jnp.where(weights[..., None] > 0.0, rendered, jax.lax.stop_gradient(target))


def _mean(errors, weights):
    if weights is None:
        return jnp.mean(errors)
    total = jnp.sum(weights) * errors.shape[-1]
    return jnp.sum(errors * weights[..., None]) / jnp.where(total > 0.0, total, 1.0)
