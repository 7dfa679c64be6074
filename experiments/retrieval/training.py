"""The training step of the two-tower model: rings in some light, the contrastive loss, Adam."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from experiments import finite, keys
from experiments.data.blocks import rendering
from experiments.prior.rings import Rings
from experiments.retrieval import model
from experiments.retrieval.settings import RetrievalConfig
from generators.vision.two_tower import contrastive_loss

_ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b1=0.9, b2=0.99))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class State:
    """What training carries from step to step.

    Attributes:
      params: of the network.
      moments: of Adam.
    """

    params: Any
    moments: Any


def fresh_state(config: RetrievalConfig) -> State:
    """The state before the first step."""
    params = model.initial_params(config.tower, config.seed)
    return State(params=params, moments=_ADAM.init(params))


@functools.partial(jax.jit, static_argnames="config", donate_argnums=0)
def update(
    state: State, batch: Rings, step: Int[Array, ""], fraction: Float[Array, ""], *, config: RetrievalConfig
) -> tuple[State, dict[str, Array], finite.FiniteReport]:
    """One step.

    Args:
      state: donated.
      batch: rings; split over devices if there are several, the program then is, too.
      step: updates done before.
      fraction: of the run that is over, in [0, 1].
      config: the run's.
    """
    of_light = keys.key(config.seed, "light", step)
    colors = rendering.in_some_light(of_light, rendering.from_bytes(batch.views), config.lit)
    (loss, right), gradient = jax.value_and_grad(_loss, has_aux=True)(state.params, colors, batch.words, config)
    direction, moments = _ADAM.update(gradient, state.moments)
    rising = jnp.minimum(1.0, (step + 1) / max(config.warmup, 1))
    rate = config.rate * rising * 0.5 * (1 + jnp.cos(jnp.pi * fraction))
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    report = finite.finite_report({"gradient": gradient, "loss": loss})
    metrics = {"loss": loss, "right": right, "gradient_norm": optax.tree.norm(gradient), "rate": rate}
    return State(params=params, moments=moments), metrics, report


def same_captions(words: Int[Array, "b l"]) -> Bool[Array, "b b"]:
    """Pairs of rows with the same words."""
    return jnp.all(words[:, None] == words[None], axis=-1)


def _loss(params, colors, words, config):
    pictures, captions, temperature = model.encoded(config.tower, params, colors, words)
    same = same_captions(words)
    cosines = pictures @ captions.T
    right = jnp.mean(jnp.diagonal(cosines) > jnp.max(jnp.where(same, -jnp.inf, cosines), axis=1))
    return contrastive_loss(pictures, captions, temperature, same), right
