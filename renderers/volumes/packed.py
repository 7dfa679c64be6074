"""Samples of all rays in one buffer of fixed capacity: `quadrature` where rays have different numbers of samples.

The samples of a ray lie side by side, front to back, rays in order; places that are not used come last and name ray r,
one beyond the last, which every sum drops. Sums along a ray are segmented scans: started anew at each ray rather than
taken as differences of one long running sum, which in float32 would lose the small behind the large.
"""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.volumes.quadrature import _SMALLEST_OPACITY


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class PackedSamples:
    """Samples of r rays in m places.

    Attributes:
      starts: distance at which each sample's interval starts, metres; 0 in places that are not used.
      ends: distance at which it ends.
      ray_index: ray of each sample, never decreasing; r in places that are not used.
      counts: samples that each ray has in the buffer.
      overflow: samples that found no place.
      complete: rays all of whose samples found one; a loss should leave the others out.
    """

    starts: Float[Array, " m"]
    ends: Float[Array, " m"]
    ray_index: Int[Array, " m"]
    counts: Int[Array, " r"]
    overflow: Int[Array, ""]
    complete: Bool[Array, " r"]


def pack(
    starts: Float[Array, "r s"], ends: Float[Array, "r s"], keep: Bool[Array, "r s"], capacity: int
) -> PackedSamples:
    """The samples that are to be kept of rays with s samples each; no gradient to the distances."""
    starts, ends = lax.stop_gradient((starts, ends))
    rays = jnp.broadcast_to(jnp.arange(len(keep), dtype=jnp.int32)[:, None], keep.shape)
    return _packed(starts.ravel(), ends.ravel(), rays.ravel(), keep.ravel(), len(keep), capacity)


def prune(samples: PackedSamples, keep: Bool[Array, " m"], capacity: int) -> PackedSamples:
    """The samples that are to be kept, in a buffer of another capacity; what overflowed before is counted again."""
    num_rays = len(samples.counts)
    keep = keep & (samples.ray_index < num_rays)
    again = _packed(samples.starts, samples.ends, samples.ray_index, keep, num_rays, capacity)
    return dataclasses.replace(
        again, overflow=again.overflow + samples.overflow, complete=again.complete & samples.complete
    )


def _packed(starts, ends, rays, keep, num_rays, capacity):
    place = jnp.cumsum(keep, dtype=jnp.int32) - 1
    slot = jnp.where(keep, place, capacity)  # beyond the last: dropped, as is what overflows
    wanted = jnp.zeros(num_rays, jnp.int32).at[rays].add(keep, mode="drop")
    last = jnp.cumsum(wanted)

    def scatter(values, otherwise):
        return jnp.full(capacity, otherwise, values.dtype).at[slot].set(values, mode="drop")

    return PackedSamples(
        starts=scatter(starts, 0),
        ends=scatter(ends, 0),
        ray_index=scatter(rays, num_rays),
        counts=jnp.clip(capacity - (last - wanted), 0, wanted),
        overflow=jnp.maximum(last[-1] - capacity, 0),
        complete=last <= capacity,
    )


def middles(samples: PackedSamples) -> Float[Array, " m"]:
    """Distance of the middle of each sample's interval, metres."""
    return 0.5 * (samples.starts + samples.ends)


def points_and_directions(
    origins: Float[Array, "r 3"], directions: Float[Array, "r 3"], samples: PackedSamples
) -> tuple[Float[Array, "m 3"], Float[Array, "m 3"]]:
    """World point in the middle of each sample and the direction of its ray; the last ray's in places not used."""
    ray = jnp.minimum(samples.ray_index, len(origins) - 1)
    along = directions[ray]
    return origins[ray] + middles(samples)[:, None] * along, along


def weights_from_density(
    density: Float[Array, " m"], samples: PackedSamples
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """Weights of samples, and the transmittance in front of each; weight 0 in places that are not used."""
    optical_depth = density * (samples.ends - samples.starts)
    transmittance = jnp.exp(-sum_in_front(optical_depth, samples))
    return transmittance * -jnp.expm1(-optical_depth), transmittance


def weights_from_alpha(
    alpha: Float[Array, " m"], samples: PackedSamples
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """As `weights_from_density`, from alphas in [0, 1]."""
    alpha = jnp.where(samples.ray_index < len(samples.counts), alpha, 0.0)
    transmittance = _in_front(jnp.multiply, 1 - alpha, samples.ray_index, 1.0)
    return transmittance * alpha, transmittance


def sum_in_front(values: Float[Array, " m"], samples: PackedSamples) -> Float[Array, " m"]:
    """Sum of the values of the same ray's samples in front of each. Reverse mode."""
    return _sum_beside(values, samples.ray_index, False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _sum_beside(values, ray_index, behind):
    """Sum of the same ray's samples in front of each, or behind each. Each is the other's transpose."""
    if behind:
        return jnp.flip(_in_front(jnp.add, jnp.flip(values), jnp.flip(ray_index), 0.0))
    return _in_front(jnp.add, values, ray_index, 0.0)


def _sum_beside_forward(values, ray_index, behind):
    return _sum_beside(values, ray_index, behind), ray_index


def _sum_beside_backward(behind, ray_index, cotangent):
    return _sum_beside(cotangent, ray_index, not behind), None


# what differentiating the scan step by step gives as well, in a third of the time
_sum_beside.defvjp(_sum_beside_forward, _sum_beside_backward)


def _in_front(combine, values, ray_index, neutral):
    """Exclusive segmented scan: each value moves one place back, and rays start with the neutral element."""
    begins = ray_index[:-1] != ray_index[1:]
    first = jnp.concatenate([jnp.ones_like(begins[:1]), begins])
    moved = jnp.where(first, neutral, jnp.concatenate([values[:1], values[:-1]]))

    def join(a, b):
        (a_first, a_value), (b_first, b_value) = a, b
        return a_first | b_first, jnp.where(b_first, b_value, combine(a_value, b_value))

    return lax.associative_scan(join, (first, moved))[1]


def sum_by_ray(values: Float[Array, "m ..."], samples: PackedSamples) -> Float[Array, "r ..."]:
    """Sum over each ray's samples; 0 for rays without any."""
    num_rays = len(samples.counts)
    total = jax.ops.segment_sum(values, samples.ray_index, num_rays + 1, indices_are_sorted=True)
    return total[:num_rays]


def expected_distance(weights: Float[Array, " m"], samples: PackedSamples) -> Float[Array, " r"]:
    """As `quadrature.expected_distance`."""
    total = sum_by_ray(weights, samples)
    return sum_by_ray(weights * middles(samples), samples) / jnp.maximum(total, _SMALLEST_OPACITY)


def median_distance(weights: Float[Array, " m"], samples: PackedSamples) -> Float[Array, " r"]:
    """As `quadrature.median_distance`, but 0 on rays that see nothing."""
    num_rays = len(samples.counts)
    total = jnp.concatenate([sum_by_ray(weights, samples), jnp.zeros(1, weights.dtype)])
    half, before = 0.5 * total[samples.ray_index], sum_in_front(weights, samples)
    holds = (before <= half) & (half < before + weights)  # the one interval in which half is passed
    fraction = (half - before) / jnp.where(holds, weights, 1.0)
    distance = jnp.where(holds, samples.starts + fraction * (samples.ends - samples.starts), 0.0)
    # rounding may let two neighbours claim it, or none: then the later, and the end of the last, would be as good
    return jnp.zeros(num_rays, weights.dtype).at[samples.ray_index].max(distance, mode="drop")


def distortion_loss(weights: Float[Array, " m"], samples: PackedSamples) -> Float[Array, " r"]:
    """As `regularizers.distortion_loss`, of the distances in metres as they are."""
    length = samples.ends - samples.starts
    middle, in_front = middles(samples), sum_in_front(weights, samples)
    total = jnp.concatenate([sum_by_ray(weights, samples), jnp.zeros(1, weights.dtype)])[samples.ray_index]
    same_ray = jnp.concatenate([jnp.zeros((1,), bool), samples.ray_index[1:] == samples.ray_index[:-1]])
    gap = jnp.where(same_ray, middle - jnp.concatenate([middle[:1], middle[:-1]]), 0.0)
    # each gap between neighbours lies between all in front of it and all behind it
    between = 2 * gap * in_front * jnp.maximum(total - in_front, 0.0)
    return sum_by_ray(between + weights**2 * length / 3, samples)
