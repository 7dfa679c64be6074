"""Rendering of Gaussians: project, bin, composite (arXiv 2308.04079, section 6)."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.gaussians import sh_degree as stored_degree
from renderers.gaussians.projection import project
from renderers.gaussians.spherical_harmonics import sh_colors
from renderers.kernels.composite.api import Derivative, composite
from renderers.kernels.dispatch import Backend


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Rendering:
    """What a camera sees of a set of Gaussians.

    Attributes:
      color: Float["h w c"], background included.
      alpha: Float["h w"], 1 - transmittance.
      depth: Float["h w"], sum of weight times camera z (distance where `lenses.sees_sideways`); no background.
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
    mask: Bool[Array, "h w"] | None = None,
    backend: Backend | None = None,
    derivative: Derivative = "reverse",
) -> Rendering:
    """Render 3D Gaussians given by their activated parameters.

    Differentiable in every float input: Gaussians, background, and the camera's pose, focal lengths, principal point
    and distortion. Gradients to the pose are with respect to its raw upper 3x4 entries.

    Args:
      means: world units.
      quaternions: wxyz, any length; zero stands for the identity.
      scales: standard deviations, world units.
      opacities: in [0, 1].
      colors: any number of channels, blended as they are.
      camera: pinhole, orthographic or fisheye lens; pinhole and fisheye with or without distortion coefficients.
      background: colour seen through the remaining transmittance; None is black.
      antialias: compensate opacities for the blur (Mip-Splatting, arXiv 2311.16493).
      blur: pixel^2 added to the 2D variances.
      near, far: range of camera z drawn (of distance where `lenses.sees_sideways`).
      capacity: static bound on (Gaussian, tile) intersections. None: outside a trace it is counted; inside one the cpu
        backend needs none and the others take `tiling.default_capacity`, and `overflow` tells if that was not enough.
      means2d_probe: pass zeros; its cotangent is the absolute-valued gradient of means2d summed over pixels (absgrad).
      mask: pixels to draw; the others show the background alone and pass no gradient.
      backend: None takes the platform's default; an explicit one never falls back.
      derivative: "reverse" for `jax.grad`; "forward" for `jax.jvp` and `jax.jacfwd`, which pay per parameter and not
        per pixel: for Gauss-Newton over a camera.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: an orthographic camera has distortion coefficients, a lens has too many, or background and colors
        differ in channels.
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
        mask=mask,
        capacity=capacity,
        backend=backend,
        derivative=derivative,
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
    mask: Bool[Array, "h w"] | None = None,
    backend: Backend | None = None,
    derivative: Derivative = "reverse",
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
        mask=mask,
        backend=backend,
        derivative=derivative,
    )


def render_views(
    gaussians: Gaussians,
    cameras: Camera,
    *,
    keep: Callable[[Rendering, Int[Array, ""]], Any] | None = None,
    sh_degree: int | None = None,
    background: Float[Array, " c"] | None = None,
    antialias: bool = False,
    capacity: int | None = None,
    backend: Backend | None = None,
    derivative: Derivative = "reverse",
) -> Any:
    """Render many cameras one after the other, in the memory of one.

    Equal to `vmap` of `render` over the cameras. Each view is recomputed in the backward pass, so that only what is
    kept of each grows with the number of views: its whole Rendering, unless `keep` makes less of it.

        render_views(gaussians, cameras, keep=lambda seen, view: jnp.mean((seen.color - photographs[view]) ** 2))

    Args:
      gaussians: the scene.
      cameras: one record whose arrays have a leading axis of views (`stack_cameras`).
      keep: from a view's Rendering and its index to a pytree, such as an 8-bit image or a loss. Evaluated in the loop
        and differentiated through; None keeps the Rendering.
      sh_degree, background, antialias, capacity, backend, derivative: see `rasterize`; one capacity serves all views.

    Returns:
      What `keep` returns, or a Rendering; its arrays have a leading axis of views.
    """

    @jax.checkpoint
    def one(camera_and_view):
        camera, view = camera_and_view
        seen = render(
            gaussians,
            camera,
            sh_degree=sh_degree,
            background=background,
            antialias=antialias,
            capacity=capacity,
            backend=backend,
            derivative=derivative,
        )
        return seen if keep is None else keep(seen, view)

    views = cameras.focal.shape[0]
    return lax.map(one, (cameras, jnp.arange(views, dtype=jnp.int32)))
