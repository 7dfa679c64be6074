"""The host kernels as XLA custom calls: handlers, registration, and the JAX functions that call them."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from renderers.cameras import distortion
from renderers.cameras.camera import Camera
from renderers.kernels import ffi_numba as ffi
from renderers.kernels.edge_blend import cpu, cpu_edges, cpu_lens
from renderers.kernels.edge_blend.images import num_parts
from renderers.kernels.edge_blend.visibility import Surface
from renderers.kernels.jit_numba import njit

PLAN, WALK, GRADIENTS = "galatea_outline_edges", "galatea_outline_walk", "galatea_outline_gradients"
_MODELS = {"pinhole": cpu_lens.PINHOLE, "orthographic": cpu_lens.ORTHOGRAPHIC, "fisheye": cpu_lens.FISHEYE}


class Edges(NamedTuple):
    """The edges of outlines, 3 face + k.

    Attributes:
      numbers: in order; what follows the first `count` means nothing.
      count: of them.
    """

    numbers: Int[Array, " e"]
    count: Int[Array, " 1"]


@njit(inline="always")
def _floats(frame, index):
    return ffi.floats(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


@njit(inline="always")
def _integers(frame, index):
    return ffi.integers(
        ffi.argument(frame, index), (ffi.argument_dim(frame, index, 0), ffi.argument_dim(frame, index, 1))
    )


@njit(inline="always")
def _out_floats(frame, index):
    return ffi.floats(ffi.result(frame, index), (ffi.result_dim(frame, index, 0), ffi.result_dim(frame, index, 1)))


@njit(inline="always")
def _codes(frame, index):
    return ffi.integers(ffi.argument(frame, index), (3,))


def _plan_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    numbers = ffi.integers(ffi.result(frame, 0), (ffi.result_dim(frame, 0, 0),))
    count = ffi.integers(ffi.result(frame, 1), (1,))
    points, faces, opposite = _floats(frame, 0), _integers(frame, 1), _integers(frame, 2)
    cpu_edges.outline_edges(points, faces, opposite, _codes(frame, 3), numbers, count)
    return 0


def _walk_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    lens = ffi.floats(ffi.argument(frame, 5), (cpu_lens.NUMBERS,))
    numbers = ffi.integers(ffi.argument(frame, 7), (ffi.argument_dim(frame, 7, 0),))
    count = ffi.integers(ffi.argument(frame, 8), (1,))[0]
    cpu.walked(
        _floats(frame, 0), _floats(frame, 1), _integers(frame, 2), _integers(frame, 3), _integers(frame, 4), lens,
        _codes(frame, 6), numbers, count, _out_floats(frame, 0),
        ffi.integers(ffi.result(frame, 1), (numbers.shape[0],)), ffi.integers(ffi.result(frame, 2), (1,)),
    )  # fmt: skip
    return 0


def _gradients_handler(frame):
    if ffi.answered_metadata(frame):
        return 0
    lens = ffi.floats(ffi.argument(frame, 5), (cpu_lens.NUMBERS,))
    numbers = ffi.integers(ffi.argument(frame, 7), (ffi.argument_dim(frame, 7, 0),))
    count = ffi.integers(ffi.argument(frame, 8), (1,))[0]
    cpu.gradients(
        _floats(frame, 0), _floats(frame, 1), _integers(frame, 2), _integers(frame, 3), _integers(frame, 4), lens,
        _codes(frame, 6), numbers, count, _floats(frame, 9), _out_floats(frame, 0), _out_floats(frame, 1),
        ffi.floats(ffi.result(frame, 2), (cpu_lens.NUMBERS,)),
    )  # fmt: skip
    return 0


@functools.cache
def _registered(name: str) -> str:
    """Register a handler, once a process and only when needed: each compiles for seconds the first time."""
    handlers = {PLAN: _plan_handler, WALK: _walk_handler, GRADIENTS: _gradients_handler}
    ffi.register(name, handlers[name])
    return name


def _call(name, *results):
    shapes = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results)
    return jax.ffi.ffi_call(_registered(name), shapes, vmap_method="sequential")


def _coded(camera):
    bent = camera.distortion is not None
    return jnp.asarray([_MODELS[camera.model], int(bent), num_parts(camera)], jnp.int32)


def _lens_numbers(camera, near):
    """The lens as `cpu_lens` reads it."""
    coefficients = jnp.zeros(0, jnp.float32) if camera.distortion is None else camera.distortion
    limit = jnp.float32(jnp.inf)
    if camera.model == "fisheye":
        limit = jnp.float32(jnp.pi) if camera.distortion is None else distortion.fisheye_limit(coefficients)
    elif camera.distortion is not None:
        limit = distortion.brown_limit(coefficients)
    rest = jnp.zeros(cpu_lens.NUMBERS - cpu_lens.DISTORTION - len(coefficients), jnp.float32)
    return jnp.concatenate([camera.focal, camera.principal, near[None], limit[None], coefficients, rest])


def plan(surface: Surface, camera: Camera, near: Float[Array, ""]) -> Edges:
    """The edges of all outlines."""
    faces = surface.faces
    call = _call(PLAN, ((3 * len(faces),), jnp.int32), ((1,), jnp.int32))
    numbers, count = call(surface.points, faces, surface.opposite, _coded(camera))
    # custom calls forget the mesh axes that they vary over: adding a zero brings those back
    zero = jnp.zeros_like(near, jnp.int32)
    return Edges(numbers + zero, count + zero)


def _arguments(values, surface, camera, near, edges):
    points, faces, opposite, index = surface
    flat = values.reshape(-1, values.shape[-1])
    return flat, points, faces, opposite, index, _lens_numbers(camera, near), _coded(camera), *edges


def walked(
    values: Float[Array, "h w c"], surface: Surface, camera: Camera, near: Float[Array, ""], edges: Edges
) -> tuple[Float[Array, "h w c"], Edges]:
    """Values with what outlines change, and the edges that change them."""
    flat = (values.shape[0] * values.shape[1], values.shape[2])
    numbers = (edges.numbers.shape, jnp.int32)
    call = _call(WALK, (flat, jnp.float32), numbers, ((1,), jnp.int32))
    image, seen, count = call(*_arguments(values, surface, camera, near, edges))
    zero = jnp.zeros_like(near, jnp.int32)  # see `plan`
    return image.reshape(values.shape) + jnp.zeros_like(near), Edges(seen + zero, count + zero)


def walked_back(
    values: Float[Array, "h w c"],
    surface: Surface,
    camera: Camera,
    near: Float[Array, ""],
    edges: Edges,
    cotangent: Float[Array, "h w c"],
) -> tuple[Float[Array, "h w c"], Float[Array, "v 3"], Camera]:
    """Gradients of values, points and camera."""
    flat = (values.shape[0] * values.shape[1], values.shape[2])
    results = (flat, jnp.float32), (surface.points.shape, jnp.float32), ((cpu_lens.NUMBERS,), jnp.float32)
    arguments = _arguments(values, surface, camera, near, edges)
    gradients = _call(GRADIENTS, *results)(*arguments, cotangent.reshape(flat))
    of_values, of_points, of_lens = (gradient + jnp.zeros_like(near) for gradient in gradients)
    bent, first = camera.distortion is not None, cpu_lens.DISTORTION
    of_camera = dataclasses.replace(
        camera,
        camera_from_world=jnp.zeros_like(camera.camera_from_world),
        focal=of_lens[cpu_lens.FOCAL : cpu_lens.FOCAL + 2],
        principal=of_lens[cpu_lens.PRINCIPAL : cpu_lens.PRINCIPAL + 2],
        distortion=of_lens[first : first + len(camera.distortion)] if bent else None,
    )
    return of_values.reshape(values.shape), of_points, of_camera
