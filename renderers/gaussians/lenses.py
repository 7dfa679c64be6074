"""What a lens does to a Gaussian: where its centre is imaged, the derivative there, and what it cannot image.

Distortion is part of the mapping: a Gaussian goes through a real lens as through an ideal one, its centre exactly
and its covariance by the exact Jacobian. So a distorted image is the ideal image warped, to first order in the
curvature of the lens, and both describe the same scene. The unscented transform of 3DGUT (arXiv 2412.12507) also bends
perspective, which the ideal path does not: through the lens of a phone it misses the warped image by 10 dB more
(`tests/renderers/gaussians/unscented_test.py`), and in float32 it subtracts pixels that agree to five digits.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from renderers.cameras import distortion
from renderers.cameras.camera import Camera

FISHEYE_EPSILON = 1e-7

_Column = Float[Array, " n"]
_Row = tuple[_Column, _Column, _Column]


def linearised(x: _Column, y: _Column, z: _Column, camera: Camera) -> tuple[tuple[_Column, _Column], tuple[_Row, _Row]]:
    """Pixels of points in the camera's frame, and the derivative of the pixel (rows u, v) with respect to the point.

    A pinhole's derivative is that of the line of sight clamped at 1.3 half fields of view (gsplat 1.6.0; through a
    distorted lens, at the border's own line of sight and as much beyond): a wider one makes it explode. Differentiable
    in both modes in the points, focal lengths, principal point and distortion.

    Args:
      x, y, z: points that the lens images (`imaged`; a pinhole: z > 0).
      camera: any lens.
    """
    return _LENSES[camera.model](x, y, z, camera)


def imaged(x: _Column, y: _Column, z: _Column, camera: Camera) -> Bool[Array, " n"]:
    """Whether points lie before the fold of the distortion curve; past it they would be mirrored into the image.

    True everywhere for an ideal lens. Depth is not looked at: a pinhole's points of z <= 0 mean nothing.
    """
    if camera.distortion is None:
        return jnp.ones(z.shape, bool)
    x, y, z, coefficients = lax.stop_gradient((x, y, z, camera.distortion))
    if camera.model == "fisheye":
        return jnp.arctan2(jnp.sqrt(x * x + y * y), z) < distortion.fisheye_limit(coefficients)
    z = jnp.where(z > 0, z, 1.0)
    limit = distortion.brown_limit(coefficients)
    before_fold = (x / z) ** 2 + (y / z) ** 2 < limit**2
    at_x, at_y = jnp.where(before_fold, x / z, 0.0), jnp.where(before_fold, y / z, 0.0)
    (xx, xy), (_, yy) = _brown_derivative(at_x, at_y, coefficients)
    return before_fold & (xx * yy - xy * xy > 0)  # tangential terms bend the fold


def sees_sideways(camera: Camera) -> Bool[Array, ""]:
    """Whether a fisheye with distortion coefficients images rays at 90 degrees or more from its axis."""
    if camera.model != "fisheye" or camera.distortion is None:
        return jnp.zeros((), bool)
    focal, principal, coefficients = lax.stop_gradient((camera.focal, camera.principal, camera.distortion))
    lengths = jnp.asarray(camera.size[::-1], principal.dtype)
    corner = jnp.maximum(jnp.abs(principal), jnp.abs(lengths - principal)) / focal
    sideways = jnp.full((), jnp.pi / 2, principal.dtype)
    reached = jnp.sum(corner * corner) > distortion.distort_fisheye(coefficients, sideways) ** 2
    return reached & (distortion.fisheye_limit(coefficients) > sideways)


def depths(x: _Column, y: _Column, z: _Column, camera: Camera) -> _Column:
    """Camera z; the distance for a camera that `sees_sideways`: along its rays z need not rise or be positive."""
    if camera.model != "fisheye" or camera.distortion is None:
        return z
    squared = x * x + y * y + z * z
    positive = squared > 0
    distance = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
    return jnp.where(sees_sideways(camera), distance, z)


def _pinhole(x, y, z, camera):
    fx, fy = camera.focal
    cx, cy = camera.principal
    rx, ry = x / z, y / z
    (low_x, high_x), (low_y, high_y) = _lateral_limits(camera)
    tx, ty = jnp.clip(rx, low_x, high_x), jnp.clip(ry, low_y, high_y)
    if camera.distortion is None:
        zero = jnp.zeros_like(z)
        return (fx * rx + cx, fy * ry + cy), ((fx / z, zero, -fx * tx / z), (zero, fy / z, -fy * ty / z))
    bent = distortion.distort_brown(camera.distortion, jnp.stack([rx, ry], -1))
    rows = [
        (f * along_x / z, f * along_y / z, -f * (along_x * tx + along_y * ty) / z)
        for f, (along_x, along_y) in zip((fx, fy), _brown_derivative(tx, ty, camera.distortion), strict=True)
    ]
    return (fx * bent[:, 0] + cx, fy * bent[:, 1] + cy), (rows[0], rows[1])


def _lateral_limits(camera):
    """Bounds of x / z and y / z: the image's borders, through the lens, and 0.15 image lengths beyond."""
    fx, fy = camera.focal
    cx, cy = camera.principal
    height, width = camera.size
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    if camera.distortion is None:
        return (
            (-(cx / fx + margin_x), (width - cx) / fx + margin_x),
            (-(cy / fy + margin_y), (height - cy) / fy + margin_y),
        )
    columns = jnp.stack([jnp.zeros_like(cx), jnp.clip(cx, 0, width), jnp.full_like(cx, width)])
    rows = jnp.stack([jnp.zeros_like(cy), jnp.clip(cy, 0, height), jnp.full_like(cy, height)])
    grid = jnp.stack(jnp.broadcast_arrays(((columns - cx) / fx)[None, :], ((rows - cy) / fy)[:, None]), -1)
    ideal = distortion.undistort_brown(camera.distortion, grid)[0]
    return (
        (jnp.min(ideal[:, 0, 0]) - margin_x, jnp.max(ideal[:, 2, 0]) + margin_x),
        (jnp.min(ideal[0, :, 1]) - margin_y, jnp.max(ideal[2, :, 1]) + margin_y),
    )


def _brown_derivative(x, y, coefficients):
    derivative = distortion.brown_jacobian(coefficients, jnp.stack([x, y], -1))
    return [[derivative[:, i, j] for j in range(2)] for i in range(2)]


def _orthographic(x, y, z, camera):
    fx, fy = camera.focal
    cx, cy = camera.principal
    zero, one = jnp.zeros_like(z), jnp.ones_like(z)
    return (fx * x + cx, fy * y + cy), ((fx * one, zero, zero), (zero, fy * one, zero))


def _fisheye(x, y, z, camera):
    """Image radius d(theta), in focal lengths; d is the identity for the ideal, equidistant lens.

    The epsilons are gsplat's: they keep the axis finite and belong to the contract.
    """
    fx, fy = camera.focal
    cx, cy = camera.principal
    squared = x * x + y * y
    on_axis = squared <= 0
    radius = jnp.where(on_axis, 0.0, jnp.sqrt(jnp.where(on_axis, 1.0, squared))) + FISHEYE_EPSILON
    bent_center, _ = _bent(jnp.arctan2(radius, z + FISHEYE_EPSILON), camera.distortion)
    xx = x * x + FISHEYE_EPSILON
    yy = y * y
    xy = x * y
    lateral = xx + yy
    bent, slope = _bent(jnp.arctan2(radius, z), camera.distortion)
    b = bent / radius / lateral
    a = z / (lateral + z * z) / lateral * slope
    tangential = a - b
    row_x = (fx * (xx * a + yy * b), fx * xy * tangential, -fx * x / (lateral + z * z) * slope)
    row_y = (fy * xy * tangential, fy * (yy * a + xx * b), -fy * y / (lateral + z * z) * slope)
    return (fx * x * bent_center / radius + cx, fy * y * bent_center / radius + cy), (row_x, row_y)


def _bent(angle, coefficients):
    """d(angle) and its derivative."""
    if coefficients is None:
        return angle, 1.0
    return jax.jvp(lambda t: distortion.distort_fisheye(coefficients, t), (angle,), (jnp.ones_like(angle),))


_LENSES = {"pinhole": _pinhole, "orthographic": _orthographic, "fisheye": _fisheye}
