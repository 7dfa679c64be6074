"""Outlines blended by exact area, for callers: chooses the backend and defines derivatives once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from renderers.cameras.camera import Camera
from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.edge_blend import reference, xla
from renderers.kernels.edge_blend.visibility import BOUNDARY, Surface
from renderers.kernels.transformations import alike


def blend_outlines(
    values: Float[Array, "h w c"],
    points: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    opposite: Int[Array, "f 3"],
    face_index: Int[Array, "h w"],
    camera: Camera,
    near: Float[Array, ""] | float,
    *,
    backend: Backend | None = None,
) -> Float[Array, "h w c"]:
    """Adds to hard images what outlines change: areas to the mask, and areas times differences to colours.

    Differentiable in values, points and the camera's lens (focal, principal, distortion), reverse mode; what is seen,
    and which pixels lend their colours, is decided without derivatives. On cpu results do not depend on the number of
    threads.

    Args:
      values: the first channel is the hard mask, the others are colours.
      points: camera frame, metres.
      faces: rows of points; one with an index outside has no outline.
      opposite: vertex across each edge, k of the edge from corner k to k + 1; negative where there is none.
      face_index: what each pixel sees of the mesh, -1 where empty.
      camera: its pose is not read.
      near: where edges are cut; metres along z, of a fisheye along the ray.
      backend: None takes the platform's default.

    Raises:
      Unsupported: the backend cannot run here.
    """
    dtype = jnp.result_type(values, points)
    chosen = choose(backend, dtype=dtype.name, pallas=False)
    if values.size == 0 or len(faces) == 0 or len(points) == 0:
        return values
    known = jnp.all((faces >= 0) & (faces < len(points)), 1, keepdims=True)
    faces = jnp.where(known, faces, 0).astype(jnp.int32)
    opposite = jnp.where((opposite >= 0) & (opposite < len(points)), opposite, BOUNDARY).astype(jnp.int32)
    face_index = jnp.where((face_index >= 0) & (face_index < len(faces)), face_index, -1).astype(jnp.int32)
    floats = (values, points, lax.stop_gradient(jnp.asarray(near)), *jax.tree.leaves(camera))
    values, points, near, *lens = alike(*(array.astype(dtype) for array in floats))
    surface = Surface(points, faces, opposite, face_index)
    camera = jax.tree.unflatten(jax.tree.structure(camera), lens)
    if chosen == "reference":
        return reference.blend_outlines(values, surface, camera, near)
    return _blended(chosen, values, surface, camera, near)


def _walks(backend: Backend) -> Any:
    """The module that has plan, walked and walked_back."""
    if backend == "cpu":
        from renderers.kernels.edge_blend import cpu_handlers  # Numba is an extra, and takes a second to import

        return cpu_handlers
    return xla


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blended(backend, values, surface, camera, near):
    return _blended_forward(backend, values, surface, camera, near)[0]


def _blended_forward(backend, values, surface, camera, near):
    walks = _walks(backend)
    plan = walks.plan(surface, camera, near)
    result, plan = walks.walked(values, surface, camera, near, plan)
    return result, (values, surface, camera, near, plan)


def _blended_backward(backend, saved, cotangent):
    values, surface, camera, near, plan = saved
    of_values, of_points, of_camera = _walks(backend).walked_back(values, surface, camera, near, plan, cotangent)
    of_surface = surface._replace(points=of_points, faces=None, opposite=None, face_index=None)
    return of_values, of_surface, of_camera, jnp.zeros_like(near)


_blended.defvjp(_blended_forward, _blended_backward)
