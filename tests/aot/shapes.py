"""Arguments of compositing as shapes only: the project's yardstick, 50,000 Gaussians at 512 x 512."""

import functools

import jax
import jax.numpy as jnp

from renderers.kernels import tiling
from renderers.kernels.composite import shapes

YARDSTICK = shapes.SCENE_50K
CAPACITY = 262_144  # of its 204,000 intersections


def gaussians(channels: int) -> list[jax.ShapeDtypeStruct]:
    """Means, conics, opacities and features."""
    n = YARDSTICK.num_gaussians
    return [_floats(n, 2), _floats(n, 3), _floats(n), _floats(n, channels)]


def boxes() -> list[jax.ShapeDtypeStruct]:
    """Extents and depths."""
    n = YARDSTICK.num_gaussians
    return [_floats(n, 2), _floats(n)]


def lists() -> tiling.TileLists:
    """Tile lists."""
    means2d, (extents, depths) = gaussians(1)[0], boxes()
    bin_all = functools.partial(tiling.bin_gaussians, size=YARDSTICK.size, capacity=CAPACITY)
    return jax.eval_shape(bin_all, means2d, extents, depths)


def image(channels: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Image and transmittance, or their cotangents."""
    return _floats(*YARDSTICK.size, channels), _floats(*YARDSTICK.size)


def _floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)
