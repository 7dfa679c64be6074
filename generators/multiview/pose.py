"""What a network is told about cameras: Pluecker coordinates of the rays of cells, and the cameras' axes.

A ray through o with unit direction d has Pluecker coordinates (d, o x d), which do not depend on the point o chosen
(light field networks, arXiv 2106.02634). World frame, metres.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_FREQUENCIES = (2.0, 4.0)


def cell_rays(camera_from_world: Float[Array, "b v 4 4"], cells: int, field_of_view: float) -> Float[Array, "b v n 6"]:
    """Pluecker coordinates of the rays through the centres of cells x cells parts of square pictures, reading order.

    Args:
      camera_from_world: rigid, OpenCV axes.
      cells: along a side.
      field_of_view: radians across a side.
    """
    rotation = camera_from_world[..., :3, :3]
    centers = -jnp.einsum("bvij,bvi->bvj", rotation, camera_from_world[..., :3, 3])
    offsets = math.tan(0.5 * field_of_view) * ((np.arange(cells) + 0.5) / cells * 2.0 - 1.0)
    x, y = np.meshgrid(offsets, offsets)
    in_camera = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3).astype(np.float32)
    in_camera /= np.linalg.norm(in_camera, axis=-1, keepdims=True)
    directions = jnp.einsum("bvij,ni->bvnj", rotation, in_camera)
    moments = jnp.cross(jnp.broadcast_to(centers[:, :, None], directions.shape), directions)
    return jnp.concatenate([directions, moments], axis=-1)


def with_waves(features: Float[Array, "*b f"]) -> Float[Array, "*b g"]:
    """Features with their sines and cosines at two frequencies beside them."""
    waves = [wave(frequency * features) for frequency in _FREQUENCIES for wave in (jnp.sin, jnp.cos)]
    return jnp.concatenate([features, *waves], axis=-1)


def camera_axes(camera_from_world: Float[Array, "b v 4 4"]) -> Float[Array, "b v 9"]:
    """Axes of the cameras in the world, flat."""
    return camera_from_world[..., :3, :3].reshape(*camera_from_world.shape[:2], 9)
