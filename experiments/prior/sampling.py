"""Rings out of the prior: any sampler on its estimates of the clean views, with classifier-free guidance."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from experiments.data.blocks import rendering
from experiments.prior import model
from experiments.prior.settings import DiffusionSettings, ModelSettings
from generators.diffusion import samplers
from generators.diffusion.guidance import classifier_free
from generators.diffusion.sampling import clipped, sample
from generators.diffusion.time_grids import uniform_times

Sampler = Literal["ddim", "ddpm", "dpm_solver_pp", "euler", "heun"]
_STEPS = {
    "ddim": samplers.ddim,
    "ddpm": samplers.ddpm,
    "dpm_solver_pp": samplers.dpm_solver_pp,
    "euler": samplers.euler,
    "heun": samplers.heun,
}
_NO_CAPTION = 1  # what training puts in the place of every word of a caption that it drops
_COLOR, _COVERAGE = slice(0, 3), slice(7, 8)


@functools.partial(jax.jit, static_argnames=("settings", "diffusion", "steps", "sampler"))
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
    guidance: float | Float[Array, ""] | None = 2.0,
    sampler: Sampler = "ddim",
    given: Float[Array, "b h w 8"] | None = None,
) -> Float[Array, "b 4 h w 8"]:
    """Clean rings, in [-1, 1].

    Args:
      key: of the noise.
      params: of the network.
      words: numbers of the captions' words.
      azimuths: of the first view of each ring, radians.
      elevations: of its views.
      settings: sizes of the network.
      diffusion: the process that it was trained with.
      steps: of the sampler; heun denoises twice in each.
      guidance: scale, 0 to ignore the captions; None for the conditional estimates alone, at half the cost.
      sampler: of `generators.diffusion.samplers`.
      given: the first views where they are known, in light or without; only their colour and coverage are read. The
        result's first views are the network's: without light, with normals and depth.
    """
    count = len(words)
    schedule, cameras = model.schedule(diffusion), model.poses(azimuths, elevations)
    known = None if given is None else jnp.zeros((count, cameras.shape[1]), bool).at[:, 0].set(True)

    def estimate(z, t, words):
        copies = len(words) // count
        z, poses, mask = jax.tree.map(lambda x: jnp.concatenate([x] * copies), (z, cameras, known))
        return model.denoise(settings, params, z, jnp.full(len(words), t), words, poses, mask)

    def denoise(z, t):
        if given is not None:
            for channels in (_COLOR, _COVERAGE):
                z = z.at[:, 0, ..., channels].set(given[..., channels])
        if guidance is None:
            return estimate(z, t, words)
        # One batch of both, which is faster than two
        both = estimate(z, t, jnp.concatenate([words, jnp.full_like(words, _NO_CAPTION)]))
        return classifier_free(both[:count], both[count:], guidance)

    for_noise, for_steps = jax.random.split(key)
    noise = jax.random.normal(for_noise, (count, 4, settings.size, settings.size, rendering.CHANNELS))
    return sample(for_steps, noise, clipped(denoise), schedule, uniform_times(steps), _STEPS[sampler])
