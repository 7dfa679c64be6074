"""Camera paths and placements. Everything returns `camera_from_world` (OpenCV axes), stacked along v views.

A world with up vector U has a front F and a right `U x F`: +Y up gives F = +Z and right = +X, +Z up gives F = +X. The
azimuth is 0 for a camera in front, on +F, and grows towards the right; the elevation is above the horizontal plane.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from renderers.cameras.pose import from_parts, invert, so3_exp, so3_log, to_parts

Scalar = float | Float[Array, ""]
_HIGHEST = jax.lax.Precision.HIGHEST
_PARALLEL = 1e-10  # squared sine below which a viewing direction counts as parallel to up (0.0006 degrees)
_SAMPLES_PER_VIEW = 16  # of the arc-length table for even speed


def look_at(
    eye: Float[Array, " 3"], target: Float[Array, " 3"], up: Float[Array, " 3"] | None = None
) -> Float[Array, "4 4"]:
    """Camera at `eye` that sees `target` in its centre with `up` (default +Y) towards the top of the image.

    Looking straight down, the top of the image is the world's back; straight up, its front: the limits of an orbit at
    azimuth 0. With eye == target it looks towards the back. Gradients are finite in all of these.
    """
    up = _default_up(eye.dtype) if up is None else up
    _, up, front = _world_basis(up)
    forward = _normalised(target - eye, -front)
    across = jnp.cross(forward, up)
    # The vector that stands for up where up says nothing.
    spare = jnp.where(jnp.sum(forward * up) > 0.0, front, -front)
    right = _normalised(jnp.where(jnp.sum(across**2) < _PARALLEL, jnp.cross(forward, spare), across), front)
    return _pose_from_axes(eye, right, jnp.cross(forward, right), forward)


def orbit_pose(
    azimuth: Scalar,
    elevation: Scalar,
    radius: Scalar,
    target: Float[Array, " 3"] | None = None,
    up: Float[Array, " 3"] | None = None,
) -> Float[Array, "4 4"]:
    """Camera on a sphere around `target` (default the origin), looking at it; angles in radians, radius in metres.

    Unlike `look_at` it keeps turning with the azimuth at the poles, so paths over them are smooth.
    """
    dtype = jnp.result_type(azimuth)
    target = jnp.zeros(3, dtype) if target is None else target
    right0, up, front = _world_basis(_default_up(dtype) if up is None else up)
    level = jnp.cos(azimuth) * front + jnp.sin(azimuth) * right0
    outward = jnp.cos(elevation) * level + jnp.sin(elevation) * up
    right = jnp.cos(azimuth) * right0 - jnp.sin(azimuth) * front
    return _pose_from_axes(target + radius * outward, right, jnp.cross(-outward, right), -outward)


def orbit(
    num_views: int,
    radius: Scalar,
    *,
    elevation: Scalar = 0.0,
    start_azimuth: Scalar = 0.0,
    target: Float[Array, " 3"] | None = None,
    up: Float[Array, " 3"] | None = None,
) -> Float[Array, "v 4 4"]:
    """Turntable: one full turn in equal steps, the end not repeated. Angles in radians, radius in metres."""
    dtype = jnp.float32 if target is None else target.dtype
    azimuths = start_azimuth + 2.0 * jnp.pi * jnp.arange(num_views, dtype=dtype) / num_views
    level = jnp.asarray(elevation, dtype)
    return jax.vmap(lambda azimuth: orbit_pose(azimuth, level, jnp.asarray(radius, dtype), target, up))(azimuths)


def spiral(
    center_from_world: Float[Array, "4 4"],
    num_views: int,
    *,
    radii: Float[Array, " 3"],
    focus_depth: Scalar,
    turns: Scalar = 2.0,
    forward_rate: Scalar = 0.5,
) -> Float[Array, "v 4 4"]:
    """Spiral around a central camera with all views aimed at one point in front of it, as in LLFF's videos.

    The eye is `(rx cos a, -ry sin a, -rz sin(forward_rate a))` to the right, up and forward of the central camera
    (arXiv:1905.00889); it keeps the central camera's up direction.

    Args:
        center_from_world: the central camera, `average_pose` of a capture for instance.
        num_views: views on the whole path; the last one comes just before the first turn's start repeats.
        radii: half extents in metres to the right, up and forward; LLFF takes the 90th percentile of the capture's.
        focus_depth: metres in front of the central camera at which all views are aimed.
        turns: number of turns.
        forward_rate: turns of the forward motion per turn of the spiral.
    """
    dtype = center_from_world.dtype
    angles = 2.0 * jnp.pi * turns * jnp.arange(num_views, dtype=dtype) / num_views
    offsets = jnp.stack([jnp.cos(angles), -jnp.sin(angles), -jnp.sin(angles * forward_rate)], axis=-1)
    right_up_forward = offsets * jnp.broadcast_to(radii, offsets.shape)
    world_from_center = invert(center_from_world)
    rotation, center = to_parts(world_from_center)
    camera_axes = right_up_forward * jnp.asarray([[1.0, -1.0, 1.0]], dtype)  # OpenCV's y points down
    eyes = jnp.einsum("ij,vj->vi", rotation, camera_axes, precision=_HIGHEST) + jnp.broadcast_to(center, (num_views, 3))
    return jax.vmap(lambda eye: look_at(eye, center + focus_depth * rotation[:, 2], -rotation[:, 1]))(eyes)


def average_pose(camera_from_world: Float[Array, "v 4 4"]) -> Float[Array, "4 4"]:
    """Central camera of a capture: mean centre, mean viewing direction, mean up direction."""
    rotation, centers = to_parts(invert(camera_from_world))
    eye = jnp.mean(centers, axis=0)
    return look_at(eye, eye + jnp.mean(rotation[:, :, 2], axis=0), -jnp.mean(rotation[:, :, 1], axis=0))


def random_hemisphere(
    key: PRNGKeyArray,
    num_views: int,
    radius: Scalar,
    *,
    elevation_range: tuple[float, float] = (0.0, jnp.pi / 2),
    target: Float[Array, " 3"] | None = None,
    up: Float[Array, " 3"] | None = None,
) -> Float[Array, "v 4 4"]:
    """Cameras drawn uniformly by area on the part of a sphere between two elevations (default the upper half)."""
    dtype = jnp.float32 if target is None else target.dtype
    azimuth_key, height_key = jax.random.split(key)
    azimuths = jax.random.uniform(azimuth_key, (num_views,), dtype, 0.0, 2.0 * jnp.pi)
    heights = jax.random.uniform(height_key, (num_views,), dtype)
    return _on_sphere(azimuths, heights, radius, elevation_range, target, up)


def fibonacci_hemisphere(
    num_views: int,
    radius: Scalar,
    *,
    elevation_range: tuple[float, float] = (0.0, jnp.pi / 2),
    target: Float[Array, " 3"] | None = None,
    up: Float[Array, " 3"] | None = None,
) -> Float[Array, "v 4 4"]:
    """Evenly spread cameras, without randomness: azimuths by the golden angle, heights by equal areas."""
    dtype = jnp.float32 if target is None else target.dtype
    index = jnp.arange(num_views, dtype=dtype)
    golden_turn = (3.0 - 5.0**0.5) / 2.0
    # The turn is reduced before it becomes an angle: float32 sine loses digits at thousands of radians.
    azimuths = 2.0 * jnp.pi * jnp.mod(index * golden_turn, 1.0)
    return _on_sphere(azimuths, (index + 0.5) / num_views, radius, elevation_range, target, up)


def interpolate_path(
    camera_from_world: Float[Array, "v 4 4"],
    num_views: int,
    *,
    closed: bool = False,
    interpolation: Literal["smooth", "linear"] = "smooth",
    even_speed: bool = False,
) -> Float[Array, "m 4 4"]:
    """Fly-through that passes through every given pose in turn.

    Centres and rotations go through one spline: Catmull-Rom by the Barry-Goldman pyramid, in which each straight step
    is a lerp of the centres and a slerp of the rotations (Schlag, Graphics Gems II, 1991): continuous velocity.
    "linear" is piecewise lerp and slerp. Neighbouring poses should be less than half a turn apart.

    Args:
        camera_from_world: at least two poses in the order of the path.
        num_views: poses returned. An open path includes both ends; a closed one does not repeat its start.
        closed: return from the last pose to the first.
        interpolation: "smooth" or "linear".
        even_speed: equal distances between successive centres instead of equal times between given poses.

    Raises:
        ValueError: fewer than two poses.
    """
    num_poses = camera_from_world.shape[0]
    if num_poses < 2:
        raise ValueError(f"interpolate_path needs at least 2 poses to pass through, got {num_poses}")
    dtype = camera_from_world.dtype
    num_segments = num_poses if closed else num_poses - 1
    evaluate = _path_evaluator(camera_from_world, num_segments, closed, interpolation)
    fractions = jnp.arange(num_views, dtype=dtype) / max(num_views if closed else num_views - 1, 1)
    times = fractions * num_segments
    if even_speed:
        table = jnp.linspace(0.0, num_segments, _SAMPLES_PER_VIEW * num_views + 1, dtype=dtype)
        centers = to_parts(evaluate(table))[1]
        steps = jnp.linalg.norm(jnp.diff(centers, axis=0), axis=-1)
        # A path that only turns has no length: the floor makes it fall back on equal times.
        steps = steps + 1e-6 * jnp.mean(steps) + jnp.finfo(dtype).tiny * 1e6
        length = jnp.concatenate([jnp.zeros(1, dtype), jnp.cumsum(steps)])
        times = jnp.interp(fractions * length[-1], length, table)
    return invert(evaluate(times))


def _path_evaluator(camera_from_world, num_segments, closed, interpolation):
    """Function from times, in segments, to `world_from_camera`."""
    poses = invert(camera_from_world)
    num_poses = poses.shape[0]
    if closed:
        nodes = poses[jnp.arange(-1, num_poses + 2) % num_poses]
    else:
        one = jnp.ones((), poses.dtype)
        beyond = _blend_each(poses[jnp.asarray([0, -2])], poses[jnp.asarray([1, -1])], jnp.stack([-one, 2.0 * one]))
        nodes = jnp.concatenate([beyond[:1], poses, beyond[1:]])

    def at(time):
        segment = jnp.clip(jnp.floor(time).astype(jnp.int32), 0, num_segments - 1)
        s = time - segment.astype(time.dtype)
        four = nodes[segment + jnp.arange(4)]
        if interpolation == "linear":
            return _blend(four[1], four[2], s)
        three = _blend_each(four[:-1], four[1:], jnp.stack([s + 1.0, s, s - 1.0]))
        two = _blend_each(three[:-1], three[1:], jnp.stack([(s + 1.0) / 2.0, s / 2.0]))
        return _blend(two[0], two[1], s)

    return jax.vmap(at)


def _blend(pose_a, pose_b, s):
    """Lerp of translations and slerp of rotations, extrapolating outside [0, 1]."""
    (rotation_a, center_a), (rotation_b, center_b) = to_parts(pose_a), to_parts(pose_b)
    turn = so3_log(jnp.matmul(rotation_a.T, rotation_b, precision=_HIGHEST))
    rotation = jnp.matmul(rotation_a, so3_exp(s * turn), precision=_HIGHEST)
    return from_parts(rotation, center_a + s * (center_b - center_a))


_blend_each = jax.vmap(_blend)


def _on_sphere(azimuths, heights, radius, elevation_range, target, up):
    """Cameras at fractions `heights` of the area (which is linear in the sine of the elevation) of a spherical band."""
    low, high = (jnp.sin(jnp.asarray(angle, azimuths.dtype)) for angle in elevation_range)
    elevations = jnp.arcsin(jnp.clip(low + (high - low) * heights, -1.0, 1.0))
    distance = jnp.asarray(radius, azimuths.dtype)
    return jax.vmap(lambda azimuth, elevation: orbit_pose(azimuth, elevation, distance, target, up))(
        azimuths, elevations
    )


def _default_up(dtype):
    return jnp.asarray([0.0, 1.0, 0.0], dtype)


def _world_basis(up):
    """Right, up and front: the front is the axis after up's largest component, made perpendicular to up."""
    up = _normalised(up, _default_up(up.dtype))
    axis = (jnp.argmax(jnp.abs(up)) + 1) % 3
    front = jax.nn.one_hot(axis, 3, dtype=up.dtype)
    front = _normalised(front - jnp.sum(front * up) * up, front)
    return jnp.cross(up, front), up, front


def _normalised(vector, otherwise):
    """Unit vector, or `otherwise` for the zero vector, with finite gradients in both cases."""
    squared = jnp.sum(vector * vector)
    usable = squared > jnp.finfo(vector.dtype).tiny
    return jnp.where(usable, vector / jnp.sqrt(jnp.where(usable, squared, 1.0)), otherwise)


def _pose_from_axes(eye, right, down, forward):
    rotation = jnp.stack([right, down, forward])
    return from_parts(rotation, -jnp.matmul(rotation, eye, precision=_HIGHEST))
