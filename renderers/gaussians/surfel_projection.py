"""From surfels to pixels: the map from each surfel's plane to the image, its box, and culling (arXiv 2403.17888).

A surfel is a Gaussian on the plane that its first two axes span. The projective map M = K [s_u t_u, s_v t_v, p] takes
plane coordinates in standard deviations to homogeneous pixels, exactly, so that there is no Jacobian. Boxes and culling
follow gsplat 1.6.0, on which images depend (see `kernels/surfels`).
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.gaussians.covariance import rotation_matrices
from renderers.gaussians.projection import LARGEST, MAX_EXTENT, camera_points

MIN_VARIANCE = 1e-4  # pixel^2, of the box of a surfel seen edge-on or from afar
_FARTHEST = 1e12  # pixels between a surfel's centre and its box's; beyond, the box is rounding
_LARGEST_RADIUS = 1e8  # covers any image, and still fits an int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class ProjectedSurfels:
    """Surfels on the image plane; entries of culled ones are zero.

    Attributes:
      transforms: Float["n 3 3"], M: homogeneous pixels from plane coordinates (u, v, 1) in standard deviations.
      means2d: Float["n 2"], centres in pixels (x, y) of the boxes, which are those of the low-pass filter.
      depths: Float["n"], camera z of the centres.
      normals: Float["n 3"], unit, world frame, towards the camera.
      opacities: Float["n"].
      radii: Int["n 2"], half boxes of 3.33 standard deviations, rounded up; zero if and only if culled. No gradient.
    """

    transforms: Float[Array, "n 3 3"]
    means2d: Float[Array, "n 2"]
    depths: Float[Array, " n"]
    normals: Float[Array, "n 3"]
    opacities: Float[Array, " n"]
    radii: Int[Array, "n 2"]


def project_surfels(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n k"],
    opacities: Float[Array, " n"],
    camera: Camera,
    *,
    near: float = 0.01,
    far: float = 1e10,
) -> ProjectedSurfels:
    """Project surfels through a pinhole camera and cull what cannot be seen.

    Culled are surfels with a centre outside near < z < far, that are not finite or absurdly large, whose disc of one
    standard deviation touches the camera's plane, or whose box misses the image. Differentiable in every array and in
    the camera's pose, focal lengths and principal point; culled entries carry zero gradient, as do radii.

    Args:
      means: world units.
      quaternions: wxyz, any length; the third axis is the normal.
      scales: standard deviations along the first two axes, world units; a third column is ignored.
      opacities: in [0, 1].
      camera: ideal pinhole.
      near, far: camera z, world units.

    Raises:
      ValueError: another kind of camera, or scales of neither 2 nor 3 columns.
    """
    if camera.model != "pinhole" or camera.distortion is not None:
        lens = f"{camera.model} camera" + (" with distortion coefficients" if camera.distortion is not None else "")
        raise ValueError(
            f"surfels need an ideal pinhole camera, got a {lens}: undistort the images, or use `rasterize`"
        )
    if scales.shape[1] not in (2, 3):
        raise ValueError(f"expected scales of 2 or 3 columns, got {scales.shape[1]}")
    means, quaternions, scales, opacities, sane = _sane(means, quaternions, scales[:, :2], opacities)
    x, y, z = camera_points(means, camera)
    in_range = sane & (z > near) & (z < far)
    centre = tuple(jnp.where(in_range, v, s) for v, s in ((x, 0.0), (y, 0.0), (z, 1.0)))
    rotations = rotation_matrices(quaternions)
    axes = [_turned(rotations[:, :, k] * scales[:, k : k + 1], camera) for k in range(2)]
    transforms = _plane_to_pixels((*axes, centre), camera)

    solid = in_range & _has_box(lax.stop_gradient(transforms))
    # a transform whose box overflows would poison gradients even where it is masked: it is replaced before use
    harmless = jnp.zeros((3, 3), means.dtype).at[2, 2].set(1.0)
    transforms = jnp.where(solid[:, None, None], transforms, harmless[None])
    means2d, variances = _box(transforms)
    radii = _radii(lax.stop_gradient(means2d), lax.stop_gradient(variances), solid, camera.size)
    visible = radii[:, 0] > 0
    normals = _facing(rotations[:, :, 2], centre, camera)
    return ProjectedSurfels(
        transforms=jnp.where(visible[:, None, None], transforms, 0.0),
        means2d=jnp.where(visible[:, None], means2d, 0.0),
        depths=jnp.where(visible, centre[2], 0.0),
        normals=jnp.where(visible[:, None], normals, 0.0),
        opacities=jnp.where(visible, opacities, 0.0),
        radii=radii,
    )


def _sane(means, quaternions, scales, opacities):
    """The inputs with zeros for surfels that are not finite or absurdly large, and which ones are neither.

    Zeros that come in early keep every later number finite, so that masked gradients are 0 and not 0 * inf.
    """
    sane = jnp.isfinite(opacities) & jnp.all(jnp.isfinite(quaternions), -1)
    sane &= jnp.all(jnp.abs(means) < LARGEST, -1) & jnp.all(jnp.abs(scales) < LARGEST, -1)
    columns = (jnp.where(sane[:, None], column, 0.0) for column in (means, quaternions, scales))
    return *columns, jnp.where(sane, opacities, 0.0), sane


def _turned(vectors: Float[Array, "n 3"], camera: Camera) -> tuple[Float[Array, " n"], ...]:
    """World directions in the camera's frame, by components."""
    rotation = camera.camera_from_world
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return tuple(rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2] * z for i in range(3))


def _plane_to_pixels(columns, camera: Camera) -> Float[Array, "n 3 3"]:
    """M = K [s_u t_u, s_v t_v, p] from its columns in the camera's frame."""
    (fx, fy), (cx, cy) = camera.focal, camera.principal
    rows = [
        [fx * x + cx * z for x, _, z in columns],
        [fy * y + cy * z for _, y, z in columns],
        [z for _, _, z in columns],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _box(transforms: Float[Array, "n 3 3"]) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    """Centre of the image of the circle of one standard deviation, and its squared half width and height.

    The tangent lines of a conic (arXiv 2403.17888, section 4.2): with f = (1, 1, -1) / (M_w0^2 + M_w1^2 - M_w2^2) the
    centre is sum f M_u M_w and the square centre^2 - sum f M_u^2. Taken relative to the image of the surfel's centre:
    the two terms of the square then do not cancel far from the origin.
    """
    w0, w1, w2 = transforms[:, 2, 0], transforms[:, 2, 1], transforms[:, 2, 2]
    f = 1 / (w0 * w0 + w1 * w1 - w2 * w2)
    means, variances = [], []
    for row in (transforms[:, 0], transforms[:, 1]):
        origin = row[:, 2] / w2
        a0, a1 = row[:, 0] - origin * w0, row[:, 1] - origin * w1
        shift = f * (a0 * w0 + a1 * w1)
        means.append(origin + shift)
        variances.append(shift * shift - f * (a0 * a0 + a1 * a1))
    return jnp.stack(means, -1), jnp.stack(variances, -1)


def _has_box(transforms: Float[Array, "n 3 3"]) -> Bool[Array, " n"]:
    """Whether the map is of a size to calculate with, and its box at a finite place."""
    means, variances = _box(transforms)
    origin = transforms[:, :2, 2] / transforms[:, 2:, 2]
    sized = jnp.all(jnp.abs(transforms) < LARGEST, (1, 2)) & jnp.all(jnp.isfinite(variances), -1)
    return sized & jnp.all(jnp.abs(means - origin) < _FARTHEST, -1) & jnp.all(jnp.abs(origin) < _FARTHEST, -1)


def _radii(means2d, variances, solid, size: tuple[int, int]) -> Int[Array, "n 2"]:
    """Half boxes of 3.33 standard deviations in whole pixels, zero where nothing of one is in the image."""
    radii = jnp.ceil(MAX_EXTENT * jnp.sqrt(jnp.maximum(variances, MIN_VARIANCE)))
    radii = jnp.minimum(radii, _LARGEST_RADIUS)
    width_height = jnp.asarray(size[::-1], means2d.dtype)[None]
    visible = solid & jnp.all((means2d + radii > 0) & (means2d - radii < width_height), -1)
    return jnp.where(visible[:, None], radii, 0.0).astype(jnp.int32)


def _facing(normals: Float[Array, "n 3"], centre, camera: Camera) -> Float[Array, "n 3"]:
    """World normals, turned where they point away from the camera."""
    towards = -sum(a * b for a, b in zip(_turned(normals, camera), centre, strict=True))
    return normals * jnp.where(towards > 0, 1.0, -1.0).astype(normals.dtype)[:, None]
