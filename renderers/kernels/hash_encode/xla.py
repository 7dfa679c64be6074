"""The three sums of the encoding in plain XLA, for any device and float dtype.

All vertices of all levels of a kind (dense or hashed) go together, which takes 32 bytes a point and level for rows, and
as much for each feature. Two features a level are gathered and added as one complex number: on CPUs that halves the
time.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from renderers.kernels.hash_encode.levels import PRIMES, HashLevels
from renderers.kernels.hash_encode.reference import clamped

_CORNERS = tuple(itertools.product((0, 1), repeat=3))


def gather(
    points: Float[Array, "n 3"],
    table: Float[Array, "t f"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "n lf"]:
    """Features of the points, or their derivative along `direction`."""
    packed, features = _pack(table), []
    for run in _runs(levels):
        lattice = _Lattice(points, levels, run)
        features.append(_unpack(_scaled(lattice.weights(direction), _take(packed, lattice.rows())).sum(0)))
    return jnp.swapaxes(jnp.concatenate(features), 0, 1).reshape(len(points), -1)


def scatter(
    points: Float[Array, "n 3"],
    cotangents: Float[Array, "n lf"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "t f"]:
    """Transpose of `gather` as a function of the table."""
    packed = _pack(_by_level(cotangents, levels))
    total = jnp.zeros_like(packed, shape=(levels.num_rows, *packed.shape[2:]))
    for run in _runs(levels):
        lattice, g = _Lattice(points, levels, run), packed[run.start : run.stop]
        added = _scaled(lattice.weights(direction), g[None])
        total = total.at[lax.optimization_barrier(lattice.rows())].add(
            added, mode="promise_in_bounds", wrap_negative_indices=False
        )
    return _unpack(total)


def contract(
    points: Float[Array, "n 3"],
    table: Float[Array, "t f"],
    cotangents: Float[Array, "n lf"],
    levels: HashLevels,
    direction: Float[Array, "n 3"] | None = None,
) -> Float[Array, "n 3"]:
    """Gradient by the points of <cotangents, gather(points, table, levels, direction)>."""
    packed, by_level = _pack(table), _pack(_by_level(cotangents, levels))
    total = jnp.zeros_like(points)
    for run in _runs(levels):
        lattice, g = _Lattice(points, levels, run), by_level[run.start : run.stop]
        found = _take(packed, lattice.rows())
        steep = [_scaled(lattice.slopes(axis, direction), found).sum(0) for axis in range(3)]
        total = total + jnp.stack([_inner(g, along).sum(0) for along in steep], 1)
    return total


class _Lattice:
    """Cells of the points in a run of levels, arrays [l, n], each axis by itself."""

    def __init__(self, points, levels: HashLevels, run: range):
        self.resolutions = [
            jnp.asarray([[r[axis]] for r in levels.resolutions[run.start : run.stop]], jnp.int32) for axis in range(3)
        ]
        self.offsets = jnp.asarray([[levels.offsets[level]] for level in run], jnp.int32)
        self.masks = jnp.asarray([[levels.sizes[level] - 1] for level in run], jnp.uint32)
        self.dense = levels.dense[run.start]
        inside = (lax.stop_gradient(points) >= 0) & (lax.stop_gradient(points) <= 1)
        self.cells, self.fractions, self.scales = [], [], []
        for axis, resolution in enumerate(self.resolutions):
            scale = (resolution - 1).astype(points.dtype)
            position = clamped(points)[None, :, axis] * scale
            cell = jnp.clip(jnp.floor(lax.stop_gradient(position)).astype(jnp.int32), 0, resolution - 2)
            self.cells.append(cell)
            self.fractions.append(position - cell.astype(points.dtype))
            self.scales.append(jnp.where(inside[None, :, axis], scale, 0.0))

    def rows(self):
        """Rows of the vertices in the whole table, [c, l, n]."""
        return jnp.stack([self._row(corner) for corner in _CORNERS])

    def weights(self, direction):
        """Trilinear weights of the vertices, or their derivatives along a direction [n, 3]."""
        return jnp.stack([self._weight(corner, direction) for corner in _CORNERS])

    def slopes(self, axis, direction):
        """Derivatives of `weights` by a coordinate of the point."""
        return jnp.stack([self._slope(corner, axis, direction) for corner in _CORNERS])

    def _row(self, corner):
        x, y, z = (cell + side for cell, side in zip(self.cells, corner, strict=True))
        if self.dense:
            return self.offsets + x + self.resolutions[0] * (y + self.resolutions[1] * z)
        hashed = [a.astype(jnp.uint32) * jnp.uint32(prime) for a, prime in zip((x, y, z), PRIMES, strict=True)]
        return self.offsets + ((hashed[0] ^ hashed[1] ^ hashed[2]) & self.masks).astype(jnp.int32)

    def _weight(self, corner, direction):
        if direction is None:
            return self._along(corner, 0) * self._along(corner, 1) * self._along(corner, 2)
        u, v, w = (direction[None, :, axis] * self._slope(corner, axis, None) for axis in range(3))
        return u + v + w

    def _slope(self, corner, axis, direction):
        others = [other for other in range(3) if other != axis]
        first = self.scales[axis] if corner[axis] else -self.scales[axis]
        if direction is None:
            return first * self._along(corner, others[0]) * self._along(corner, others[1])
        total = 0.0
        for other, third in (others, others[::-1]):
            second = self.scales[other] if corner[other] else -self.scales[other]
            total = total + direction[None, :, other] * second * self._along(corner, third)
        return first * total

    def _along(self, corner, axis):
        return self.fractions[axis] if corner[axis] else 1 - self.fractions[axis]


def _runs(levels: HashLevels) -> list[range]:
    """Neighbouring levels of one kind."""
    return [
        range((run := list(group))[0], run[-1] + 1)
        for _, group in itertools.groupby(range(levels.num_levels), lambda level: levels.dense[level])
    ]


def _by_level(cotangents, levels: HashLevels) -> jax.Array:
    return jnp.swapaxes(cotangents.reshape(len(cotangents), levels.num_levels, -1), 0, 1)


def _pack(features: Float[Array, "*n f"]) -> jax.Array:
    """Two features as one complex number; any other number of them stays as it is."""
    return lax.complex(features[..., 0], features[..., 1]) if features.shape[-1] == 2 else features


def _unpack(packed: jax.Array) -> jax.Array:
    return jnp.stack([packed.real, packed.imag], -1) if jnp.iscomplexobj(packed) else packed


def _scaled(weights: jax.Array, packed: jax.Array) -> jax.Array:
    return weights * packed if jnp.iscomplexobj(packed) else weights[..., None] * packed


def _take(packed, rows):
    """Rows of the table, alone in their loop: with more than that in it XLA:CPU takes three times as long."""
    found = packed.at[lax.optimization_barrier(rows)].get(mode="promise_in_bounds", wrap_negative_indices=False)
    return lax.optimization_barrier(found)


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner product of two rows of features, packed or not."""
    return a.real * b.real + a.imag * b.imag if jnp.iscomplexobj(a) else (a * b).sum(-1)
