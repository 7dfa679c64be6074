"""The training step of a field fit: rays, samples, field, loss, Adam; and the occupancy between steps."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from experiments import finite, keys
from experiments.fields import rendering
from experiments.fields.model import Params, initial_params, merged
from experiments.fields.rendering import Setup
from experiments.fields.settings import FieldConfig
from experiments.fields.views import RayBatch, batch_rays
from renderers.cameras.camera import Camera
from renderers.volumes import occupancy
from renderers.volumes.occupancy import OccupancyGrid

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-15)
_HUBER = 0.1  # of a colour channel, beyond which errors count linearly
_CHARBONNIER = 1e-3
_VISIBLE = 0.01  # alpha of a step below which a cell counts as empty
_ASKED = 1 << 14  # cells at a time


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class State:
    """What training carries from step to step.

    Attributes:
      params: of the modules.
      moments: of Adam.
      grid: cells of an object's box in which samples are taken; of one cell where the scene is unbounded.
      samples: Int[""], most samples that a step's rays asked for since the last look.
      dropped: Int[""], rays left out for want of room since the last look.
    """

    params: Params
    moments: Any
    grid: OccupancyGrid
    samples: Int[Array, ""]
    dropped: Int[Array, ""]


def fresh_state(config: FieldConfig, setup: Setup, carved: Bool[np.ndarray, "g g g"] | None) -> State:
    """A fresh state.

    Args:
      config: the run's; its seed decides.
      setup: the capture's.
      carved: cells of an object's box that silhouettes leave; the others stay empty for good. None: all are left.
    """
    params = initial_params(config, unbounded=setup.unbounded)
    return State(
        params=params,
        moments=_ADAM.init(params),
        grid=_initial_grid(1 if setup.unbounded else config.sampling.occupancy, carved),
        samples=jnp.zeros((), jnp.int32),
        dropped=jnp.zeros((), jnp.int32),
    )


def looked_at(state: State) -> State:
    """The state with its counters cleared."""
    return dataclasses.replace(state, samples=jnp.zeros_like(state.samples), dropped=jnp.zeros_like(state.dropped))


def _initial_grid(resolution, carved):
    box = jnp.asarray([[-1.0] * 3, [1.0] * 3], jnp.float32)
    if carved is None:
        return occupancy.full_grid(box, resolution=resolution)
    density = np.where(carved, 0.0, -1.0).astype(np.float32)[None]
    return OccupancyGrid(density=jnp.asarray(density), occupied=jnp.asarray(carved[None]), box=box)


@functools.partial(jax.jit, static_argnames=("config", "setup", "whole"), donate_argnums=0)
def look_around(state: State, step: Int[Array, ""], *, config: FieldConfig, setup: Setup, whole: bool) -> State:
    """The occupancy after asking the field in all cells, or in some."""
    model = merged(state.params, config, unbounded=setup.unbounded)
    key, threshold = keys.key(config.seed, "occupancy", step), _VISIBLE / rendering.step_length(config)

    def density(points):
        return rendering.density(model, points, config)

    if whole:
        grid = occupancy.update_all(key, state.grid, density, threshold=threshold, chunk=_ASKED)
    else:
        grid = occupancy.update_some(key, state.grid, density, _ASKED, threshold=threshold)
    return dataclasses.replace(state, grid=grid)


@functools.partial(jax.jit, static_argnames=("config", "setup", "mesh"), donate_argnums=0)
def update(
    state: State,
    batch: RayBatch,
    cameras: Camera,
    step: Int[Array, ""],
    fraction: Float[Array, ""],
    *,
    config: FieldConfig,
    setup: Setup,
    mesh: Mesh | None,
) -> tuple[State, dict[str, Array], finite.FiniteReport]:
    """One step: gradient of the mean loss of the rays that found room, Adam by groups.

    Args:
      state: donated.
      batch: rays; split over the mesh's devices if there is one.
      cameras: stacked, see `views.stacked`.
      step: updates done before, a device scalar.
      fraction: of the run that is over, in [0, 1].
      config: the run's.
      setup: the capture's.
      mesh: devices to share the rays among, or None.
    """
    rays = len(batch.views)
    key = keys.key(config.seed, "samples", step)
    background = _backgrounds(config, setup, rays, step)

    def sums(params, grid, batch, cameras, background, key, fraction):
        if mesh is not None:
            key = jax.random.fold_in(key, lax.axis_index(mesh.axis_names))

        def total(params):
            return _sum_of_losses(params, grid, batch, cameras, background, key, fraction, config, setup, mesh)

        (_, numbers), slope = jax.value_and_grad(total, has_aux=True)(params)
        return lax.psum((numbers, slope), mesh.axis_names) if mesh is not None else (numbers, slope)

    if mesh is not None:
        whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
        specs = (whole, whole, split, whole, split, whole, whole)
        sums = jax.shard_map(sums, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)
    numbers, gradient = sums(state.params, state.grid, batch, cameras, background, key, fraction)
    share = 1 / jnp.maximum(numbers["complete"], 1.0)
    gradient = jax.tree.map(lambda slope: slope * share, gradient)
    direction, moments = _ADAM.update(gradient, state.moments)
    params = _descended(state.params, direction, _schedule(config, step, fraction), config)
    samples = numbers["samples"].astype(jnp.int32)
    metrics = {
        "loss": numbers["loss"] * share,
        "train_psnr": -10 * jnp.log10(jnp.maximum(numbers["squared"] * share / 3, 1e-10)),
        "rays": numbers["complete"],
        "samples": samples,
        "occupied": jnp.mean(state.grid.occupied, dtype=jnp.float32),
    }
    report = finite.finite_report({"gradient": gradient, "loss": numbers["loss"]})
    state = State(
        params=params,
        moments=moments,
        grid=state.grid,
        samples=jnp.maximum(state.samples, samples),
        dropped=jnp.maximum(state.dropped, rays - numbers["complete"].astype(jnp.int32)),
    )
    return state, metrics, report


def _sum_of_losses(params, grid, batch, cameras, background, key, fraction, config, setup, mesh):
    """Sum over the rays that found room, to be divided by their number; and the sums that are reported."""
    model = merged(params, config, unbounded=setup.unbounded)
    origins, directions = batch_rays(cameras, batch)
    if setup.unbounded:
        seen = rendering.see_unbounded(model, origins, directions, key, fraction, config, training=True)
    else:
        capacity = config.sampling.capacity // (1 if mesh is None else mesh.size)
        samples = rendering.object_samples(key, grid, origins, directions, config, capacity=capacity, training=True)
        seen = rendering.see_object(model, origins, directions, samples, fraction, config)
    values = batch.colors.astype(jnp.float32) / 255
    target = values[:, :3]
    if setup.masked:
        alpha = values[:, 3:]
        target = target * alpha + (1 - alpha) * background
    color = seen.color + (1 - seen.opacity)[:, None] * background
    kept = seen.complete.astype(jnp.float32)
    error = (color - target) * kept[:, None]
    loss = jnp.sum(_photometric(error, config.loss)) + seen.cost
    numbers = {"loss": loss, "squared": jnp.sum(error**2), "complete": kept.sum(), "samples": seen.samples}
    return loss, jax.tree.map(lambda number: lax.stop_gradient(number).astype(jnp.float32), numbers)


def _photometric(error, kind):
    """Loss of each channel's error, scaled like its square where it is small."""
    if kind == "mse":
        return error**2
    if kind == "huber":
        return 2 * optax.huber_loss(error, delta=_HUBER)
    return 2 * _CHARBONNIER * (jnp.sqrt(error**2 + _CHARBONNIER**2) - _CHARBONNIER)


@functools.partial(jax.jit, static_argnames="config")
def samples_wanted(grid: OccupancyGrid, batch: RayBatch, cameras: Camera, *, config: FieldConfig) -> Float[Array, ""]:
    """Samples that a ray of the batch asks for on average."""
    origins, directions = batch_rays(cameras, batch)
    key = keys.key(config.seed, "samples wanted")
    samples = rendering.object_samples(key, grid, origins, directions, config, capacity=1, training=True)
    return (samples.counts.sum() + samples.overflow) / len(batch.views)


def _backgrounds(config, setup, rays, step) -> Float[Array, "r 3"]:
    if not setup.random_background:
        return jnp.full((rays, 3), setup.background, jnp.float32)
    return jax.random.uniform(keys.key(config.seed, "background", step), (rays, 3), jnp.float32)


def _schedule(config: FieldConfig, step, fraction) -> Float[Array, ""]:
    """Factor on all rates: a short rise, then an exponential fall."""
    optimizer = config.optimizer
    return optimizer.final**fraction * jnp.minimum((step + 1) / (optimizer.warmup + 1), 1.0)


def _descended(params: Params, direction: Any, factor, config: FieldConfig) -> Params:
    """Parameters after a step, grids and networks at rates of their own."""
    optimizer = config.optimizer
    network = optimizer.frequency if config.field == "frequency" else optimizer.network

    def moved(path, old, way):
        in_grid = any(getattr(entry, "key", None) == "encoding" for entry in path)
        return old - factor * (optimizer.grid if in_grid else network) * way

    return jax.tree_util.tree_map_with_path(moved, params, direction)
