"""Mixtures of two Gaussians on a line as data: the best denoiser, the density at any time, and where the flow leads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Data x_0 ~ sum_k weights_k N(means_k, deviations_k^2)."""

    means: tuple[float, ...] = (-1.0, 0.8)
    deviations: tuple[float, ...] = (0.3, 0.5)
    weights: tuple[float, ...] = (0.4, 0.6)

    def denoiser(self, schedule):
        """(z, t) to E[x_0 | z_t = z], elementwise."""
        means, variances, weights = (jnp.asarray(v) for v in (self.means, np.square(self.deviations), self.weights))

        def denoise(z, t):
            alpha, sigma = schedule.alpha(t).astype(z.dtype), schedule.sigma(t).astype(z.dtype)

            def at_point(z):
                gap, spread = z - alpha * means, alpha**2 * variances + sigma**2
                shares = jax.nn.softmax(jnp.log(weights) - 0.5 * jnp.log(spread) - 0.5 * gap**2 / spread)
                return jnp.sum(shares * (means + alpha * variances / spread * gap)).astype(z.dtype)

            return jax.vmap(at_point)(z.reshape(-1)).reshape(z.shape)

        return denoise

    def log_density(self, z, alpha, sigma):
        """Of z_t."""
        spread = alpha**2 * np.square(self.deviations) + sigma**2
        terms = jnp.log(jnp.asarray(self.weights)) - 0.5 * jnp.log(2 * np.pi * spread)
        return jax.nn.logsumexp(terms - 0.5 * (z - alpha * jnp.asarray(self.means)) ** 2 / spread)

    def transported(self, z, start, end):
        """Where the probability flow carries points from one (alpha, sigma) to another.

        On a line the flow keeps order, so it maps each quantile to the same quantile of the other density.
        """

        def moved(y):
            share = self._cdf(y, *start)
            return brentq(lambda x: self._cdf(x, *end) - share, -30, 30, xtol=1e-14)

        return np.array([moved(y) for y in z])

    def _cdf(self, z, alpha, sigma):
        scales = np.sqrt(alpha**2 * np.square(self.deviations) + sigma**2)
        return float(np.sum(np.asarray(self.weights) * norm.cdf(z, alpha * np.asarray(self.means), scales)))
