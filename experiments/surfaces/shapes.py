"""Shapes to start a fit from, and the shape of the demo."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from renderers.meshes.mesh import Mesh


def sphere(radius: float, subdivisions: int = 3) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """An icosphere around the origin; each subdivision makes four faces of one, from 20."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32)


def demo_shape() -> Mesh:
    """A knobby ball with a dent and coloured bands: not convex, smooth, 5120 faces."""
    vertices, faces = sphere(1.0, 4)
    x, y, z = vertices.T
    bumps = 0.12 * np.sin(4 * x + 1) * np.sin(4 * y) + 0.08 * np.cos(5 * z - 2 * x)
    dent = -0.35 * np.exp(-6 * ((x - 0.5) ** 2 + (y - 0.6) ** 2 + (z - 0.6) ** 2))
    colors = np.stack([0.5 + 0.4 * np.sin(6 * y), 0.5 + 0.4 * np.sin(6 * x + 2), 0.5 + 0.3 * z], axis=1)
    return Mesh(
        jnp.asarray(vertices * (1 + bumps + dent)[:, None], jnp.float32),
        jnp.asarray(faces),
        vertex_colors=jnp.asarray(colors, jnp.float32),
    )
