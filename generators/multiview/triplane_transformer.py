"""A transformer from posed views of an object to a tri-plane field of signed distance and colour, in one pass.

A relative of LRM (arXiv 2311.04400) and of Instant3D's reconstructor (arXiv 2311.06214): patches of the views and
learned tokens, one for each cell of three planes, attend to one another; the planes' tokens become texels, and a small
network reads a point from its features on the planes. Here tokens of both kinds attend jointly instead of crosswise,
and they are few: 4 views of 16 patches and 3 planes of 16 cells. A token writes a block of texels with a rim that adds
up with its neighbours'. Views are known by the rays of their patches, so that they may come in any order and number. Of
a photograph only some channels are known, and the network is told so.

The third step, features at points, belongs to whoever has planes to sample (`renderers.fields.triplane` here).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from generators.multiview.patches import fold, unfold
from generators.multiview.pose import cell_rays, with_waves
from generators.networks.attention import attend, root_mean_square_norm

_FAN_IN = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
_ZEROS = nnx.initializers.zeros_init()
_FAINT = nnx.initializers.variance_scaling(0.03, "fan_in", "normal")  # of texels: a field that starts smooth
_RAY_FEATURES = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriplaneTransformerConfig:
    """Sizes of the network.

    Attributes:
      size: pixels along a side of a view.
      channels: of a view.
      pictured: channels that a photograph has, too; the others are zeroed where only these are known.
      patch, view_rim: pixels along a side of a patch, and of its neighbours that it also sees.
      width: features of a token.
      depth: layers.
      head_size: features of an attention head.
      texels: along a side of a plane.
      cell, plane_rim: texels along a side of a plane's token, and of its neighbours that it also writes.
      features: of a texel.
      hidden: width of the two hidden layers that read a point.
      reach: metres; distances are in units of it within the network.
      field_of_view: of every camera, radians.
    """

    size: int = 32
    channels: int = 8
    pictured: tuple[int, ...] = (0, 1, 2, 7)
    patch: int = 8
    view_rim: int = 2
    width: int = 192
    depth: int = 6
    head_size: int = 64
    texels: int = 32
    cell: int = 8
    plane_rim: int = 2
    features: int = 16
    hidden: int = 64
    reach: float = 0.1
    field_of_view: float = math.radians(40.0)

    def __post_init__(self):
        if self.size % self.patch or self.texels % self.cell:
            raise ValueError(
                f"patches of {self.patch} must tile views of {self.size}, cells of {self.cell} planes of {self.texels}"
            )
        if self.width % self.head_size:
            raise ValueError(f"the width {self.width} must be a multiple of {self.head_size}")
        if not (0 <= 2 * self.view_rim <= self.patch and 0 <= 2 * self.plane_rim <= self.cell):
            raise ValueError(f"rims of {self.view_rim} and {self.plane_rim} exceed half of a patch or cell")


class _Layer(nnx.Module):
    """Attention to all tokens, then an MLP with squared ReLU (arXiv 2109.08668), each on normalised tokens."""

    def __init__(self, width: int, head_size: int, rngs: nnx.Rngs):
        self.mixed = _linear(width, 3 * width, rngs, use_bias=False)
        self.joined = _linear(width, width, rngs, init=_ZEROS)
        self.up = _linear(width, 4 * width, rngs)
        self.down = _linear(4 * width, width, rngs, init=_ZEROS)
        self._head_size = head_size

    def __call__(self, x, seen):
        queries, keys, values = jnp.split(self.mixed(root_mean_square_norm(x)), 3, axis=-1)
        x = x + self.joined(attend(queries, [(keys, values)], head_size=self._head_size, seen=seen))
        return x + self.down(jnp.square(jax.nn.relu(self.up(root_mean_square_norm(x)))))


class TriplaneTransformer(nnx.Module):
    """Views to planes, and features of points to distance and colour.

    Args:
      config: sizes.
      rngs: of the initial weights.
      dtype: of the transformer's arithmetic; weights, planes and the reading of points stay float32.
    """

    def __init__(self, config: TriplaneTransformerConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        width, patches = config.width, (config.size // config.patch) ** 2
        side_in, side_out = config.patch + 2 * config.view_rim, config.cell + 2 * config.plane_rim
        self.patches_in = _linear(side_in**2 * config.channels, width, rngs)
        self.place = nnx.Param(0.5 * jax.random.normal(rngs.params(), (patches, width)))
        self.rays_in = _linear(_RAY_FEATURES, width, rngs)
        self.pictured = nnx.Param(0.5 * jax.random.normal(rngs.params(), (width,)))
        self.planes = nnx.Param(jax.random.normal(rngs.params(), (3 * (config.texels // config.cell) ** 2, width)))
        self.layers = nnx.List([_Layer(width, config.head_size, rngs) for _ in range(config.depth)])
        self.cells_out = _linear(width, side_out**2 * config.features, rngs, init=_FAINT)
        self.read_in = _linear(3 * config.features, config.hidden, rngs)
        self.read_on = _linear(config.hidden, config.hidden, rngs)
        self.read_out = _linear(config.hidden, 4, rngs)
        self._config, self._dtype = config, dtype

    def __call__(
        self,
        views: Float[Array, "b v h w c"],
        camera_from_world: Float[Array, "b v 4 4"],
        seen: Bool[Array, "b v"] | None = None,
        whole: Bool[Array, "b v"] | None = None,
    ) -> Float[Array, "b 3 s s f"]:
        """Planes of features; the same for any order of the views.

        Args:
          views: in [-1, 1].
          camera_from_world: poses, OpenCV axes, in the frame that the planes lie in.
          seen: which views there are; what the others hold does not matter. None: all.
          whole: views of which all channels are known, not only those of a photograph. None: all.

        Returns:
          Planes along (x, y), (x, z), (z, y); the first axis of a pair runs along the width, from its lowest value on.
        """
        config = self._config
        b, v = views.shape[:2]
        whole = jnp.ones((b, v), bool) if whole is None else whole
        seen = jnp.ones((b, v), bool) if seen is None else seen
        tokens = self._look(views, camera_from_world, whole)
        planes = jnp.broadcast_to(self.planes[...].astype(self._dtype), (b, *self.planes[...].shape))
        kept = jnp.repeat(seen, tokens.shape[1] // v, axis=1).astype(self._dtype)
        kept = jnp.concatenate([kept, jnp.ones(planes.shape[:2], self._dtype)], axis=1)
        x = jnp.concatenate([tokens, planes], axis=1)
        for layer in self.layers:
            x = layer(x, kept)
        cells = self.cells_out(root_mean_square_norm(x[:, tokens.shape[1] :])).astype(jnp.float32)
        side = (config.texels, config.texels)
        planes = fold(cells.reshape(b * 3, -1, cells.shape[-1]), side, config.cell, config.plane_rim)
        return planes.reshape(b, 3, *side, config.features)

    def _look(self, views, camera_from_world, whole):
        """Tokens of the views' patches, view after view."""
        config, dtype = self._config, self._dtype
        b, v = views.shape[:2]
        pictured = np.isin(np.arange(config.channels), config.pictured)[None, None, None, None]
        views = jnp.where(whole[..., None, None, None] | pictured, views, 0.0).astype(dtype)
        tokens = self.patches_in(unfold(views.reshape(b * v, *views.shape[2:]), config.patch, config.view_rim))
        rays = with_waves(cell_rays(camera_from_world, config.size // config.patch, config.field_of_view))
        tokens = tokens.reshape(b, v, -1, config.width) + self.rays_in(rays.astype(dtype))
        tokens = tokens + self.place[...].astype(dtype)[None, None]
        tokens = tokens + (~whole).astype(dtype)[..., None, None] * self.pictured[...].astype(dtype)[None, None, None]
        return tokens.reshape(b, -1, config.width)

    def read(self, features: Float[Array, "*n f"]) -> tuple[Float[Array, "*n"], Float[Array, "*n 3"]]:
        """Signed distance in metres, negative inside, meant to be cut off at the reach; colour in [0, 1].

        Args:
          features: of points, those of the three planes one after the other.
        """
        hidden = jax.nn.relu(self.read_on(jax.nn.relu(self.read_in(features))))
        out = self.read_out(hidden)
        return self._config.reach * (1 + out[..., 0]), jax.nn.sigmoid(out[..., 1:])


def _linear(inputs, outputs, rngs, *, init=_FAN_IN, use_bias=True):
    return nnx.Linear(inputs, outputs, kernel_init=init, use_bias=use_bias, rngs=rngs)
