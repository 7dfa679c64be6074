"""Normals of the surface that a depth map shows, by differences of neighbouring points (arXiv 2403.17888, Eq. 16)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera, unproject


def depth_to_normals(depth: Float[Array, "h w"], camera: Camera) -> Float[Array, "h w 3"]:
    """Unit normals in the world's frame, towards the camera; zero on the one-pixel border and where points coincide.

    Each pixel's depth is unprojected at its centre; the normal is the cross product of the central differences down and
    across the image, exact on planes. Differentiable in the depth and in the camera's pose, focal lengths and principal
    point; zero gradient where the normal is zero. Where nothing was rendered depth is 0 and means the camera's centre:
    mask such pixels and their neighbours. As gsplat 1.6.0.

    Args:
      depth: camera z, world units: a rendering's expected or median depth, not one still multiplied by alpha.
      camera: any lens; its size must be the map's.

    Raises:
      ValueError: the sizes differ.
    """
    height, width = depth.shape
    if (height, width) != camera.size:
        raise ValueError(f"expected a depth map of the camera's size {camera.size}, got {(height, width)}")
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    points = unproject(camera, (jnp.stack([x, y], -1) + 0.5).astype(depth.dtype), depth)
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    across = points[1:-1, 2:] - points[1:-1, :-2]
    normals = jnp.cross(down, across)
    squared = jnp.sum(normals * normals, -1, keepdims=True)
    normals = jnp.where(squared > 0, normals, 0.0) / jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return jnp.pad(normals, ((1, 1), (1, 1), (0, 0)))
