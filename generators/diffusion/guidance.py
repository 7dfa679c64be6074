"""Guidance: predictions with and without a condition combined into one that follows the condition more closely.

All functions take predictions of one kind (x_0, eps or v); for eps and x_0 at the same z_t and t the results of
`classifier_free` and `perpendicular_negative` without negatives agree, since one is an affine function of the other.
A scale of 1 is the conditional prediction, 0 the unconditional one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def classifier_free(
    conditional: Float[Array, " b *n"], unconditional: Float[Array, " b *n"], scale: float | Float[Array, ""]
) -> Float[Array, " b *n"]:
    """`unconditional + scale (conditional - unconditional)` (arXiv 2207.12598; their w is scale - 1)."""
    return unconditional + scale * (conditional - unconditional)


def rescaled(
    guided: Float[Array, " b *n"],
    conditional: Float[Array, " b *n"],
    phi: float | Float[Array, ""],
    *,
    group: int = 1,
    axes: tuple[int, ...] | None = None,
    ddof: int = 1,
) -> Float[Array, " b *n"]:
    """A guided prediction brought back towards the spread of the conditional one (arXiv 2305.08891, eq. 15-16).

    `guided (phi (std(conditional) + e) / (std(guided) + e) + 1 - phi)`, e = 1e-8. Large scales overexpose; this keeps
    them from it. Lin et al. take eps or v and phi = 0.7; MVDream (arXiv 2308.16512) takes x_0, phi = 0.5 and one
    deviation for all views of an object.

    Args:
      guided: by any function here.
      conditional: of the same kind.
      phi: 0 changes nothing, 1 gives the conditional's standard deviation.
      group: consecutive examples that have one deviation together, the views of an object where they lie along b.
      axes: of an example that the deviation is taken over, 1 being the first after b; None for all.
      ddof: 1 for the unbiased variance, as both papers' code; 0 for the mean square.

    Raises:
      ValueError: the examples do not divide into groups.
    """
    b, *rest = guided.shape
    if b % group:
        raise ValueError(f"{b} examples do not divide into groups of {group}")
    over = (1, *(axis + 1 for axis in (range(1, len(rest) + 1) if axes is None else axes)))
    grouped = guided.reshape(b // group, group, *rest)
    wanted = _deviation(conditional.reshape(grouped.shape), over, ddof)
    factor = (wanted + 1e-8) / (_deviation(grouped, over, ddof) + 1e-8)
    return (grouped * (phi * factor + (1 - phi))).reshape(guided.shape)


def limited_interval(
    t: Num[Array, "*b"], scale: float | Float[Array, ""], *, first: float, last: float
) -> Float[Array, "*b"]:
    """The scale at times first .. last, and 1 at all others (arXiv 2404.07724).

    At high noise guidance takes variety away, at low noise it does next to nothing. Their interval is of noise levels
    sigma / alpha; `schedules.time_of_log_snr(schedule, -2 log(level))` is the time of one.

    Args:
      t: times, or timesteps of a table.
      scale: of the guidance inside.
      first: lowest time that is guided.
      last: highest time that is guided.
    """
    return jnp.where((t >= first) & (t <= last), scale, 1.0)


def perpendicular_negative(
    positive: Float[Array, " b *n"],
    unconditional: Float[Array, " b *n"],
    negatives: Float[Array, " k b *n"],
    weights: Float[Array, "k b"],
    scale: float | Float[Array, ""],
) -> Float[Array, " b *n"]:
    """Guidance away from negative conditions, but only in what they do not share with the positive one.

    `unconditional + scale (p + sum_k w_k (q_k - <q_k, p> / <p, p> p))` with p and q_k the differences of the
    predictions from the unconditional one (Perp-Neg, arXiv 2304.04968, eq. 7-8).

    Args:
      positive: prediction for what is wanted.
      unconditional: prediction without a condition.
      negatives: predictions for what is not, one set for each of k conditions.
      weights: of the negatives, below 0 to lead away from them.
      scale: of the whole.
    """
    within = tuple(range(1, positive.ndim))
    p = positive - unconditional
    q = negatives - unconditional[None]
    along = jnp.sum(q * p[None], axis=tuple(axis + 1 for axis in within), keepdims=True)
    square = jnp.maximum(jnp.sum(p * p, axis=within, keepdims=True), 1e-6)
    away = q - along / square[None] * p[None]
    return unconditional + scale * (p + jnp.sum(weights.reshape(*weights.shape, *(1 for _ in within)) * away, axis=0))


def _deviation(x, axes, ddof):
    variance = jnp.var(x, axis=axes, keepdims=True, ddof=ddof)
    # The slope of the root at 0 is infinite; an even picture has no direction in which it would gain spread
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
