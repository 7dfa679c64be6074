"""Rendering of 2D Gaussian surfels: project, bin, composite (arXiv 2403.17888)."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.gaussians.surfel_projection import project_surfels
from renderers.kernels.dispatch import Backend
from renderers.kernels.surfels.api import composite_surfels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class SurfelRendering:
    """What a camera sees of a set of surfels.

    Attributes:
      color: Float["h w c"], background included.
      alpha: Float["h w"], 1 - transmittance.
      depth: Float["h w"], sum of weight times camera z of the centres; no background.
      normal: Float["h w 3"], sum of weight times unit normal, world frame, towards the camera; not divided by alpha.
      distortion: Float["h w"], 2 sum_{j < i} w_i w_j (z_i - z_j), which vanishes where all weight is at one depth.
      median_depth: Float["h w"], camera z of the last centre that more than half of the light reaches; 0 where none is.
      radii: Int["n 2"], half boxes in pixels, rounded up; zero if and only if culled.
      means2d: Float["n 2"], centres of the boxes in pixels; zero where culled.
      overflow: Int[""], (surfel, tile) intersections dropped for want of capacity.
    """

    color: Float[Array, "h w c"]
    alpha: Float[Array, "h w"]
    depth: Float[Array, "h w"]
    normal: Float[Array, "h w 3"]
    distortion: Float[Array, "h w"]
    median_depth: Float[Array, "h w"]
    radii: Int[Array, "n 2"]
    means2d: Float[Array, "n 2"]
    overflow: Int[Array, ""]

    @property
    def expected_depth(self):
        """Float["h w"]: depth / max(alpha, 1e-10), the mean camera z of what is seen."""
        return self.depth / jnp.maximum(self.alpha, 1e-10)


def rasterize_surfels(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n k"],
    opacities: Float[Array, " n"],
    colors: Float[Array, "n c"],
    camera: Camera,
    *,
    background: Float[Array, " c"] | None = None,
    near: float = 0.01,
    far: float = 1e10,
    capacity: int | None = None,
    means2d_probe: Float[Array, "n 2"] | None = None,
    densification_probe: Float[Array, "n 2"] | None = None,
    mask: Bool[Array, "h w"] | None = None,
    backend: Backend | None = None,
) -> SurfelRendering:
    """Render surfels given by their activated parameters.

    Differentiable (reverse mode) in every float input: surfels, background, and the camera's pose, focal lengths and
    principal point. Gradients to the pose are with respect to its raw upper 3x4 entries; normals, in the world's frame,
    do not depend on it.

    Args:
      means: world units.
      quaternions: wxyz, any length; zero stands for the identity. The third axis is the normal, of either sign.
      scales: standard deviations along the first two axes, world units; a third column is ignored.
      opacities: in [0, 1].
      colors: any number of channels, blended as they are.
      camera: ideal pinhole.
      background: colour seen through the remaining transmittance; None is black.
      near, far: range of camera z drawn, both ends excluded.
      capacity: static bound on (surfel, tile) intersections. None: outside a trace it is counted; inside one the cpu
        backend needs none and the others take `tiling.default_capacity`, and `overflow` tells if that was not enough.
      means2d_probe: pass zeros; its cotangent is the absolute-valued gradient of means2d summed over pixels, of the
        low-pass filter alone (absgrad).
      densification_probe: pass zeros; its cotangent is the gradient by a shift on the image of the surfel's centre,
        the low-pass filter excluded: gsplat's `gradient_2dgs`, by which densification chooses what to split.
      mask: pixels to draw; the others show the background alone and pass no gradient.
      backend: None takes the platform's default; an explicit one never falls back.

    Raises:
      Unsupported: the backend cannot run here.
      ValueError: the camera is no ideal pinhole, or background and colors differ in channels.
    """
    dtype = means.dtype
    if background is not None and background.shape[-1] != colors.shape[-1]:
        raise ValueError(
            f"expected a background of {colors.shape[-1]} channels like the colors, got {background.shape[-1]}"
        )
    camera = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), camera)
    projected = project_surfels(means, quaternions, scales, opacities, camera, near=near, far=far)
    transforms = projected.transforms
    if densification_probe is not None:
        # M_u and M_v at the centre are its pixel times M_w: this moves the centre by the probe
        shift = densification_probe * lax.stop_gradient(transforms[:, 2:, 2])
        transforms = transforms.at[:, :2, 2].add(shift)
    blended = composite_surfels(
        transforms,
        projected.means2d,
        projected.opacities,
        jnp.concatenate([colors, projected.normals], 1),
        projected.depths,
        projected.radii,
        size=camera.size,
        probe=means2d_probe,
        mask=mask,
        capacity=capacity,
        backend=backend,
    )
    color, normal = blended.image[..., :-3], blended.image[..., -3:]
    if background is not None:
        color = color + blended.transmittance[..., None] * background.astype(dtype)[None, None]
    return SurfelRendering(
        color=color,
        alpha=1 - blended.transmittance,
        depth=blended.depth,
        normal=normal,
        distortion=blended.distortion,
        median_depth=blended.median_depth,
        radii=projected.radii,
        means2d=projected.means2d,
        overflow=blended.overflow,
    )
