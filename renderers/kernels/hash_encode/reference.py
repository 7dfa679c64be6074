"""The definition, level by level and vertex by vertex, differentiated by JAX."""

import itertools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from renderers.kernels.hash_encode.levels import PRIMES, HashLevels


def hash_encode(points: Float[Array, "n 3"], table: Float[Array, "t f"], levels: HashLevels) -> Float[Array, "n lf"]:
    """Features of all levels, coarse to fine; see `api.hash_encode`. Derivatives of every order, in both modes."""
    features = []
    for resolution, size, offset in zip(levels.resolutions, levels.sizes, levels.offsets, strict=True):
        features.append(_level(points, table[offset : offset + size], resolution))
    return jnp.concatenate(features, 1)


def clamped(points: Float[Array, "n d"], low: float = 0.0, high: float = 1.0) -> Float[Array, "n d"]:
    """Points moved into the cube; derivative 1 inside and on its border, 0 outside."""
    return jnp.where(points < low, low, jnp.where(points > high, high, points))


def vertex_rows(vertices: Int[Array, "*n 3"], resolution: tuple[int, int, int], size: int) -> Int[Array, "*n"]:
    """Rows of vertices within their level (paper, equation 4)."""
    x, y, z = vertices[..., 0], vertices[..., 1], vertices[..., 2]
    nx, ny, nz = resolution
    if nx * ny * nz <= size:
        return x + nx * (y + ny * z)
    hashed = [axis.astype(jnp.uint32) * jnp.uint32(prime) for axis, prime in zip((x, y, z), PRIMES, strict=True)]
    return ((hashed[0] ^ hashed[1] ^ hashed[2]) & jnp.uint32(size - 1)).astype(jnp.int32)


def _level(points: Float[Array, "n 3"], rows: Float[Array, "t f"], resolution) -> Float[Array, "n f"]:
    cells = jnp.asarray([resolution], jnp.int32) - 1
    position = clamped(points) * cells.astype(points.dtype)
    # the far border belongs to the last cell
    cell = jnp.clip(jnp.floor(lax.stop_gradient(position)).astype(jnp.int32), 0, cells - 1)
    fraction = position - cell.astype(points.dtype)
    features = jnp.zeros((len(points), rows.shape[1]), rows.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        side = jnp.asarray([corner], jnp.int32)
        along = jnp.where(side == 1, fraction, 1 - fraction)
        weight = along[:, :1] * along[:, 1:2] * along[:, 2:]
        features = features + weight * rows[vertex_rows(cell + side, resolution, len(rows))]
    return features
