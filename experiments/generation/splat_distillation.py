"""Gaussians that a guide's pictures are distilled into: what rings of cameras see of them, one step, growth.

DreamGaussian (arXiv 2309.16653): a ball of faint splats, one colour each from all sides, noise that falls linearly over
the run. Beyond it, rings of four views give depth and normals too, a splat's normal being its shortest axis, turned
towards the camera; and splats grow and move as in Markov chain Monte Carlo (arXiv 2404.09591) at a fixed capacity,
since thresholds on the gradients of a score say little.
"""

import dataclasses
import functools
import math
import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from experiments import finite, keys
from experiments.data.blocks import rendering
from experiments.data.blocks.rendering import Pictures
from experiments.generation import score
from experiments.generation.distillation_settings import SplatsConfig
from experiments.generation.guides import Guide
from renderers.cameras.camera import Camera, resize
from renderers.gaussians.covariance import principal_axes
from renderers.gaussians.densification import relocate, with_capacity
from renderers.gaussians.gaussians import Gaussians, from_points
from renderers.gaussians.rasterize import rasterize
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.volumes.regularizers import opaque_loss

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-15)
_MEANS_DECAY = 0.05  # of the centres' rate over the run
POOLED = 4  # pixels along a side that are averaged to one of the guide's: what widens splats is a share of a pixel
_TYPICAL = 0.05  # metres: thickness that costs the flatness weight


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class State:
    """What the descent carries from step to step.

    Attributes:
      gaussians: at full capacity, world frame, degree 0.
      alive: which rows are splats.
      moments: of Adam.
      ring: Float["v h w 8"], the newest ring, for previews.
      asked: Float["v h w 8"], what the guide made of it.
    """

    gaussians: Gaussians
    alive: Bool[Array, " n"]
    moments: Any
    ring: Float[Array, "v h w 8"]
    asked: Float[Array, "v h w 8"]


def fresh_state(config: SplatsConfig, *, seed: int, size: int) -> State:
    """Grey, faint splats, evenly in a ball; runs on the host."""
    rng = keys.host_rng(seed, "splats")
    directions = rng.normal(size=(config.first, 3))
    directions /= abs(directions**2).sum(1, keepdims=True) ** 0.5
    points = config.radius * rng.random((config.first, 1)) ** (1 / 3) * directions
    made = from_points(points, 0.5 + 0 * points, degree=0, opacity=0.1)
    padded = jax.tree.map(lambda rows: with_capacity(rows, config.most), made)
    nothing = jnp.zeros((4, size, size, rendering.CHANNELS), jnp.float32)
    return State(
        gaussians=padded,
        alive=jnp.arange(config.most) < config.first,
        moments=_ADAM.init(padded),
        ring=nothing,
        asked=jnp.zeros_like(nothing),
    )


def see(gaussians: Gaussians, alive: Bool[Array, " n"], cameras: Camera) -> Pictures:
    """What cameras see of the living splats; pixels are averages of 4 x 4.

    Args:
      gaussians: of degree 0.
      alive: which rows take part.
      cameras: stacked, of one size.
    """
    height, width = cameras.size
    opacities = jnp.where(alive, jax.nn.sigmoid(gaussians.opacity_logits), 0.0)
    shortest = _shortest_axes(gaussians)

    def one(camera):
        eye = -camera.camera_from_world[:3, :3].T @ camera.camera_from_world[:3, 3]
        away = jnp.sum(shortest * (gaussians.means - eye[None]), -1, keepdims=True)
        facing = jnp.where(away > 0, -shortest, shortest)
        seen = rasterize(
            gaussians.means,
            gaussians.quaternions,
            jnp.exp(gaussians.log_scales),
            opacities,
            jnp.concatenate([sh_colors(gaussians.sh, gaussians.means, camera, 0), facing], 1),
            resize(camera, (POOLED * height, POOLED * width)),
        )
        return jnp.concatenate([seen.color, seen.depth[..., None], seen.alpha[..., None]], -1)

    found = lax.map(one, cameras)
    found = found.reshape(-1, height, POOLED, width, POOLED, 8).mean((2, 4))
    return Pictures(color=found[..., :3], normal=found[..., 3:6], depth=found[..., 6], coverage=found[..., 7])


def _shortest_axes(gaussians: Gaussians) -> Float[Array, "n 3"]:
    axes = principal_axes(gaussians.quaternions, jnp.ones_like(gaussians.log_scales))
    shortest = jnp.argmin(gaussians.log_scales, -1)
    return jnp.take_along_axis(axes, shortest[:, None, None], -1)[..., 0]


@functools.partial(jax.jit, static_argnames=("config", "seed"), donate_argnums=0)
def update(
    state: State, guide: Guide, step: Int[Array, ""], fraction: Float[Array, ""], *, config: SplatsConfig, seed: int
) -> tuple[State, dict[str, Array], finite.FiniteReport]:
    """One step: a ring of the splats, the guide's opinion of it, regularisers, Adam.

    Args:
      state: donated.
      guide: whose views are distilled.
      step: updates done before, a device scalar.
      fraction: of the run that is over, in [0, 1]; sets the noise, the centres' rate and the late regulariser.
      config: the route's.
      seed: of cameras and noise.
    """
    azimuth, elevation = score.cameras_of_step(seed, step, config.score)
    cameras = rendering.ring_cameras(azimuth, elevation, views=4, size=guide.size)

    def loss_of(gaussians):
        pictures = see(gaussians, state.alive, cameras)
        ring = jax.vmap(rendering.to_channels)(pictures, cameras)
        asked = score.distil(keys.key(seed, "noise", step), ring, guide, azimuth, elevation, fraction, config.score)
        opaque = jnp.mean(opaque_loss(pictures.coverage))
        flatness = _thickness(gaussians, state.alive) / _TYPICAL
        total = asked.loss + fraction * config.opaque * opaque + config.flatness * fraction * flatness
        return total, (ring, asked, flatness)

    (loss, (ring, asked, flatness)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.gaussians)
    direction, moments = _ADAM.update(gradient, state.moments)
    gaussians = jax.tree.map(
        lambda old, way, rate: old - rate * way, state.gaussians, direction, _rates(config, fraction)
    )
    widest = jnp.minimum(gaussians.log_scales, math.log(config.widest))
    metrics = {
        "loss": loss,
        "agreement": score.agreement(ring, asked.clean),
        "splats": state.alive.sum(),
        "timestep": asked.timestep,
        "thickness": flatness,
    }
    state = State(
        gaussians=dataclasses.replace(gaussians, log_scales=widest),
        alive=state.alive,
        moments=moments,
        ring=ring,
        asked=asked.clean,
    )
    return state, metrics, finite.finite_report({"gradient": gradient, "loss": loss})


def _thickness(gaussians, alive):
    """Mean shortest scale of the splats, metres, by opacity."""
    weights = lax.stop_gradient(jnp.where(alive, jax.nn.sigmoid(gaussians.opacity_logits), 0.0))
    return jnp.sum(weights * jnp.exp(jnp.min(gaussians.log_scales, -1))) / jnp.maximum(weights.sum(), 1e-6)


def _rates(config: SplatsConfig, fraction) -> Gaussians:
    return Gaussians(
        means=config.means_rate * _MEANS_DECAY**fraction,
        quaternions=jnp.float32(config.quaternions_rate),
        log_scales=jnp.float32(config.scales_rate),
        opacity_logits=jnp.float32(config.opacities_rate),
        sh=jnp.float32(config.colors_rate),
    )


@functools.partial(jax.jit, static_argnames=("config", "seed"), donate_argnums=0)
def grow(state: State, step: Int[Array, ""], *, config: SplatsConfig, seed: int) -> State:
    """Faint splats are moved onto others, and some are born; moments of the rows concerned start anew."""
    born = jnp.floor((config.growth - 1.0) * state.alive.sum()).astype(jnp.int32)
    key = keys.key(seed, "relocate", step)
    gaussians, alive, changed = relocate(key, state.gaussians, state.alive, born, min_opacity=0.01)

    def forget(rows):
        return jnp.where(changed.reshape(-1, *[1] * (rows.ndim - 1)), 0.0, rows) if rows.ndim else rows

    moments = jax.tree.map(forget, state.moments)
    return dataclasses.replace(state, gaussians=gaussians, alive=alive, moments=moments)


def living(state: State) -> Gaussians:
    """The splats without the free rows, on the host."""
    alive = jax.device_get(state.alive)
    return jax.tree.map(lambda rows: jnp.asarray(jax.device_get(rows)[alive]), state.gaussians)
