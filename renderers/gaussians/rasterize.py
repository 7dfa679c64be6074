"""Rendering of Gaussians: project, bin, composite (arXiv 2308.04079, section 6)."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.gaussians import sh_degree as stored_degree
from renderers.gaussians.projection import project
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.kernels.composite.api import composite
from renderers.kernels.dispatch import Backend


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Rendering:
    """What a camera sees of a set of Gaussians.

    Attributes:
      color: Float["h w c"], background included.
      alpha: Float["h w"], 1 - transmittance.
      depth: Float["h w"], sum of weight times camera z; no background.
      radii: Int["n 2"], half boxes in pixels, rounded up; zero if and only if culled.
      means2d: Float["n 2"], projected centres in pixels; zero where culled.
      overflow: Int[""], (Gaussian, tile) intersections dropped for want of capacity.
    """

    color: Float[Array, "h w c"]
    alpha: Float[Array, "h w"]
    depth: Float[Array, "h w"]
    radii: Int[Array, "n 2"]
    means2d: Float[Array, "n 2"]
    overflow: Int[Array, ""]

    @property
    def expected_depth(self):
        """Float["h w"]: depth / max(alpha, 1e-10), the mean camera z of what is seen."""
        return self.depth / jnp.maximum(self.alpha, 1e-10)


def rasterize(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    colors: Float[Array, "n c"],
    camera: Camera,
    *,
    background: Float[Array, " c"] | None = None,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    means2d_probe: Float[Array, "n 2"] | None = None,
    backend: Backend | None = None,
) -> Rendering:
    """Render 3D Gaussians given by their activated parameters.

    Differentiable (reverse mode) in every float input: Gaussians, background, and the camera's pose, focal lengths and
    principal point. Gradients to the pose are with respect to its raw upper 3x4 entries.

    Args:
      means: world units.
      quaternions: wxyz, any length; zero stands for the identity.
      scales: standard deviations, world units.
      opacities: in [0, 1].
      colors: any number of channels, blended as they are.
      camera: ideal pinhole, orthographic or fisheye lens.
      background: colour seen through the remaining transmittance; None is black.
      antialias: compensate opacities for the blur (Mip-Splatting, arXiv 2311.16493).
      blur: pixel^2 added to the 2D variances.
      near, far: range of camera z drawn.
      capacity: static bound on (Gaussian, tile) intersections. None: outside a trace it is counted; inside one the cpu
        backend needs none and the others take `tiling.default_capacity`, and `overflow` tells if that was not enough.
      means2d_probe: pass zeros; its cotangent is the absolute-valued gradient of means2d summed over pixels (absgrad).
      backend: None takes the platform's default; an explicit one never falls back.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: the camera has distortion coefficients, or background and colors differ in channels.
    """
    dtype = means.dtype
    if background is not None and background.shape[-1] != colors.shape[-1]:
        raise ValueError(
            f"expected a background of {colors.shape[-1]} channels like the colors, got {background.shape[-1]}"
        )
    camera = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), camera)
    projected = project(
        means, quaternions, scales, opacities, camera, antialias=antialias, blur=blur, near=near, far=far
    )
    blended = composite(
        projected.means2d,
        projected.conics,
        projected.opacities,
        jnp.concatenate([colors, projected.depths[:, None]], 1),
        projected.extents,
        projected.depths,
        size=camera.size,
        probe=means2d_probe,
        capacity=capacity,
        backend=backend,
    )
    color, depth = blended.image[..., :-1], blended.image[..., -1]
    if background is not None:
        color = color + blended.transmittance[..., None] * background.astype(dtype)[None, None]
    return Rendering(
        color=color,
        alpha=1 - blended.transmittance,
        depth=depth,
        radii=projected.radii,
        means2d=projected.means2d,
        overflow=blended.overflow,
    )


def render(
    gaussians: Gaussians,
    camera: Camera,
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
) -> Rendering:
    """Render a splat scene: activate its parameters, evaluate its colours, rasterize.

    Args:
      gaussians: the scene.
      camera: see `rasterize`, as for the other arguments.
      sh_degree: bands to use, static; None uses all that the record has.
    """
    degree = stored_degree(gaussians) if sh_degree is None else sh_degree
    pose = jax.tree.map(lambda leaf: jnp.asarray(leaf, gaussians.means.dtype), camera)
    return rasterize(
        gaussians.means,
        gaussians.quaternions,
        jnp.exp(gaussians.log_scales),
        jax.nn.sigmoid(gaussians.opacity_logits),
        sh_colors(gaussians.sh, gaussians.means, pose, degree),
        camera,
        background=background,
        antialias=antialias,
        blur=blur,
        near=near,
        far=far,
        capacity=capacity,
        means2d_probe=means2d_probe,
        backend=backend,
    )


def render_views(
    gaussians: Gaussians,
    cameras: Camera,
    *,
    sh_degree: int | None = None,
    background: Float[Array, " c"] | None = None,
    antialias: bool = False,
    capacity: int | None = None,
    backend: Backend | None = None,
) -> Rendering:
    """Render many cameras one after the other, in the memory of one.

    Equal to `vmap` of `render` over the cameras. Each view is recomputed in the backward pass, so that only the images
    grow with the number of views.

    Args:
      gaussians: the scene.
      cameras: one record whose arrays have a leading axis of views (`stack_cameras`).
      sh_degree, background, antialias, capacity, backend: see `rasterize`; one capacity serves all views.

    Returns:
      A Rendering whose arrays have a leading axis of views.
    """

    @jax.checkpoint
    def one(camera):
        return render(
            gaussians,
            camera,
            sh_degree=sh_degree,
            background=background,
            antialias=antialias,
            capacity=capacity,
            backend=backend,
        )

    return lax.map(one, cameras)
