"""What every distillation loss is made of: noise on the render, the prediction of it, and a gradient told as a loss.

Notation: latents z (a render, or its code), `z_t = alpha z + sigma eps` at an integer timestep t of a table schedule,
eps_hat(z_t, t) the denoiser's prediction of eps, x_hat = (z_t - sigma eps_hat) / alpha its estimate of the clean image.
A variant is its formula for `grad`, what z is to move against; loss and bookkeeping are the same for all.
The denoiser is a constant here: no derivative passes through it or is computed inside it, whatever it closes over.
"""

import dataclasses
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from generators.diffusion.process import factors
from generators.diffusion.schedules import Schedule
from generators.distillation.timesteps import TimeRange, draw_timesteps, table_length

# (z_t, t, key) -> prediction of eps, guidance already applied.
Denoise = Callable[
    [Float[Array, "b h w c"], Int[Array, " b"], PRNGKeyArray],
    Float[Array, "b h w c"],
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Noised:
    """Latents with noise on them.

    Attributes:
      t: timesteps.
      alpha: factor of the latents.
      sigma: standard deviation of the noise.
      noise: of unit variance; inferred rather than drawn where a variant inverts the denoiser.
      noisy: alpha latents + sigma noise.
    """

    t: Int[Array, " b"]
    alpha: Float[Array, "b 1 1 1"]
    sigma: Float[Array, "b 1 1 1"]
    noise: Float[Array, "b h w c"]
    noisy: Float[Array, "b h w c"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Distilled:
    """What a distillation step did, for logs and previews; nothing in it carries a derivative.

    Attributes:
      t: timesteps.
      noise: that was put on the latents, or found in them where a variant inverts the denoiser.
      grad: the direction as used, after non-finite elements and clipping; the loss' gradient is grad / b.
      clean: the denoiser's estimate of the clean latents.
      num_nonfinite: elements of grad that were NaN or infinite, and were set to zero.
    """

    t: Int[Array, " b"]
    noise: Float[Array, "b h w c"]
    grad: Float[Array, "b h w c"]
    clean: Float[Array, "b h w c"]
    num_nonfinite: Int[Array, ""]


def noised(
    key: PRNGKeyArray,
    latents: Float[Array, "b h w c"],
    schedule: Schedule,
    t_range: TimeRange,
    shared_t: bool,
    num_timesteps: int | None,
) -> Noised:
    """Latents at timesteps and with noise drawn from `key`: variants that are given one key see the same noise.

    Args as for `sds_loss`.
    """
    latents = jax.lax.stop_gradient(latents)
    key_t, key_noise = jax.random.split(key)
    rows = table_length(schedule, num_timesteps)
    t = draw_timesteps(key_t, len(latents), t_range, shared_t=shared_t, num_timesteps=rows)
    noise = jax.random.normal(key_noise, latents.shape, latents.dtype)
    alpha, sigma = factors(schedule, t, latents)
    return Noised(t=t, alpha=alpha, sigma=sigma, noise=noise, noisy=alpha * latents + sigma * noise)


def predict(
    denoise: Denoise, noisy: Float[Array, "b h w c"], t: Int[Array, " b"], key: PRNGKeyArray
) -> Float[Array, "b h w c"]:
    """The denoiser's eps_hat as a constant, in the precision of the latents.

    Raises:
      ValueError: the prediction has another shape than the latents.
    """
    predicted = denoise(jax.lax.stop_gradient(noisy), t, key)
    if predicted.shape != noisy.shape:
        raise ValueError(
            f"denoise must return the noise in the shape of the latents, {noisy.shape}, got {predicted.shape}; "
            "of a model that also predicts variances keep the first half of the channels"
        )
    return jax.lax.stop_gradient(predicted.astype(noisy.dtype))


def clean_estimate(start: Noised, predicted: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The clean latents x_hat that a prediction of the noise implies."""
    return (start.noisy - start.sigma * predicted) / start.alpha


def as_loss(
    latents: Float[Array, "b h w c"],
    start: Noised,
    grad: Float[Array, "b h w c"],
    clean: Float[Array, "b h w c"],
    clip: float | Float[Array, ""] | None,
) -> tuple[Float[Array, ""], Distilled]:
    """0.5 |z - stopgradient(z - grad)|^2 / b: a loss whose gradient with respect to z is grad / b, to the bit.

    NaN and infinite elements count as zero: half-precision networks overflow now and then in single elements, and one
    of them would end a run of thousands of steps through the optimiser's moments. They are counted, so that a caller
    can stop when they are more than a few. `clip` bounds each element to [-clip, clip].
    """
    finite = jnp.isfinite(grad)
    grad = jnp.where(finite, grad, 0.0)
    grad = jax.lax.stop_gradient(grad if clip is None else jnp.clip(grad, -clip, clip))
    # z - stopgradient(z) is 0 with derivative 1; z - (z - grad) would round small gradients away against z.
    moved = latents - jax.lax.stop_gradient(latents)
    loss = 0.5 * jnp.sum((moved + grad) ** 2) / len(latents)
    distilled = Distilled(
        t=start.t,
        noise=start.noise,
        grad=grad,
        clean=jax.lax.stop_gradient(clean),
        num_nonfinite=jnp.sum(~finite).astype(jnp.int32),
    )
    return loss, distilled
