"""A radiance field that a guide's pictures are distilled into: the field, what rings of cameras see of it, one step.

DreamFusion (arXiv 2209.14988) with MVDream's four views at a time (arXiv 2308.16512): a hash field in the box
[-0.5, 0.5]^3 that starts as a blob, rendered through one ray a pixel, at one of four places of all pixels. Samples are
taken in occupied cells; those that can be seen, asked for without gradients first, are rendered with normals from the
density's exact gradient.

The guide's pixels are means, and a ray is one draw of what its pixel sees. If every draw were pulled towards the mean,
the expected loss would be the mean's error plus the draws' variance: walls as soft as a pixel is wide (4 cm at 32
pixels), which rays enter by half of that before they end. So two pictures are drawn in a step: the guide judges the
first, without gradients, and what it asks for moves the second. For independent draws a and b of mean m(theta) and a
clean picture x, E[(a - x) db/dtheta] = (m - x) dm/dtheta: the descent is that of the mean.
"""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, Key

from experiments import finite, keys
from experiments.data.blocks import rendering
from experiments.data.blocks.rendering import Pictures
from experiments.generation import score
from experiments.generation.distillation_settings import NerfConfig
from experiments.generation.guides import Guide
from renderers.cameras.camera import Camera, resize
from renderers.cameras.rays import camera_rays
from renderers.fields import normals
from renderers.fields.hash_grid import HashGrid, HashGridConfig
from renderers.fields.nerf import Blob, Domain, NerfField
from renderers.volumes import occupancy, packed, regularizers
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.packed import PackedSamples

Params = dict[str, Any]
HALF_SIDE = 0.5  # metres, of the box; objects reach 0.475, and a step more is room for the air before them
_BLOB = Blob("gaussian", scale=5.0, radius=0.2)  # DreamFusion's
_FIRST_LOOK = 3  # times the samples that are rendered are looked at without gradients, at most
_VISIBLE = 0.01  # alpha of a step below which a cell, or a sample, counts as empty
_EARLY_STOP = 1e-3
_THIN = 0.03  # optical depth of a step below which a series says where light ends: differences would cancel
_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-15)
_WARMUP = 10
_FINAL = 0.1  # of the rates, at the end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class State:
    """What the descent carries from step to step.

    Attributes:
      params: of the field.
      moments: of Adam.
      grid: where samples are taken.
      wanted: Int[""], most visible samples that a ring asked for since the last look.
      ring: Float["v h w 8"], the newest ring, for previews.
      asked: Float["v h w 8"], what the guide made of it.
    """

    params: Params
    moments: Any
    grid: OccupancyGrid
    wanted: Int[Array, ""]
    ring: Float[Array, "v h w 8"]
    asked: Float[Array, "v h w 8"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Costs:
    """Means over rays of what regularisers find.

    Attributes:
      orientation: of what is seen facing away.
      sparsity: of the opacity.
      opaque: entropy of the opacity.
      distortion: metres between two places where a ray may end: how soft walls are.
    """

    orientation: Float[Array, ""]
    sparsity: Float[Array, ""]
    opaque: Float[Array, ""]
    distortion: Float[Array, ""]


def _make(config: NerfConfig, rngs: nnx.Rngs) -> NerfField:
    sizes = HashGridConfig(
        num_levels=config.levels,
        base_resolution=config.coarsest,
        finest_resolution=config.finest,
        log2_table_size=config.log2_rows,
    )
    side = HALF_SIDE
    domain = Domain((-side, -side, -side), (side, side, side))
    width = config.width
    return NerfField(
        HashGrid(sizes, rngs=rngs), domain=domain, width=width, color_width=width, color_depth=1, blob=_BLOB, rngs=rngs
    )


@functools.cache
def _definition(config: NerfConfig):
    return nnx.split(nnx.eval_shape(lambda: _make(config, nnx.Rngs(0))))


def merged(params: Params, config: NerfConfig) -> NerfField:
    """The field with these parameters; call it inside a jitted function."""
    definition, state = _definition(config)
    state = jax.tree.map(lambda leaf: leaf, state)  # a copy, since what follows writes into it
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(definition, state)


@functools.partial(jax.jit, static_argnames=("config", "seed", "size"))
def fresh_state(*, config: NerfConfig, seed: int, size: int) -> State:
    """The blob, and a grid that rules nothing out."""
    field = _make(config, nnx.Rngs(params=keys.key(seed, "field")))
    params = nnx.to_pure_dict(nnx.state(field))
    box = jnp.asarray([[-HALF_SIDE] * 3, [HALF_SIDE] * 3], jnp.float32)
    nothing = jnp.zeros((4, size, size, rendering.CHANNELS), jnp.float32)
    return State(
        params=params,
        moments=_ADAM.init(params),
        grid=occupancy.full_grid(box, resolution=config.occupancy),
        wanted=jnp.zeros((), jnp.int32),
        ring=nothing,
        asked=nothing,
    )


@functools.partial(jax.jit, static_argnames=("config", "seed"), donate_argnums=0)
def look_around(state: State, step: Int[Array, ""], *, config: NerfConfig, seed: int) -> State:
    """The occupancy after asking the field in all cells, and the count of samples cleared."""
    field = merged(state.params, config)
    threshold = _VISIBLE / step_length(config)
    grid = occupancy.update_all(keys.key(seed, "occupancy", step), state.grid, field.density, threshold=threshold)
    return dataclasses.replace(state, grid=grid, wanted=jnp.zeros_like(state.wanted))


def step_length(config: NerfConfig) -> float:
    """Metres from one sample to the next."""
    return 2 * HALF_SIDE * 3**0.5 / config.samples


def see(
    field: NerfField,
    grid: OccupancyGrid,
    cameras: Camera,
    key: Key[Array, ""],
    *,
    config: NerfConfig,
    capacity: int,
    centered: bool = False,
) -> tuple[Pictures, Costs, Int[Array, ""]]:
    """What cameras see of the field through one ray a pixel, at one of 2 x 2 places of all pixels or in their middle.

    Args:
      field: the field.
      grid: where its matter is.
      cameras: stacked, of one size.
      key: of the place, and of where samples begin.
      config: the route's.
      capacity: of samples that are rendered, static; rays beyond it lack matter, and the third result tells.
      centered: whether rays go through the middle of pixels.

    Returns:
      Pictures stacked as the cameras are, what regularisers find, and the number of visible samples.
    """
    height, width = cameras.size
    place_key, sample_key = jax.random.split(key)
    origins, directions = _rays(cameras, None if centered else place_key)
    samples = _visible_samples(field, grid, origins, directions, sample_key, config, capacity)
    used = samples.ray_index < len(origins)
    points, along = packed.points_and_directions(origins, directions, samples)
    density, colors = field(points, along)
    facing = normals.density_normals(field.density, points)
    weights, _ = packed.weights_from_density(density, samples)
    axis = cameras.camera_from_world[:, 2, :3]
    depth = endings(density, samples) * jnp.sum(along * axis[_view_of(samples, len(axis))], -1)
    columns = jnp.concatenate([colors, facing, depth[:, None], jnp.ones_like(depth)[:, None]], 1)
    seen = packed.sum_by_ray(weights[:, None] * columns, samples).reshape(-1, height, width, 8)
    away = normals.orientation_loss(lax.stop_gradient(weights * used), facing, along)
    opacity = seen[..., 7]
    costs = Costs(
        orientation=jnp.sum(away) / len(origins),
        sparsity=jnp.mean(regularizers.sparsity_loss(opacity)),
        opaque=jnp.mean(regularizers.opaque_loss(opacity)),
        distortion=jnp.mean(packed.distortion_loss(weights, samples)),
    )
    pictures = Pictures(color=seen[..., :3], normal=seen[..., 3:6], depth=seen[..., 6], coverage=opacity)
    return pictures, costs, samples.counts.sum() + samples.overflow


def endings(density: Float[Array, " m"], samples: PackedSamples) -> Float[Array, " m"]:
    """Distance at which light that a sample stops is stopped on average, metres.

    With x = density times length, the mean of an exponential law cut off at the interval's end is start + length (1 / x
    - 1 / (e^x - 1)): the middle where little is stopped, the start where all is. Middles would put opaque walls half a
    step, some 13 mm, too deep: the first sample within a wall has its middle anywhere in a step behind it.
    """
    length = samples.ends - samples.starts
    x = density * length
    thick = jnp.maximum(x, _THIN)
    share = jnp.where(x < _THIN, 0.5 - x / 12, 1 / thick - jnp.exp(-thick) / -jnp.expm1(-thick))
    return samples.starts + share * length


def _rays(cameras: Camera, key: Key[Array, ""] | None) -> tuple[Float[Array, "r 3"], Float[Array, "r 3"]]:
    """Origins and directions of rays through pixels, view by view: the middles, or one of 2 x 2 places of all."""
    if key is None:
        rays = jax.vmap(camera_rays)(cameras)
        return rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    height, width = cameras.size
    fine = jax.vmap(lambda camera: camera_rays(resize(camera, (2 * height, 2 * width))))(cameras)
    row, column = jax.random.randint(key, (2,), 0, 2)

    def at_place(rays):
        blocks = rays.reshape(-1, height, 2, width, 2, 3)
        return blocks[:, :, row, :, column].reshape(-1, 3)

    return at_place(fine.origins), at_place(fine.directions)


def _visible_samples(field, grid, origins, directions, key, config, capacity) -> PackedSamples:
    """Samples that matter, found by a look without gradients at all those in occupied cells."""
    found = occupancy.occupied_samples(
        key,
        grid,
        origins,
        directions,
        step=step_length(config),
        num_steps=config.samples + 1,
        capacity=_FIRST_LOOK * capacity,
    )
    points, _ = packed.points_and_directions(origins, directions, found)
    density = lax.stop_gradient(field.density(points))
    keep = occupancy.visible(density, found, alpha_threshold=0.1 * _VISIBLE, early_stop=_EARLY_STOP)
    return packed.prune(found, keep, capacity)


def _view_of(samples: PackedSamples, views: int):
    return jnp.minimum(samples.ray_index // (len(samples.counts) // views), views - 1)


def ring_of(pictures: Pictures, cameras: Camera) -> Float[Array, "v h w 8"]:
    """Stacked pictures as the channels that guides speak of."""
    return jax.vmap(rendering.to_channels)(pictures, cameras)


@functools.partial(jax.jit, static_argnames=("config", "seed", "capacity"), donate_argnums=0)
def update(
    state: State,
    guide: Guide,
    step: Int[Array, ""],
    fraction: Float[Array, ""],
    *,
    config: NerfConfig,
    seed: int,
    capacity: int,
) -> tuple[State, dict[str, Array], finite.FiniteReport]:
    """One step: a ring of the field, the guide's opinion of it, regularisers, Adam.

    Args:
      state: donated.
      guide: whose views are distilled.
      step: updates done before, a device scalar.
      fraction: of the run that is over, in [0, 1]; sets the noise, the rates and the late regularisers.
      config: the route's.
      seed: of cameras, noise and samples.
      capacity: see `see`.
    """
    azimuth, elevation = score.cameras_of_step(seed, step, config.score)
    cameras = rendering.ring_cameras(azimuth, elevation, views=4, size=guide.size)

    judged_key, moved_key = jax.random.split(keys.key(seed, "rays", step))

    def drawn(params, key):
        field = merged(params, config)
        pictures, costs, wanted = see(field, state.grid, cameras, key, config=config, capacity=capacity)
        return ring_of(pictures, cameras), costs, wanted

    ring, _, needed = drawn(state.params, judged_key)

    def loss_of(params):
        moved, costs, wanted = drawn(params, moved_key)
        shown = ring + (moved - lax.stop_gradient(moved))  # the one picture, through which gradients reach the other
        asked = score.distil(keys.key(seed, "noise", step), shown, guide, azimuth, elevation, fraction, config.score)
        total = asked.loss + config.sparsity * costs.sparsity
        late = config.orientation * costs.orientation + config.opaque * costs.opaque
        total = total + fraction * (late + config.distortion * costs.distortion)
        return total, (asked, costs, jnp.maximum(wanted, needed))

    (loss, (asked, costs, wanted)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    direction, moments = _ADAM.update(gradient, state.moments)
    state = State(
        params=_descended(state.params, direction, step, fraction, config),
        moments=moments,
        grid=state.grid,
        wanted=jnp.maximum(state.wanted, wanted),
        ring=ring,
        asked=asked.clean,
    )
    metrics = {
        "loss": loss,
        "agreement": score.agreement(ring, asked.clean),
        "samples": wanted,
        "timestep": asked.timestep,
        "orientation": costs.orientation,
        "opaque": costs.opaque,
        "distortion": costs.distortion,
    }
    return state, metrics, finite.finite_report({"gradient": gradient, "loss": loss})


def _descended(params: Params, direction: Any, step, fraction, config: NerfConfig) -> Params:
    """Parameters after a step; tables and networks at rates of their own, which rise shortly and fall to a tenth."""
    pace = _FINAL**fraction * jnp.minimum((step + 1) / _WARMUP, 1.0)

    def moved(path, old, way):
        in_grid = any(getattr(entry, "key", None) == "encoding" for entry in path)
        return old - pace * (config.grid_rate if in_grid else config.network_rate) * way

    return jax.tree_util.tree_map_with_path(moved, params, direction)
