"""Lens distortion in OpenCV's parametrisation, both directions.

Brown-Conrady works on the normalised plane, `(x, y) = (X / Z, Y / Z)`, with `s = x^2 + y^2`, `r = sqrt(s)` and
coefficients in OpenCV's order `(k1, k2, p1, p2, k3, k4, k5, k6)`, any prefix of which may be given:
    a(s) = (1 + k1 s + k2 s^2 + k3 s^3) / (1 + k4 s + k5 s^2 + k6 s^3)
    x_d = a x + 2 p1 x y + p2 (s + 2 x^2),    y_d = a y + p1 (s + 2 y^2) + 2 p2 x y
Kannala-Brandt (fisheye) works on the angle t to the optical axis, coefficients `(k1, k2, k3, k4)`:
    t_d = t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8)

Both curves rise from the axis up to a fold; past it a second direction would land on the same pixel. The inverses work
on the part before the fold. Their gradients come from the implicit function theorem, not from the iterations.

Sources: Brown, "Decentering distortion of lenses" (1966); Kannala and Brandt, "A generic camera model and calibration
method" (PAMI 2006); the coefficient order is that of OpenCV's calib3d documentation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

BROWN_COEFFICIENTS = 8
FISHEYE_COEFFICIENTS = 4
# Rays at more than 89.99 degrees do not meet the normalised plane at a useful place: 1e4 caps the search.
LARGEST_RADIUS = 1e4
_GRID = 512  # samples in which the first fold is looked for; a fold narrower than 0.2 degrees is not seen
_ITERATIONS = 48  # enough to halve the widest bracket down to the fold's own uncertainty, 1e-9 of its radius
_POLISH = 10  # damped 2D Newton steps; tangential terms are small, so 3 or 4 are enough away from the fold


def distort_brown(coefficients: Float[Array, " k"], points: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
    """Moves ideal points of the normalised plane to where the lens images them.

    Args:
        coefficients: `(k1, k2, p1, p2, k3, k4, k5, k6)` or its first k entries, k <= 8.
        points: ideal `(X / Z, Y / Z)`.

    Returns:
        Distorted points in the same units. Points past the fold come back towards the centre; `undistort_brown` tells
        which image points are valid and `brown_limit` the radius of the fold.

    Raises:
        ValueError: more than 8 coefficients.
    """
    full = _padded(coefficients, BROWN_COEFFICIENTS)
    x, y = points[..., 0], points[..., 1]
    squared = x * x + y * y
    numerator, denominator = _radial_parts(full, squared)
    radial = numerator / denominator
    p1, p2 = full[2], full[3]
    x_distorted = radial * x + 2.0 * p1 * x * y + p2 * (squared + 2.0 * x * x)
    y_distorted = radial * y + p1 * (squared + 2.0 * y * y) + 2.0 * p2 * x * y
    return jnp.stack([x_distorted, y_distorted], axis=-1)


def brown_jacobian(coefficients: Float[Array, " k"], points: Float[Array, "*n 2"]) -> Float[Array, "*n 2 2"]:
    """Derivative of `distort_brown` with respect to the points, symmetric, in closed form."""
    full = _padded(coefficients, BROWN_COEFFICIENTS)
    x, y = points[..., 0], points[..., 1]
    squared = x * x + y * y
    radial, slope = _radial_and_slope(full, squared)
    p1, p2 = full[2], full[3]
    xx = radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x
    xy = 2.0 * x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y
    yy = radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x
    return jnp.stack([jnp.stack([xx, xy], axis=-1), jnp.stack([xy, yy], axis=-1)], axis=-2)


def brown_limit(coefficients: Float[Array, " k"]) -> Float[Array, ""]:
    """Radius of the ideal point up to which the radial part of Brown-Conrady rises; 1e4 where it never folds.

    Not differentiable (the gradient is zero).
    """
    full = jax.lax.stop_gradient(_padded(coefficients, BROWN_COEFFICIENTS))

    def rising(radius):
        squared = radius * radius
        radial, slope = _radial_and_slope(full, squared)
        return (radial + 2.0 * squared * slope > 0.0) & (_radial_parts(full, squared)[1] > 0.0)

    angles = jnp.linspace(0.0, jnp.arctan(LARGEST_RADIUS), _GRID, dtype=full.dtype)
    return _end_of_rise(rising, jnp.tan(angles).at[-1].set(LARGEST_RADIUS))


def undistort_brown(
    coefficients: Float[Array, " k"], distorted: Float[Array, "*n 2"]
) -> tuple[Float[Array, "*n 2"], Bool[Array, "*n"]]:
    """Ideal points of the normalised plane that the lens images at the given places.

    Solves the radial part on its rising branch by bracketed Newton steps, then the whole by damped 2D Newton steps.

    Returns:
        The ideal points and a mask of those for which a solution before the fold exists. Elsewhere the point is that
        of the fold in the same direction, finite, and its gradient is zero. Gradients to coefficients and points are
        those of the implicit function.

    Raises:
        ValueError: more than 8 coefficients.
    """
    full = _padded(coefficients, BROWN_COEFFICIENTS)
    limit = brown_limit(full)
    points = _brown_inverse(full, limit, distorted)
    return points, _brown_solved(*jax.lax.stop_gradient((full, limit, points, distorted)))


def distort_fisheye(coefficients: Float[Array, " k"], angles: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Image radius, in focal lengths, of rays at the given angles to the optical axis (Kannala-Brandt).

    Raises:
        ValueError: more than 4 coefficients.
    """
    return _angle_and_slope(_padded(coefficients, FISHEYE_COEFFICIENTS), angles)[0]


def fisheye_limit(coefficients: Float[Array, " k"]) -> Float[Array, ""]:
    """Angle up to which the Kannala-Brandt curve rises, at most pi. Not differentiable (the gradient is zero)."""
    full = jax.lax.stop_gradient(_padded(coefficients, FISHEYE_COEFFICIENTS))
    grid = jnp.linspace(0.0, jnp.pi, _GRID, dtype=full.dtype)
    return _end_of_rise(lambda angle: _angle_and_slope(full, angle)[1] > 0.0, grid)


def undistort_fisheye(
    coefficients: Float[Array, " k"], radii: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Bool[Array, "*n"]]:
    """Angles to the optical axis of rays whose image radius, in focal lengths, is given (inverse Kannala-Brandt).

    Returns:
        Angles in [0, pi] and a mask of the radii that are reached before the fold; elsewhere the angle of the fold,
        with zero gradient.

    Raises:
        ValueError: more than 4 coefficients.
    """
    full = _padded(coefficients, FISHEYE_COEFFICIENTS)
    angles = _fisheye_inverse(full, radii)
    return angles, _fisheye_solved(*jax.lax.stop_gradient((full, angles, radii)))


def _padded(coefficients, count):
    if coefficients.shape[-1] > count:
        raise ValueError(
            f"this lens model takes at most {count} coefficients in OpenCV's order, got {coefficients.shape[-1]}; "
            "thin-prism and tilt terms must be removed by undistorting the images first"
        )
    return jnp.pad(coefficients, (0, count - coefficients.shape[-1]))


def _radial_parts(full, squared):
    k1, k2, k3, k4, k5, k6 = full[0], full[1], full[4], full[5], full[6], full[7]
    numerator = 1.0 + squared * (k1 + squared * (k2 + squared * k3))
    denominator = 1.0 + squared * (k4 + squared * (k5 + squared * k6))
    return numerator, denominator


def _radial_part_slopes(full, squared):
    k1, k2, k3, k4, k5, k6 = full[0], full[1], full[4], full[5], full[6], full[7]
    return k1 + squared * (2.0 * k2 + 3.0 * squared * k3), k4 + squared * (2.0 * k5 + 3.0 * squared * k6)


def _radial_and_slope(full, squared):
    """The factor a(s) and da/ds."""
    numerator, denominator = _radial_parts(full, squared)
    numerator_slope, denominator_slope = _radial_part_slopes(full, squared)
    radial = numerator / denominator
    return radial, (numerator_slope - radial * denominator_slope) / denominator


def _angle_and_slope(full, angles):
    s = angles * angles
    k1, k2, k3, k4 = full[0], full[1], full[2], full[3]
    value = angles * (1.0 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
    slope = 1.0 + s * (3.0 * k1 + s * (5.0 * k2 + s * (7.0 * k3 + s * 9.0 * k4)))
    return value, slope


def _end_of_rise(rising: Callable, grid):
    """Last position before `rising` first turns false, to rounding; the last grid point if it never does."""
    falls = ~rising(grid)
    first = jnp.argmax(falls)  # grid[0] is the axis, where every lens rises
    low, high = grid[jnp.maximum(first - 1, 0)], grid[first]

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        good = rising(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    low, _ = jax.lax.fori_loop(0, 2 * _ITERATIONS, halve, (low, high))
    return jnp.where(jnp.any(falls), low, grid[-1])


def _solve_rising(value_and_slope: Callable, start, limit):
    """Root in [0, limit] of a function negative before it and positive after; the nearer end if there is none."""

    def step(_, state):
        x, low, high, last = state
        value, slope = value_and_slope(x)
        low, high = jnp.where(value <= 0.0, x, low), jnp.where(value >= 0.0, x, high)
        newton = x - value / jnp.where(slope > 0.0, slope, 1.0)
        # Newton only while its steps shrink by half: far out on a steep polynomial they would creep.
        trusted = (slope > 0.0) & (newton >= low) & (newton <= high) & (jnp.abs(newton - x) <= 0.5 * last)
        following = jnp.where(trusted, newton, 0.5 * (low + high))
        return following, low, high, jnp.abs(following - x)

    high = jnp.broadcast_to(limit, start.shape)
    state = (jnp.minimum(start, high), jnp.zeros_like(start), high, 2.0 * high)
    return jax.lax.fori_loop(0, _ITERATIONS, step, state)[0]


def _solve_symmetric(matrix, vector):
    """2x2 solve with the determinant kept off zero: at the fold the step is long, never infinite."""
    a, b, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    determinant = a * d - b * b
    floor = jnp.finfo(determinant.dtype).eps
    determinant = jnp.where(jnp.abs(determinant) > floor, determinant, floor)
    u, v = vector[..., 0], vector[..., 1]
    return jnp.stack([(d * u - b * v) / determinant, (a * v - b * u) / determinant], axis=-1)


def _determinant(matrix):
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def _tolerance(target, felt):
    return 64.0 * jnp.finfo(target.dtype).eps * (1.0 + jnp.abs(target) + felt)


def _brown_solved(full, limit, points, distorted):
    miss = jnp.abs(distort_brown(full, points) - distorted)
    jacobian = brown_jacobian(full, points)
    # What a rounding of the solution itself does to the image: near a pole of the radial quotient that is much.
    felt = jnp.sum(jnp.abs(jacobian) * jnp.abs(points)[..., None, :], axis=-1)
    # The tangential terms bend the fold a little; a solution far outside it lies on another branch.
    near = jnp.sum(points * points, axis=-1) <= (1.25 * limit) ** 2
    return near & jnp.all(miss <= _tolerance(distorted, felt), axis=-1) & (_determinant(jacobian) > 0.0)


def _fisheye_solved(full, angles, radii):
    value, slope = _angle_and_slope(full, angles)
    return (jnp.abs(value - radii) <= _tolerance(radii, jnp.abs(slope * angles))) & (slope > 0.0)


@jax.custom_jvp
def _brown_inverse(full, limit, distorted):
    squared = jnp.sum(distorted * distorted, axis=-1)
    radius = jnp.sqrt(squared)

    def value_and_slope(r):
        # r a(r^2) = radius, times the denominator: a polynomial has no poles for Newton to be caught at.
        s = r * r
        numerator, denominator = _radial_parts(full, s)
        numerator_slope, denominator_slope = _radial_part_slopes(full, s)
        value = r * numerator - radius * denominator
        return value, numerator + 2.0 * s * numerator_slope - 2.0 * r * radius * denominator_slope

    ideal = _solve_rising(value_and_slope, radius, limit)
    scale = jnp.where(radius > 0.0, ideal / jnp.where(radius > 0.0, radius, 1.0), 1.0)
    start = distorted * scale[..., None]

    def step(_, state):
        points, residual, damping = state
        move = _solve_symmetric(brown_jacobian(full, points), residual)
        trial = points - damping[..., None] * move
        trial_residual = distort_brown(full, trial) - distorted
        better = jnp.sum(trial_residual**2, axis=-1) < jnp.sum(residual**2, axis=-1)
        points = jnp.where(better[..., None], trial, points)
        residual = jnp.where(better[..., None], trial_residual, residual)
        return points, residual, jnp.where(better, jnp.minimum(1.0, 2.0 * damping), 0.5 * damping)

    state = (start, distort_brown(full, start) - distorted, jnp.ones_like(radius))
    points = jax.lax.fori_loop(0, _POLISH, step, state)[0]
    return jnp.where(_brown_solved(full, limit, points, distorted)[..., None], points, start)


@_brown_inverse.defjvp
def _brown_inverse_jvp(primals, tangents):
    full, limit, distorted = primals
    full_dot, _, distorted_dot = tangents
    points = _brown_inverse(full, limit, distorted)
    # distort(k, inverse(k, d)) = d, so J du + (d distort / d k) dk = dd.
    moved = jax.jvp(lambda c: distort_brown(c, points), (full,), (full_dot,))[1]
    solution = _solve_symmetric(brown_jacobian(full, points), distorted_dot - moved)
    return points, jnp.where(_brown_solved(full, limit, points, distorted)[..., None], solution, 0.0)


@jax.custom_jvp
def _fisheye_inverse(full, radii):
    def value_and_slope(angle):
        value, slope = _angle_and_slope(full, angle)
        return value - radii, slope

    return _solve_rising(value_and_slope, radii, fisheye_limit(full))


@_fisheye_inverse.defjvp
def _fisheye_inverse_jvp(primals, tangents):
    full, radii = primals
    full_dot, radii_dot = tangents
    angles = _fisheye_inverse(full, radii)
    moved = jax.jvp(lambda c: _angle_and_slope(c, angles)[0], (full,), (full_dot,))[1]
    slope = _angle_and_slope(full, angles)[1]
    solved = _fisheye_solved(full, angles, radii)
    return angles, jnp.where(solved, (radii_dot - moved) / jnp.where(solved, slope, 1.0), 0.0)
