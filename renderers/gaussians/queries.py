"""Who contributes what: the weight of each Gaussian in images, and the Gaussians behind each pixel.

A Gaussian's weight at a pixel is alpha T, its share of the blended colour (arXiv 2308.04079, Eq. 3). Sums over training
views rank Gaussians for pruning (LightGaussian, arXiv 2311.17245), maxima over pixels and views decide it by a
threshold (RadSplat, arXiv 2403.13806). No gradient flows through queries.
"""

import dataclasses
import typing
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.cameras.rays import pixel_grid
from renderers.gaussians.projection import Projected, project
from renderers.kernels.dispatch import Backend
from renderers.kernels.samples import queries as kernels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Contributions:
    """What each Gaussian contributes to one or more images.

    Attributes:
      total: Float["n"], sum over pixels of importance times weight.
      largest: Float["n"], largest importance times weight at a pixel; 0 where it is blended nowhere.
      pixels: Int["n"], pixels that it is blended into (the visible count); stays at 2^31 - 1 once there.
      views: Int["n"], images that it is blended into somewhere.
      overflow: Int[""], (Gaussian, tile) intersections dropped for want of capacity.
    """

    total: Float[Array, " n"]
    largest: Float[Array, " n"]
    pixels: Int[Array, " n"]
    views: Int[Array, " n"]
    overflow: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Contributors:
    """The Gaussians that are blended into each pixel.

    Attributes:
      count: Int["*p"], how many are blended.
      ids: Int["*p k"], k of them, -1 where there are fewer.
      weights: Float["*p k"], their weights; 0 where there are fewer.
      depths: Float["*p k"], camera z of their centres; 0 where there are fewer.
      overflow: Int[""], (Gaussian, tile) intersections dropped for want of capacity.
    """

    count: Int[Array, "*p"]
    ids: Int[Array, "*p k"]
    weights: Float[Array, "*p k"]
    depths: Float[Array, "*p k"]
    overflow: Int[Array, ""]


def contributions(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    camera: Camera,
    *,
    importance: Float[Array, "h w"] | None = None,
    mask: Bool[Array, "h w"] | None = None,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> Contributions:
    """Total weight, largest weight and visible count of each Gaussian in the image of a camera.

    Args:
      means, quaternions, scales, opacities, camera, antialias, blur, near, far: see `rasterize`.
      importance: factor on the weights of each pixel, at least 0; None is 1.
      mask: pixels to look at; None looks at all. The visible count follows the mask, not the importance.
      capacity: static bound on (Gaussian, tile) intersections, as for `rasterize`.
      backend: None takes the platform's default; there are no Pallas kernels for this.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: coefficients that the lens model does not have.
    """
    seen = _projected(means, quaternions, scales, opacities, camera, antialias, blur, near, far)
    total, largest, pixels, overflow = kernels.by_gaussian(
        seen.means2d,
        seen.conics,
        seen.opacities,
        seen.extents,
        seen.depths,
        size=camera.size,
        mask=mask,
        importance=importance,
        capacity=capacity,
        backend=backend,
    )
    views = (pixels > 0).astype(jnp.int32)
    return Contributions(total=total, largest=largest, pixels=pixels, views=views, overflow=overflow)


def contributions_to_views(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    cameras: Camera,
    *,
    importance: Float[Array, "v h w"] | None = None,
    mask: Bool[Array, "v h w"] | None = None,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> Contributions:
    """`contributions` merged over many cameras, one after the other, in the memory of one.

    Args:
      cameras: one record whose arrays have a leading axis of views (`stack_cameras`); merge groups of other sizes with
        `merge_contributions`.
      importance, mask: by view.
      capacity: one bound that serves all views; None is, as inside any trace, none for cpu and a bound that `overflow`
        may exceed for xla.
      means, quaternions, scales, opacities, antialias, blur, near, far, backend: see `contributions`.
    """

    def add(so_far, view):
        camera, importance, mask = view
        more = contributions(
            means,
            quaternions,
            scales,
            opacities,
            camera,
            importance=importance,
            mask=mask,
            antialias=antialias,
            blur=blur,
            near=near,
            far=far,
            capacity=capacity,
            backend=backend,
        )
        return merge_contributions(so_far, more), None

    zero = jnp.zeros_like(opacities)
    count = jnp.zeros_like(opacities, jnp.int32)
    none = Contributions(total=zero, largest=zero, pixels=count, views=count, overflow=jnp.zeros((), jnp.int32))
    return lax.scan(add, none, (cameras, importance, mask))[0]


def merge_contributions(a: Contributions, b: Contributions) -> Contributions:
    """Contributions to the images of both, of the same Gaussians in the same order."""
    room = jnp.iinfo(jnp.int32).max - a.pixels
    return Contributions(
        total=a.total + b.total,
        largest=jnp.maximum(a.largest, b.largest),
        pixels=a.pixels + jnp.minimum(b.pixels, room),
        views=a.views + b.views,
        overflow=a.overflow + b.overflow,
    )


def contributors(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    camera: Camera,
    *,
    k: int,
    order: Literal["weight", "depth"] = "weight",
    pixels: Float[Array, "*p 2"] | None = None,
    mask: Bool[Array, "*p"] | None = None,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> Contributors:
    """The Gaussians blended into each pixel: how many, and k of them with their weights and depths.

    Args:
      means, quaternions, scales, opacities, camera, antialias, blur, near, far: see `rasterize`.
      k: Gaussians to keep a pixel, static.
      order: "weight" keeps the k largest weights in falling order, of equal ones the nearer first; "depth" keeps the k
        nearest Gaussians that are blended, in order.
      pixels: positions (x, y) as for `rasterize_pixels`; None asks at all pixel centres, `*p` is then `h w`.
      mask: which of those to look at; the others have no contributors. None looks at all.
      capacity: static bound on intersections of Gaussians with tiles that hold positions, as for `rasterize_pixels`.
      backend: None takes the platform's default; there are no Pallas kernels for this.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: k below 1, no such order, or coefficients that the lens model does not have.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1 contributors to keep, got {k}")
    if order not in ("weight", "depth"):
        raise ValueError(f"expected an order among weight, depth; got {order!r}")
    seen = _projected(means, quaternions, scales, opacities, camera, antialias, blur, near, far)
    positions = pixel_grid(camera) if pixels is None else pixels
    shape = positions.shape[:-1]
    count, ids, weights, overflow = kernels.by_sample(
        seen.means2d,
        seen.conics,
        seen.opacities,
        seen.extents,
        seen.depths,
        positions.astype(means.dtype).reshape(-1, 2),
        size=camera.size,
        k=k,
        by_weight=order == "weight",
        drawn=None if mask is None else jnp.broadcast_to(mask, shape).reshape(-1),
        capacity=capacity,
        backend=backend,
    )
    depths = jnp.where(ids >= 0, seen.depths[ids] if len(means) else 0.0, 0.0)
    return Contributors(
        count=count.reshape(shape),
        ids=ids.reshape(*shape, k),
        weights=weights.reshape(*shape, k),
        depths=depths.astype(means.dtype).reshape(*shape, k),
        overflow=overflow,
    )


def _projected(means, quaternions, scales, opacities, camera, antialias, blur, near, far) -> Projected:
    arrays = lax.stop_gradient((means, quaternions, scales, opacities))
    camera = lax.stop_gradient(jax.tree.map(lambda leaf: jnp.asarray(leaf, means.dtype), camera))
    return project(*arrays, camera, antialias=antialias, blur=blur, near=near, far=far)
