"""The definition: every part of every edge in every column, one column at a time, differentiated by JAX."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera
from renderers.kernels.edge_blend.images import num_parts
from renderers.kernels.edge_blend.pairs import (
    changes,
    colors,
    decided,
    ends_of,
    numbered,
    open_pixels,
    steps_of_edges,
)
from renderers.kernels.edge_blend.visibility import Surface


def blend_outlines(
    values: Float[Array, "h w c"], surface: Surface, camera: Camera, near: Float[Array, ""]
) -> Float[Array, "h w c"]:
    """Values with what outlines change; see `api.blend_outlines`. Reverse mode."""
    flat = values.reshape(-1, values.shape[-1])
    first, count = steps_of_edges(surface, camera, near)
    opened = open_pixels(surface.face_index)
    edges = jnp.arange(len(first), dtype=jnp.int32)

    @jax.checkpoint
    def step(result, column):
        used = (column >= first) & (column < first + count)
        pairs = numbered(edges, num_parts(camera), jnp.where(used, column, first), used)
        ends = surface.points[ends_of(surface, camera, pairs)]
        blend = decided(surface, camera, near, opened, pairs, ends)
        change = changes(ends, camera, near, pairs, blend, *colors(flat, blend))
        change = jnp.where(used[:, None, None], change, 0.0)
        return result.at[blend.pixel.reshape(-1)].add(change.reshape(-1, change.shape[-1])), None

    columns = jnp.arange(max(camera.size), dtype=jnp.int32)
    return lax.scan(step, flat, columns)[0].reshape(values.shape)
