"""The walk in plain XLA, for any device and float dtype: groups of samples over their tiles' lists, front to back.

Many groups go together, each through its own list, in turns of one chunk of Gaussians, until every sample has stopped
or every list has ended. How many is data by device: few on a CPU (cache, early exit), a hundred thousand samples on
devices that are wide. The backward pass goes front to back as well; see `kernels.composite.xla`, whose blending this
is.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from renderers.kernels.composite.reference import MAX_ALPHA
from renderers.kernels.composite.xla import CHUNK, GEOMETRY, _blend_chunk, _chunk, _rows
from renderers.kernels.samples.groups import Groups
from renderers.kernels.tiling import TileLists

_TOGETHER = {"cpu": 256}  # samples walked together, by platform
_TOGETHER_ELSEWHERE = 1 << 17

blend_chunks = jax.vmap(_blend_chunk)  # of several groups
chunks = jax.vmap(_chunk, (None, 0, 0))


def batches(groups: Groups, *per_group) -> tuple:
    """Groups, and arrays of one entry a group, cut into batches to walk together: a leading axis over batches."""
    count, width = groups.x.shape
    lanes = _TOGETHER.get(jax.default_backend(), _TOGETHER_ELSEWHERE)
    together = max(1, min(lanes // width, count))
    extra = -count % together

    def cut(array):
        padded = jnp.pad(array, ((0, extra),) + ((0, 0),) * (array.ndim - 1))
        return padded.reshape(-1, together, *array.shape[1:])

    return jax.tree.map(cut, (groups, *per_group))


def uncut(batched, groups: Groups):
    """Inverse of what `batches` does to arrays."""
    return batched.reshape(-1, *batched.shape[2:])[: len(groups.tiles)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Walk:
    """Where a batch of groups stands: next row of each list, and each sample's transmittance and whether it goes on."""

    start: jax.Array
    transmittance: jax.Array
    alive: jax.Array


def first_step(groups: Groups, lists: TileLists, like) -> Walk:
    """Before the first Gaussian; typed as `like`, a scalar, varies over mesh axes (see `kernels.composite.xla`)."""
    one = jnp.ones_like(groups.x) + 0 * like
    return Walk(start=lists.offsets[groups.tiles], transmittance=one, alive=groups.drawn & (one > 0))


def goes_on(walk: Walk, ends) -> jax.Array:
    """Whether some sample of the batch still has Gaussians before it."""
    return jnp.any(walk.alive & (walk.start < ends)[:, None])


def forward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    groups: Groups,
) -> tuple[Float[Array, "g c p"], Float[Array, "g p"]]:
    """Values without background and transmittance left, by group."""
    rows = _rows(means2d, conics, opacities, features, lists)

    def batch(groups):
        ends = lists.offsets[groups.tiles + 1]

        def body(carry):
            walk, values = carry
            chunk, inside = chunks(rows, walk.start, ends)
            *_, alpha, front, transmittance, alive = blend_chunks(
                chunk, inside, (groups.x, groups.y), walk.transmittance, walk.alive
            )
            values = values + jnp.einsum(
                "gkc,gkp->gcp", chunk[..., GEOMETRY:], alpha * front, precision=lax.Precision.HIGHEST
            )
            return Walk(start=walk.start + CHUNK, transmittance=transmittance, alive=alive), values

        walk = first_step(groups, lists, rows[0, 0])
        empty = jnp.zeros_like(walk.transmittance, shape=(len(groups.x), features.shape[1], groups.x.shape[1]))
        walk, values = lax.while_loop(lambda carry: goes_on(carry[0], ends), body, (walk, empty))
        return values, walk.transmittance

    values, transmittance = lax.map(batch, batches(groups)[0])
    return uncut(values, groups), uncut(transmittance, groups)


def backward(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    features: Float[Array, "n c"],
    lists: TileLists,
    groups: Groups,
    outputs: tuple[Float[Array, "g c p"], Float[Array, "g p"]],
    cotangents: tuple[Float[Array, "g c p"], Float[Array, "g p"]],
) -> tuple[
    Float[Array, "n 2"],
    Float[Array, "n 3"],
    Float[Array, " n"],
    Float[Array, "n c"],
    Float[Array, "n 2"],
    Float[Array, "g 2 p"],
]:
    """Gradients of means2d, conics, opacities, features, the absolute-valued one of means2d, and of the positions."""
    n, channels = features.shape
    rows = _rows(means2d, conics, opacities, features, lists)
    ids = jnp.pad(lists.ids, (0, CHUNK))
    (values, transmittance), (g_values, g_transmittance) = outputs, cotangents
    to_come = jnp.sum(values * g_values, 1) + transmittance * g_transmittance

    def batch(gradient, batched):
        groups, g, to_come = batched
        ends = lists.offsets[groups.tiles + 1]

        def body(carry):
            walk, to_come, moved, gradient = carry
            chunk, inside = chunks(rows, walk.start, ends)
            columns, (along_x, along_y), to_come, transmittance, alive = _chunk_gradients(
                chunk, inside, groups, g, walk, to_come
            )
            moved = moved - jnp.stack([along_x, along_y], 1)
            places = jax.vmap(lambda start: lax.dynamic_slice_in_dim(ids, start, CHUNK))(walk.start)
            gradient = gradient.at[places].add(columns)
            return Walk(start=walk.start + CHUNK, transmittance=transmittance, alive=alive), to_come, moved, gradient

        walk = first_step(groups, lists, rows[0, 0])
        still = jnp.zeros_like(walk.transmittance, shape=(len(groups.x), 2, groups.x.shape[1]))
        state = walk, to_come, still, gradient
        *_, moved, gradient = lax.while_loop(lambda carry: goes_on(carry[0], ends), body, state)
        return gradient, moved

    empty = jnp.zeros_like(rows, shape=(n, GEOMETRY + channels + 2))
    gradient, moved = lax.scan(batch, empty, batches(groups, g_values, to_come))
    means, conics_, opacity, feature, probe = jnp.split(gradient, (2, 5, 6, 6 + channels), 1)
    return means, conics_, opacity[:, 0], feature, probe, uncut(moved, groups)


def _chunk_gradients(chunk, inside, groups, g, walk, to_come):
    """Gradient rows of a chunk [g, chunk, columns], those of the means by sample, and the state after it."""
    dx, dy, raw, alpha, front, transmittance, alive = blend_chunks(
        chunk, inside, (groups.x, groups.y), walk.transmittance, walk.alive
    )
    weights = alpha * front
    value = jnp.einsum("gkc,gcp->gkp", chunk[..., GEOMETRY:], g, precision=lax.Precision.HIGHEST)
    behind = []
    for step in range(CHUNK):
        to_come = to_come - weights[:, step] * value[:, step]
        behind.append(to_come)
    # dL / dsigma with its sign turned; zero where alpha is clamped, dropped or the sample has stopped
    moved = (alpha > 0) & (front > 0) & (raw <= MAX_ALPHA)
    m = jnp.where(moved, alpha * (front * value - jnp.stack(behind, 1) / (1 - alpha)), 0.0)
    gx = m * (chunk[..., 2:3] * dx + chunk[..., 3:4] * dy)
    gy = m * (chunk[..., 3:4] * dx + chunk[..., 4:5] * dy)
    opacity = jnp.where(inside[..., 0] & (chunk[..., 5] > 0), chunk[..., 5], 1.0)
    geometry = [
        gx.sum(2),
        gy.sum(2),
        -0.5 * (m * dx * dx).sum(2),
        -(m * dx * dy).sum(2),
        -0.5 * (m * dy * dy).sum(2),
        m.sum(2) / opacity,
    ]
    feature = jnp.einsum("gcp,gkp->gkc", g, weights, precision=lax.Precision.HIGHEST)
    absolute = [jnp.abs(gx).sum(2), jnp.abs(gy).sum(2)]
    columns = jnp.concatenate([jnp.stack(geometry, 2), feature, jnp.stack(absolute, 2)], 2)
    return columns, (gx.sum(1), gy.sum(1)), to_come, transmittance, alive
