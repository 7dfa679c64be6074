"""A radiance field: density and view-dependent colour of points in space, over any encoding."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from renderers.fields.heads import ColorHead, DensityActivation, Encoding, Mlp, density_activation, density_blob
from renderers.volumes.contraction import Shape, contract

Interval = Literal["unit", "signed"]
Encode = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Domain:
    """How world points reach an encoding.

    Attributes:
      low, high: corners of the box of interest in the world.
      contraction: None: the box is all there is, and density outside it is zero. "sphere" or "cube": space outside the
        unit ball or cube of the box's own coordinates, where the box is [-1, 1]^3, is contracted to twice its radius.
      interval: that the encoding's coordinates fill, "unit" [0, 1] or "signed" [-1, 1].
    """

    low: tuple[float, float, float] = (-1.0, -1.0, -1.0)
    high: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contraction: Shape | None = None
    interval: Interval = "unit"

    def __call__(self, points: Float[Array, "n 3"]) -> tuple[Float[Array, "n 3"], Bool[Array, " n"]]:
        """Coordinates for the encoding, and which points the field has anything to say about."""
        low, high = (jnp.asarray([corner], points.dtype) for corner in (self.low, self.high))
        signed = (points - low) / (high - low) * 2 - 1
        inside = jnp.all(jnp.abs(signed) <= 1, -1)
        if self.contraction is not None:
            signed, inside = contract(signed, self.contraction) / 2, jnp.ones_like(inside)
        return (signed if self.interval == "signed" else (signed + 1) / 2), inside


@dataclasses.dataclass(frozen=True)
class Blob:
    """Bias of the density towards the origin, see `heads.density_blob`; for fields that start from no picture."""

    kind: Literal["gaussian", "linear"] = "linear"
    scale: float = 10.0
    radius: float = 0.5


class NerfField(nnx.Module):
    """Density per metre and colour of points seen along directions."""

    def __init__(
        self,
        encoding: Encoding,
        *,
        domain: Domain = Domain(),  # noqa: B008 - frozen
        direction_encoding: Encoding | None = None,
        width: int = 64,
        depth: int = 1,
        num_features: int = 15,
        color_width: int = 64,
        color_depth: int = 2,
        activation: DensityActivation = "exp",
        density_offset: float = -1.0,
        blob: Blob | None = None,
        appearances: int = 0,
        rngs: nnx.Rngs,
    ):
        """Instant-NGP's heads by default (arXiv:2201.05989, section 5.4).

        Args:
            encoding: of points; any module with `num_features`.
            domain: how world points reach it.
            direction_encoding: of unit viewing directions, `heads.DirectionHarmonics(3)` say; None: no view dependence.
            width: of the density network's hidden layers.
            depth: number of them.
            num_features: that the density network passes to the colour network.
            color_width: of the colour network's hidden layers.
            color_depth: number of them.
            activation: of the density.
            density_offset: added before it; -1 begins with space nearly clear.
            blob: bias of the density towards the origin.
            appearances: number of photographs with an embedding of their own.
            rngs: stream `params`.
        """
        self.encoding = encoding
        self.domain, self.density_offset, self.blob = domain, density_offset, blob
        self.activation: DensityActivation = activation
        self.trunk = Mlp(encoding.num_features, 1 + num_features, width=width, depth=depth, rngs=rngs)
        self.color_head = ColorHead(
            num_features,
            direction_encoding=direction_encoding,
            width=color_width,
            depth=color_depth,
            appearances=appearances,
            rngs=rngs,
        )

    def density_and_features(
        self, points: Float[Array, "n 3"], *, encode: Encode | None = None
    ) -> tuple[Float[Array, " n"], Float[Array, "n f"]]:
        """Density per metre, zero outside the domain, and what the colour network reads; `encode` as for calls."""
        coordinates, inside = self.domain(points)
        outputs = self.trunk((encode or self.encoding)(coordinates))
        raw = outputs[:, 0]
        if self.blob is not None:
            raw = raw + density_blob(points, self.blob.kind, self.blob.scale, self.blob.radius)
        density = density_activation(raw, self.activation, self.density_offset)
        return jnp.where(inside, density, 0.0), outputs[:, 1:]

    def density(self, points: Float[Array, "n 3"], *, encode: Encode | None = None) -> Float[Array, " n"]:
        """Density per metre alone, as occupancy grids and meshes want it."""
        return self.density_and_features(points, encode=encode)[0]

    def __call__(
        self,
        points: Float[Array, "n 3"],
        directions: Float[Array, "n 3"],
        appearance: Int[Array, " n"] | None = None,
        *,
        encode: Encode | None = None,
    ) -> tuple[Float[Array, " n"], Float[Array, "n c"]]:
        """Density per metre and colour in [0, 1].

        Args:
            points: world units.
            directions: unit vectors from the camera to the points.
            appearance: number of the photograph of each point's ray; None: the mean of all.
            encode: takes the encoding's place, as `lambda x: field.encoding(x, level_weights=...)` does to open its
                levels one by one.
        """
        density, features = self.density_and_features(points, encode=encode)
        return density, self.color_head(features, directions, appearance)


class DensityField(nnx.Module):
    """Density alone, small: a proposal that says where samples are worth while (mip-NeRF 360, arXiv:2111.12077)."""

    def __init__(
        self,
        encoding: Encoding,
        *,
        domain: Domain = Domain(),  # noqa: B008 - frozen
        width: int = 32,
        depth: int = 1,
        activation: DensityActivation = "exp",
        density_offset: float = -1.0,
        rngs: nnx.Rngs,
    ):
        """As `NerfField`, without a colour."""
        self.encoding, self.domain = encoding, domain
        self.activation: DensityActivation = activation
        self.density_offset = density_offset
        self.trunk = Mlp(encoding.num_features, 1, width=width, depth=depth, rngs=rngs)

    def __call__(self, points: Float[Array, "*n 3"]) -> Float[Array, "*n"]:
        """Density per metre, zero outside the domain."""
        coordinates, inside = self.domain(points.reshape(-1, 3))
        raw = self.trunk(self.encoding(coordinates))[:, 0]
        density = density_activation(raw, self.activation, self.density_offset)
        return jnp.where(inside, density, 0.0).reshape(points.shape[:-1])
