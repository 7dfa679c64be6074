"""The tri-plane transformer as parameters and functions, and its field: where planes lie, and what is at a point.

Planes span the cube [-HALF, HALF]^3 about the origin, a little more than the block world's objects fill, since features
fade to zero over the outer half texel.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from experiments import keys
from experiments.data.blocks import rendering
from experiments.single_pass.settings import ModelSettings
from generators.multiview.triplane_transformer import TriplaneTransformer, TriplaneTransformerConfig
from renderers.fields.triplane import plane_coordinates
from renderers.kernels.plane_sample.api import sample_planes

HALF = 0.52
REACH = 0.1  # metres from the surface to which distances are asked for
BOX = ((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))  # in which there may be a surface


@functools.cache
def network_config(settings: ModelSettings) -> TriplaneTransformerConfig:
    """Sizes of the network for the block world's views and cameras."""
    return TriplaneTransformerConfig(
        size=settings.size,
        channels=rendering.CHANNELS,
        patch=settings.patch,
        view_rim=settings.patch // 4,
        width=settings.width,
        depth=settings.depth,
        texels=settings.texels,
        cell=settings.cell,
        plane_rim=settings.cell // 4,
        features=settings.features,
        hidden=settings.hidden,
        reach=REACH,
        field_of_view=rendering.FIELD_OF_VIEW,
    )


def initial_params(settings: ModelSettings, seed: int) -> nnx.State:
    """Fresh weights."""
    return nnx.state(_network(settings, keys.key(seed, "init")), nnx.Param)


def planes_of_views(
    settings: ModelSettings,
    params: nnx.State,
    views: Float[Array, "b v h w 8"],
    camera_from_world: Float[Array, "b v 4 4"],
    seen: Bool[Array, "b v"] | None = None,
    whole: Bool[Array, "b v"] | None = None,
) -> Float[Array, "b 3 s s f"]:
    """See `TriplaneTransformer`."""
    return nnx.merge(_structure(settings), params)(views, camera_from_world, seen, whole)


def read_points(
    settings: ModelSettings,
    params: nnx.State,
    planes: Float[Array, "b 3 s s f"],
    points: Float[Array, "b n 3"],
) -> tuple[Float[Array, "b n"], Float[Array, "b n 3"]]:
    """Signed distances (metres, negative inside, cut off at REACH) and colours in [0, 1] at world points."""
    return nnx.merge(_structure(settings), params).read(features_at(planes, points))


def features_at(planes: Float[Array, "b 3 s s f"], points: Float[Array, "b n 3"]) -> Float[Array, "b n g"]:
    """Features of world points, plane after plane (g = 3 f); zero beyond the planes."""
    b, n = points.shape[:2]
    places = jax.vmap(plane_coordinates)(points / HALF).reshape(3 * b, n, 2)
    features = sample_planes(planes.reshape(3 * b, *planes.shape[2:]), places)
    return features.reshape(b, 3, n, -1).transpose(0, 2, 1, 3).reshape(b, n, -1)


@functools.cache
def _structure(settings: ModelSettings) -> nnx.GraphDef:
    shapes = nnx.eval_shape(lambda: _network(settings, jax.random.key(0)))
    return nnx.split(shapes, nnx.Param)[0]


def _network(settings, key):
    dtype = jnp.bfloat16 if settings.arithmetic == "bfloat16" else jnp.float32
    return TriplaneTransformer(network_config(settings), rngs=nnx.Rngs(key), dtype=dtype)
