"""Rays of a camera, with the width of each pixel's cone.

A ray is `origin + t * direction`, direction of length one, so t is the distance in metres from the camera's centre (not
the depth). The pixel's footprint at t is a disc of radius `base_radius + t * radius`: perspective cameras have base
radius 0, orthographic ones radius 0. The disc has the variance of the pixel's area, `radius = 2 / sqrt(12) * width`
(mip-NeRF, arXiv:2103.13415, section 3.1), the width being the geometric mean of the two sides.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from renderers.cameras.camera import Camera, camera_center, unproject, viewing_directions

_DISC_RADIUS_PER_WIDTH = 2.0 / 12.0**0.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Rays:
    """World-frame rays.

    Attributes:
        origins: starting points in metres.
        directions: unit vectors.
        radii: growth of the footprint's radius per metre along the ray.
        base_radii: radius of the footprint at the origin, metres.
        valid: False where the lens does not image that pixel (see `viewing_directions`).
    """

    origins: Float[Array, "*n 3"]
    directions: Float[Array, "*n 3"]
    radii: Float[Array, "*n"]
    base_radii: Float[Array, "*n"]
    valid: Bool[Array, "*n"]


def pixel_grid(camera: Camera) -> Float[Array, "h w 2"]:
    """Centres (column, row) of all pixels: `(0.5, 0.5)` first."""
    height, width = camera.size
    dtype = camera.focal.dtype
    rows, columns = jnp.meshgrid(
        jnp.arange(height, dtype=dtype) + 0.5, jnp.arange(width, dtype=dtype) + 0.5, indexing="ij"
    )
    return jnp.stack([columns, rows], axis=-1)


def camera_rays(camera: Camera, pixels: Float[Array, "*n 2"] | None = None) -> Rays:
    """Rays through the given pixels (column, row), or through the centres of all of them in `(h, w)` order.

    `project(camera, origin + t * direction)` is the pixel again for t > 0. Differentiable in the pixels and in every
    camera parameter, distortion included; zero gradient where `valid` is False.
    """
    pixels = pixel_grid(camera) if pixels is None else pixels
    rotation = camera.camera_from_world[:3, :3]

    def origins_and_directions(at):
        directions, valid = viewing_directions(camera, at)
        world = jnp.einsum("ji,...j->...i", rotation, directions, precision=jax.lax.Precision.HIGHEST)
        if camera.model == "orthographic":
            origins = unproject(camera, at, jnp.zeros_like(at[..., 0]))
        else:
            origins = jnp.broadcast_to(camera_center(camera), world.shape)
        return (origins, world), valid

    (origins, directions), valid = origins_and_directions(pixels)
    base_radii, radii = _footprint(lambda at: origins_and_directions(at)[0], pixels)
    return Rays(origins=origins, directions=directions, radii=radii, base_radii=base_radii, valid=valid)


def ray_points(rays: Rays, distances: Float[Array, "*n"]) -> Float[Array, "*n 3"]:
    """World points at distances (metres) along the rays."""
    return rays.origins + distances[..., None] * rays.directions


def footprint_radii(rays: Rays, distances: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Radius in metres of each pixel's footprint at distances along the rays."""
    return rays.base_radii + distances * rays.radii


def _footprint(origins_and_directions, pixels):
    """Disc radii of one pixel's area, by the derivative along columns and rows: exact for any lens."""
    step = jnp.zeros_like(pixels)
    along_columns, along_rows = (
        jax.jvp(origins_and_directions, (pixels,), (step.at[..., axis].set(1.0),))[1] for axis in (0, 1)
    )
    return tuple(_disc_radius(u, v) for u, v in zip(along_columns, along_rows, strict=True))


def _disc_radius(u, v):
    normal = jnp.cross(u, v)
    squared = jnp.sum(normal * normal, axis=-1)
    positive = squared > 0.0
    width = jnp.where(positive, jnp.where(positive, squared, 1.0) ** 0.25, 0.0)
    return _DISC_RADIUS_PER_WIDTH * width
