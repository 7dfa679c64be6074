"""Training examples of the tri-plane transformer: what of an object's views it sees, and exact answers at points.

Objects come by number from the block world, their rings from the pool that the multi-view prior is trained on. Points,
masks, light and errors are drawn on the device, a function of the step's key; distances and colours are the world's.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from experiments.data import blockworld
from experiments.data.blocks import rendering, solids
from experiments.data.blocks.solids import Assembly
from experiments.prior.model import poses
from experiments.prior.rings import RingPool, Rings
from experiments.single_pass.model import BOX, REACH
from experiments.single_pass.settings import ExampleSettings

MOST_SOLIDS = 8
_SPREADS = (0.008, 0.04)  # metres from the surface, standard deviations of half of the near points each
_COARSE = 4  # pixels along a side of a patch of a prior's coarse errors
_COLORED = 0.03  # metres from the surface within which colours are asked for


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Objects:
    """Objects as they are and as they look."""

    rings: Rings
    assemblies: Assembly


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Examples:
    """What the network is given, and what it is asked.

    Attributes:
      views, camera_from_world, seen, whole: see `TriplaneTransformer`.
      points: in the box, world frame.
      distances: signed, of the points from the surface, metres, cut off at REACH on either side.
      slopes: gradients of the distance that was not cut off.
      colors: in [0, 1], of the nearest solid.
      colored: 1 for points whose colour is asked for, near the surface, else 0.
    """

    views: Float[Array, "b v h w 8"]
    camera_from_world: Float[Array, "b v 4 4"]
    seen: Bool[Array, "b v"]
    whole: Bool[Array, "b v"]
    points: Float[Array, "b n 3"]
    distances: Float[Array, "b n"]
    slopes: Float[Array, "b n 3"]
    colors: Float[Array, "b n 3"]
    colored: Float[Array, "b n"]


def objects_of_step(pool: RingPool, seed: int, step: int) -> Objects:
    """The objects that a step is trained on, on the host."""
    items = [blockworld.item(seed, "train", int(number)) for number in pool.numbers(step)]
    return Objects(rings=pool(step), assemblies=solids.stacked([item.assembly for item in items], MOST_SOLIDS))


def make_examples(key: PRNGKeyArray, objects: Objects, settings: ExampleSettings) -> Examples:
    """Questions and answers about objects; jitted by the caller."""
    for_views, for_points = jax.random.split(key)
    rings = objects.rings
    views, seen, whole = shown_views(for_views, rendering.from_bytes(rings.views), settings)
    keys = jax.random.split(for_points, len(views))
    points = jax.vmap(lambda key, one: sample_points(key, one, settings))(keys, objects.assemblies)
    distances, slopes, colors = jax.vmap(answers)(objects.assemblies, points)
    return Examples(
        views=views,
        camera_from_world=poses(rings.azimuths, rings.elevations),
        seen=seen,
        whole=whole,
        points=points,
        distances=jnp.clip(distances, -REACH, REACH),
        slopes=slopes,
        colors=colors,
        colored=(jnp.abs(distances) < _COLORED).astype(jnp.float32),
    )


def shown_views(
    key: PRNGKeyArray, clean: Float[Array, "b v h w 8"], settings: ExampleSettings
) -> tuple[Float[Array, "b v h w 8"], Bool[Array, "b v"], Bool[Array, "b v"]]:
    """Views as they are shown, which of them there are, and of which all channels are known."""
    for_kind, for_seen, for_whole, for_light, for_errors = jax.random.split(key, 5)
    b, v = clean.shape[:2]
    kind = jax.random.uniform(for_kind, (b, 1))
    photograph = kind < settings.photographs
    subset = ~photograph & (kind < settings.photographs + settings.subsets)
    first = jnp.arange(v)[None] == 0
    some = first | jax.random.bernoulli(for_seen, 0.5, (b, v))
    seen = jnp.where(photograph, first, ~subset | some)
    whole = ~photograph & (~subset | jax.random.bernoulli(for_whole, 0.5, (b, v)))
    photographed = clean.at[..., :3].set(rendering.in_some_light(for_light, clean, settings.lit))
    views = jnp.where(whole[..., None, None, None], clean, photographed)
    return jnp.where(photograph[..., None, None, None], views, _disturbed(for_errors, views, settings)), seen, whole


def _disturbed(key, views, settings):
    """Views with errors that generated ones have: of single pixels, and of whole patches together."""
    for_size, for_use, for_pixels, for_patches = jax.random.split(key, 4)
    b, v, h, w, c = views.shape
    size = settings.error * jax.random.uniform(for_size, (b, 1, 1, 1, 1))
    size = size * jax.random.bernoulli(for_use, settings.disturbed, size.shape)
    coarse = jax.random.normal(for_patches, (b, v, -(-h // _COARSE), -(-w // _COARSE), c))
    coarse = jnp.repeat(jnp.repeat(coarse, _COARSE, axis=2), _COARSE, axis=3)[:, :, :h, :w]
    errors = 0.7 * (jax.random.normal(for_pixels, views.shape) + coarse)
    return jnp.clip(views + size * errors, -1.0, 1.0)


def sample_points(key: PRNGKeyArray, assembly: Assembly, settings: ExampleSettings) -> Float[Array, "n 3"]:
    """Points anywhere in the box, and points near the surface: others, moved there along the distance's gradient."""
    for_start, for_offset = jax.random.split(key)
    low, high = jnp.asarray(BOX)[:, None]
    count = settings.near + settings.anywhere
    points = low + (high - low) * jax.random.uniform(for_start, (count, 3))

    def nearer(_, at):
        distances, slopes, _ = answers(assembly, at)
        return at - distances[:, None] * slopes

    at_surface = jax.lax.fori_loop(0, 2, nearer, points[: settings.near])
    spread = jnp.resize(jnp.asarray(_SPREADS), (settings.near, 1))
    near = at_surface + spread * jax.random.normal(for_offset, at_surface.shape)
    return jnp.concatenate([jnp.clip(near, low, high), points[settings.near :]])


def answers(
    assembly: Assembly, points: Float[Array, "n 3"]
) -> tuple[Float[Array, " n"], Float[Array, "n 3"], Float[Array, "n 3"]]:
    """Signed distances of points, their gradients, and colours of the nearest solids."""
    parts = solids.distances(assembly, points[:, 0], points[:, 1], points[:, 2])
    slopes = jax.grad(lambda at: jnp.sum(solids.signed_distance(assembly, at)))(points)
    nearest = jnp.argmin(jnp.stack(parts), axis=0)
    return jnp.min(jnp.stack(parts), axis=0), slopes, jnp.asarray(assembly.colors)[nearest]


def on_host(seed: int, split, numbers) -> list[Assembly]:
    """Objects of a split by number."""
    return [blockworld.item(seed, split, int(number)).assembly for number in np.asarray(numbers)]
