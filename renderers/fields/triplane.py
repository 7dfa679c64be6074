"""Tri-planes: features of a point from its projections on three axis-aligned planes.

The planes lie along (x, y), (x, z) and (z, y), as in EG3D (arXiv 2112.07945) since the correction of its published
code, whose third plane was (z, x), the second one transposed. The first axis of a pair runs along a plane's width.
Points are in [-1, 1]^3; features of planes are zero outside.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from renderers.kernels.dispatch import Backend
from renderers.kernels.plane_sample.api import sample_planes

PLANE_AXES = ((0, 1), (0, 2), (2, 1))
Aggregation = Literal["mean", "sum", "concat", "product"]


def plane_coordinates(points: Float[Array, "n 3"]) -> Float[Array, "3 n 2"]:
    """Projections of points on the planes."""
    return jnp.stack([points[:, jnp.asarray(axes)] for axes in PLANE_AXES])


def sample_triplane(
    planes: Float[Array, "3 h w c"],
    points: Float[Array, "n 3"],
    *,
    aggregation: Aggregation = "concat",
    backend: Backend | None = None,
) -> Float[Array, "n f"]:
    """Features of points from given planes, as a generator makes them. Differentiable in both, twice.

    Args:
      planes: (x, y), (x, z), (z, y); see `kernels.plane_sample` for where texels lie.
      points: in [-1, 1]^3.
      aggregation: "concat" (LRM; plane after plane, f = 3 c), "mean" (EG3D), "sum" (GET3D), or "product" (K-Planes,
        arXiv 2301.10241, equation 1), the last three with f = c.
      backend: of the kernel; None takes the platform's default.
    """
    features = sample_planes(planes, plane_coordinates(points), backend=backend)
    if aggregation == "concat":
        return jnp.moveaxis(features, 0, 1).reshape(len(points), 3 * planes.shape[3])
    if aggregation == "mean":
        return (features[0] + features[1] + features[2]) / 3
    if aggregation == "sum":
        return features[0] + features[1] + features[2]
    if aggregation == "product":
        return features[0] * features[1] * features[2]
    raise ValueError(f"expected aggregation mean, sum, concat or product, got {aggregation!r}")


def planes_total_variation(planes: Float[Array, "p h w c"]) -> Float[Array, ""]:
    """Mean squared difference of texels that are neighbours, along the height and along the width, added.

    The smoothness term of LRM (arXiv 2311.04400) and TensoRF (arXiv 2203.09517, section 4.2); 0 for constant planes.
    """
    return _mean_squared_difference(planes, 1) + _mean_squared_difference(planes, 2)


class TriPlane(nnx.Module):
    """Learnable tri-planes at one or several resolutions, whose features are joined one after the other."""

    def __init__(
        self,
        resolutions: tuple[int, ...] = (256,),
        channels: int = 16,
        *,
        aggregation: Aggregation = "concat",
        scale: float = 0.1,
        backend: Backend | None = None,
        rngs: nnx.Rngs,
    ):
        """Texels start normal with deviation `scale` (TensoRF's 0.1), for products uniform in 0.1 .. 0.5 (K-Planes).

        Args:
          resolutions: texels along an edge of the square planes, of each scale.
          channels: of a texel.
          aggregation: of the three planes; see `sample_triplane`.
          scale: standard deviation at the start.
          backend: of the kernel; None takes the platform's default.
          rngs: stream `params`.
        """
        self.aggregation: Aggregation = aggregation
        self.backend: Backend | None = backend
        self.num_features = len(resolutions) * channels * (3 if aggregation == "concat" else 1)
        planes = []
        for resolution in resolutions:
            shape = (3, resolution, resolution, channels)
            if aggregation == "product":
                start = jax.random.uniform(rngs.params(), shape, jnp.float32, 0.1, 0.5)
            else:
                start = scale * jax.random.normal(rngs.params(), shape, jnp.float32)
            planes.append(nnx.Param(start))
        self.planes = nnx.List(planes)

    def __call__(self, points: Float[Array, "*n 3"]) -> Float[Array, "*n f"]:
        """Features of points in [-1, 1]^3, coarsest resolution as given first."""
        flat = points.reshape(-1, 3)
        features = [
            sample_triplane(planes[...], flat, aggregation=self.aggregation, backend=self.backend)
            for planes in self.planes
        ]
        return jnp.concatenate(features, 1).reshape(*points.shape[:-1], self.num_features)

    def total_variation(self) -> Float[Array, ""]:
        """Sum over the resolutions of `planes_total_variation`."""
        total = jnp.zeros((), jnp.float32)
        for planes in self.planes:
            total = total + planes_total_variation(planes[...])
        return total


def _mean_squared_difference(values: jax.Array, axis: int) -> jax.Array:
    """Zero along an axis of one entry, which has no neighbours."""
    if values.shape[axis] < 2:
        return jnp.zeros((), values.dtype)
    return jnp.mean(jnp.diff(values, axis=axis) ** 2)
