"""The three sums of plane sampling in plain XLA, for any device and float dtype."""

import itertools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from renderers.kernels.plane_sample.reference import texel_position

_CORNERS = tuple(itertools.product((0, 1), repeat=2))


def gather(
    planes: Float[Array, "p h w c"],
    coordinates: Float[Array, "p n 2"],
    direction: Float[Array, "p n 2"] | None = None,
) -> Float[Array, "p n c"]:
    """Features at coordinates, or their derivative along `direction`."""
    texels, cells = planes.reshape(-1, planes.shape[3]), _Cells(coordinates, planes.shape[1:3])
    total = jnp.zeros((*coordinates.shape[:2], planes.shape[3]), planes.dtype)
    for corner in _CORNERS:
        total = total + cells.weight(corner, direction)[..., None] * _take(texels, cells.rows(corner))
    return total


def scatter(
    coordinates: Float[Array, "p n 2"],
    cotangents: Float[Array, "p n c"],
    size: tuple[int, int],
    direction: Float[Array, "p n 2"] | None = None,
) -> Float[Array, "p h w c"]:
    """Transpose of `gather` as a function of planes of `size`."""
    count, _, channels = cotangents.shape
    cells, (height, width) = _Cells(coordinates, size), size
    texels = jnp.zeros_like(cotangents, shape=(count * height * width, channels))
    for corner in _CORNERS:
        added = cells.weight(corner, direction)[..., None] * cotangents
        texels = texels.at[cells.rows(corner)].add(added, mode="promise_in_bounds")
    return texels.reshape(count, height, width, channels)


def contract(
    planes: Float[Array, "p h w c"],
    coordinates: Float[Array, "p n 2"],
    cotangents: Float[Array, "p n c"],
    direction: Float[Array, "p n 2"] | None = None,
) -> Float[Array, "p n 2"]:
    """Gradient by the coordinates of <cotangents, gather(planes, coordinates, direction)>."""
    texels, cells = planes.reshape(-1, planes.shape[3]), _Cells(coordinates, planes.shape[1:3])
    along = [jnp.zeros_like(coordinates[..., 0])] * 2
    for corner in _CORNERS:
        value = (cotangents * _take(texels, cells.rows(corner))).sum(-1)
        for axis in range(2):
            along[axis] = along[axis] + cells.slope(corner, axis, direction) * value
    return jnp.stack(along, -1)


class _Cells:
    """Texels around coordinates, arrays [p, n], each axis by itself."""

    def __init__(self, coordinates, size):
        height, width = size
        self.base = jnp.arange(len(coordinates), dtype=jnp.int32)[:, None] * (height * width)
        self.ends = (width, height)
        position = texel_position(coordinates, (height, width))
        first = jnp.floor(lax.stop_gradient(position))
        fraction = position - first
        self.firsts = [first[..., axis].astype(jnp.int32) for axis in range(2)]
        self.fractions = [fraction[..., axis] for axis in range(2)]

    def rows(self, corner):
        """Indices of one texel of each cell among all texels; of one in the plane where it lies outside."""
        x, y = (jnp.clip(self._at(corner, axis), 0, self.ends[axis] - 1) for axis in range(2))
        return self.base + y * self.ends[0] + x

    def weight(self, corner, direction):
        """Bilinear weight of a texel, or its derivative along a direction; zero outside the plane."""
        if direction is None:
            return self._along(corner, 0) * self._along(corner, 1)
        return direction[..., 0] * self.slope(corner, 0, None) + direction[..., 1] * self.slope(corner, 1, None)

    def slope(self, corner, axis, direction):
        """Derivative of `weight` by a coordinate."""
        if direction is None:
            return self._steep(corner, axis) * self._along(corner, 1 - axis)
        return self._steep(corner, axis) * self._steep(corner, 1 - axis) * direction[..., 1 - axis]

    def _at(self, corner, axis):
        return self.firsts[axis] + corner[axis]

    def _inside(self, corner, axis):
        at = self._at(corner, axis)
        return (at >= 0) & (at < self.ends[axis])

    def _along(self, corner, axis):
        fraction = self.fractions[axis]
        return jnp.where(self._inside(corner, axis), fraction if corner[axis] else 1 - fraction, 0.0)

    def _steep(self, corner, axis):
        slope = (0.5 if corner[axis] else -0.5) * self.ends[axis]
        return jnp.where(self._inside(corner, axis), slope, 0.0).astype(self.fractions[axis].dtype)


def _take(texels, rows):
    return texels.at[rows].get(mode="promise_in_bounds")
