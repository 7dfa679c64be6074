"""The definition of compositing: every Gaussian at every pixel, in depth order, differentiated by JAX."""

import typing
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

ALPHA_THRESHOLD = 1 / 255
MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _at_pixels(mean: Float[Array, " 2"], probe: Float[Array, " 2"], size: tuple[int, int]) -> Float[Array, "h w 2"]:
    """The mean once a pixel; backwards, cotangents are summed for the mean and their absolute values for the probe."""
    return jnp.broadcast_to(mean, (*size, 2))


def _at_pixels_forward(mean, probe, size):
    return _at_pixels(mean, probe, size), None


def _at_pixels_backward(size, _, cotangent):
    return cotangent.sum((0, 1)), jnp.abs(cotangent).sum((0, 1))


_at_pixels.defvjp(_at_pixels_forward, _at_pixels_backward)


def pixel_centres(size: tuple[int, int], dtype) -> Float[Array, "h w 2"]:
    """Centres (x, y) of all pixels, at +0.5."""
    y, x = jnp.meshgrid(jnp.arange(size[0], dtype=dtype), jnp.arange(size[1], dtype=dtype), indexing="ij")
    return jnp.stack([x, y], -1) + 0.5


def composite(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    probe: Float[Array, "n 2"] | None,
    depths: Float[Array, " n"],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w"]]:
    """Blend all Gaussians at all pixels; O(n h w), any float dtype.

    Args:
      means2d: pixels.
      conics: inverse 2D covariances (xx, xy, yy).
      opacities: in [0, 1]; 0 drops a Gaussian.
      features: values to blend.
      probe: its cotangent is the absolute-valued gradient of means2d, summed over pixels; its value is not read. None
        leaves that out, and JAX can then differentiate in forward mode too.
      depths: order only, equal depths keep the order given; no gradient.
      mask: pixels to draw; the others stay empty, with transmittance 1. None draws all.
      size: (height, width).

    Returns:
      Image without background, and the transmittance left.
    """
    order = jnp.argsort(depths, stable=True)
    pixels = pixel_centres(size, means2d.dtype)

    @jax.checkpoint
    def blend(carry, gaussian):
        image, transmittance, alive = carry
        mean, conic, opacity, feature, mean_probe = gaussian
        here = mean[None, None] if mean_probe is None else typing.cast(jax.Array, _at_pixels(mean, mean_probe, size))
        offset = pixels - here
        dx, dy = offset[..., 0], offset[..., 1]
        sigma = 0.5 * (conic[0] * dx * dx + conic[2] * dy * dy) + conic[1] * dx * dy
        # exp of a large negative sigma would overflow and poison the gradient of the branch not taken
        alpha = jnp.minimum(MAX_ALPHA, opacity * jnp.exp(-jnp.maximum(sigma, 0.0)))
        alpha = jnp.where((sigma >= 0) & (alpha >= ALPHA_THRESHOLD), alpha, 0.0)
        behind = transmittance * (1 - alpha)
        alive = alive & (behind > MIN_TRANSMITTANCE)
        weight = jnp.where(alive, alpha * transmittance, 0.0)
        return (image + weight[..., None] * feature[None, None], jnp.where(alive, behind, transmittance), alive), None

    empty = (
        jnp.zeros((*size, features.shape[1]), means2d.dtype),
        jnp.ones(size, means2d.dtype),
        jnp.ones(size, bool) if mask is None else mask,
    )
    sorted_inputs = jax.tree.map(lambda v: v[order], (means2d, conics, opacities, features, probe))
    (image, transmittance, _), _ = lax.scan(blend, empty, sorted_inputs)
    return image, transmittance
