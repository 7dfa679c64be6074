"""What rays see of a field: in occupied cells of an object's box, or by proposals where there are no bounds."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from experiments.fields.model import SceneModel, merged
from experiments.fields.settings import FieldConfig
from renderers.cameras.camera import Camera
from renderers.cameras.rays import camera_rays
from renderers.fields import normals
from renderers.fields.nerf import NerfField
from renderers.volumes import occupancy, packed, quadrature, regularizers, samplers, signed_distance, spacing
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.packed import PackedSamples

NEAR = 0.02  # of the normalised frame
_FAR = 100.0  # of an unbounded scene, in distances of the farthest camera
_SPACING = "power"
_ANNEALING = 10.0  # multinerf's slope of the proposals' annealing
_ANNEALED = 0.1  # of a run, after which NeuS's formula is the published one
_DENSE_CHUNK = 2048  # rays of an unbounded picture at a time
_PACKED_CHUNK = 1 << 13  # rays of an object's picture at a time, at most
_PACKED_CAPACITY = 1 << 15  # and their samples
_DIAGONAL = 2 * 3**0.5  # of the box [-1, 1]^3


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a capture decides, static: bounds, alpha channel, the grey behind pictures, random ones in training."""

    unbounded: bool
    masked: bool
    background: float
    random_background: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Seen:
    """What rays see.

    Attributes:
      color: Float["r 3"], by weight, nothing behind it.
      opacity: Float["r"].
      distance: Float["r"], expected, normalised units.
      complete: Bool["r"], False where samples were left out for want of room.
      samples: Int[""], that the rays asked for.
      cost: Float[""], sum over rays of what the samples add to the loss.
    """

    color: Float[Array, "r 3"]
    opacity: Float[Array, " r"]
    distance: Float[Array, " r"]
    complete: Bool[Array, " r"]
    samples: Int[Array, ""]
    cost: Float[Array, ""]


def object_samples(
    key: Key[Array, ""],
    grid: OccupancyGrid,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    config: FieldConfig,
    *,
    capacity: int,
    training: bool,
    drawn: Bool[Array, " r"] | None = None,
) -> PackedSamples:
    """Samples of rays in the occupied cells of an object's box."""
    return occupancy.occupied_samples(
        key,
        grid,
        origins,
        directions,
        step=step_length(config),
        num_steps=config.sampling.steps + 1,
        capacity=capacity,
        near=NEAR,
        jitter=training,
        drawn=drawn,
        backend=config.backend,
    )


def step_length(config: FieldConfig) -> float:
    """Distance from one sample to the next in an object's box."""
    return _DIAGONAL / config.sampling.steps


def density(model: SceneModel, points: Float[Array, "n 3"], config: FieldConfig) -> Float[Array, " n"]:
    """Density per normalised unit; for NeuS that of a step which goes straight in."""
    if isinstance(model.field, NerfField):
        return model.field.density(points)
    assert model.scale is not None, "a signed distance has a scale"
    distance = model.field.distance(points)
    if config.surface == "volsdf":
        return signed_distance.density_from_distance(distance, model.scale())
    step = jnp.full_like(distance, step_length(config))
    return signed_distance.alpha_from_distance(distance, -jnp.ones_like(distance), step, model.scale()) / step


def ever_seen(grid: OccupancyGrid, points: Float[Array, "n 3"]) -> Bool[Array, " n"]:
    """Whether points lie in cells that no silhouette has carved away."""
    return occupancy.is_occupied(dataclasses.replace(grid, occupied=grid.density >= 0), points)


def see_object(
    model: SceneModel,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    samples: PackedSamples,
    fraction: Float[Array, ""],
    config: FieldConfig,
) -> Seen:
    """What rays see in an object's box."""
    points, along = packed.points_and_directions(origins, directions, samples)
    cost = jnp.zeros((), points.dtype)
    if isinstance(model.field, NerfField):
        found, values = model.field(points, along)
        weights, _ = packed.weights_from_density(found, samples)
    else:
        surface = model.field(points, along)
        values = surface.color
        weights = _surface_weights(model, surface, along, samples, fraction, config)
        used = samples.ray_index < len(origins)
        mean = jnp.sum(normals.eikonal_loss(surface.gradient) * used) / jnp.maximum(used.sum(), 1)
        cost = config.optimizer.eikonal * samples.complete.sum() * mean
    columns = [values, packed.middles(samples)[:, None], jnp.ones_like(weights)[:, None]]
    gathered = packed.sum_by_ray(weights[:, None] * jnp.concatenate(columns, 1), samples)
    return Seen(
        color=gathered[:, :3],
        opacity=gathered[:, 4],
        distance=gathered[:, 3] / jnp.maximum(gathered[:, 4], 1e-10),
        complete=samples.complete,
        samples=samples.counts.sum() + samples.overflow,
        cost=cost,
    )


def _surface_weights(model: SceneModel, surface, along, samples, fraction, config):
    assert model.scale is not None, "a signed distance has a scale"
    if config.surface == "volsdf":
        found = signed_distance.density_from_distance(surface.distance, model.scale())
        return packed.weights_from_density(found, samples)[0]
    cosine = jnp.sum(surface.gradient * along, -1)
    anneal = jnp.minimum(fraction / _ANNEALED, 1.0)
    lengths = samples.ends - samples.starts
    alpha = signed_distance.alpha_from_distance(surface.distance, cosine, lengths, model.scale(), anneal=anneal)
    return packed.weights_from_alpha(alpha, samples)[0]


def see_unbounded(
    model: SceneModel,
    origins: Float[Array, "r 3"],
    directions: Float[Array, "r 3"],
    key: Key[Array, ""],
    fraction: Float[Array, ""],
    config: FieldConfig,
    *,
    training: bool,
) -> Seen:
    """What rays see where nothing bounds them; every ray ends in something opaque."""
    near = jnp.full(len(origins), NEAR, origins.dtype)
    far = jnp.full(len(origins), _FAR, origins.dtype)
    sampling = config.sampling
    assert model.proposal is not None and isinstance(model.field, NerfField), "a scene without bounds has both"
    edges, histograms = samplers.proposal_edges(
        key,
        origins,
        directions,
        near,
        far,
        [model.proposal],
        [sampling.proposals, sampling.fine],
        jitter="single" if training else "none",
        spacing=_SPACING,
        anneal=_ANNEALING * fraction / ((_ANNEALING - 1) * fraction + 1),
    )
    points = samplers.interval_points(origins, directions, edges)
    along = jnp.broadcast_to(directions[:, None], points.shape)
    density, values = model.field(points.reshape(-1, 3), along.reshape(-1, 3))
    weights, _ = quadrature.weights_from_density(
        density.reshape(points.shape[:-1]), jnp.diff(edges), opaque_background=True
    )
    cost = jnp.zeros((), weights.dtype)
    if training:
        s = spacing.normalized_distances(edges, near, far, _SPACING)
        cost = sum(jnp.sum(regularizers.interlevel_loss(s, weights, *histogram)) for histogram in histograms)
        cost = cost + config.optimizer.distortion * jnp.sum(regularizers.distortion_loss(s, weights))
    middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
    return Seen(
        color=quadrature.composite(weights, values.reshape(*points.shape)),
        opacity=quadrature.opacity(weights),
        distance=quadrature.expected_distance(weights, middles),
        complete=jnp.ones(len(origins), bool),
        samples=jnp.asarray(weights.size, jnp.int32),
        cost=cost,
    )


class FieldRenderer:
    """Whole pictures of a state, a part of the rays at a time. Runs on the host.

    Args:
      config: the run's.
      setup: the capture's.
    """

    def __init__(self, config: FieldConfig, setup: Setup) -> None:
        self._config, self._setup = config, setup

    def image(
        self, state, camera: Camera, background: Float[np.ndarray, " 3"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour in [0, 1], expected distance and opacity of a camera's pixels.

        Args:
          state: whose `params` and `grid` are read.
          camera: of the normalised frame, any size.
          background: behind what is not opaque.
        """
        origins, directions = _camera_rays(jax.tree.map(jnp.asarray, camera))
        color, distance, opacity = self.rays(state, np.asarray(origins), np.asarray(directions))
        color = np.clip(color + (1 - opacity)[:, None] * background, 0, 1)
        height, width = camera.size
        return color.reshape(height, width, 3), distance.reshape(height, width), opacity.reshape(height, width)

    def rays(
        self, state, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Colour with nothing behind it, distance and opacity of any rays."""
        found: list[tuple[np.ndarray, ...]] = []
        chunk = _DENSE_CHUNK if self._setup.unbounded else _PACKED_CHUNK
        begin = 0
        while begin < len(origins):
            end = min(begin + chunk, len(origins))
            at = np.minimum(np.arange(begin, begin + chunk), end - 1)  # filled up with copies, which are not drawn
            rays = (jnp.asarray(origins[at]), jnp.asarray(directions[at]), jnp.asarray(np.arange(chunk) < end - begin))
            *seen, complete = jax.device_get(
                _see(state.params, state.grid, *rays, config=self._config, setup=self._setup)
            )
            # those behind the first ray that found no room come again with the next part
            whole = end - begin if complete[: end - begin].all() else int(np.argmin(complete))
            found.append(tuple(part[:whole] for part in seen))
            begin += whole
        color, distance, opacity = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return color, distance, opacity


@jax.jit
def _camera_rays(camera: Camera):
    rays = camera_rays(camera)
    return rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)


@functools.partial(jax.jit, static_argnames=("config", "setup"))
def _see(params, grid, origins, directions, drawn, *, config, setup):
    model, key = merged(params, config, unbounded=setup.unbounded), jax.random.key(0)
    if setup.unbounded:
        seen = see_unbounded(model, origins, directions, key, jnp.ones(()), config, training=False)
    else:
        capacity = max(_PACKED_CAPACITY, 2 * config.sampling.steps)  # any one ray fits
        samples = object_samples(key, grid, origins, directions, config, capacity=capacity, training=False, drawn=drawn)
        seen = see_object(model, origins, directions, samples, jnp.ones(()), config)
    return seen.color, seen.distance, seen.opacity, seen.complete
