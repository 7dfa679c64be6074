"""A signed-distance field: distance to a learned surface, negative inside, with colour; starts as a sphere."""

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from renderers.fields.heads import ColorHead, Encoding
from renderers.fields.nerf import Domain
from renderers.fields.normals import unit

_SOFTPLUS = 100.0  # steepness: a ReLU whose second derivative exists, for the eikonal loss
_RIDGE = 1e-2  # keeps the fitted weights near each other; with 64 units the fit is still good to a percent on average


class SphereMlp(nnx.Module):
    """A multilayer perceptron of points and features that starts as the distance to a sphere, whatever the features.

    Geometric initialisation (SAL, arXiv:1911.10414, theorem 1; IDR, arXiv:2003.09852, section 5): a sum of ReLUs along
    directions that are spread evenly is a multiple of |x|. What random hidden layers and the softplus add to that is
    taken out again by fitting the last layer's weights, so that narrow networks are round as well. Features begin with
    weight zero.
    """

    def __init__(
        self,
        num_features: int,
        out_features: int,
        *,
        width: int = 64,
        depth: int = 2,
        radius: float = 0.5,
        rngs: nnx.Rngs,
    ):
        """Hidden layers of softplus(100 x) / 100.

        Args:
            num_features: beside the three coordinates.
            out_features: beside the distance.
            width: of hidden layers.
            depth: number of them, at least 1.
            radius: of the sphere, in the points' unit.
            rngs: stream `params`.

        Raises:
            ValueError: no hidden layer.
        """
        if depth < 1:
            raise ValueError(f"expected at least one hidden layer, got depth {depth}: a linear map is no sphere")
        init = nnx.initializers.normal(math.sqrt(2.0 / width))
        inputs = 3 + num_features
        self.first = nnx.Linear(inputs, width, rngs=rngs)
        # by 6 / width the outputs of the first layer are together as long as the point
        spread = even_directions(width).T * math.sqrt(6.0 / width)
        self.first.kernel[...] = jnp.zeros((inputs, width)).at[:3].set(spread)
        self.hidden = nnx.List(nnx.Linear(width, width, kernel_init=init, rngs=rngs) for _ in range(depth - 1))
        bias = jnp.zeros(1 + out_features).at[0].set(-radius)
        self.last = nnx.Linear(width, 1 + out_features, bias_init=lambda *_: bias, rngs=rngs)
        self.last.kernel[...] = self.last.kernel[...].at[:, 0].set(self._round_weights(num_features))

    def _round_weights(self, num_features: int) -> Float[Array, " w"]:
        """Weights of the last layer by which its output is |x|, near to equal ones; ridge regression."""
        shells = jnp.concatenate([even_directions(256) * r for r in (0.1, 0.3, 0.6, 1.0, 1.5)])
        inputs = jnp.concatenate([shells, jnp.zeros((len(shells), num_features))], -1)
        outputs, length = self._before_last(inputs), jnp.linalg.norm(shells, axis=-1)
        total = jnp.sum(outputs, -1)
        equal = jnp.full(outputs.shape[1], jnp.dot(total, length) / jnp.dot(total, total))
        normal = outputs.T @ outputs
        ridge = _RIDGE * jnp.trace(normal) / len(normal) * jnp.eye(len(normal))
        return equal + jnp.linalg.solve(normal + ridge, outputs.T @ (length - outputs @ equal))

    def _before_last(self, x):
        for layer in (self.first, *self.hidden):
            x = jax.nn.softplus(_SOFTPLUS * layer(x)) / _SOFTPLUS
        return x

    def __call__(self, points: Float[Array, "n 3"], features: Float[Array, "n f"]) -> Float[Array, "n o"]:
        """Distance first, then the other outputs."""
        return self.last(self._before_last(jnp.concatenate([points, features], -1)))


def even_directions(count: int) -> Float[Array, "n 3"]:
    """Unit vectors spread evenly over the sphere: a Fibonacci lattice."""
    index = jnp.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, math.pi * (1 + 5**0.5) * index
    radius = jnp.sqrt(1 - height**2)
    return jnp.stack([radius * jnp.cos(angle), height, radius * jnp.sin(angle)], -1)


class Sharpness(nnx.Module):
    """NeuS's s, one over the surface's deviation in metres, learned as exp(10 v) (arXiv:2106.10689, section 3.1)."""

    def __init__(self, initial: float = 20.0):
        """Learns from 20 per metre, v = 0.3, upwards as the surface sets."""
        self.v = nnx.Param(jnp.asarray(math.log(initial) / 10, jnp.float32))

    def __call__(self) -> Float[Array, ""]:
        """s, limited to 1e6 per metre."""
        return jnp.exp(jnp.minimum(10 * self.v[...], math.log(1e6)))


class LaplaceScale(nnx.Module):
    """VolSDF's beta in metres, learned as |b| + 1e-4 (arXiv:2106.12052, section 3.1)."""

    def __init__(self, initial: float = 0.1, smallest: float = 1e-4):
        """Learns from 0.1 m downwards."""
        self.smallest = smallest
        self.b = nnx.Param(jnp.asarray(initial - smallest, jnp.float32))

    def __call__(self) -> Float[Array, ""]:
        """beta."""
        return jnp.abs(self.b[...]) + self.smallest


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class SurfacePoints:
    """What a signed-distance field says of points.

    Attributes:
      distance: to the surface, metres, negative inside.
      gradient: of the distance by the point; of length one where the field is a true distance.
      color: in [0, 1].
    """

    distance: Float[Array, " n"]
    gradient: Float[Array, "n 3"]
    color: Float[Array, "n c"]


class SdfField(nnx.Module):
    """Signed distance in metres, and colour by place, normal and direction (IDR, arXiv:2003.09852)."""

    def __init__(
        self,
        encoding: Encoding,
        *,
        domain: Domain = Domain(),  # noqa: B008 - frozen
        direction_encoding: Encoding | None = None,
        width: int = 64,
        depth: int = 2,
        num_features: int = 15,
        color_width: int = 64,
        color_depth: int = 2,
        radius: float = 0.5,
        appearances: int = 0,
        rngs: nnx.Rngs,
    ):
        """A sphere about the middle of the box, to start with.

        Args:
            encoding: of points, with derivatives of second order; any module with `num_features`.
            domain: how world points reach it; the distance itself is taken in the world.
            direction_encoding: of unit viewing directions; None: no view dependence.
            width: of the distance network's hidden layers.
            depth: number of them.
            num_features: that the distance network passes to the colour network.
            color_width: of the colour network's hidden layers.
            color_depth: number of them.
            radius: of the first sphere, metres.
            appearances: number of photographs with an embedding of their own.
            rngs: stream `params`.
        """
        self.encoding, self.domain = encoding, domain
        self.size = max(b - a for a, b in zip(domain.low, domain.high, strict=True)) / 2
        self.trunk = SphereMlp(
            encoding.num_features, num_features, width=width, depth=depth, radius=radius / self.size, rngs=rngs
        )
        self.color_head = ColorHead(
            num_features + 6,
            direction_encoding=direction_encoding,
            width=color_width,
            depth=color_depth,
            appearances=appearances,
            rngs=rngs,
        )

    def distance_and_features(self, points: Float[Array, "n 3"]) -> tuple[Float[Array, " n"], Float[Array, "n f"]]:
        """Signed distance in metres, and what the colour network reads."""
        outputs = self.trunk(self._relative(points), self.encoding(self.domain(points)[0]))
        return outputs[:, 0] * self.size, outputs[:, 1:]

    def distance(self, points: Float[Array, "n 3"]) -> Float[Array, " n"]:
        """Signed distance in metres alone, as meshes want it."""
        return self.distance_and_features(points)[0]

    def _relative(self, points):
        center = jnp.asarray([[0.5 * (a + b) for a, b in zip(self.domain.low, self.domain.high, strict=True)]])
        return (points - center.astype(points.dtype)) / self.size

    def __call__(
        self,
        points: Float[Array, "n 3"],
        directions: Float[Array, "n 3"],
        appearance: Int[Array, " n"] | None = None,
    ) -> SurfacePoints:
        """Distance, its analytic gradient, and colour; see `NerfField` for the arguments."""
        distance, pull, features = jax.vjp(self.distance_and_features, points, has_aux=True)
        (gradient,) = pull(jnp.ones_like(distance))
        described = jnp.concatenate([features, self._relative(points), unit(gradient)], -1)
        color = self.color_head(described, directions, appearance)
        return SurfacePoints(distance=distance, gradient=gradient, color=color)
