"""The definition, texel by texel, differentiated by JAX."""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def sample_planes(planes: Float[Array, "p h w c"], coordinates: Float[Array, "p n 2"]) -> Float[Array, "p n c"]:
    """Features at coordinates; see `api.sample_planes`. Derivatives of every order, in both modes."""
    return jax.vmap(_sample)(planes, coordinates)


def texel_position(coordinates: Float[Array, "*n 2"], size: tuple[int, int]) -> Float[Array, "*n 2"]:
    """Positions (x, y) in texels, the first one's centre at (0, 0).

    Far outside, where all is zero, they are stopped (no gradient) so that they fit an integer.
    """
    height, width = size
    ends = jnp.asarray([width, height], coordinates.dtype).reshape((1,) * (coordinates.ndim - 1) + (2,))
    position = ((coordinates + 1) * ends - 1) / 2
    return jnp.where(position < -2, -2.0, jnp.where(position > ends + 1, ends + 1, position))


def _sample(plane: Float[Array, "h w c"], coordinates: Float[Array, "n 2"]) -> Float[Array, "n c"]:
    height, width, _ = plane.shape
    position = texel_position(coordinates, (height, width))
    first = jnp.floor(lax.stop_gradient(position))
    fraction = position - first
    features = jnp.zeros((len(coordinates), plane.shape[2]), plane.dtype)
    for right, below in itertools.product((0, 1), repeat=2):
        x, y = first[:, 0].astype(jnp.int32) + right, first[:, 1].astype(jnp.int32) + below
        weight_x = fraction[:, 0] if right else 1 - fraction[:, 0]
        weight_y = fraction[:, 1] if below else 1 - fraction[:, 1]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        texel = jnp.where(inside[:, None], plane[jnp.where(inside, y, 0), jnp.where(inside, x, 0)], 0.0)
        features = features + (weight_x * weight_y)[:, None] * texel
    return features
