"""The camera record and what it does to points: project, unproject, resize, crop.

Notation: a point `(x, y, z)` in the camera's frame (OpenCV: x right, y down, z forward) lands on pixel
`(u, v) = (fx p + cx, fy q + cy)`, pixel centres at +0.5, where `(p, q)` is
    pinhole       distorted `(x / z, y / z)`, Brown-Conrady
    orthographic  `(x, y)`; focal is then pixels per metre
    fisheye       `(x, y) d(t) / r`, `r = |(x, y)|`, `t = atan2(r, z)`, d the Kannala-Brandt curve (the identity for an
                  ideal, equidistant lens)
Depth is z for all three.
"""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from renderers.cameras import distortion as lens

CameraModel = Literal["pinhole", "orthographic", "fisheye"]
# Points nearer than this to the plane z = 0 project as if they were this far in front of it: finite, for culled points.
_SMALLEST_DEPTH = 1e-8
# gsplat 1.6.0 adds 1e-7 to both arguments of the fisheye's atan2; kept for parity, moves a pixel by f * 1e-7 / range.
_FISHEYE_EPSILON = 1e-7


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
@typing.no_type_check
class Camera:
    """A posed camera with its lens. A pytree: poses and intrinsics are data, size and model are static.

    Attributes:
        camera_from_world: rigid transform to the OpenCV camera frame; only the upper 3x4 entries are read.
        focal: fx, fy in pixels (orthographic: pixels per metre).
        principal: cx, cy in pixels, `(width / 2, height / 2)` at the image centre.
        size: static `(height, width)` in pixels.
        model: static kind of projection.
        distortion: OpenCV's order. Pinhole `(k1, k2, p1, p2[, k3[, k4, k5, k6]])`, fisheye `(k1, k2, k3, k4)`; None
            is the ideal lens. Orthographic cameras have none.
    """

    camera_from_world: Float[Array, "4 4"]
    focal: Float[Array, " 2"]
    principal: Float[Array, " 2"]
    size: tuple[int, int] = dataclasses.field(metadata=dict(static=True))
    model: CameraModel = dataclasses.field(default="pinhole", metadata=dict(static=True))
    distortion: Float[Array, " k"] | None = None


def camera_center(camera: Camera) -> Float[Array, " 3"]:
    """Position of the camera in the world, `-R^T t`.

    The transpose stands for the inverse by contract, so that gradients to the raw pose entries agree with gsplat's.
    """
    rotation, translation = camera.camera_from_world[:3, :3], camera.camera_from_world[:3, 3]
    return -jnp.einsum("ji,j->i", rotation, translation, precision=jax.lax.Precision.HIGHEST)


def intrinsic_matrix(camera: Camera) -> Float[Array, "3 3"]:
    """`pixel_from_camera`: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], to be divided by its third row; no distortion."""
    (fx, fy), (cx, cy) = camera.focal, camera.principal
    zero, one = jnp.zeros_like(fx), jnp.ones_like(fx)
    return jnp.stack([jnp.stack([fx, zero, cx]), jnp.stack([zero, fy, cy]), jnp.stack([zero, zero, one])])


def to_camera_frame(camera: Camera, points_world: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """World points in the camera's frame, `R p + t`."""
    rotation, translation = camera.camera_from_world[:3, :3], camera.camera_from_world[:3, 3]
    rotated = jnp.einsum("ij,...j->...i", rotation, points_world, precision=jax.lax.Precision.HIGHEST)
    return rotated + jnp.broadcast_to(translation, rotated.shape)


def to_world_frame(camera: Camera, points_camera: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Camera-frame points in the world, `R^T (p - t)`."""
    rotation, translation = camera.camera_from_world[:3, :3], camera.camera_from_world[:3, 3]
    shifted = points_camera - jnp.broadcast_to(translation, points_camera.shape)
    return jnp.einsum("ji,...j->...i", rotation, shifted, precision=jax.lax.Precision.HIGHEST)


def project(camera: Camera, points_world: Float[Array, "*n 3"]) -> tuple[Float[Array, "*n 2"], Float[Array, "*n"]]:
    """Pixels (column, row) and depths (camera z) of world points.

    Finite also behind the camera and in its plane (coordinates up to 1e30 m in float32); whether a pixel means anything
    is for the caller to say from the depth (pinhole: depth > 0) and, with distortion, from `distortion.brown_limit`.
    Differentiable in points, pose, focal, principal and distortion.
    """
    points_camera = to_camera_frame(camera, points_world)
    return project_camera_points(camera, points_camera), points_camera[..., 2]


def project_camera_points(camera: Camera, points_camera: Float[Array, "*n 3"]) -> Float[Array, "*n 2"]:
    """Pixels (column, row) of points given in the camera's own frame; the pose is not read."""
    plane = _plane_from_points(camera, points_camera)
    u = camera.focal[0] * plane[..., 0] + camera.principal[0]
    v = camera.focal[1] * plane[..., 1] + camera.principal[1]
    return jnp.stack([u, v], axis=-1)


def unproject(camera: Camera, pixels: Float[Array, "*n 2"], depth: Float[Array, "*n"]) -> Float[Array, "*n 3"]:
    """World points at the given depths (camera z) behind pixels; the inverse of `project`.

    Where the distortion cannot be inverted the point lies on the ray of the fold (see `viewing_directions`). A fisheye
    pixel at 90 degrees or more has no point of positive z: use rays there.
    """
    plane = _plane_from_pixels(camera, pixels)
    if camera.model == "orthographic":
        return to_world_frame(camera, jnp.concatenate([plane, depth[..., None]], axis=-1))
    directions, _ = viewing_directions(camera, pixels)
    z = directions[..., 2]
    z = jnp.where(jnp.abs(z) > _SMALLEST_DEPTH, z, _SMALLEST_DEPTH)
    return to_world_frame(camera, directions * (depth / z)[..., None])


def viewing_directions(camera: Camera, pixels: Float[Array, "*n 2"]) -> tuple[Float[Array, "*n 3"], Bool[Array, "*n"]]:
    """Unit directions, in the camera's frame, of the light that falls on pixels; and which of them the lens can see.

    Returns:
        Directions and a mask that is False where the distortion has no inverse (beyond the fold of its curve, or past
        180 degrees from the axis of a fisheye); the direction there is that of the fold, finite, with zero gradient.
    """
    plane = _plane_from_pixels(camera, pixels)
    valid = jnp.ones(plane.shape[:-1], bool)
    if camera.model == "orthographic":
        forward = jnp.zeros(plane.shape[:-1] + (3,), plane.dtype).at[..., 2].set(1.0)
        return forward, valid
    if camera.model == "pinhole":
        if camera.distortion is not None:
            plane, valid = lens.undistort_brown(camera.distortion, plane)
        directions = jnp.concatenate([plane, jnp.ones_like(plane[..., :1])], axis=-1)
        return directions / jnp.linalg.norm(directions, axis=-1, keepdims=True), valid
    radius = _safe_norm(plane)
    if camera.distortion is not None:
        angle, valid = lens.undistort_fisheye(camera.distortion, radius)
    else:
        angle, valid = jnp.minimum(radius, jnp.pi), radius <= jnp.pi
    # sin(t) / d(t) tends to 1 / d'(0) = 1 on the axis.
    on_axis = radius < _FISHEYE_EPSILON
    ratio = jnp.where(on_axis, 1.0, jnp.sin(angle) / jnp.where(on_axis, 1.0, radius))
    return jnp.concatenate([plane * ratio[..., None], jnp.cos(angle)[..., None]], axis=-1), valid


def resize(camera: Camera, size: tuple[int, int]) -> Camera:
    """The same view sampled on another pixel grid, `size = (height, width)`; focal and principal scale per axis."""
    height, width = camera.size
    scale = jnp.asarray([size[1] / width, size[0] / height], camera.focal.dtype)
    return dataclasses.replace(camera, focal=camera.focal * scale, principal=camera.principal * scale, size=size)


def crop(camera: Camera, top: int, left: int, size: tuple[int, int]) -> Camera:
    """The window whose first pixel is row `top`, column `left`; it may reach outside the image (padding)."""
    corner = jnp.asarray([left, top], camera.principal.dtype)
    return dataclasses.replace(camera, principal=camera.principal - corner, size=size)


def stack_cameras(cameras: Sequence[Camera]) -> Camera:
    """One Camera whose arrays have a leading view axis, for `jax.vmap(f)(stacked)` or `jax.lax.map`.

    Distortions of unequal length are padded with zeros, which changes no lens; all-ideal cameras stay without.

    Raises:
        ValueError: no camera, or sizes or models differ.
    """
    if not cameras:
        raise ValueError("stack_cameras needs at least one camera, got none")
    kinds = sorted({(camera.model, camera.size) for camera in cameras})
    if len(kinds) > 1:
        raise ValueError(
            f"cameras of one stack must share model and (height, width), got {kinds}; resize them or group by size"
        )
    lengths = [0 if camera.distortion is None else camera.distortion.shape[-1] for camera in cameras]
    if any(camera.distortion is not None for camera in cameras):
        cameras = [_with_coefficients(camera, max(lengths)) for camera in cameras]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *cameras)


def _with_coefficients(camera, count):
    given = jnp.zeros(0, camera.focal.dtype) if camera.distortion is None else camera.distortion
    return dataclasses.replace(camera, distortion=jnp.pad(given, (0, count - given.shape[-1])))


def _plane_from_points(camera, points):
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    if camera.model == "orthographic":
        return points[..., :2]
    if camera.model == "pinhole":
        # Two `where`s: the division must not see the zero, or its gradient would be NaN through the branch not taken.
        z = jnp.where(jnp.abs(z) > _SMALLEST_DEPTH, z, _SMALLEST_DEPTH)
        plane = jnp.stack([x / z, y / z], axis=-1)
        if camera.distortion is None:
            return plane
        # Past 89.99 degrees the quotient of two sixth powers would overflow in float32.
        return lens.distort_brown(camera.distortion, jnp.clip(plane, -lens.LARGEST_RADIUS, lens.LARGEST_RADIUS))
    radius = _safe_norm(points[..., :2]) + _FISHEYE_EPSILON
    angle = jnp.arctan2(radius, z + _FISHEYE_EPSILON)
    if camera.distortion is not None:
        angle = lens.distort_fisheye(camera.distortion, angle)
    ratio = angle / radius
    return jnp.stack([x * ratio, y * ratio], axis=-1)


def _plane_from_pixels(camera, pixels):
    p = (pixels[..., 0] - camera.principal[0]) / camera.focal[0]
    q = (pixels[..., 1] - camera.principal[1]) / camera.focal[1]
    return jnp.stack([p, q], axis=-1)


def _safe_norm(vectors):
    """Length with gradient zero, not NaN, at the zero vector."""
    squared = jnp.sum(vectors * vectors, axis=-1)
    positive = squared > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
