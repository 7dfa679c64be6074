"""From 3D Gaussians to 2D: elliptical weighted averaging, extents and culling.

The camera, lens distortion included, maps a Gaussian's centre exactly and its covariance to first order,
Sigma' = J W Sigma W^T J^T (Zwicker et al. 2001; arXiv 2308.04079, Eq. 5). Thresholds and limits follow gsplat 1.6.0,
so that images agree with its reference to rounding. Everything is written by components: XLA fuses that into one pass
over the Gaussians.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.gaussians import lenses
from renderers.gaussians.covariance import principal_axes

ALPHA_THRESHOLD = 1 / 255  # a Gaussian is not drawn where its alpha is below
MAX_EXTENT = 3.33  # standard deviations; exp(-3.33^2 / 2) < 1 / 255, so nothing visible lies outside
MIN_COMPENSATION = 0.005
LARGEST = 1e15  # of coordinates and scales; squares and products of four still fit a float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Projected:
    """Gaussians on the image plane; entries of culled Gaussians are zero.

    Attributes:
      means2d: Float["n 2"], centres in pixels (x, y).
      conics: Float["n 3"], inverse 2D covariance (xx, xy, yy) in 1 / pixel^2.
      depths: Float["n"], camera z of the centres, or their distance where `lenses.sees_sideways`. Never negative.
      opacities: Float["n"], after antialias compensation.
      extents: Float["n 2"], half width and height in pixels of the box outside which alpha < 1/255. No gradient.
      radii: Int["n 2"], extents rounded up; zero if and only if culled.
    """

    means2d: Float[Array, "n 2"]
    conics: Float[Array, "n 3"]
    depths: Float[Array, " n"]
    opacities: Float[Array, " n"]
    extents: Float[Array, "n 2"]
    radii: Int[Array, "n 2"]


def camera_points(means: Float[Array, "n 3"], camera: Camera) -> tuple[Float[Array, " n"], ...]:
    """Centres in the camera's frame, as x, y, z."""
    pose = camera.camera_from_world
    return tuple(
        pose[i, 0] * means[:, 0] + pose[i, 1] * means[:, 1] + pose[i, 2] * means[:, 2] + pose[i, 3] for i in range(3)
    )


def _image_covariance(axes: Float[Array, "n 3 3"], jacobian, camera: Camera):
    """J W Sigma W^T J^T as xx, xy, yy.

    Formed as (J W R S)(J W R S)^T, which rounding cannot make indefinite.
    """
    rotation = camera.camera_from_world[:3, :3]

    def image_axis(row):
        in_world = [sum(row[i] * rotation[i, k] for i in range(3)) for k in range(3)]
        return [sum(in_world[k] * axes[:, k, j] for k in range(3)) for j in range(3)]

    x, y = image_axis(jacobian[0]), image_axis(jacobian[1])
    return sum(a * a for a in x), sum(a * b for a, b in zip(x, y, strict=True)), sum(b * b for b in y)


def _sane(means, quaternions, scales, opacities):
    """The inputs with zeros for Gaussians that are not finite or absurdly large, and which ones are neither.

    Zeros that come in early keep every later number finite, so that masked gradients are 0 and not 0 * inf.
    """
    sane = jnp.isfinite(opacities) & jnp.all(jnp.isfinite(quaternions), -1)
    sane &= jnp.all(jnp.abs(means) < LARGEST, -1) & jnp.all(jnp.abs(scales) < LARGEST, -1)
    columns = (jnp.where(sane[:, None], column, 0.0) for column in (means, quaternions, scales))
    return *columns, jnp.where(sane, opacities, 0.0), sane


def project(
    means: Float[Array, "n 3"],
    quaternions: Float[Array, "n 4"],
    scales: Float[Array, "n 3"],
    opacities: Float[Array, " n"],
    camera: Camera,
    *,
    antialias: bool = False,
    blur: float = 0.3,
    near: float = 0.01,
    far: float = 1e10,
) -> Projected:
    """Project Gaussians through a camera and cull what cannot be seen.

    Culled are Gaussians outside near < depth < far, with opacity below 1/255, whose centre lies past the fold of the
    distortion curve, whose covariance degenerates or overflows, or whose box misses the image. Differentiable (reverse
    and forward mode) in every array and in the camera's pose, focal lengths, principal point and distortion; culled
    entries carry zero gradient. Nothing flows through extents and radii.

    A fisheye with distortion coefficients that images rays at 90 degrees or more from its axis is ordered and culled by
    distance; every other camera by z, so that an ideal fisheye shows nothing of z <= near (as in gsplat 1.6.0). Zero
    coefficients stand for an equidistant lens.

    Args:
      means, quaternions, scales, opacities: post-activation; quaternions wxyz of any length, opacities in [0, 1].
      camera: any lens, ideal or distorted; orthographic ones have no coefficients.
      antialias: scale opacities by sqrt(det(cov) / det(cov + blur I)), floored at 0.005
        (Mip-Splatting, arXiv 2311.16493).
      blur: pixel^2 added to both variances.
      near, far: range of depths, world units.

    Raises:
      ValueError: an orthographic camera with distortion coefficients, or more of them than the lens model has.
    """
    if camera.model == "orthographic" and camera.distortion is not None:
        raise ValueError(
            "expected no distortion coefficients for an orthographic camera, which has none: set it to None"
        )
    means, quaternions, scales, opacities, sane = _sane(means, quaternions, scales, opacities)
    x, y, z = camera_points(means, camera)
    reach = lenses.depths(x, y, z, camera)
    in_range = sane & (reach > near) & (reach < far) & lenses.imaged(x, y, z, camera)
    x, y, z = (jnp.where(in_range, v, s) for v, s in ((x, 0.0), (y, 0.0), (z, 1.0)))
    (u, v), jacobian = lenses.linearised(x, y, z, camera)
    raw_xx, xy, raw_yy = _image_covariance(principal_axes(quaternions, scales), jacobian, camera)
    solid = in_range & jnp.isfinite(raw_xx + raw_yy + u + v) & (raw_xx + blur > 0) & (raw_yy + blur > 0)
    raw_xx, xy, raw_yy = (jnp.where(solid, v, s) for v, s in ((raw_xx, 1.0), (xy, 0.0), (raw_yy, 1.0)))
    xx, yy = raw_xx + blur, raw_yy + blur
    # determinants relative to xx yy: those of huge or needle-like Gaussians leave the range of float32
    correlation = (xy / xx) * (xy / yy)
    solid &= correlation < 1
    det = jnp.where(solid, 1 - correlation, 1.0)
    if antialias:
        ratio = ((raw_xx / xx) * (raw_yy / yy) - correlation) / det
        opacities = opacities * jnp.sqrt(jnp.maximum(ratio, MIN_COMPENSATION**2))
    conics = (1 / xx / det, -xy / xx / yy / det, 1 / yy / det)

    extents, radii = _extents(opacities, (u, v), (xx, yy), solid, camera.size)
    visible = radii[:, 0] > 0

    def keep(*columns):
        return jnp.stack([jnp.where(visible, column, 0.0) for column in columns], -1)

    return Projected(
        means2d=keep(u, v),
        conics=keep(*conics),
        depths=jnp.where(visible, lenses.depths(x, y, z, camera), 0.0),
        opacities=jnp.where(visible, opacities, 0.0),
        extents=extents,
        radii=radii,
    )


def _extents(
    opacities: Float[Array, " n"],
    center: tuple[Float[Array, " n"], Float[Array, " n"]],
    variances: tuple[Float[Array, " n"], Float[Array, " n"]],
    solid: Bool[Array, " n"],
    size: tuple[int, int],
) -> tuple[Float[Array, "n 2"], Int[Array, "n 2"]]:
    """Opacity-aware box: alpha falls to 1/255 at sqrt(2 ln(255 opacity)) standard deviations."""
    opacities, center, variances = lax.stop_gradient((opacities, center, variances))
    visible = solid & (opacities >= ALPHA_THRESHOLD)
    deviations = jnp.minimum(jnp.sqrt(2 * jnp.log(jnp.where(visible, opacities / ALPHA_THRESHOLD, 1.0))), MAX_EXTENT)
    limit = 1e8  # larger boxes cover any image already, and still fit an int32
    half = [jnp.minimum(deviations * jnp.sqrt(jnp.where(visible, v, 0.0)), limit) for v in variances]
    radii = [jnp.ceil(h) for h in half]
    for middle, radius, length in zip(center, radii, size[::-1], strict=True):
        visible &= (middle + radius > 0) & (middle - radius < length) & (radius > 0)
    extents = jnp.stack([jnp.where(visible, h, 0.0) for h in half], -1)
    return extents, jnp.stack([jnp.where(visible, r, 0.0).astype(jnp.int32) for r in radii], -1)
