"""What every distilling route does with a rendered ring: which cameras a step takes, how much noise, which loss."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from experiments import keys
from experiments.data.blocks import rendering
from experiments.generation.distillation_settings import ScoreConfig
from experiments.generation.guides import TIMESTEPS, Guide, denoiser
from generators.diffusion.schedules import Cosine, Table, discretized
from generators.distillation.csd import csd_loss
from generators.distillation.ism import ism_loss
from generators.distillation.sds import sds_loss
from generators.distillation.x0 import x0_loss

_MOST_TURNED = np.pi / 4  # of a ring's first camera: the prior knows the first view as the one nearest to the front
_HIGHEST = np.pi / 6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Asked:
    """What a guide said of a ring.

    Attributes:
      loss: whose gradient moves the ring, a mean over its pixels.
      clean: the guide's estimate.
      timestep: of the noise.
    """

    loss: Float[Array, ""]
    clean: Float[Array, "v h w 8"]
    timestep: Int[Array, ""]


def cameras_of_step(seed: int, step: Int[Array, ""], config: ScoreConfig) -> tuple[Array, Array]:
    """Azimuth of the first camera and elevation of a step's ring, radians; among them, rings see all sides."""
    choice, turn, height = jax.random.split(keys.key(seed, "rings", step), 3)
    canonical = jax.random.uniform(choice) < config.canonical
    azimuth = jax.random.uniform(turn, minval=-_MOST_TURNED, maxval=_MOST_TURNED)
    elevation = jax.random.uniform(height, minval=0.0, maxval=_HIGHEST)
    return jnp.where(canonical, 0.0, azimuth), jnp.where(canonical, rendering.ELEVATION, elevation)


def distil(
    key: Key[Array, ""],
    ring: Float[Array, "v h w 8"],
    guide: Guide,
    azimuth: Float[Array, ""],
    elevation: Float[Array, ""],
    fraction: Float[Array, ""],
    config: ScoreConfig,
) -> Asked:
    """The guide's opinion of a rendered ring, at a noise that falls linearly over the run (arXiv 2309.16653, eq. 4).

    Args:
      key: of the noise.
      ring: differentiable in whatever it was rendered from.
      guide: whose views are distilled.
      azimuth, elevation: of the ring's cameras.
      fraction: of the run that is over, in [0, 1].
      config: which loss, which noise.
    """
    guidance = guide.scale if config.guidance is None else config.guidance
    denoise, without = (denoiser(guide, azimuth, elevation, scale) for scale in (guidance, 0.0))
    factors = np.ones((1, 1, 1, rendering.CHANNELS), np.float32)
    factors[..., 3:6], factors[..., 6] = config.normals, config.depths
    views = _with_scaled_gradient(ring, factors)
    share = config.highest + (config.lowest - config.highest) * fraction
    schedule = _table(guide.schedule)
    options: dict[str, Any] = {"t_range": (share, share), "shared_t": True, "num_timesteps": TIMESTEPS}
    if config.loss == "x0":
        loss, found = x0_loss(key, views, denoise, schedule, **options)
    elif config.loss == "sds":
        loss, found = sds_loss(key, views, denoise, schedule, **options)
    elif config.loss == "csd":
        loss, found = csd_loss(key, views, denoise, schedule, unconditional=without, **options)
    else:
        loss, found = ism_loss(key, views, denoise, schedule, unconditional=without, **options)
    height, width = ring.shape[1:3]
    return Asked(loss=loss / (height * width), clean=found.clean, timestep=found.t[0])


def agreement(ring: Float[Array, "v h w 8"], clean: Float[Array, "v h w 8"]) -> Float[Array, ""]:
    """PSNR in dB of a ring's colours and coverage against the guide's."""
    shown = np.array([0, 1, 2, 7])
    error = 0.5 * (ring - clean)[..., shown]
    return -10.0 * jnp.log10(jnp.maximum(jnp.mean(error**2), 1e-10))


@functools.lru_cache(maxsize=8)
def _table(schedule: Cosine) -> Table:
    """Computed while the step is traced, when the training loop refuses transfers: these are of constants."""
    with jax.transfer_guard_host_to_device("allow"):
        return discretized(schedule, TIMESTEPS)


def _with_scaled_gradient(ring, factors):
    """The ring itself, whose gradient comes back times the channels' factors."""
    return lax.stop_gradient(ring) + factors * (ring - lax.stop_gradient(ring))
