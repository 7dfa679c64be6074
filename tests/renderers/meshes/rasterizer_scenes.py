"""Small meshes and cameras that tests of the rasterizer share."""

import jax.numpy as jnp
import numpy as np
import trimesh

from renderers.cameras.camera import Camera

SIZE = (30, 36)
LENSES = {
    "pinhole": ("pinhole", None),
    "brown": ("pinhole", (-0.12, 0.03, 0.004, -0.006, 0.002)),
    "orthographic": ("orthographic", None),
    "fisheye": ("fisheye", None),
    "kannala_brandt": ("fisheye", (0.03, -0.01, 0.002, 0.0)),
}


def camera(lens: str, size=SIZE, *, distance=2.6, spread=1.0, dtype=np.float32) -> Camera:
    """Looks at the origin from a little aside; `spread` widens the field of view."""
    model, distortion = LENSES[lens]
    x, y, z = 0.2, -0.35, 0.1
    turn = np.linalg.qr(np.eye(3) + np.asarray([[0, -z, y], [z, 0, -x], [-y, x, 0]]))[0]
    turn = turn * np.sign(np.diag(turn))[None]
    pose = np.eye(4)
    pose[:3, :3] = np.diag([1.0, -1, -1]) @ turn
    pose[:3, 3] = 0.05, -0.03, distance
    height = size[0]
    focal = height * (0.35 if model == "orthographic" else 1.1) / spread
    return Camera(
        jnp.asarray(pose, dtype),
        jnp.asarray([focal, 1.07 * focal], dtype),
        jnp.asarray([0.5 * size[1] + 0.3, 0.5 * size[0] - 0.2], dtype),
        size,
        model,
        None if distortion is None else jnp.asarray(distortion, dtype),
    )


def icosphere(subdivisions: int, dtype=np.float32):
    """Unit sphere: vertices and faces as jax arrays."""
    made = trimesh.creation.icosphere(subdivisions)
    return jnp.asarray(made.vertices, dtype), jnp.asarray(made.faces, jnp.int32)


def torus(dtype=np.float32):
    made = trimesh.creation.torus(0.8, 0.35, major_sections=16, minor_sections=10)
    return jnp.asarray(made.vertices, dtype), jnp.asarray(made.faces, jnp.int32)


def soup(count: int, seed: int = 0, dtype=np.float32):
    """Triangles that cut through each other."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.8, 0.8, (count, 1, 3)) + rng.normal(size=(count, 3, 3)) * 0.3
    return jnp.asarray(corners.reshape(-1, 3), dtype), jnp.arange(3 * count, dtype=jnp.int32).reshape(-1, 3)
