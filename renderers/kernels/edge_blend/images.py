"""Edges of meshes as a camera has them: cut at the near plane, in the image, in chords where the lens bends lines."""

import jax.numpy as jnp
from jax import lax

from renderers.cameras import distortion
from renderers.cameras.camera import Camera, project_camera_points

_CHORDS = 8


def num_parts(camera: Camera) -> int:
    """Straight parts that an edge is followed by: one, unless the lens bends lines."""
    straight = camera.model == "orthographic" or (camera.model == "pinhole" and camera.distortion is None)
    return 1 if straight else _CHORDS


def image_of_edge(ends, part, camera, near):
    """Pixels where parts of edges begin and end, and which of them the camera sees. Differentiable in ends and camera.

    Args:
      ends: camera frame, [n, 2, 3].
      part: which of the chords.
      camera: with its lens.
      near: where edges are cut.
    """
    start, end = cut_edge(ends, part, camera, near)
    seen = jnp.ones(len(part), bool)
    if camera.model == "fisheye":
        limit = jnp.pi if camera.distortion is None else distortion.fisheye_limit(camera.distortion)
        for point in (start, end):
            radius = jnp.linalg.norm(point[:, :2], axis=-1)
            seen &= (jnp.arctan2(radius, point[:, 2]) < limit) & (jnp.linalg.norm(point, axis=-1) > near)
    else:
        seen &= (ends[:, 0, 2] > near) | (ends[:, 1, 2] > near)
    if camera.model == "pinhole" and camera.distortion is not None:
        limit = distortion.brown_limit(camera.distortion)
        for point in (start, end):
            seen &= jnp.linalg.norm(point[:, :2], axis=-1) < limit * point[:, 2]
    safe = jnp.where(seen[:, None], start, 1.0), jnp.where(seen[:, None], end, 1.0)
    return project_camera_points(camera, safe[0]), project_camera_points(camera, safe[1]), lax.stop_gradient(seen)


def cut_edge(ends, part, camera, near):
    """Camera-frame ends of a part of each edge, after what lies before the near plane has been cut away."""
    start, end = ends[:, 0], ends[:, 1]
    if camera.model != "fisheye":
        rise = end[:, 2] - start[:, 2]
        share = jnp.clip((near - start[:, 2]) / jnp.where(rise != 0, rise, 1.0), 0.0, 1.0)
        at_near = start + share[:, None] * (end - start)
        at_near = at_near.at[:, 2].set(near)
        start, end = (jnp.where(point[:, 2:] < near, at_near, point) for point in (start, end))
    parts = num_parts(camera)
    if parts == 1:
        return start, end
    low, high = part.astype(start.dtype)[:, None] / parts, (part + 1).astype(start.dtype)[:, None] / parts
    return start + low * (end - start), start + high * (end - start)
