"""Projection of points in the camera's frame, and its derivative, on the host. Numba, float64 arithmetic.

The equations are those of `renderers.cameras.camera` and `distortion`; a lens is a row of numbers in the order below.
"""

import math

from renderers.kernels.jit_numba import njit

PINHOLE, ORTHOGRAPHIC, FISHEYE = range(3)  # codes of models
FOCAL, PRINCIPAL, NEAR, LIMIT, DISTORTION = 0, 2, 4, 5, 6  # where numbers of a lens begin
NUMBERS = DISTORTION + 8
_SMALLEST_DEPTH = 1e-8
_LARGEST_RADIUS = 1e4
_FISHEYE_EPSILON = 1e-7


@njit(nogil=True, cache=True, error_model="numpy")
def project(model, bent, lens, point):
    """Pixel (column, row) of a point; `bent` is whether the lens has distortion."""
    x, y = _plane(model, bent, lens, point)
    return lens[FOCAL] * x + lens[PRINCIPAL], lens[FOCAL + 1] * y + lens[PRINCIPAL + 1]


@njit(nogil=True, cache=True, error_model="numpy")
def pull(model, bent, lens, point, gu, gv, sums):
    """Gradient of a point by that of its pixel; the lens's is added to `sums`."""
    x, y = _plane(model, bent, lens, point)
    sums[FOCAL] += gu * x
    sums[FOCAL + 1] += gv * y
    sums[PRINCIPAL] += gu
    sums[PRINCIPAL + 1] += gv
    gx, gy = gu * lens[FOCAL], gv * lens[FOCAL + 1]
    if model == ORTHOGRAPHIC:
        return gx, gy, 0.0
    if model == FISHEYE:
        return _pull_fisheye(bent, lens, point, gx, gy, sums)
    z = point[2] if abs(point[2]) > _SMALLEST_DEPTH else _SMALLEST_DEPTH
    x, y = point[0] / z, point[1] / z
    if bent:
        gx, gy = _pull_brown(lens, x, y, gx, gy, sums)
    gz = -(gx * x + gy * y) / z if abs(point[2]) > _SMALLEST_DEPTH else 0.0
    return gx / z, gy / z, gz


@njit(nogil=True, cache=True, error_model="numpy")
def _plane(model, bent, lens, point):
    """Where the lens images a point, in focal lengths."""
    x, y, z = point
    if model == ORTHOGRAPHIC:
        return x, y
    if model == FISHEYE:
        radius = math.sqrt(x * x + y * y) + _FISHEYE_EPSILON
        angle = math.atan2(radius, z + _FISHEYE_EPSILON)
        if bent:
            angle = _angle_and_slope(lens, angle)[0]
        return x * angle / radius, y * angle / radius
    z = z if abs(z) > _SMALLEST_DEPTH else _SMALLEST_DEPTH
    x, y = x / z, y / z
    if not bent:
        return x, y
    x, y = _clipped(x), _clipped(y)
    p1, p2, squared = lens[DISTORTION + 2], lens[DISTORTION + 3], x * x + y * y
    above, below, _, _ = _radial(lens, squared)
    radial = above / below
    return (
        radial * x + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
        radial * y + p1 * (squared + 2 * y * y) + 2 * p2 * x * y,
    )


@njit(nogil=True, cache=True)
def _clipped(x):
    return min(max(x, -_LARGEST_RADIUS), _LARGEST_RADIUS)


@njit(nogil=True, cache=True)
def _radial(lens, s):
    """The parts of the quotient a(s), and their slopes."""
    k1, k2, k3 = lens[DISTORTION], lens[DISTORTION + 1], lens[DISTORTION + 4]
    k4, k5, k6 = lens[DISTORTION + 5], lens[DISTORTION + 6], lens[DISTORTION + 7]
    return (
        1 + s * (k1 + s * (k2 + s * k3)),
        1 + s * (k4 + s * (k5 + s * k6)),
        k1 + s * (2 * k2 + 3 * s * k3),
        k4 + s * (2 * k5 + 3 * s * k6),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _pull_brown(lens, x, y, gx, gy, sums):
    """Gradient of a point of the plane by that of its distorted place."""
    free_x, free_y = abs(x) < _LARGEST_RADIUS, abs(y) < _LARGEST_RADIUS
    x, y = _clipped(x), _clipped(y)
    p1, p2, s = lens[DISTORTION + 2], lens[DISTORTION + 3], x * x + y * y
    above, below, above_slope, below_slope = _radial(lens, s)
    radial = above / below
    slope = (above_slope - radial * below_slope) / below
    xx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    xy = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    yy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    of_radial = (gx * x + gy * y) / below
    power = of_radial * s
    for k in range(3):  # k1 k2 . . k3 of the numerator, k4 k5 k6 of the denominator
        sums[DISTORTION + (k if k < 2 else 4)] += power
        sums[DISTORTION + 5 + k] -= power * radial
        power *= s
    sums[DISTORTION + 2] += gx * 2 * x * y + gy * (s + 2 * y * y)
    sums[DISTORTION + 3] += gx * (s + 2 * x * x) + gy * 2 * x * y
    return (gx * xx + gy * xy if free_x else 0.0), (gx * xy + gy * yy if free_y else 0.0)


@njit(nogil=True, cache=True)
def _angle_and_slope(lens, angle):
    s = angle * angle
    k1, k2, k3, k4 = lens[DISTORTION], lens[DISTORTION + 1], lens[DISTORTION + 2], lens[DISTORTION + 3]
    return (
        angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))),
        1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4))),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _pull_fisheye(bent, lens, point, gx, gy, sums):
    x, y, z = point[0], point[1], point[2] + _FISHEYE_EPSILON
    length = math.sqrt(x * x + y * y)
    radius = length + _FISHEYE_EPSILON
    angle = math.atan2(radius, z)
    imaged, slope = angle, 1.0
    along = (gx * x + gy * y) / radius  # gradient of the imaged angle
    if bent:
        imaged, slope = _angle_and_slope(lens, angle)
        power = along * angle * angle * angle
        for k in range(4):
            sums[DISTORTION + k] += power
            power *= angle * angle
    of_angle, squared = along * slope, radius * radius + z * z
    of_radius = of_angle * z / squared - along * imaged / radius
    turned = of_radius / length if length > 0 else 0.0
    return gx * imaged / radius + turned * x, gy * imaged / radius + turned * y, -of_angle * radius / squared
