"""Small networks behind an encoding, and the activations that make a density or a colour of their outputs."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from renderers.harmonics import sh_basis

DensityActivation = Literal["exp", "softplus"]
_STEEPEST = 15.0  # of the exponential's argument, for its gradient: exp(15) is 3e6 per metre, opaque in any step


@runtime_checkable
class Encoding(Protocol):
    """What turns points (or directions) into features: any module that says how many."""

    num_features: int

    def __call__(self, points: Array, /) -> Array:
        """Features `[n, num_features]` of points `[n, 3]`."""
        ...


@jax.custom_jvp
def truncated_exp(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """exp(x), with a derivative that stops growing at x = 15: one sample inside a wall cannot blow a step up.

    Instant-NGP's (arXiv:2201.05989) density activation. The value is limited too, at x = 80, where float32 ends.
    """
    return jnp.exp(jnp.minimum(x, 80.0))


@truncated_exp.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return truncated_exp(x), jnp.exp(jnp.minimum(x, _STEEPEST)) * dx


def density_activation(x: Float[Array, "*n"], kind: DensityActivation, offset: float = 0.0) -> Float[Array, "*n"]:
    """Density per metre of a network's output: truncated exp or softplus of `x + offset`."""
    if kind == "exp":
        return truncated_exp(x + offset)
    if kind == "softplus":
        return jax.nn.softplus(x + offset)
    raise ValueError(f"expected density activation exp or softplus, got {kind!r}")


def density_blob(
    points: Float[Array, "*n 3"], kind: Literal["gaussian", "linear"], scale: float, radius: float
) -> Float[Array, "*n"]:
    """Bias towards matter about the origin, added to a network's output before its activation.

    "gaussian" is scale exp(-|x|^2 / (2 radius^2)) (DreamFusion, arXiv:2209.14988, section 3.2: scale 5, radius 0.2,
    with exp), "linear" scale (1 - |x| / radius) (Magic3D, arXiv:2211.10440, section 4.1: 10, 0.5, with softplus).
    """
    squared = jnp.sum(points * points, -1)
    if kind == "gaussian":
        return scale * jnp.exp(-squared / (2 * radius * radius))
    if kind == "linear":
        apart = squared > 0
        return scale * (1 - jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0) / radius)
    raise ValueError(f"expected a blob that is gaussian or linear, got {kind!r}")


class DirectionHarmonics(nnx.Module):
    """Spherical harmonics of unit directions, bands 0 .. degree (at most 4): an encoding without parameters."""

    def __init__(self, degree: int = 3):
        self.degree = degree
        self.num_features = (degree + 1) ** 2

    def __call__(self, directions: Float[Array, "*n 3"]) -> Float[Array, "*n k"]:
        """Values of the (degree + 1)^2 basis functions."""
        return sh_basis(directions, self.degree)


class Mlp(nnx.Module):
    """A multilayer perceptron, hidden layers all of one width; no activation after the last layer."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int = 64,
        depth: int = 1,
        activation: Callable[[Array], Array] = jax.nn.relu,
        use_bias: bool = True,
        last_init: Any = None,
        rngs: nnx.Rngs,
    ):
        """He initialisation but for the last layer.

        Args:
            in_features: of the input.
            out_features: of the output.
            width: of hidden layers.
            depth: number of hidden layers; 0 is a linear map.
            activation: after each of them.
            use_bias: whether layers have biases, which start at zero.
            last_init: initializer of the last kernel; None is LeCun's normal.
            rngs: stream `params`.
        """
        sizes = [in_features, *[width] * depth, out_features]
        last = nnx.initializers.lecun_normal() if last_init is None else last_init
        inits = [nnx.initializers.he_normal()] * depth + [last]
        self.activation = activation
        self.layers = nnx.List(
            nnx.Linear(a, b, use_bias=use_bias, kernel_init=init, rngs=rngs)
            for a, b, init in zip(sizes[:-1], sizes[1:], inits, strict=True)
        )

    def __call__(self, features: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        """Outputs, one row a row of the input."""
        *hidden, last = self.layers
        for layer in hidden:
            features = self.activation(layer(features))
        return last(features)


class ColorHead(nnx.Module):
    """Colour in [0, 1] from a point's features, and what else it depends on: direction, the photograph's appearance."""

    def __init__(
        self,
        num_features: int,
        *,
        direction_encoding: Encoding | None = None,
        width: int = 64,
        depth: int = 2,
        channels: int = 3,
        appearances: int = 0,
        appearance_features: int = 16,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        """Logistic outputs, widened by 0.001 at both ends so that black and white can be reached.

        Args:
            num_features: of the point.
            direction_encoding: of unit viewing directions; None makes the colour the same from everywhere.
            width: of hidden layers.
            depth: number of hidden layers.
            channels: of the colour.
            appearances: number of photographs that have an embedding of their own (NeRF in the Wild,
                arXiv:2008.02268, section 4.1); 0 for none.
            appearance_features: of an embedding.
            use_bias: whether layers have biases.
            rngs: stream `params`.
        """
        self.direction_encoding = direction_encoding
        inputs = num_features + (0 if direction_encoding is None else direction_encoding.num_features)
        inputs += appearance_features if appearances else 0
        start = nnx.initializers.normal(0.01)
        self.embedding = (
            nnx.Embed(appearances, appearance_features, embedding_init=start, rngs=rngs) if appearances else None
        )
        self.mlp = Mlp(inputs, channels, width=width, depth=depth, use_bias=use_bias, rngs=rngs)

    def __call__(
        self,
        features: Float[Array, "n f"],
        directions: Float[Array, "n 3"],
        appearance: Int[Array, " n"] | None = None,
    ) -> Float[Array, "n c"]:
        """Colours; `appearance` None takes the mean of all embeddings, as for a view that was not photographed."""
        parts = [features]
        if self.direction_encoding is not None:
            parts.append(self.direction_encoding(directions))
        if self.embedding is not None:
            table = self.embedding.embedding[...]
            mean = jnp.broadcast_to(jnp.mean(table, 0), (len(features), table.shape[1]))
            parts.append(mean if appearance is None else self.embedding(appearance))
        return jax.nn.sigmoid(self.mlp(jnp.concatenate(parts, -1))) * 1.002 - 0.001


class Background(nnx.Module):
    """Colour in [0, 1] of what lies behind everything, by viewing direction alone (an environment map)."""

    def __init__(
        self,
        *,
        direction_encoding: Encoding | None = None,
        width: int = 16,
        depth: int = 2,
        channels: int = 3,
        rngs: nnx.Rngs,
    ):
        """Two hidden layers of 16 over harmonics to degree 3, unless said otherwise: it must not learn the object."""
        self.direction_encoding = DirectionHarmonics(3) if direction_encoding is None else direction_encoding
        self.mlp = Mlp(self.direction_encoding.num_features, channels, width=width, depth=depth, rngs=rngs)

    def __call__(self, directions: Float[Array, "*n 3"]) -> Float[Array, "*n c"]:
        """Colours of unit directions."""
        return jax.nn.sigmoid(self.mlp(self.direction_encoding(directions)))
