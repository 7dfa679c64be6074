"""Rays of pixels in the camera's frame, in the form in which triangles are met (`kernels.triangle_raster`)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from renderers.cameras import distortion
from renderers.cameras.camera import Camera, viewing_directions
from renderers.cameras.rays import pixel_grid
from renderers.kernels.triangle_raster.reference import Projection

_PROJECTIONS: dict[str, Projection] = {"pinhole": "perspective", "orthographic": "parallel", "fisheye": "spherical"}


def projection_of(camera: Camera) -> Projection:
    """How rays of the camera meet triangles."""
    return _PROJECTIONS[camera.model]


def pixel_rays(
    camera: Camera, pixels: Float[Array, "*n 2"] | None = None
) -> tuple[Float[Array, "*n 3"], Bool[Array, "*n"]]:
    """Rays (dx, dy, 1) of a pinhole, (X, Y, 0) parallel to z of an orthographic camera, unit vectors of a fisheye.

    Differentiable in pixels, focal, principal and distortion. The pose is not read.

    Args:
      camera: with its lens.
      pixels: (column, row), centres at +0.5; None: the centres of all, [h, w].

    Returns:
      Rays, and which pixels the lens images at all (see `cameras.camera.viewing_directions`).
    """
    pixels = pixel_grid(camera) if pixels is None else pixels
    if camera.model == "fisheye":
        return viewing_directions(camera, pixels)
    p = (pixels[..., 0] - camera.principal[0]) / camera.focal[0]
    q = (pixels[..., 1] - camera.principal[1]) / camera.focal[1]
    valid = jnp.ones(p.shape, bool)
    if camera.model == "orthographic":
        return jnp.stack([p, q, jnp.zeros_like(p)], -1), valid
    if camera.distortion is not None:
        plane, valid = distortion.undistort_brown(camera.distortion, jnp.stack([p, q], -1))
        p, q = plane[..., 0], plane[..., 1]
    return jnp.stack([p, q, jnp.ones_like(p)], -1), valid
