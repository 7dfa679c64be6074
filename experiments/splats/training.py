"""The training step of a splat fit: render, compare, descend, explore; and the refinement between steps."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from experiments import finite, keys
from experiments.splats.settings import FitConfig
from renderers.cameras.camera import Camera
from renderers.gaussians.densification import explore, relocate, with_capacity
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.projection import project
from renderers.gaussians.rasterize import rasterize
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.kernels import tiling
from renderers.losses import l1_ssim

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-15)
MEANS_DECAY = 0.01  # of the means' rate over the run
HIGHER_BANDS = 1 / 20  # rate of the higher colour bands against the constant one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class State:
    """What training carries from step to step: Gaussians at fixed capacity, which of them live, Adam's moments.

    Attributes:
      gaussians: in the normalised frame.
      alive: Bool["n"].
      moments: of Adam, shaped like the Gaussians.
      overflow: Int[""], most intersections that a render dropped since the last refinement.
    """

    gaussians: Gaussians
    alive: Bool[Array, " n"]
    moments: Any
    overflow: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Batch:
    """Views of one step, stacked.

    Attributes:
      images: UInt8["b h w c"], straight alpha if c is 4.
      cameras: of the normalised frame.
    """

    images: UInt8[Array, "b h w c"]
    cameras: Camera


def initial_state(gaussians: Gaussians, capacity: int) -> State:
    """A fresh state with room for `capacity` Gaussians."""
    number = gaussians.means.shape[0]
    padded = jax.tree.map(lambda rows: with_capacity(rows, capacity), gaussians)
    return State(
        gaussians=padded,
        alive=jnp.arange(capacity) < number,
        moments=_ADAM.init(padded),
        overflow=jnp.zeros((), jnp.int32),
    )


def grown(state: State, capacity: int) -> State:
    """The same state with room for more Gaussians."""
    old = state.alive.shape[0]
    return jax.tree.map(
        lambda leaf: with_capacity(leaf, capacity) if leaf.ndim and leaf.shape[0] == old else leaf, state
    )


def composite_background(image: UInt8[Array, "h w c"], background: Float[Array, " 3"]) -> Float[Array, "h w 3"]:
    """The photograph in [0, 1] over a background, where it has an alpha channel."""
    values = image.astype(jnp.float32) / 255
    if image.shape[-1] == 3:
        return values
    alpha = values[..., 3:]
    return values[..., :3] * alpha + (1 - alpha) * background[None, None]


def band_mask(fraction: Float[Array, ""], degree: int) -> Float[Array, "k 1"]:
    """Which colour bands take part: one more each tenth of the first third of the run.

    As data, so that nothing recompiles.
    """
    band = jnp.asarray([b for b in range(degree + 1) for _ in range(2 * b + 1)], jnp.float32)
    return (fraction * 10 >= band).astype(jnp.float32)[:, None]


def splat_view(
    gaussians: Gaussians, alive: Bool[Array, " n"], camera: Camera, config: FitConfig, background, capacity: int | None
):
    """Render the living Gaussians of a state."""
    degree = config.sh_degree
    return rasterize(
        gaussians.means,
        gaussians.quaternions,
        jnp.exp(gaussians.log_scales),
        jnp.where(alive, jax.nn.sigmoid(gaussians.opacity_logits), 0.0),
        sh_colors(gaussians.sh, gaussians.means, camera, degree),
        camera,
        background=background,
        antialias=config.antialias,
        capacity=capacity,
        backend=config.backend,
    )


def _view_loss(gaussians, alive, view: Batch, background, config, capacity):
    """Photometric loss of one view, and the intersections that its render dropped."""
    rendering = splat_view(gaussians, alive, view.cameras, config, background, capacity)
    target = composite_background(view.images, background)
    return l1_ssim(rendering.color, target, ssim_weight=config.ssim_weight), rendering.overflow


def _cost(gaussians, alive, config):
    """Regularisers of MCMC: opacity and scale fade where nothing holds them up (arXiv 2404.09591, Eq. 10)."""
    number = jnp.maximum(alive.sum(), 1)
    opacity = jnp.sum(jnp.where(alive, jax.nn.sigmoid(gaussians.opacity_logits), 0.0)) / number
    scale = jnp.sum(jnp.where(alive[:, None], jnp.exp(gaussians.log_scales), 0.0)) / (3 * number)
    return config.growth.opacity_cost * opacity + config.growth.scale_cost * scale


def _batch_loss(gaussians, alive, batch, background, config, capacity):
    """Sum of the views' losses, and the worst overflow."""

    @jax.checkpoint
    def one(view):
        return _view_loss(gaussians, alive, view, background, config, capacity)

    if batch.images.shape[0] == 1:  # nothing to recompute: keep what the forward pass made
        view = jax.tree.map(lambda leaf: leaf[0], batch)
        return _view_loss(gaussians, alive, view, background, config, capacity)
    losses, overflows = lax.map(one, batch)
    return losses.sum(), overflows.max()


def _background(config: FitConfig, white: bool, step) -> Float[Array, " 3"]:
    if config.background == "random":
        return jax.random.uniform(keys.key(config.seed, "background", step), (3,), jnp.float32)
    return jnp.full(3, float(config.background == "white" or (config.background == "auto" and white)), jnp.float32)


@functools.partial(jax.jit, static_argnames=("config", "white", "capacity", "mesh"), donate_argnums=0)
def update(
    state: State,
    batch: Batch,
    step: Int[Array, ""],
    fraction: Float[Array, ""],
    *,
    config: FitConfig,
    white: bool,
    capacity: int | None,
    mesh: Mesh | None,
) -> tuple[State, dict[str, Array], finite.FiniteReport]:
    """One step: gradient of the mean view loss, Adam by groups, random walk.

    Args:
      state: donated.
      batch: views; split over the mesh's devices if there is one.
      step: updates done before, a device scalar.
      fraction: of the run that is over, in [0, 1].
      config: the run's.
      white: whether transparent images stand on white.
      capacity: bound on intersections for backends that need one.
      mesh: devices to share the views among, or None.
    """
    background = _background(config, white, step)
    bands = band_mask(fraction, config.sh_degree)[None]

    def total(gaussians, alive, batch):
        masked = dataclasses.replace(gaussians, sh=gaussians.sh * bands)
        return _batch_loss(masked, alive, batch, background, config, capacity)

    def views(gaussians, alive, batch):
        (loss, overflow), slope = jax.value_and_grad(total, has_aux=True)(gaussians, alive, batch)
        if mesh is not None:
            loss, slope = lax.psum((loss, slope), mesh.axis_names)
            overflow = lax.pmax(overflow, mesh.axis_names)
        return loss, slope, overflow

    if mesh is not None:
        whole, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
        views = jax.shard_map(views, mesh=mesh, in_specs=(whole, whole, split), out_specs=whole, check_vma=False)
    loss, gradient, overflow = views(state.gaussians, state.alive, batch)
    share = 1 / batch.images.shape[0]
    costs = jax.grad(_cost)(state.gaussians, state.alive, config)
    gradient = jax.tree.map(lambda view, cost: view * share + cost, gradient, costs)

    direction, moments = _ADAM.update(gradient, state.moments)
    means_rate = config.rates.means * MEANS_DECAY**fraction
    rates = _rates(config, means_rate)
    gaussians = jax.tree.map(lambda old, way, rate: old - rate * way, state.gaussians, direction, rates)
    walk = jnp.where(fraction < config.growth.until, means_rate * config.growth.noise, 0.0)
    gaussians = explore(keys.key(config.seed, "explore", step), gaussians, walk)
    metrics = {"loss": loss * share, "gaussians": state.alive.sum()}
    report = finite.finite_report({"gradient": gradient, "loss": loss})
    overflow = jnp.maximum(state.overflow, overflow)
    return State(gaussians=gaussians, alive=state.alive, moments=moments, overflow=overflow), metrics, report


def _rates(config: FitConfig, means_rate):
    rates = config.rates
    k = (config.sh_degree + 1) ** 2
    bands = jnp.full((1, k, 1), rates.colors * HIGHER_BANDS, jnp.float32).at[:, 0].set(rates.colors)
    return Gaussians(
        means=means_rate,
        quaternions=jnp.float32(rates.quaternions),
        log_scales=jnp.float32(rates.scales),
        opacity_logits=jnp.float32(rates.opacities),
        sh=bands,
    )


@functools.partial(jax.jit, static_argnames=("seed",), donate_argnums=0)
def refine(state: State, num_new: Int[Array, ""], step: Int[Array, ""], *, seed: int) -> State:
    """Relocate dead Gaussians and give birth to new ones; moments of the rows concerned start anew."""
    gaussians, alive, changed = relocate(keys.key(seed, "relocate", step), state.gaussians, state.alive, num_new)

    def forget(rows):
        return jnp.where(changed.reshape(-1, *[1] * (rows.ndim - 1)), 0.0, rows) if rows.ndim else rows

    moments = jax.tree.map(forget, state.moments)
    return State(gaussians=gaussians, alive=alive, moments=moments, overflow=state.overflow)


def without_overflow(state: State) -> State:
    """The state with its overflow counter cleared."""
    return dataclasses.replace(state, overflow=jnp.zeros_like(state.overflow))


@functools.partial(jax.jit, static_argnames=("config",))
def intersections(state: State, camera: Camera, *, config: FitConfig) -> Int[Array, ""]:
    """Number of (Gaussian, tile) intersections of a view."""
    opacities = jnp.where(state.alive, jax.nn.sigmoid(state.gaussians.opacity_logits), 0.0)
    scales = jnp.exp(state.gaussians.log_scales)
    seen = project(
        state.gaussians.means, state.gaussians.quaternions, scales, opacities, camera, antialias=config.antialias
    )
    return tiling.count_intersections(seen.means2d, seen.extents, camera.size)
