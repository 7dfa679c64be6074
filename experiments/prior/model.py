"""The prior's network as parameters and a function, its schedule, and what it is told about cameras."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from experiments import keys
from experiments.data.blocks import rendering
from experiments.data.blocks.descriptions import vocabulary
from experiments.prior.rings import LENGTH
from experiments.prior.settings import DiffusionSettings, ModelSettings
from generators.diffusion.schedules import Cosine
from generators.multiview.view_transformer import ViewTransformer, ViewTransformerConfig


def schedule(settings: DiffusionSettings) -> Cosine:
    """The process's schedule."""
    return Cosine(shift=settings.shift)


@functools.cache
def network_config(settings: ModelSettings) -> ViewTransformerConfig:
    """Sizes of the network for the block world's captions and cameras."""
    return ViewTransformerConfig(
        size=settings.size,
        channels=rendering.CHANNELS,
        patch=settings.patch,
        rim=settings.rim,
        width=settings.width,
        depth=settings.depth,
        words=settings.words or len(vocabulary()),
        length=LENGTH,
        text_width=settings.text_width,
        text_depth=settings.text_depth,
        field_of_view=rendering.FIELD_OF_VIEW,
    )


def with_words(settings: ModelSettings, count: int) -> ModelSettings:
    """Settings of a network that has a row for each of `count` words.

    Raises:
      ValueError: a number of rows is set, and it is too small.
    """
    if settings.words == 0:
        return settings if count == len(vocabulary()) else dataclasses.replace(settings, words=count)
    if settings.words < count:
        raise ValueError(f"words={settings.words} rows are too few for captions of {count} words; 0 takes as many")
    return settings


def initial_params(settings: ModelSettings, seed: int) -> nnx.State:
    """Fresh weights."""
    return nnx.state(_network(settings, keys.key(seed, "init")), nnx.Param)


def denoise(settings: ModelSettings, params: nnx.State, views, t, words, camera_from_world, given=None):
    """The network's estimate of the clean views, see `ViewTransformer`."""
    return nnx.merge(_structure(settings), params)(views, t, words, camera_from_world, given)


def poses(azimuths, elevations):
    """camera_from_world [b, 4, 4, 4] of rings."""
    return jax.vmap(lambda a, e: rendering.ring_cameras(a, e, views=4, size=1).camera_from_world)(azimuths, elevations)


@functools.cache
def _structure(settings: ModelSettings) -> nnx.GraphDef:
    shapes = nnx.eval_shape(lambda: _network(settings, jax.random.key(0)))
    return nnx.split(shapes, nnx.Param)[0]


def _network(settings, key):
    dtype = jnp.bfloat16 if settings.arithmetic == "bfloat16" else jnp.float32
    return ViewTransformer(network_config(settings), rngs=nnx.Rngs(key), dtype=dtype)
