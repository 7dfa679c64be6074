"""From 3D Gaussians to 2D: elliptical weighted averaging, extents and culling.

The camera maps a Gaussian's centre exactly and its covariance to first order, Sigma' = J W Sigma W^T J^T
(Zwicker et al. 2001; arXiv 2308.04079, Eq. 5). Thresholds and limits follow gsplat 1.6.0, so that images agree with its
reference to rounding. Everything is written by components: XLA fuses that into one pass over the Gaussians.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera
from renderers.gaussians.covariance import principal_axes

ALPHA_THRESHOLD = 1 / 255  # a Gaussian is not drawn where its alpha is below
MAX_EXTENT = 3.33  # standard deviations; exp(-3.33^2 / 2) < 1 / 255, so nothing visible lies outside
MIN_COMPENSATION = 0.005
FISHEYE_EPSILON = 1e-7
LARGEST = 1e15  # of coordinates and scales; squares and products of four still fit a float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Projected:
    """Gaussians on the image plane; entries of culled Gaussians are zero.

    Attributes:
      means2d: Float["n 2"], centres in pixels (x, y).
      conics: Float["n 3"], inverse 2D covariance (xx, xy, yy) in 1 / pixel^2.
      depths: Float["n"], camera z of the centres.
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


def _pinhole(x, y, z, camera):
    """Centre, and Jacobian whose lateral ratio is clamped at 1.3 half fields of view (a wider one makes it explode)."""
    fx, fy = camera.focal
    cx, cy = camera.principal
    height, width = camera.size
    rx, ry = x / z, y / z
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = jnp.clip(rx, -(cx / fx + margin_x), (width - cx) / fx + margin_x)
    ty = jnp.clip(ry, -(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = jnp.zeros_like(z)
    return (fx * rx + cx, fy * ry + cy), ((fx / z, zero, -fx * tx / z), (zero, fy / z, -fy * ty / z))


def _orthographic(x, y, z, camera):
    fx, fy = camera.focal
    cx, cy = camera.principal
    zero, one = jnp.zeros_like(z), jnp.ones_like(z)
    return (fx * x + cx, fy * y + cy), ((fx * one, zero, zero), (zero, fy * one, zero))


def _fisheye(x, y, z, camera):
    """Equidistant lens, r = f theta.

    The epsilons are gsplat's: they keep the axis finite and belong to the contract.
    """
    fx, fy = camera.focal
    cx, cy = camera.principal
    squared = x * x + y * y
    on_axis = squared <= 0
    radius = jnp.where(on_axis, 0.0, jnp.sqrt(jnp.where(on_axis, 1.0, squared))) + FISHEYE_EPSILON
    theta = jnp.arctan2(radius, z + FISHEYE_EPSILON)
    xx = x * x + FISHEYE_EPSILON
    yy = y * y
    xy = x * y
    lateral = xx + yy
    b = jnp.arctan2(radius, z) / radius / lateral
    a = z / (lateral + z * z) / lateral
    tangential = a - b
    row_x = (fx * (xx * a + yy * b), fx * xy * tangential, -fx * x / (lateral + z * z))
    row_y = (fy * xy * tangential, fy * (yy * a + xx * b), -fy * y / (lateral + z * z))
    return (fx * x * theta / radius + cx, fy * y * theta / radius + cy), (row_x, row_y)


_LENSES = {"pinhole": _pinhole, "orthographic": _orthographic, "fisheye": _fisheye}


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

    Culled are Gaussians outside near < z < far, with opacity below 1/255, whose covariance degenerates or overflows, or
    whose box misses the image. Differentiable in every array and in the camera's pose, focal lengths and principal
    point; culled entries carry zero gradient. Nothing flows through extents and radii.

    Args:
      means, quaternions, scales, opacities: post-activation; quaternions wxyz of any length, opacities in [0, 1].
      camera: ideal lens (no distortion coefficients).
      antialias: scale opacities by sqrt(det(cov) / det(cov + blur I)), floored at 0.005
        (Mip-Splatting, arXiv 2311.16493).
      blur: pixel^2 added to both variances.
      near, far: camera z, world units.

    Raises:
      ValueError: the camera has distortion coefficients.
    """
    if camera.distortion is not None:
        raise ValueError(
            "expected an ideal lens, got distortion coefficients: undistort the images or drop the coefficients"
        )
    means, quaternions, scales, opacities, sane = _sane(means, quaternions, scales, opacities)
    x, y, z = camera_points(means, camera)
    in_range = sane & (z > near) & (z < far)
    x, y, z = (jnp.where(in_range, v, s) for v, s in ((x, 0.0), (y, 0.0), (z, 1.0)))
    (u, v), jacobian = _LENSES[camera.model](x, y, z, camera)
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
        depths=jnp.where(visible, z, 0.0),
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
