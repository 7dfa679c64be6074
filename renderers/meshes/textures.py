"""Images on surfaces: filtered look-up with mip levels, and the sRGB curve.

Texture coordinates have their origin at the lower left, v up, while row 0 of a texture is its top; texel centres are at
+0.5: texel (row, column) of an h x w texture is at u = (column + 0.5) / w, v = 1 - (row + 0.5) / h.
"""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

Wrap = Literal["repeat", "clamp", "mirror"]
Filter = Literal["linear", "nearest"]
# IEC 61966-2-1:1999, the curve's two pieces
_LINEAR_END, _SLOPE, _OFFSET, _POWER = 0.0031308, 12.92, 0.055, 2.4


def linear_from_srgb(color: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Linear light of display-referred sRGB values (IEC 61966-2-1); negative values mirrored. Differentiable."""
    size = jnp.abs(color)
    bent = size > _LINEAR_END * _SLOPE
    power = ((jnp.where(bent, size, 1.0) + _OFFSET) / (1 + _OFFSET)) ** _POWER
    return jnp.sign(color) * jnp.where(bent, power, 0.0) + jnp.where(bent, 0.0, color / _SLOPE)


def srgb_from_linear(color: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Display-referred sRGB values of linear light, the inverse of `linear_from_srgb`. Differentiable, also at 0."""
    size = jnp.abs(color)
    bent = size > _LINEAR_END
    root = (1 + _OFFSET) * jnp.where(bent, size, 1.0) ** (1 / _POWER) - _OFFSET
    return jnp.sign(color) * jnp.where(bent, root, 0.0) + jnp.where(bent, 0.0, color * _SLOPE)


def build_mips(texture: Float[Array, "h w c"]) -> tuple[Float[Array, "_ _ c"], ...]:
    """The texture and its halves down to one texel; each texel the mean of the area that it stands for.

    Sides that are odd are halved and rounded down, with the weights of the exact overlap. Differentiable. Colours are
    to be averaged as linear light: convert first.
    """
    levels = [texture]
    while max(levels[-1].shape[:2]) > 1:
        levels.append(jnp.moveaxis(_halved(jnp.moveaxis(_halved(levels[-1]), 1, 0)), 0, 1))
    return tuple(levels)


def sample_texture(
    texture: Float[Array, "h w c"],
    uv: Float[Array, "*n 2"],
    *,
    footprint: Float[Array, "*n 2 2"] | None = None,
    wrap: Wrap | tuple[Wrap, Wrap] = "repeat",
    filter: Filter = "linear",
    mips: Sequence[Float[Array, "_ _ c"]] | None = None,
    anisotropy: int = 1,
) -> Float[Array, "*n c"]:
    """Texture values at texture coordinates: bilinear, and with a footprint trilinear between mip levels.

    Differentiable in texture, mips and uv (`nearest`: texture only); the choice of level is not.

    Args:
      texture: row 0 on top.
      uv: origin at the lower left, v up.
      footprint: derivative of uv (rows) by the pixel's position (columns). The level is the one whose texels are as
        large as the longer axis of the ellipse that a pixel becomes.
      wrap: outside [0, 1], for both axes or (u, v).
      filter: within a level; `nearest` takes the nearest level, too.
      mips: what `build_mips(texture)` returns, where it is used more than once.
      anisotropy: most samples along the longer axis, static; the level is then finer by up to that factor.

    Raises:
      ValueError: the texture has no texels, or anisotropy is below 1.
    """
    if 0 in texture.shape[:2] or anisotropy < 1:
        raise ValueError(f"a texture of {texture.shape} at anisotropy {anisotropy}: both must be at least 1")
    if footprint is None:
        return sample_levels((texture,), uv, jnp.zeros(uv.shape[:-1], uv.dtype), wrap=wrap, filter=filter)
    levels = build_mips(texture) if mips is None else tuple(mips)
    size = jnp.asarray([texture.shape[1], texture.shape[0]], uv.dtype)
    texels = lax.stop_gradient(footprint) * size.reshape((1,) * (footprint.ndim - 2) + (2, 1))
    major, minor, axis = _ellipse(texels)
    probes = jnp.clip(jnp.ceil(major / jnp.maximum(minor, 1e-6)), 1, anisotropy)
    level = jnp.log2(jnp.maximum(major / probes, 1e-6))
    if anisotropy == 1:
        return sample_levels(levels, uv, level, wrap=wrap, filter=filter)
    along = axis * major[..., None] / size.reshape((1,) * (axis.ndim - 1) + (2,))
    total = jnp.zeros((*uv.shape[:-1], texture.shape[2]), texture.dtype)
    for k in range(anisotropy):  # probes at the middles of equal parts of the longer axis
        share = (k + 0.5) / probes - 0.5
        value = sample_levels(levels, uv + share[..., None] * along, level, wrap=wrap, filter=filter)
        total = total + jnp.where((k < probes)[..., None], value, 0.0)
    return total / probes[..., None]


def sample_levels(
    levels: Sequence[Float[Array, "_ _ c"]],
    uv: Float[Array, "*n 2"],
    level: Float[Array, "*n"],
    *,
    wrap: Wrap | tuple[Wrap, Wrap] = "repeat",
    filter: Filter = "linear",
) -> Float[Array, "*n c"]:
    """Values between two of several images of the same thing, of any sizes, at fractional levels.

    Differentiable in levels, uv and level. A level outside the range is the nearest end.
    """
    wraps = (wrap, wrap) if isinstance(wrap, str) else wrap
    channels = levels[0].shape[2]
    table = jnp.concatenate([image.reshape(-1, channels) for image in levels])
    heights, widths = (jnp.asarray([image.shape[k] for image in levels], jnp.int32) for k in (0, 1))
    starts = jnp.cumsum(heights * widths) - heights * widths
    level = jnp.clip(level, 0, len(levels) - 1)

    def look(number):
        return _in_level(table, uv, starts[number], heights[number], widths[number], wraps, filter)

    if len(levels) == 1:
        return look(jnp.zeros(uv.shape[:-1], jnp.int32))
    if filter == "nearest":
        return look(jnp.round(level).astype(jnp.int32))
    lower = jnp.minimum(jnp.floor(lax.stop_gradient(level)), len(levels) - 2).astype(jnp.int32)
    share = (level - lower.astype(level.dtype))[..., None]
    return look(lower) * (1 - share) + look(lower + 1) * share


def _in_level(table, uv, start, height, width, wraps, filter):
    x, y = uv[..., 0] * width.astype(uv.dtype), (1 - uv[..., 1]) * height.astype(uv.dtype)
    if filter == "nearest":
        column, row = (_wrapped(jnp.floor(v), n, w) for v, n, w in ((x, width, wraps[0]), (y, height, wraps[1])))
        return table[start + row * width + column]
    x, y = x - 0.5, y - 0.5
    left, top = (lax.stop_gradient(jnp.floor(v)) for v in (x, y))
    share_x, share_y = (x - left)[..., None], (y - top)[..., None]
    columns = [_wrapped(left + k, width, wraps[0]) for k in (0, 1)]
    rows = [_wrapped(top + k, height, wraps[1]) for k in (0, 1)]
    at = jnp.stack([start + row * width + column for row in rows for column in columns])
    a, b, c, d = table[at]  # one gather, and backwards one scatter
    return (a * (1 - share_x) + b * share_x) * (1 - share_y) + (c * (1 - share_x) + d * share_x) * share_y


def _wrapped(index, count, wrap: Wrap) -> Int[Array, "*n"]:
    """Texel numbers within the image of whole numbers anywhere; not finite ones are the first texel's."""
    index = jnp.where(jnp.abs(index) < 1e9, index, 0.0).astype(jnp.int32)
    if wrap == "clamp":
        return jnp.clip(index, 0, count - 1)
    if wrap == "repeat":
        return index % count
    index = index % (2 * count)
    return jnp.minimum(index, 2 * count - 1 - index)


def _halved(image):
    """Half as many rows, each the mean of the rows that its area overlaps."""
    rows = image.shape[0]
    if rows == 1:
        return image
    half = rows // 2
    if rows % 2 == 0:
        return 0.5 * (image[0::2] + image[1::2])
    place = jnp.arange(half, dtype=image.dtype).reshape(-1, 1, 1)
    first, last = (half - place) / rows, (place + 1) / rows
    return first * image[0:-1:2] + half / rows * image[1::2] + last * image[2::2]


def _ellipse(matrix):
    """Singular values of 2x2 matrices, larger first, and the direction in their image that belongs to the larger."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    xx, xy, yy = a * a + b * b, a * c + b * d, c * c + d * d
    mean, half = 0.5 * (xx + yy), jnp.hypot(0.5 * (xx - yy), xy)
    major, minor = jnp.sqrt(mean + half), jnp.sqrt(jnp.maximum(mean - half, 0.0))
    angle = 0.5 * jnp.arctan2(2 * xy, xx - yy)
    return major, minor, jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
