"""Rings out of the prior: DDIM on its estimates of the clean views, with classifier-free guidance."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from experiments.prior import model
from experiments.prior.settings import DiffusionSettings, ModelSettings
from generators.diffusion.guidance import classifier_free


@functools.partial(jax.jit, static_argnames=("settings", "diffusion", "steps"))
def sample_rings(
    key: PRNGKeyArray,
    params,
    words: Int[Array, "b l"],
    azimuths: Float[Array, " b"],
    elevations: Float[Array, " b"],
    *,
    settings: ModelSettings,
    diffusion: DiffusionSettings,
    steps: int = 25,
    guidance: float = 2.0,
) -> Float[Array, "b 4 h w 8"]:
    """Clean rings, in [-1, 1]."""
    schedule = model.schedule(diffusion)
    cameras = model.poses(azimuths, elevations)
    count = len(words)
    both = jnp.concatenate([words, jnp.ones_like(words)]), jnp.concatenate([cameras, cameras])
    z = jax.random.normal(key, (count, 4, settings.size, settings.size, 8))

    def step(z, times):
        now, after = times
        t = jnp.full(2 * count, now)
        estimates = model.denoise(settings, params, jnp.concatenate([z, z]), t, *both)
        clean = jnp.clip(classifier_free(estimates[:count], estimates[count:], guidance), -1.0, 1.0)
        noise = (z - schedule.alpha(now) * clean) / jnp.maximum(schedule.sigma(now), 1e-4)
        return schedule.alpha(after) * clean + schedule.sigma(after) * noise, clean

    edges = jnp.linspace(1.0, 0.0, steps + 1)
    _, clean = jax.lax.scan(step, z, (edges[:-1], edges[1:]))
    return clean[-1]
