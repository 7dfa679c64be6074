"""The definition of surfel compositing: every surfel at every pixel of its tiles, by depth, differentiated by JAX."""

import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.kernels.composite.reference import (
    ALPHA_THRESHOLD,
    MAX_ALPHA,
    MIN_TRANSMITTANCE,
    _at_pixels,
    pixel_centres,
)
from renderers.kernels.tiling import TILE, grid

LOW_PASS = 2.0  # 1 / variance, per pixel^2, of the filter that keeps small and edge-on surfels visible
MEDIAN = 0.5  # transmittance that the median surfel is the last to see more of


def tile_rectangles(
    means2d: Float[Array, "n 2"], radii: Int[Array, "n 2"], size: tuple[int, int]
) -> Float[Array, "n 4"]:
    """Tiles that each surfel's box meets: first across, first down, one past the last across, and down.

    Whole numbers; all zero where radii are. Part of the definition: nothing is drawn outside of them.
    """
    rows, columns = grid(size)
    limit = jnp.asarray([columns, rows], means2d.dtype)[None]
    reach = radii.astype(means2d.dtype)
    first = jnp.clip(jnp.floor((means2d - reach) / TILE), 0, limit)
    last = jnp.clip(jnp.ceil((means2d + reach) / TILE), 0, limit)
    meets = jnp.all((radii > 0) & (last > first), -1, keepdims=True)
    return lax.stop_gradient(jnp.where(meets, jnp.concatenate([first, last], 1), 0.0))


def _exponent(transform, offset, pixels):
    """Sigma at pixels [h, w], and where the ray meets the plane at all."""
    m_u, m_v, m_w = (row[None, None] for row in transform)
    zeta = jnp.cross(pixels[..., :1] * m_w - m_u, pixels[..., 1:] * m_w - m_v)
    meets = zeta[..., 2] != 0
    z = jnp.where(meets, zeta[..., 2], 1.0)
    filtered = LOW_PASS * jnp.sum(offset * offset, -1)
    on_plane = (zeta[..., 0] / z) ** 2 + (zeta[..., 1] / z) ** 2 <= filtered
    # the quotient of the branch not taken may overflow and would poison the gradient: it must not be formed
    z = jnp.where(on_plane, z, 1.0)
    u, v = (jnp.where(on_plane, zeta[..., k], 0.0) / z for k in range(2))
    return 0.5 * jnp.where(on_plane, u * u + v * v, filtered), meets


def composite(
    transforms: Float[Array, "n 3 3"],
    means2d: Float[Array, "n 2"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    probe: Float[Array, "n 2"],
    depths: Float[Array, " n"],
    rectangles: Float[Array, "n 4"],
    mask: Bool[Array, "h w"] | None,
    size: tuple[int, int],
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 4"]]:
    """Blend all surfels; O(n h w), any float dtype.

    Args:
      transforms: M, plane coordinates in standard deviations to homogeneous pixels.
      means2d: centres of the low-pass filter, pixels.
      opacities: in [0, 1].
      features: values to blend.
      probe: its cotangent is the absolute-valued gradient of means2d, summed over pixels; its value is not read.
      depths: of the centres; order, depth, distortion and median.
      rectangles: see `tile_rectangles`; no gradient.
      mask: pixels to draw; the others stay empty, with transmittance 1. None draws all.
      size: (height, width).

    Returns:
      Image without background; transmittance left, depth, distortion and median depth.
    """
    order = jnp.argsort(depths, stable=True)
    pixels = pixel_centres(size, means2d.dtype)
    tiles = jnp.floor(pixels / TILE)

    @jax.checkpoint
    def blend(carry, surfel):
        image, transmittance, depth, distortion, median, alive = carry
        transform, mean, opacity, feature, mean_probe, centre, rectangle = surfel
        offset = pixels - typing.cast(jax.Array, _at_pixels(mean, mean_probe, size))
        sigma, meets = _exponent(transform, offset, pixels)
        in_box = jnp.all((tiles >= rectangle[None, None, :2]) & (tiles < rectangle[None, None, 2:]), -1)
        alpha = jnp.minimum(MAX_ALPHA, opacity * jnp.exp(-sigma))
        alpha = jnp.where(in_box & meets & (alpha >= ALPHA_THRESHOLD), alpha, 0.0)
        behind = transmittance * (1 - alpha)
        alive = alive & (behind > MIN_TRANSMITTANCE)
        weight = jnp.where(alive, alpha * transmittance, 0.0)
        distortion = distortion + 2 * weight * (centre * (1 - transmittance) - depth)
        median = jnp.where((weight > 0) & (transmittance > MEDIAN), centre, median)
        image = image + weight[..., None] * feature[None, None]
        depth = depth + weight * centre
        return (image, jnp.where(alive, behind, transmittance), depth, distortion, median, alive), None

    zero = jnp.zeros(size, means2d.dtype)
    everywhere = jnp.ones(size, bool) if mask is None else mask
    empty = (jnp.zeros((*size, features.shape[1]), means2d.dtype), zero + 1, zero, zero, zero, everywhere)
    inputs = (transforms, means2d, opacities, features, probe, depths, rectangles)
    (image, *planes, _), _ = lax.scan(blend, empty, tuple(v[order] for v in inputs))
    return image, jnp.stack(planes, -1)
