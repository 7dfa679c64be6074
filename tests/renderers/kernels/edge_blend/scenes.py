"""Small scenes of outlines: what is blended, the mesh in the camera's frame, and what pixels see of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from renderers.cameras.camera import Camera
from renderers.meshes import connectivity
from renderers.meshes.rasterize import rasterize_mesh

SIZE = (20, 24)
NUM_VERTICES, NUM_FACES = 12, 10  # of every scene, padded: one compilation a lens
LENSES = {
    "pinhole": ("pinhole", (22.0, 23.5), None),
    "orthographic": ("orthographic", (7.3, 7.7), None),
    "brown": ("pinhole", (22.0, 23.5), (-0.15, 0.03, 0.002, -0.001, 0.01, 0.02, -0.01, 0.004)),
    "fisheye": ("fisheye", (20.0, 21.0), (0.03, -0.01, 0.004, -0.002)),
    "equidistant": ("fisheye", (20.0, 21.0), None),
}


def camera(lens: str) -> Camera:
    model, focal, distortion = LENSES[lens]
    distortion = None if distortion is None else jnp.asarray(distortion, jnp.float32)
    return Camera(
        jnp.eye(4, dtype=jnp.float32),
        jnp.asarray(focal, jnp.float32),
        jnp.asarray([12.2, 10.4], jnp.float32),
        SIZE,
        model,
        distortion,
    )


def _fan(points):
    return np.asarray([[0, k, k + 1] for k in range(1, len(points) - 1)])


def _polygon():
    angles = 2 * np.pi * np.asarray([0.03, 0.21, 0.44, 0.58, 0.86])
    points = np.stack([1.1 * np.cos(angles), 0.9 * np.sin(angles), 2.6 + 0.3 * np.sin(2 * angles)], 1)
    return points, _fan(points)


def _occluder():
    """A square before a wall that reaches out of the image on one side and ends in it on the other."""
    square = np.asarray([[-0.5, -0.4, 2.0], [0.43, -0.5, 2.1], [0.5, 0.42, 2.05], [-0.41, 0.5, 2.0]])
    wall = np.asarray([[-4.0, -0.8, 3.1], [0.8, -1.0, 3.2], [0.9, 1.0, 3.2], [-4.0, 0.9, 3.0]])
    return np.concatenate([square, wall]), np.concatenate([_fan(square), 4 + _fan(wall)])


def _solid():
    points = np.asarray([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    return 0.8 * points + 0.1 * np.random.default_rng(3).normal(size=points.shape) + [0.1, 0, 2.7], np.asarray(faces)


def _crumbs():
    """Faces smaller than pixels, and a strip thinner than one."""
    rng = np.random.default_rng(1)
    centres = np.concatenate([rng.uniform(-0.9, 0.9, (3, 2)), rng.uniform(2.2, 3, (3, 1))], 1)
    crumbs = (centres[:, None] + 0.04 * rng.normal(size=(3, 3, 3))).reshape(-1, 3)
    strip = np.asarray([[-0.9, 0.31, 2.5], [0.9, 0.35, 2.5], [0.88, 0.37, 2.5]])
    return np.concatenate([crumbs, strip]), np.arange(12).reshape(4, 3)


def _crossing():
    """Faces that reach behind the camera, and out of the image on all sides."""
    points = np.asarray([[-0.3, 0.2, 3.0], [0.9, 0.3, -0.4], [0.2, 1.4, 1.2], [-9.0, -3.0, 6.0], [8.0, -2.5, 6.0]])
    return points, np.asarray([[0, 1, 2], [3, 4, 0]])


SCENES = {
    "polygon": _polygon, "occluder": _occluder, "solid": _solid, "crumbs": _crumbs, "crossing": _crossing
}  # fmt: skip


def scene(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, faces, opposite; float32 and padded by faces without area."""
    points, faces = SCENES[name]()
    opposite = connectivity.opposite_vertices(faces)
    points = np.concatenate([points, np.zeros((NUM_VERTICES - len(points), 3))]).astype(np.float32)
    rest = NUM_FACES - len(faces)
    return (
        points,
        np.concatenate([faces, np.zeros((rest, 3), int)]).astype(np.int32),
        np.concatenate([opposite, np.full((rest, 3), -1)]).astype(np.int32),
    )


@functools.cache
def _hard(lens):
    return jax.jit(lambda points, faces: rasterize_mesh(points, faces, camera(lens), antialias=False).face_index)


def inputs(name: str, lens: str, channels: int = 2):
    """Values with the hard mask and random colours, points, faces, opposite, and what pixels see; weights of a loss."""
    points, faces, opposite = scene(name)
    index = np.asarray(_hard(lens)(points, faces))
    rng = np.random.default_rng(7)
    values = np.concatenate([(index >= 0)[..., None], rng.uniform(size=(*SIZE, channels))], -1).astype(np.float32)
    weights = rng.normal(size=values.shape).astype(np.float32)
    return values, points, faces, opposite, index, weights
