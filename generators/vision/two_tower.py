"""Pictures and captions to vectors that point the same way if they belong together (CLIP, arXiv 2103.00020).

Two small transformers: one over the patches of all pictures of an object, one over words; the mean of their tokens is
projected and normalised. Similarity is the cosine of the vectors. Pictures come in a fixed order, the front first: left
and right cannot be told from a picture whose side is not known.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from generators.multiview.patches import unfold
from generators.networks.attention import attend, root_mean_square_norm

_FAN_IN = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
_ZEROS = nnx.initializers.zeros_init()
_FIRST_TEMPERATURE = 0.07
_LOWEST_TEMPERATURE = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTowerConfig:
    """Sizes.

    Attributes:
      views: pictures of an object.
      size: pixels along a picture's side.
      patch: pixels along a patch's side.
      words: size of the vocabulary; number 0 is padding.
      length: words of the longest caption.
      width: features of a token.
      depth: layers of each tower.
      head_size: features of an attention head.
      joint: features of the vectors.
    """

    views: int = 4
    size: int = 32
    patch: int = 8
    words: int
    length: int
    width: int = 64
    depth: int = 3
    head_size: int = 64
    joint: int = 64

    def __post_init__(self):
        if self.size % self.patch:
            raise ValueError(f"patches of {self.patch} pixels do not tile views of {self.size}")
        if self.width % self.head_size:
            raise ValueError(f"a width of {self.width} is no multiple of {self.head_size}")


class _Layer(nnx.Module):
    """Attention, then an MLP with squared ReLU (arXiv 2109.08668); a fresh one changes nothing."""

    def __init__(self, width: int, head_size: int, rngs: nnx.Rngs):
        self.mixed = nnx.Linear(width, 3 * width, kernel_init=_FAN_IN, use_bias=False, rngs=rngs)
        self.joined = nnx.Linear(width, width, kernel_init=_ZEROS, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, kernel_init=_FAN_IN, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, kernel_init=_ZEROS, rngs=rngs)
        self._head_size = head_size

    def __call__(self, x, seen=None):
        queries, keys, values = jnp.split(self.mixed(root_mean_square_norm(x)), 3, axis=-1)
        x = x + self.joined(attend(queries, [(keys, values)], head_size=self._head_size, seen=seen))
        return x + self.down(jnp.square(jax.nn.relu(self.up(root_mean_square_norm(x)))))


class TwoTower(nnx.Module):
    """Encoders of pictures and captions, and the temperature of their comparison.

    Args:
      config: sizes.
      rngs: of the initial weights.
    """

    def __init__(self, config: TwoTowerConfig, *, rngs: nnx.Rngs):
        width, cells = config.width, config.size // config.patch
        self.patches_in = nnx.Linear(config.patch**2 * 3, width, kernel_init=_FAN_IN, rngs=rngs)
        self.place = nnx.Param(0.5 * jax.random.normal(rngs.params(), (config.views * cells * cells, width)))
        self.picture_layers = nnx.List([_Layer(width, config.head_size, rngs) for _ in range(config.depth)])
        self.picture_out = nnx.Linear(width, config.joint, kernel_init=_FAN_IN, use_bias=False, rngs=rngs)
        self.word_table = nnx.Param(jax.random.normal(rngs.params(), (config.words, width)))
        self.word_place = nnx.Param(0.5 * jax.random.normal(rngs.params(), (config.length, width)))
        self.word_layers = nnx.List([_Layer(width, config.head_size, rngs) for _ in range(config.depth)])
        self.words_out = nnx.Linear(width, config.joint, kernel_init=_FAN_IN, use_bias=False, rngs=rngs)
        self.log_temperature = nnx.Param(jnp.log(jnp.float32(_FIRST_TEMPERATURE)))
        self._config = config

    def pictures(self, images: Float[Array, "b v h w 3"]) -> Float[Array, "b d"]:
        """Unit vectors of objects by their pictures, colours in [-1, 1]."""
        b, v = images.shape[:2]
        patches = unfold(images.reshape(b * v, *images.shape[2:]), self._config.patch, 0)
        x = self.patches_in(patches).reshape(b, -1, self._config.width) + self.place[...][None]
        for layer in self.picture_layers:
            x = layer(x)
        return _unit(self.picture_out(jnp.mean(root_mean_square_norm(x), axis=1)))

    def captions(self, words: Int[Array, "b l"]) -> Float[Array, "b d"]:
        """Unit vectors of captions, numbers of `generators.text.words`; padding behind their words changes nothing."""
        said = (words > 0).at[:, 0].set(True).astype(jnp.float32)  # one word at least: there is no mean over none
        x = self.word_table[...][words] + self.word_place[...][None, : words.shape[1]]
        for layer in self.word_layers:
            x = layer(x, said)
        mean = jnp.sum(said[..., None] * root_mean_square_norm(x), axis=1) / jnp.sum(said, axis=1, keepdims=True)
        return _unit(self.words_out(mean))

    def temperature(self) -> Float[Array, ""]:
        """What cosines are divided by to become logits."""
        return jnp.maximum(jnp.exp(self.log_temperature[...]), _LOWEST_TEMPERATURE)


def contrastive_loss(
    pictures: Float[Array, "b d"],
    captions: Float[Array, "b d"],
    temperature: Float[Array, ""],
    same: Bool[Array, "b b"] | None = None,
) -> Float[Array, ""]:
    """Cross entropy of finding each picture's caption in the batch and each caption's picture (arXiv 2103.00020).

    Args:
      pictures: unit vectors.
      captions: unit vectors, row for row.
      temperature: what cosines are divided by.
      same: pairs (symmetric) that are no rivals, since their captions are the same; None for the pairs of a row with
        itself alone.
    """
    logits = pictures @ captions.T / temperature
    own = jnp.diagonal(logits)
    if same is not None:
        logits = jnp.where(same & ~jnp.eye(len(logits), dtype=bool), -jnp.inf, logits)
    of_captions = jnp.mean(jax.nn.logsumexp(logits, axis=1) - own)
    of_pictures = jnp.mean(jax.nn.logsumexp(logits, axis=0) - own)
    return 0.5 * (of_captions + of_pictures)


def _unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
