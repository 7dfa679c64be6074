"""Rigid transforms: compose and invert, quaternions, exponential and logarithm, small moves of a camera.

Notation: `R` rotation, `t` translation, `w` a rotation vector (axis times angle), `[w]` its cross-product matrix,
`x = |w|^2`. The coefficients below are the series
    A = sin(|w|) / |w|,   B = (1 - cos |w|) / |w|^2,   C = (|w| - sin |w|) / |w|^3
so that exp(w) = I + A [w] + B [w]^2 and the left Jacobian is V = I + B [w] + C [w]^2 (Rodrigues; Sola et al.,
"A micro Lie theory for state estimation in robotics", arXiv:1812.01537, eqs. 145 and 174).

Gradients are finite everywhere, the identity and half turns included: each quotient is replaced by its series where it
loses digits, with the argument made safe before the division (a `where` around a NaN still has a NaN gradient).
At exactly half a turn the logarithm has two values of opposite sign; one of them is returned.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera

# Below half a radian 8 terms are exact to rounding in float64; above it the quotients lose few digits.
_SERIES_BELOW = 0.25
_TERMS = 8
# Coefficients of (1 - A / (2 B)) / x = |B_2k| x^(k-1) / (2k)!, with Bernoulli numbers B_2k.
_INVERSE_JACOBIAN_SERIES = (
    1 / 12,
    1 / 720,
    1 / 30240,
    1 / 1209600,
    1 / 47900160,
    691 / 1307674368000,
    1 / 74724249600,
    3617 / 10670622842880000,
)
_POLAR_STEPS = 10


def compose(a_from_b: Float[Array, "*n 4 4"], b_from_c: Float[Array, "*n 4 4"]) -> Float[Array, "*n 4 4"]:
    """`a_from_c`, the matrix product in full precision on every device."""
    return jnp.matmul(a_from_b, b_from_c, precision=jax.lax.Precision.HIGHEST)


def invert(a_from_b: Float[Array, "*n 4 4"]) -> Float[Array, "*n 4 4"]:
    """`b_from_a` of a rigid transform: `[R^T | -R^T t]`. Scale or shear in the input is not undone."""
    rotation, translation = to_parts(a_from_b)
    moved = jnp.einsum("...ji,...j->...i", rotation, translation, precision=jax.lax.Precision.HIGHEST)
    return from_parts(jnp.swapaxes(rotation, -1, -2), -moved)


def from_parts(rotation: Float[Array, "*n 3 3"], translation: Float[Array, "*n 3"]) -> Float[Array, "*n 4 4"]:
    """The 4x4 matrix of `p -> R p + t`."""
    upper = jnp.concatenate([rotation, translation[..., None]], axis=-1)
    last = jnp.broadcast_to(jnp.asarray([[0.0, 0.0, 0.0, 1.0]], upper.dtype), upper.shape[:-2] + (1, 4))
    return jnp.concatenate([upper, last], axis=-2)


def to_parts(a_from_b: Float[Array, "*n 4 4"]) -> tuple[Float[Array, "*n 3 3"], Float[Array, "*n 3"]]:
    """Rotation and translation of a 4x4 matrix."""
    return a_from_b[..., :3, :3], a_from_b[..., :3, 3]


def transform_points(a_from_b: Float[Array, "4 4"], points_b: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Points of frame b in frame a."""
    rotation, translation = to_parts(a_from_b)
    moved = jnp.einsum("ij,...j->...i", rotation, points_b, precision=jax.lax.Precision.HIGHEST)
    return moved + jnp.broadcast_to(translation, moved.shape)


def so3_exp(rotation_vector: Float[Array, " 3"]) -> Float[Array, "3 3"]:
    """Rotation matrix of a rotation vector (axis times angle in radians)."""
    cross, squared = _cross_matrix(rotation_vector), jnp.sum(rotation_vector**2)
    identity = jnp.eye(3, dtype=rotation_vector.dtype)
    return identity + _sine_series(squared, 1) * cross + _sine_series(squared, 2) * _square(cross)


def so3_log(rotation: Float[Array, "3 3"]) -> Float[Array, " 3"]:
    """Rotation vector, of angle in [0, pi], of a rotation matrix.

    By way of the unit quaternion, whose entries stay well conditioned at every angle.
    """
    quaternion = quaternion_from_matrix(rotation)
    w, v = quaternion[0], quaternion[1:]
    squared = jnp.sum(v * v)
    # atan(u) / u = 1 - u^2 / 3 + ... with u = |v| / w; below 0.05 radian the first five terms are exact in float64.
    small = squared < 6e-4 * w * w
    ratio = jnp.where(small, squared / jnp.where(small, w * w, 1.0), 0.0)
    series = 2.0 / jnp.where(small, w, 1.0) * (1.0 - ratio * (1 / 3 - ratio * (1 / 5 - ratio * (1 / 7 - ratio / 9))))
    length = jnp.sqrt(jnp.where(small, 1.0, squared))
    return v * jnp.where(small, series, 2.0 * jnp.arctan2(length, w) / length)


def se3_exp(delta: Float[Array, " 6"]) -> Float[Array, "4 4"]:
    """Rigid transform of a twist `(rotation vector, translation part)`: `[exp(w) | V(w) u]`."""
    rotation_vector, move = delta[:3], delta[3:]
    cross, squared = _cross_matrix(rotation_vector), jnp.sum(rotation_vector**2)
    identity = jnp.eye(3, dtype=delta.dtype)
    jacobian = identity + _sine_series(squared, 2) * cross + _sine_series(squared, 3) * _square(cross)
    return from_parts(so3_exp(rotation_vector), jnp.matmul(jacobian, move, precision=jax.lax.Precision.HIGHEST))


def se3_log(a_from_b: Float[Array, "4 4"]) -> Float[Array, " 6"]:
    """Twist `(rotation vector, translation part)` of a rigid transform; the inverse of `se3_exp` up to half a turn."""
    rotation, translation = to_parts(a_from_b)
    rotation_vector = so3_log(rotation)
    cross, squared = _cross_matrix(rotation_vector), jnp.sum(rotation_vector**2)
    small = squared < _SERIES_BELOW
    safe = jnp.where(small, 1.0, squared)
    exact = (1.0 - 0.5 * _sine_series(safe, 1) / _sine_series(safe, 2)) / safe
    quadratic = jnp.where(small, _horner(_INVERSE_JACOBIAN_SERIES, jnp.where(small, squared, 0.0)), exact)
    inverse_jacobian = jnp.eye(3, dtype=cross.dtype) - 0.5 * cross + quadratic * _square(cross)
    move = jnp.matmul(inverse_jacobian, translation, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([rotation_vector, move])


def perturb(camera: Camera, delta: Float[Array, " 6"]) -> Camera:
    """The camera moved by a twist in its own frame: `camera_from_world <- exp(delta) camera_from_world`.

    The parametrisation for pose refinement: optimise `delta` from zero, where its gradient is well defined.
    `delta` is (rotation vector in radians, translation part in metres), both in camera axes.
    """
    return dataclasses.replace(camera, camera_from_world=compose(se3_exp(delta), camera.camera_from_world))


def orthonormalise(a_from_b: Float[Array, "*n 4 4"]) -> Float[Array, "*n 4 4"]:
    """Replaces the upper left 3x3 by the nearest orthogonal matrix (polar factor), keeping the translation.

    Newton's iteration for the polar decomposition with Higham's scaling (SIAM J. Sci. Stat. Comput. 7, 1986):
    differentiable where an SVD is not, since the singular values of a nearly orthonormal matrix coincide. Scale is
    dropped; a mirroring stays one. The 3x3 must be invertible.
    """
    matrix, translation = to_parts(a_from_b)

    def step(_, matrix):
        inverse = _inverse_transpose(matrix)
        # The fourth root of |inverse|^2 / |matrix|^2 balances large and small singular values.
        scale = (jnp.sum(inverse**2, (-1, -2), keepdims=True) / jnp.sum(matrix**2, (-1, -2), keepdims=True)) ** 0.25
        return 0.5 * (scale * matrix + inverse / scale)

    return from_parts(jax.lax.fori_loop(0, _POLAR_STEPS, step, matrix), translation)


def matrix_from_quaternion(quaternion: Float[Array, "*n 4"]) -> Float[Array, "*n 3 3"]:
    """Rotation matrix of a wxyz quaternion of any positive length; the zero quaternion gives the identity."""
    squared = jnp.sum(quaternion * quaternion, axis=-1)
    positive = squared > 0.0
    s = jnp.where(positive, 2.0 / jnp.where(positive, squared, 1.0), 0.0)
    w, x, y, z = (quaternion[..., i] for i in range(4))
    rows = [
        [1.0 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
        [s * (x * y + w * z), 1.0 - s * (x * x + z * z), s * (y * z - w * x)],
        [s * (x * z - w * y), s * (y * z + w * x), 1.0 - s * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(rotation: Float[Array, "*n 3 3"]) -> Float[Array, "*n 4"]:
    """Unit wxyz quaternion, w >= 0, of a rotation matrix; well conditioned at every angle (Shepperd, 1978)."""
    r = [[rotation[..., i, j] for j in range(3)] for i in range(3)]
    # Row i of this matrix is 4 q_i q: the row of the largest q_i^2 is divided by its length.
    w, x, y, z = r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1], jnp.ones_like(r[0][0])
    xy, xz, yz = r[0][1] + r[1][0], r[0][2] + r[2][0], r[1][2] + r[2][1]
    rows = [
        [z + r[0][0] + r[1][1] + r[2][2], w, x, y],
        [w, z + r[0][0] - r[1][1] - r[2][2], xy, xz],
        [x, xy, z - r[0][0] + r[1][1] - r[2][2], yz],
        [y, xz, yz, z - r[0][0] - r[1][1] + r[2][2]],
    ]
    products = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    largest = jnp.argmax(jnp.diagonal(products, axis1=-2, axis2=-1), axis=-1)
    row = jnp.take_along_axis(products, largest[..., None, None], axis=-2)[..., 0, :]
    quaternion = row / jnp.linalg.norm(row, axis=-1, keepdims=True)
    return jnp.where(quaternion[..., :1] < 0.0, -quaternion, quaternion)


def _sine_series(squared, first):
    """Sum over k of (-x)^k / (2 k + first)!: A, B, C above for first = 1, 2, 3."""
    small = squared < _SERIES_BELOW
    coefficients = tuple((-1) ** k / math.factorial(2 * k + first) for k in range(_TERMS))
    series = _horner(coefficients, jnp.where(small, squared, 0.0))
    safe = jnp.where(small, 1.0, squared)
    angle = jnp.sqrt(safe)
    if first == 1:
        exact = jnp.sin(angle) / angle
    elif first == 2:
        exact = 2.0 * jnp.sin(0.5 * angle) ** 2 / safe
    else:
        exact = (angle - jnp.sin(angle)) / (safe * angle)
    return jnp.where(small, series, exact)


def _horner(coefficients, x):
    total = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def _cross_matrix(w):
    zero = jnp.zeros_like(w[0])
    return jnp.stack([jnp.stack([zero, -w[2], w[1]]), jnp.stack([w[2], zero, -w[0]]), jnp.stack([-w[1], w[0], zero])])


def _square(matrix):
    return jnp.matmul(matrix, matrix, precision=jax.lax.Precision.HIGHEST)


def _inverse_transpose(matrix):
    a, b, c = matrix[..., 0, :], matrix[..., 1, :], matrix[..., 2, :]
    cofactors = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-2)
    return cofactors / jnp.sum(a * jnp.cross(b, c), axis=-1)[..., None, None]
