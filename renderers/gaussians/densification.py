"""Growing and moving Gaussians while they are fitted, as Markov chain Monte Carlo.

The method is that of Kheradmand et al. 2024 (arXiv 2404.09591). Arrays have a fixed capacity; `alive` says which rows
are Gaussians. Gaussians that have become transparent are moved onto others, new ones are born on others, in proportion
to opacity, and all move at random: a Langevin step that explores where Gaussians are faint. Nothing is cloned or pruned
by thresholds on gradients, and no shape changes. Constants are those of gsplat 1.6.0's MCMC strategy.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from renderers.gaussians.covariance import principal_axes
from renderers.gaussians.gaussians import Gaussians

MIN_OPACITY = 0.005  # below it a Gaussian counts as dead
MAX_SHARES = 51  # copies of one Gaussian that the scale correction is exact for


def share(
    opacities: Float[Array, " n"], scales: Float[Array, "n 3"], shares: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, "n 3"]]:
    """Opacity and scales that each of N coincident copies needs to look like the one Gaussian that they replace.

    o' = 1 - (1 - o)^(1/N), and scales by o / (sum_{i=1}^{N} sum_{k=0}^{i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1))
    (arXiv 2404.09591, Eq. 9), which keeps the total of alpha along a ray through the centre.

    The double sum is sum_{k=1}^{N} C(N, k) (-1)^(k-1) o'^k / sqrt(k) by the hockey-stick identity, which is the
    integral of 1 - (1 - o' exp(-x^2))^N over the real line, divided by sqrt(pi). It is computed as that integral: the
    binomials cancel catastrophically in float32 beyond N = 10.

    Args:
      opacities: in [0, 1).
      scales: standard deviations.
      shares: N >= 1 for each Gaussian; values above 51 count as 51.
    """
    n = jnp.clip(shares, 1, MAX_SHARES).astype(opacities.dtype)
    new = -jnp.expm1(jnp.log1p(-jnp.minimum(opacities, 1 - 1e-6)) / n)
    # the trapezoid rule converges exponentially on such an integrand
    x = jnp.linspace(0.0, 4.5, 46, dtype=opacities.dtype)
    covered = -jnp.expm1(n[:, None] * jnp.log1p(-new[:, None] * jnp.exp(-x * x)[None]))
    weights = jnp.full_like(x, 2 * 0.1 / math.sqrt(math.pi)).at[0].mul(0.5)
    total = jnp.sum(covered * weights[None], 1)
    return new, scales * (opacities / jnp.where(total > 0, total, 1.0))[:, None]


def relocate(
    key: Key[Array, ""],
    gaussians: Gaussians,
    alive: Bool[Array, " n"],
    num_new: Int[Array, ""],
    *,
    min_opacity: float = MIN_OPACITY,
) -> tuple[Gaussians, Bool[Array, " n"], Bool[Array, " n"]]:
    """Move dead Gaussians onto live ones, and give birth to new ones in free rows.

    A Gaussian that receives N - 1 others becomes N equal ones that look alike (`share`). Receivers are drawn in
    proportion to opacity, with replacement. Pure, static shapes; equal keys give equal results.

    Args:
      key: used up.
      gaussians: rows that are not alive are ignored.
      alive: which rows are Gaussians.
      num_new: births; as many as there are free rows at most.
      min_opacity: at or below it a live Gaussian is dead and moves.

    Returns:
      The Gaussians, the new `alive`, and which rows changed (their optimiser moments are stale).
    """
    opacities = jnp.where(alive, jax.nn.sigmoid(gaussians.opacity_logits), 0.0)
    dead = alive & (opacities <= min_opacity)
    born = ~alive & (jnp.cumsum(~alive) <= num_new)
    donors = jnp.where(dead, 0.0, opacities)
    cumulative = jnp.cumsum(donors)
    moves = (dead | born) & (cumulative[-1] > 0)
    draws = jax.random.uniform(key, alive.shape, opacities.dtype) * cumulative[-1]
    source = jnp.minimum(jnp.searchsorted(cumulative, draws, side="right"), alive.shape[0] - 1)
    shares = 1 + jnp.zeros(alive.shape, jnp.int32).at[source].add(moves.astype(jnp.int32))

    opacities, scales = share(opacities, jnp.exp(gaussians.log_scales), shares)
    opacities = jnp.clip(opacities, min_opacity, 1 - 1e-6)
    split = shares > 1
    thinned = Gaussians(
        means=gaussians.means,
        quaternions=gaussians.quaternions,
        log_scales=jnp.where(split[:, None], jnp.log(scales), gaussians.log_scales),
        opacity_logits=jnp.where(split, jnp.log(opacities) - jnp.log1p(-opacities), gaussians.opacity_logits),
        sh=gaussians.sh,
    )

    def receive(rows):
        chosen = moves.reshape(-1, *[1] * (rows.ndim - 1))
        return jnp.where(chosen, rows[source], rows)

    return jax.tree.map(receive, thinned), alive | (born & moves), moves | split


def explore(
    key: Key[Array, ""],
    gaussians: Gaussians,
    strength: Float[Array, ""],
    *,
    min_opacity: float = MIN_OPACITY,
) -> Gaussians:
    """Random walk of the centres, shaped by each covariance and fading with opacity (arXiv 2404.09591, Eqs. 7 and 8).

    Adds Sigma eta, eta ~ N(0, I), times strength times sigmoid(-100 (opacity - min_opacity)).

    Args:
      key: used up.
      gaussians: any capacity.
      strength: learning rate of the means times 5e5, 1 / world unit.
      min_opacity: where the walk fades to half.
    """
    axes = principal_axes(gaussians.quaternions, jnp.exp(gaussians.log_scales))
    faint = jax.nn.sigmoid(-100 * (jax.nn.sigmoid(gaussians.opacity_logits) - min_opacity))
    normal = jax.random.normal(key, gaussians.means.shape, gaussians.means.dtype)
    along = jnp.sum(axes * normal[:, :, None], 1)  # (R S)^T eta
    step = jnp.sum(axes * along[:, None, :], 2)  # (R S)(R S)^T eta
    return Gaussians(
        means=gaussians.means + lax.stop_gradient(step) * (faint * strength)[:, None],
        quaternions=gaussians.quaternions,
        log_scales=gaussians.log_scales,
        opacity_logits=gaussians.opacity_logits,
        sh=gaussians.sh,
    )


def with_capacity(rows: Float[Array, " n *rest"] | Bool[Array, " n *rest"], capacity: int) -> Array:
    """Rows padded with zeros to a larger capacity; zero rows are harmless Gaussians while they are not alive."""
    return jnp.pad(rows, [(0, capacity - rows.shape[0])] + [(0, 0)] * (rows.ndim - 1))
