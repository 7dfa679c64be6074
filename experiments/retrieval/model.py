"""The two-tower model as parameters and functions, and retrieval precision."""

import functools

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from experiments import keys
from experiments.data.blocks.descriptions import vocabulary
from experiments.prior.rings import LENGTH
from experiments.retrieval.settings import TowerSettings
from generators.vision.two_tower import TwoTower, TwoTowerConfig


@functools.cache
def network_config(settings: TowerSettings) -> TwoTowerConfig:
    """Sizes of the network for the block world's captions and rings.

    Raises:
      ValueError: they do not go together.
    """
    return TwoTowerConfig(
        size=settings.size,
        patch=settings.patch,
        words=len(vocabulary()),
        length=LENGTH,
        width=settings.width,
        depth=settings.depth,
        joint=settings.joint,
    )


def initial_params(settings: TowerSettings, seed: int) -> nnx.State:
    """Fresh weights."""
    return nnx.state(_network(settings, keys.key(seed, "init")), nnx.Param)


def encoded(
    settings: TowerSettings, params: nnx.State, colors: Float[Array, "b v h w 3"], words: Int[Array, "p l"]
) -> tuple[Float[Array, "b d"], Float[Array, "p d"], Float[Array, ""]]:
    """Unit vectors of objects and of captions, and the temperature of their comparison; see `TwoTower`."""
    towers = nnx.merge(_structure(settings), params)
    return towers.pictures(colors), towers.captions(words), towers.temperature()


@functools.partial(jax.jit, static_argnames="settings")
def similarities(
    settings: TowerSettings, params: nnx.State, views: Float[Array, "b v h w c"], words: Int[Array, "p l"]
) -> Float[Array, "b p"]:
    """Cosines of objects and captions.

    Args:
      settings: of the towers.
      params: their weights.
      views: canonical rings as `experiments.data.blocks.rendering` has them, in [-1, 1]; only the colours, the first
        three channels, are looked at.
      words: numbers of the captions' words, see `experiments.prior.rings.tokenizer`.
    """
    pictures, captions, _ = encoded(settings, params, views[..., :3], words)
    return pictures @ captions.T


def r_precision(cosines: Float[np.ndarray, "b p"]) -> float:
    """Share of the objects whose own caption is the most similar one of all: R-precision at 1 (arXiv 2112.01455).

    Args:
      cosines: of objects, in rows, and captions; the first b captions are the objects' own, in their order. Where
        another caption is as similar, or a cosine is not a number, the object counts as missed.

    Raises:
      ValueError: there are fewer captions than objects.
    """
    count, pool = np.shape(cosines)
    if pool < count:
        raise ValueError(f"each of {count} objects needs its own caption, got {pool}")
    rivals = np.where(np.eye(count, pool, dtype=bool), -np.inf, cosines)
    return float(np.mean(np.diagonal(cosines) > rivals.max(axis=1)))


@functools.cache
def _structure(settings: TowerSettings) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: _network(settings, jax.random.key(0))), nnx.Param)[0]


def _network(settings, key):
    return TwoTower(network_config(settings), rngs=nnx.Rngs(key))
