"""Nonlinear least squares over a handful of parameters: Levenberg-Marquardt with a Jacobian in forward mode.

For few parameters and many residuals (a camera against the pixels of an image) the normal matrix J^T J is small and J
costs one tangent a parameter, all of which share one evaluation of the residuals. Library solvers (optimistix, jaxopt)
are not used: jaxopt is no longer kept up, optimistix brings equinox and lineax, and what is left to write is this page.

The damping follows Nielsen (IMM-REP-1999-05; Madsen, Nielsen, Tingleff, "Methods for Non-Linear Least Squares
Problems", 2004, section 3.2): a step that lowers the cost is taken, and the damping falls the more, the closer the fall
is to what the linear model foretold; any other step is discarded and the damping grows ever faster.
"""

import dataclasses
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

_LEAST_DAMPING, _MOST_DAMPING = 1e-9, 1e9
_FLOOR = 1e-12  # of the largest diagonal entry: keeps parameters that no residual feels where they are


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class LeastSquares:
    """A search for the parameters that make residuals small, between two steps.

    Attributes:
      x: Float["p"], the best parameters so far.
      cost: Float[""], half the sum of squares there (Huber's instead of squares where asked for).
      gradient: Float["p"], J^T r.
      normal: Float["p p"], J^T J.
      damping: Float[""], relative to the diagonal of J^T J.
      growth: Float[""], factor of the damping at the next step that is discarded.
      accepted: Bool[""], whether the last step was taken.
    """

    x: Float[Array, " p"]
    cost: Float[Array, ""]
    gradient: Float[Array, " p"]
    normal: Float[Array, "p p"]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    accepted: Bool[Array, ""]


Residuals = Callable[[Float[Array, " p"]], PyTree[Float[Array, "..."]]]


def start(x: Float[Array, " p"], *, damping: float = 1e-3) -> LeastSquares:
    """A search that begins at x with an infinite cost: its first step stays there and evaluates.

    Args:
      x: where to begin.
      damping: relative to the diagonal of J^T J, so that the units of the parameters do not matter.
    """
    p = x.shape[0]
    return LeastSquares(
        x=x,
        cost=jnp.full((), jnp.inf, x.dtype),
        gradient=jnp.zeros_like(x),
        normal=jnp.zeros((p, p), x.dtype),
        damping=jnp.full((), damping, x.dtype),
        growth=jnp.full((), 2.0, x.dtype),
        accepted=jnp.asarray(False),
    )


def step(residuals: Residuals, search: LeastSquares, *, huber: float | None = None) -> LeastSquares:
    """One damped Gauss-Newton step: taken if it lowers the cost, else discarded with more damping for the next.

    One evaluation of the residuals and their Jacobian. A cost that is not finite counts as too high.

    Args:
      residuals: of the parameters; differentiable in forward mode. Any pytree of arrays.
      search: where it stands.
      huber: residuals beyond this count by their magnitude, not their square (Huber 1964), which takes the weight of
        what the model cannot explain; None for plain squares.
    """
    scale = jnp.maximum(jnp.diagonal(search.normal), _FLOOR * jnp.max(jnp.diagonal(search.normal)))
    scale = jnp.where(scale > 0, scale, 1.0)
    root = jnp.sqrt(scale)
    # in units in which J^T J has a diagonal of ones, where float32 solves well
    scaled = search.normal / (root[:, None] * root[None]) + search.damping * jnp.eye(root.shape[0], dtype=root.dtype)
    move = -jnp.linalg.solve(scaled, search.gradient / root) / root
    foretold = 0.5 * jnp.vdot(move, search.damping * scale * move - search.gradient)
    moved = search.x + move
    cost, gradient, normal = _linearise(residuals, moved, huber)
    finite = jnp.isfinite(cost) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(normal))
    accepted = finite & (cost < search.cost)
    gain = (search.cost - cost) / jnp.where(foretold > 0, foretold, 1.0)
    less = jnp.maximum(1 / 3, 1 - (2 * jnp.clip(gain, 0.0, 1.0) - 1) ** 3)
    damping = search.damping * jnp.where(accepted, less, search.growth)
    taken = LeastSquares(
        x=moved,
        cost=cost,
        gradient=gradient,
        normal=normal,
        damping=damping,
        growth=jnp.full_like(damping, 2.0),
        accepted=accepted,
    )
    kept = dataclasses.replace(search, growth=2 * search.growth, accepted=accepted)
    result = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), taken, kept)
    return dataclasses.replace(result, damping=jnp.clip(damping, _LEAST_DAMPING, _MOST_DAMPING))


def _linearise(residuals, x, huber):
    """Cost, J^T r and J^T J; all columns of J come from one evaluation."""
    directions = jnp.eye(x.shape[0], dtype=x.dtype)
    values, columns = jax.vmap(lambda d: jax.jvp(residuals, (x,), (d,)), out_axes=(None, 0))(directions)
    r = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(values)])
    jacobian = jnp.concatenate([leaf.reshape(x.shape[0], -1) for leaf in jax.tree.leaves(columns)], 1)
    if huber is None:
        cost, weighted = 0.5 * jnp.vdot(r, r), jacobian
    else:
        size = jnp.abs(r)
        cost = jnp.sum(jnp.where(size > huber, huber * (size - 0.5 * huber), 0.5 * r * r))
        weighted = jacobian * jnp.where(size > huber, huber / jnp.where(size > huber, size, 1.0), 1.0)[None]

    def product(a, b):
        return lax.dot(a, b, precision=lax.Precision.HIGHEST)

    return cost, product(weighted, r), product(weighted, jacobian.T)
