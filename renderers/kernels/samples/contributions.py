"""Queries in plain XLA: what each Gaussian contributes to all samples, and who contributes to each sample."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from renderers.kernels.composite.xla import CHUNK, _rows
from renderers.kernels.samples.groups import Groups
from renderers.kernels.samples.xla import Walk, batches, blend_chunks, chunks, first_step, goes_on, uncut
from renderers.kernels.tiling import TileLists


def by_gaussian(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    lists: TileLists,
    groups: Groups,
    importance: Float[Array, "g p"],
) -> tuple[Float[Array, " n"], Float[Array, " n"], Int[Array, " n"]]:
    """Sum and largest of importance times weight, and number of samples blended into, of each Gaussian."""
    n = len(opacities)
    rows = _rows(means2d, conics, opacities, jnp.zeros_like(means2d, shape=(n, 0)), lists)
    ids = jnp.pad(lists.ids, (0, CHUNK))

    def batch(found, batched):
        groups, importance = batched
        ends = lists.offsets[groups.tiles + 1]

        def body(carry):
            walk, (total, largest, samples) = carry
            chunk, inside = chunks(rows, walk.start, ends)
            *_, alpha, front, transmittance, alive = blend_chunks(
                chunk, inside, (groups.x, groups.y), walk.transmittance, walk.alive
            )
            weights = alpha * front
            valued = weights * importance[:, None]
            places = jax.vmap(lambda start: lax.dynamic_slice_in_dim(ids, start, CHUNK))(walk.start)
            found = (
                total.at[places].add(valued.sum(2)),
                largest.at[places].max(valued.max(2)),
                samples.at[places].add((weights > 0).sum(2, dtype=jnp.int32)),
            )
            return Walk(start=walk.start + CHUNK, transmittance=transmittance, alive=alive), found

        walk = first_step(groups, lists, rows[0, 0])
        return lax.while_loop(lambda carry: goes_on(carry[0], ends), body, (walk, found))[1], None

    none = jnp.zeros_like(opacities)
    found, _ = lax.scan(batch, (none, none, jnp.zeros_like(opacities, jnp.int32)), batches(groups, importance))
    return found


def by_sample(
    means2d: Float[Array, "n 2"],
    conics: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    lists: TileLists,
    groups: Groups,
    k: int,
    by_weight: bool,
) -> tuple[Int[Array, "g p"], Int[Array, "g p k"], Float[Array, "g p k"]]:
    """Number of Gaussians blended into each sample, and k of them with their weights; -1 and 0 where there are fewer.

    `by_weight`: the k largest weights in falling order (of equal ones the nearer first); else the k nearest in order.
    """
    rows = _rows(means2d, conics, opacities, jnp.zeros_like(means2d, shape=(len(opacities), 0)), lists)
    ids = jnp.pad(lists.ids, (0, CHUNK))

    def batch(groups):
        ends = lists.offsets[groups.tiles + 1]
        count, width = groups.x.shape

        def body(carry):
            walk, number, kept_ids, kept = carry
            chunk, inside = chunks(rows, walk.start, ends)
            *_, alpha, front, transmittance, alive = blend_chunks(
                chunk, inside, (groups.x, groups.y), walk.transmittance, walk.alive
            )
            weights = jnp.swapaxes(alpha * front, 1, 2)  # [g, p, chunk]
            places = jax.vmap(lambda start: lax.dynamic_slice_in_dim(ids, start, CHUNK))(walk.start)
            all_weights = jnp.concatenate([kept, weights], 2)
            all_ids = jnp.concatenate([kept_ids, jnp.broadcast_to(places[:, None], weights.shape)], 2)
            # top_k is stable: what was kept comes first, then the chunk from near to far
            _, best = lax.top_k(all_weights if by_weight else (all_weights > 0).astype(jnp.int32), k)
            kept = jnp.take_along_axis(all_weights, best, 2)
            kept_ids = jnp.where(kept > 0, jnp.take_along_axis(all_ids, best, 2), -1)
            number = number + (weights > 0).sum(2, dtype=jnp.int32)
            return Walk(start=walk.start + CHUNK, transmittance=transmittance, alive=alive), number, kept_ids, kept

        walk = first_step(groups, lists, rows[0, 0])
        kept = jnp.zeros_like(walk.transmittance, shape=(count, width, k))
        zero = jnp.zeros_like(walk.transmittance, jnp.int32)
        state = (walk, zero, jnp.zeros_like(kept, jnp.int32) - 1, kept)
        return lax.while_loop(lambda carry: goes_on(carry[0], ends), body, state)[1:]

    return jax.tree.map(lambda array: uncut(array, groups), lax.map(batch, batches(groups)[0]))
