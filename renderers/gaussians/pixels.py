"""Rendering of some pixels only: random pixels, jittered positions, rays.

A position is a continuous pixel coordinate (x, y), at which the projected Gaussians are evaluated; a pixel's centre is
at +0.5 and sees there what `rasterize` draws. Only tiles that hold positions are binned and walked.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from renderers.cameras.camera import Camera, project_camera_points
from renderers.gaussians import lenses
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.gaussians import sh_degree as stored_degree
from renderers.gaussians.projection import project
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.kernels.dispatch import Backend
from renderers.kernels.samples.api import composite_samples

_NOWHERE = -1e4  # pixels, both ways: a position outside of any image


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class PixelRendering:
    """What a camera sees of a set of Gaussians at some positions.

    Attributes:
      color: Float["*p c"], background included.
      alpha: Float["*p"], 1 - transmittance; 0 outside the image.
      depth: Float["*p"], sum of weight times camera z; no background.
      radii: Int["n 2"], half boxes in pixels, rounded up; zero if and only if culled.
      means2d: Float["n 2"], projected centres in pixels; zero where culled.
      overflow: Int[""], (Gaussian, tile) intersections dropped for want of capacity.
    """

    color: Float[Array, "*p c"]
    alpha: Float[Array, "*p"]
    depth: Float[Array, "*p"]
    radii: Int[Array, "n 2"]
    means2d: Float[Array, "n 2"]
    overflow: Int[Array, ""]

    @property
    def expected_depth(self):
        """Float["*p"]: depth / max(alpha, 1e-10), the mean camera z of what is seen."""
        return self.depth / jnp.maximum(self.alpha, 1e-10)


def pixels_of_rays(camera: Camera, directions: Float[Array, "*p 3"]) -> Float[Array, "*p 2"]:
    """Positions at which rays from the camera's centre meet the image; outside of it for rays that do not.

    The inverse of `cameras.rays.camera_rays` in the directions. Differentiable in directions and camera.

    Args:
      camera: pinhole or fisheye.
      directions: in the world's frame, of any length above 0.

    Raises:
      ValueError: an orthographic camera, all of whose rays have one direction.
    """
    if camera.model == "orthographic":
        raise ValueError("the rays of an orthographic camera differ by origin, not direction: project their origins")
    rotation = camera.camera_from_world[:3, :3]
    in_camera = jnp.einsum("ij,...j->...i", rotation, directions, precision=jax.lax.Precision.HIGHEST)
    length = jnp.sqrt(jnp.sum(in_camera * in_camera, -1, keepdims=True))
    in_camera = in_camera / length
    pixels = project_camera_points(camera, in_camera)
    ahead = (in_camera[..., 2] > 0) | (camera.model == "fisheye")
    x, y, z = in_camera.reshape(-1, 3).T
    before_fold = lenses.imaged(x, y, z, camera).reshape(ahead.shape)
    return jnp.where((ahead & before_fold)[..., None], pixels, _NOWHERE)


def rasterize_pixels(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    colors: Float[Array, "n c"],
    camera: Camera,
    pixels: Float[Array, "*p 2"],
    *,
    background: Float[Array, " c"] | None = None,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    means2d_probe: Float[Array, "n 2"] | None = None,
    backend: Backend | None = None,
) -> PixelRendering:
    """Render 3D Gaussians at some positions of the image.

    Equals `rasterize` at pixel centres. Differentiable (reverse mode) in every float input: Gaussians, background, the
    whole camera, and the positions.

    Args:
      means, quaternions, scales, opacities, colors, camera: see `rasterize`.
      pixels: positions (x, y), any number of leading axes, repetitions allowed. Those outside the image, and those that
        are not finite, see the background.
      background, antialias, blur, near, far: see `rasterize`.
      capacity: static bound on intersections of Gaussians with tiles that hold positions. None: outside a trace it is
        counted; inside one the cpu backend needs none and xla takes a bound that `overflow` may exceed.
      means2d_probe: pass zeros; its cotangent is the absolute-valued gradient of means2d summed over the positions.
      backend: None takes the platform's default; there are no Pallas kernels for this.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: coefficients that the lens model does not have, or background and colors differ in channels.
    """
    dtype, channels = means.dtype, colors.shape[-1]
    if background is not None and background.shape[-1] != channels:
        raise ValueError(f"expected a background of {channels} channels like the colors, got {background.shape[-1]}")
    camera = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), camera)
    projected = project(
        means, quaternions, scales, opacities, camera, antialias=antialias, blur=blur, near=near, far=far
    )
    blended = composite_samples(
        projected.means2d,
        projected.conics,
        projected.opacities,
        jnp.concatenate([colors, projected.depths[:, None]], 1),
        projected.extents,
        projected.depths,
        pixels.astype(dtype).reshape(-1, 2),
        size=camera.size,
        probe=means2d_probe,
        capacity=capacity,
        backend=backend,
    )
    color, transmittance = blended.values[:, :-1], blended.transmittance
    if background is not None:
        color = color + transmittance[:, None] * background.astype(dtype)[None]
    shape = pixels.shape[:-1]
    return PixelRendering(
        color=color.reshape(*shape, channels),
        alpha=1 - transmittance.reshape(shape),
        depth=blended.values[:, -1].reshape(shape),
        radii=projected.radii,
        means2d=projected.means2d,
        overflow=blended.overflow,
    )


def render_pixels(
    gaussians: Gaussians,
    camera: Camera,
    pixels: Float[Array, "*p 2"],
    *,
    sh_degree: int | None = None,
    background: Float[Array, " c"] | None = None,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    means2d_probe: Float[Array, "n 2"] | None = None,
    backend: Backend | None = None,
) -> PixelRendering:
    """Render a splat scene at some positions: activate its parameters, evaluate its colours, rasterize.

    Args:
      gaussians: the scene.
      camera: see `rasterize`.
      pixels: see `rasterize_pixels`, as for the other arguments.
      sh_degree: bands to use, static; None uses all that the record has.
    """
    degree = stored_degree(gaussians) if sh_degree is None else sh_degree
    pose = jax.tree.map(lambda leaf: jnp.asarray(leaf, gaussians.means.dtype), camera)
    return rasterize_pixels(
        gaussians.means,
        gaussians.quaternions,
        jnp.exp(gaussians.log_scales),
        jax.nn.sigmoid(gaussians.opacity_logits),
        sh_colors(gaussians.sh, gaussians.means, pose, degree),
        camera,
        pixels,
        background=background,
        antialias=antialias,
        blur=blur,
        near=near,
        far=far,
        capacity=capacity,
        means2d_probe=means2d_probe,
        backend=backend,
    )
