"""Mesh rasterization: forward, forward + backward with respect to vertices, and its parts, on bumpy spheres."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.timing import median_ms, paired_ms
from renderers.cameras.camera import Camera
from renderers.kernels.dispatch import choose
from renderers.kernels.triangle_raster import shapes
from renderers.kernels.triangle_raster.xla import count_intersections
from renderers.meshes import rasterize
from renderers.meshes.connectivity import opposite_vertices
from renderers.meshes.face_boxes import face_boxes
from renderers.meshes.pixel_rays import pixel_rays

_MESHES = {"1k": shapes.FACES_1K, "100k": shapes.FACES_100K, "1m": shapes.FACES_1M}


def _camera(size) -> Camera:
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = 2.8
    height, width = size
    return Camera(
        jnp.asarray(pose, jnp.float32),
        jnp.full(2, 1.2 * height, jnp.float32),
        jnp.asarray([width / 2, height / 2], jnp.float32),
        size,
    )


def _loss(vertices, attributes, faces, camera, opposite, *, backend, antialias, capacity):
    seen = rasterize.rasterize_mesh(
        vertices,
        faces,
        camera,
        attributes=attributes,
        antialias=antialias,
        opposite=opposite,
        capacity=capacity,
        backend=backend,
    )
    parts = seen.mask, seen.depth, 0.3 * seen.normal, seen.attributes
    return sum(jnp.sum(part * part) for part in parts)


def _calls(shape: shapes.Shape, backend, antialias):
    vertices, faces = (jnp.asarray(array) for array in shapes.mesh(shape))
    camera = _camera(shape.size)
    opposite = jnp.asarray(opposite_vertices(np.asarray(faces)))
    points = rasterize.to_camera_frame(camera, vertices)
    boxes = face_boxes(points, faces, camera, *pixel_rays(camera), jnp.float32(0.01))
    capacity = 1 << max(10, (int(count_intersections(boxes, shape.size)) - 1).bit_length())
    run = functools.partial(_loss, backend=backend, antialias=antialias, capacity=capacity)
    # every array is an argument: XLA would compute with constants while it compiles
    inputs = (vertices, vertices, faces, camera, opposite)
    forward, both = jax.jit(run), jax.jit(jax.value_and_grad(run, argnums=(0, 1)))
    return (lambda: forward(*inputs)), (lambda: both(*inputs))


def measure() -> dict[str, tuple[float, str]]:
    """Names to values with units."""
    default = choose(pallas=("pallas_gpu",))
    rows: dict[str, tuple[float, str]] = {}
    for name, shape in _MESHES.items():
        for kind, antialias in (("hard", False), ("antialiased", True)):
            forward, both = _calls(shape, default, antialias)
            rows[f"meshes/{default}/{name}/{kind}/forward"] = (median_ms(forward), "ms")
            rows[f"meshes/{default}/{name}/{kind}/forward_backward"] = (median_ms(both), "ms")
    if default != "xla":
        ours, theirs = _calls(shapes.FACES_1K, default, False), _calls(shapes.FACES_1K, "xla", False)
        for index, part in enumerate(("forward", "forward_backward")):
            _, slow, ratio = paired_ms(ours[index], theirs[index], repeats=5)
            rows[f"meshes/xla/1k/hard/{part}"] = (slow, "ms")
            rows[f"meshes/xla_over_{default}/1k/hard/{part}"] = (ratio, "times")
    return rows
