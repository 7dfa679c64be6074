"""Unbounded space as a bounded one: the contraction of mip-NeRF 360 (arXiv:2111.12077, eq. 10), and its cube.

    contract(x) = x where |x| <= 1, else (2 - 1 / |x|) x / |x|

maps space to the open ball of radius 2. With the largest coordinate's magnitude for |x| it maps space to the cube
(-2, 2)^3, which grids fill without waste, as Instant-NGP and nerfacc do. Both are once continuously differentiable
where they begin to bend (the cube: but for its diagonals).
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Shape = Literal["sphere", "cube"]


def contract(points: Float[Array, "*n 3"], shape: Shape = "sphere") -> Float[Array, "*n 3"]:
    """Points of space to the ball (or cube) of radius 2; the unit ball (cube) stays as it is."""
    # of m = max(1, |x|^2) the derivative jumps at 1, that of the scale by m does not: it is zero there
    m = jnp.maximum(_norm_squared(points, shape), 1.0)
    return points * (2 / jnp.sqrt(m) - 1 / m)


def uncontract(points: Float[Array, "*n 3"], shape: Shape = "sphere") -> Float[Array, "*n 3"]:
    """Inverse of `contract`. Points at radius 2 or beyond go far away (1e7 radii in float32), not to infinity."""
    m = jnp.maximum(_norm_squared(points, shape), 1.0)
    norm = jnp.sqrt(m)
    return points / jnp.maximum(norm * (2 - norm), 2 * jnp.finfo(points.dtype).eps)


def _norm_squared(points, shape):
    if shape == "sphere":
        return jnp.sum(points * points, -1, keepdims=True)
    if shape == "cube":
        return jnp.max(points * points, -1, keepdims=True)
    raise ValueError(f"expected the contraction's shape to be sphere or cube, got {shape!r}")


def transform_gaussian(
    function: Callable[[Array], Array], mean: Float[Array, "*n 3"], covariance: Float[Array, "*n 3 3"]
) -> tuple[Float[Array, "*n d"], Float[Array, "*n d d"]]:
    """Gaussians pushed through a function by its linearisation at the mean: f(mean), J covariance J^T.

    mip-NeRF 360, eq. 9: with `contract`, the frustums of far pixels in contracted space. J is never formed: its product
    with the covariance's columns is two rounds of forward derivatives.

    Args:
        function: from points `[*n, 3]` to points `[*n, d]`, each by itself.
        mean: centres.
        covariance: symmetric.
    """
    value, push = jax.linearize(function, mean)
    columns = jax.vmap(push, -1, -1)
    half = columns(covariance)  # J C
    return value, columns(jnp.swapaxes(half, -1, -2))  # J (J C)^T = J C J^T
