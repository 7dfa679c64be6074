"""The training step of the multi-view prior: noise, prediction of the clean views, Adam, averaged weights."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from experiments import finite, keys
from experiments.data.blocks import rendering
from experiments.prior import model
from experiments.prior.rings import Rings
from experiments.prior.settings import MultiviewConfig, OptimizerSettings
from generators.diffusion import ema
from generators.diffusion.losses import capped_velocity_weight, stratified_times, weighted_squared_error

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)
_COLOR, _COVERAGE = slice(0, 3), slice(7, 8)
_LIT = 0.5  # share of the known pictures that are seen in some light
EVALUATION_TIMES = (0.2, 0.4, 0.6, 0.8, 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class State:
    """What training carries from step to step.

    Attributes:
      params: of the network.
      average: of the parameters over the last steps: what is evaluated and kept.
      moments: of Adam.
    """

    params: Any
    average: Any
    moments: Any


def fresh_state(config: MultiviewConfig, params=None) -> State:
    """The state before the first step, from given weights or from fresh ones."""
    params = model.initial_params(config.model, config.seed) if params is None else params
    params = jax.tree.map(jnp.asarray, params)
    return State(params=params, average=jax.tree.map(jnp.copy, params), moments=_ADAM.init(params))


@functools.partial(jax.jit, static_argnames="config", donate_argnums=0)
def update(
    state: State,
    batch: Rings,
    step: Int[Array, ""],
    fraction: Float[Array, ""],
    *,
    config: MultiviewConfig,
) -> tuple[State, dict[str, Array], finite.FiniteReport]:
    """One step.

    Args:
      state: donated.
      batch: rings; split over devices if there are several, the program then is, too.
      step: updates done before.
      fraction: of the run that is over, in [0, 1].
      config: the run's.
    """
    key = keys.key(config.seed, "noise", step)
    loss, gradient = jax.value_and_grad(_loss)(state.params, batch, key, config)
    norm = optax.tree.norm(gradient)
    shrink = jnp.minimum(1.0, config.optimizer.clip / jnp.maximum(norm, 1e-12))
    direction, moments = _ADAM.update(jax.tree.map(lambda g: g * shrink, gradient), state.moments)
    rate = _rate(config.optimizer, step, fraction)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    average = ema.averaged(state.average, params, ema.ramped_decay(step, config.optimizer.average))
    report = finite.finite_report({"gradient": gradient, "loss": loss})
    metrics = {"loss": loss, "gradient_norm": norm, "rate": rate}
    return State(params=params, average=average, moments=moments), metrics, report


@functools.partial(jax.jit, static_argnames="config")
def validation_errors(params, rings: Rings, *, config: MultiviewConfig) -> Float[Array, " 5"]:
    """Mean squared errors of the clean views at EVALUATION_TIMES, the same noise every time."""
    views, schedule = rendering.from_bytes(rings.views), model.schedule(config.diffusion)
    noise = jax.random.normal(jax.random.key(7), views.shape)
    cameras = model.poses(rings.azimuths, rings.elevations)

    def error(time):
        t = jnp.full(len(views), time)
        noisy = schedule.alpha(time) * views + schedule.sigma(time) * noise
        return jnp.mean((model.denoise(config.model, params, noisy, t, rings.words, cameras) - views) ** 2)

    return jax.lax.map(error, jnp.asarray(EVALUATION_TIMES))


def _loss(params, batch, key, config):
    at_time, of_noise, of_captions, of_given, of_light = jax.random.split(key, 5)
    settings, schedule = config.diffusion, model.schedule(config.diffusion)
    views, count = rendering.from_bytes(batch.views), len(batch.words)
    t = stratified_times(at_time, count)
    dropped = jax.random.uniform(of_captions, (count, 1)) < settings.drop_caption
    words = jnp.where(dropped, 1, batch.words)
    factors = (slice(None),) + (None,) * 4
    noisy = schedule.alpha(t)[factors] * views + schedule.sigma(t)[factors] * jax.random.normal(of_noise, views.shape)
    given = jax.random.uniform(of_given, (count,)) < settings.given
    noisy = noisy.at[:, 0].set(
        jnp.where(given[:, None, None, None], _known(noisy[:, 0], views[:, 0], of_light), noisy[:, 0])
    )
    mask = jnp.zeros((count, 4), bool).at[:, 0].set(given)
    cameras = model.poses(batch.azimuths, batch.elevations)
    predicted = model.denoise(config.model, params, noisy, t, words, cameras, mask)
    return weighted_squared_error(predicted, views, capped_velocity_weight(schedule, t, settings.most))


def _known(noisy, clean, key):
    """Views with noise of which colour and coverage are known, the colour as it is or in some light."""
    color = rendering.in_some_light(key, clean, _LIT)
    return noisy.at[..., _COLOR].set(color).at[..., _COVERAGE].set(clean[..., _COVERAGE])


def _rate(settings: OptimizerSettings, step, fraction):
    rising = jnp.minimum(1.0, (step + 1) / max(settings.warmup, 1))
    falling = jnp.clip((1 - fraction) / settings.decay, 0.0, 1.0) if settings.decay else 1.0
    return settings.rate * rising * falling
