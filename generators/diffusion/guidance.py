"""Guidance: predictions with and without a condition combined into one that follows the condition more closely.

All functions take predictions of one kind (x_0, eps or v); for eps and x_0 at the same z_t and t the results agree,
since one is an affine function of the other.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def classifier_free(
    conditional: Float[Array, "b *n"], unconditional: Float[Array, "b *n"], scale: float | Float[Array, ""]
) -> Float[Array, "b *n"]:
    """`unconditional + scale (conditional - unconditional)` (arXiv 2207.12598; their w is scale - 1)."""
    return unconditional + scale * (conditional - unconditional)
