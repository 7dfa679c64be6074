"""The training step of the tri-plane transformer: exact distances and colours at points, Adam, averaged weights."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from experiments import finite, keys
from experiments.prior.settings import OptimizerSettings
from experiments.single_pass import model
from experiments.single_pass.data import Examples, Objects, make_examples
from experiments.single_pass.model import REACH
from experiments.single_pass.settings import TrainSinglePassConfig
from renderers.fields.triplane import planes_total_variation

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)


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


def fresh_state(config: TrainSinglePassConfig, params=None) -> State:
    """The state before the first step, from given weights or from fresh ones."""
    params = model.initial_params(config.model, config.seed) if params is None else params
    params = jax.tree.map(jnp.asarray, params)
    return State(params=params, average=jax.tree.map(jnp.copy, params), moments=_ADAM.init(params))


@functools.partial(jax.jit, static_argnames=("config", "mesh"), donate_argnums=0)
def update(
    state: State,
    objects: Objects,
    step: Int[Array, ""],
    fraction: Float[Array, ""],
    *,
    config: TrainSinglePassConfig,
    mesh: Mesh | None = None,
) -> tuple[State, dict[str, Array], finite.FiniteReport]:
    """One step.

    Args:
      state: donated.
      objects: the batch, split over the devices of `mesh` if there is one.
      step: updates done before.
      fraction: of the run that is over, in [0, 1].
      config: the run's.
      mesh: devices that share the batch.
    """
    examples = make_examples(keys.key(config.seed, "examples", step), objects, config.example)
    descent, terms = gradient(state.params, examples, config, mesh)
    norm = optax.tree.norm(descent)
    shrink = jnp.minimum(1.0, config.optimizer.clip / jnp.maximum(norm, 1e-12))
    direction, moments = _ADAM.update(jax.tree.map(lambda g: g * shrink, descent), state.moments)
    rate = _rate(config.optimizer, step, fraction)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    # An average over the whole run at first, over the last 1 / (1 - decay) steps in the end
    keep = jnp.minimum(config.optimizer.average, 1 - 9 / (step.astype(jnp.float32) + 10))
    average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state.average, params)
    report = finite.finite_report({"gradient": descent, "loss": terms["loss"]})
    metrics = {**terms, "gradient_norm": norm, "rate": rate}
    return State(params=params, average=average, moments=moments), metrics, report


def gradient(params, examples, config, mesh):
    """Of the mean loss over all devices, and its terms."""
    measure = jax.grad(loss_terms, has_aux=True)
    if mesh is None:
        return measure(params, examples, config)
    whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)

    def part(params, examples):
        return jax.lax.pmean(measure(params, examples, config), mesh.axis_names)

    share = jax.shard_map(part, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False)
    return share(params, examples)


def loss_terms(params, examples: Examples, config: TrainSinglePassConfig) -> tuple[Array, dict[str, Array]]:
    """The loss, and what it is made of: each a mean over the examples."""
    settings, weights = config.model, config.loss
    planes = model.planes_of_views(
        settings, params, examples.views, examples.camera_from_world, examples.seen, examples.whole
    )
    distances, colors = model.read_points(settings, params, planes, examples.points)
    colored = examples.colored / jnp.maximum(jnp.sum(examples.colored, axis=1, keepdims=True), 1.0)
    color = jnp.mean(jnp.sum(colored[..., None] * jnp.abs(colors - examples.colors), axis=(1, 2))) / 3
    distance = jnp.mean(jnp.abs(distances - examples.distances)) / REACH
    variation = jnp.mean(jax.vmap(planes_total_variation)(planes))
    loss = weights.distance * distance + weights.color * color + weights.variation * variation
    terms = {"distance": distance, "color": color, "variation": variation}
    if weights.slope:
        terms["slope"] = slope_error(settings, params, planes, examples, config.example.near)
        loss = loss + weights.slope * terms["slope"]
    return loss, {"loss": loss, **terms}


def slope_error(settings, params, planes, examples, near):
    """Squared difference of the distance's gradient from the true one, at every fourth of the near points."""
    at, count = slice(0, near, 4), len(planes)

    def total(points):
        return jnp.sum(model.read_points(settings, params, planes, points)[0])

    slopes = jax.grad(total)(examples.points[:, at])
    inner = (jnp.abs(examples.distances[:, at]) < 0.5 * REACH).astype(slopes.dtype)
    squared = jnp.sum((slopes - examples.slopes[:, at]) ** 2, axis=-1)
    return jnp.sum(squared * inner) / jnp.maximum(jnp.sum(inner), 1.0 * count)


def _rate(settings: OptimizerSettings, step, fraction):
    rising = jnp.minimum(1.0, (step + 1) / max(settings.warmup, 1))
    falling = jnp.clip((1 - fraction) / settings.decay, 0.0, 1.0) if settings.decay else 1.0
    return settings.rate * rising * falling
