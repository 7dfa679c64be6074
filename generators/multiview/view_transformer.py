"""A transformer over the patches of all views of an object: text and cameras in, colour, normals, depth, coverage out.

One network denoises all views and all channels together, so views agree with each other and normals with colours: a
pixel-space relative of MVDream (arXiv 2308.16512) with the transformer of DiT (arXiv 2212.09748). All tokens attend to
all others, whatever their view; a view is known by the rays of its patches and the axes of its camera, not by a number,
so that views may come in any order. Predictions are of the clean views: a token is narrower than its patch is wide, so
it could not carry the noise (arXiv 2511.13720).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from generators.multiview.patches import fold, unfold
from generators.multiview.pose import camera_axes, cell_rays, with_waves
from generators.networks.attention import attend, root_mean_square_norm

_FAN_IN = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
_ZEROS = nnx.initializers.zeros_init()
_TIME_FEATURES, _FASTEST = 64, 500.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewTransformerConfig:
    """Sizes of the network.

    Attributes:
      size: pixels along a side of a view.
      channels: of a view.
      patch: pixels along a side of a patch.
      rim: pixels of its neighbours that a patch also sees and predicts.
      width: features of a token.
      depth: layers.
      head_size: features of an attention head.
      words: size of the vocabulary.
      length: words of a caption, padding included.
      text_width: features of a word.
      text_depth: layers over the words.
      field_of_view: of every camera, radians.
    """

    size: int = 32
    channels: int = 8
    patch: int = 8
    rim: int = 2
    width: int = 192
    depth: int = 6
    head_size: int = 64
    words: int
    length: int = 24
    text_width: int = 128
    text_depth: int = 2
    field_of_view: float = math.radians(40.0)

    def __post_init__(self):
        if self.size % self.patch:
            raise ValueError(f"patches of {self.patch} pixels do not tile views of {self.size}")
        if self.width % self.head_size or self.text_width % self.head_size:
            raise ValueError(f"widths {self.width} and {self.text_width} must be multiples of {self.head_size}")
        if not 0 <= 2 * self.rim <= self.patch:
            raise ValueError(f"a rim of {self.rim} is more than half of a patch of {self.patch}")


class _Layer(nnx.Module):
    """Attention to all tokens and words, then an MLP with squared ReLU (arXiv 2109.08668), both modulated."""

    def __init__(self, width: int, text_width: int | None, head_size: int, rngs: nnx.Rngs):
        self.mixed = _linear(width, 3 * width, rngs, use_bias=False)
        self.words = None if text_width is None else _linear(text_width, 2 * width, rngs, use_bias=False)
        self.joined = _linear(width, width, rngs, init=_ZEROS)
        self.up = _linear(width, 4 * width, rngs)
        self.down = _linear(4 * width, width, rngs, init=_ZEROS)
        self.offset = nnx.Param(jnp.zeros(4 * width))
        self._head_size = head_size

    def __call__(self, x, modulation, words):
        offset = self.offset[...].astype(x.dtype)[None, None]
        scale1, shift1, scale2, shift2 = jnp.split(modulation + offset, 4, axis=-1)
        queries, keys, values = jnp.split(self.mixed(root_mean_square_norm(x) * (1 + scale1) + shift1), 3, axis=-1)
        memories = [(keys, values)]
        if self.words is not None:
            word_keys, word_values = jnp.split(self.words(words), 2, axis=-1)
            memories.append((word_keys, word_values))
        x = x + self.joined(attend(queries, memories, head_size=self._head_size))
        hidden = self.up(root_mean_square_norm(x) * (1 + scale2) + shift2)
        return x + self.down(jnp.square(jax.nn.relu(hidden)))


class ViewTransformer(nnx.Module):
    """Noisy views to an estimate of the clean ones.

    Args:
      config: sizes.
      rngs: of the initial weights.
      dtype: of the arithmetic between input and output; weights stay float32.
    """

    def __init__(self, config: ViewTransformerConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        width, cells = config.width, config.size // config.patch
        features = (config.patch + 2 * config.rim) ** 2 * config.channels
        self.patches_in = _linear(features, width, rngs)
        self.place = nnx.Param(0.5 * jax.random.normal(rngs.params(), (cells * cells, width)))
        self.given = nnx.Param(0.5 * jax.random.normal(rngs.params(), (width,)))
        self.rays_in = _linear(30, width, rngs)
        self.camera_in, self.camera_out = _linear(9, width, rngs), _linear(width, width, rngs)
        self.time_in, self.time_out = _linear(_TIME_FEATURES, width, rngs), _linear(width, width, rngs)
        self.modulation = _linear(width, 4 * width, rngs, init=_ZEROS)
        self.word_table = nnx.Param(jax.random.normal(rngs.params(), (config.words, config.text_width)))
        self.word_place = nnx.Param(0.5 * jax.random.normal(rngs.params(), (config.length, config.text_width)))
        self.text_layers = nnx.List(
            [_Layer(config.text_width, None, config.head_size, rngs) for _ in range(config.text_depth)]
        )
        self.layers = nnx.List([_Layer(width, config.text_width, config.head_size, rngs) for _ in range(config.depth)])
        self.last_scale = _linear(width, width, rngs, init=_ZEROS)
        self.patches_out = _linear(width, features, rngs, init=_ZEROS)
        self._config, self._dtype = config, dtype

    def __call__(
        self,
        views: Float[Array, "b v h w c"],
        t: Float[Array, " b"],
        words: Int[Array, "b l"],
        camera_from_world: Float[Array, "b v 4 4"],
        given: Bool[Array, "b v"] | None = None,
    ) -> Float[Array, "b v h w c"]:
        """The network's estimate of the clean views.

        Args:
          views: noisy, in the units of the clean ones.
          t: time of the noise schedule that the network was trained with, in [0, 1].
          words: numbers of a caption's words, see `generators.text.words`.
          camera_from_world: poses, OpenCV axes; the first camera of training stands on the object's front side.
          given: views of which colour and coverage are not noisy but known; None for none.
        """
        config, dtype = self._config, self._dtype
        b, v = views.shape[:2]
        time = self.time_out(jax.nn.silu(self.time_in(_waves(t).astype(dtype))))
        modulation = self.modulation(jax.nn.silu(time))[:, None]
        cells = config.size // config.patch
        tokens = unfold(views.reshape(b * v, *views.shape[2:]).astype(dtype), config.patch, config.rim)
        tokens = self.patches_in(tokens).reshape(b, v, cells * cells, config.width)
        tokens = tokens + self.place[...].astype(dtype)[None, None]
        camera = self.camera_out(jax.nn.gelu(self.camera_in(camera_axes(camera_from_world).astype(dtype))))
        rays = with_waves(cell_rays(camera_from_world, cells, config.field_of_view))
        tokens = tokens + camera[:, :, None] + self.rays_in(rays.astype(dtype))
        if given is not None:
            tokens = tokens + given.astype(dtype)[..., None, None] * self.given[...].astype(dtype)[None, None, None]
        told = self._read(words)
        tokens = tokens.reshape(b, v * cells * cells, config.width)
        for layer in self.layers:
            tokens = layer(tokens, modulation, told)
        scale = 1 + self.last_scale(jax.nn.silu(time))[:, None]
        out = self.patches_out(root_mean_square_norm(tokens) * scale)
        out = out.reshape(b * v, cells * cells, -1).astype(jnp.float32)
        return fold(out, (config.size, config.size), config.patch, config.rim).reshape(views.shape)

    def _read(self, words):
        told = self.word_table[...].astype(self._dtype)[words] + self.word_place[...].astype(self._dtype)[None]
        still = jnp.zeros((), self._dtype)
        for layer in self.text_layers:
            told = layer(told, still, None)
        return root_mean_square_norm(told)


def _linear(inputs, outputs, rngs, *, init=_FAN_IN, use_bias=True):
    return nnx.Linear(inputs, outputs, kernel_init=init, use_bias=use_bias, rngs=rngs)


def _waves(t: Float[Array, " b"]) -> Float[Array, "b f"]:
    """Sines and cosines of the time at frequencies from 1 to 500."""
    frequencies = jnp.exp(jnp.linspace(0.0, math.log(_FASTEST), _TIME_FEATURES // 2))
    angles = t[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
