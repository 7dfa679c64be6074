"""Sampling of planes for callers: chooses the backend and defines its derivatives once."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.plane_sample import reference, xla
from renderers.kernels.transformations import alike


def sample_planes(
    planes: Float[Array, "p h w c"],
    coordinates: Float[Array, "p n 2"],
    *,
    derivative: Literal["reverse", "forward"] = "reverse",
    backend: Backend | None = None,
) -> Float[Array, "p n c"]:
    """Bilinear features of each plane at its own coordinates, zero outside.

    Equal to PyTorch's grid_sample with padding_mode "zeros" and align_corners False. Differentiable in planes and
    coordinates, twice.

    Args:
      planes: texels, first row at v = -1.
      coordinates: (u, v) in [-1, 1] within the plane, u along the width; the plane's edges lie at -1 and 1, so that
        features fade to zero over the outer half texel and the one beyond it. Any finite value may come.
      derivative: "reverse" for `jax.grad`, to the second order (the third with xla; reference: any); "forward" for
        `jax.jvp`, differentiated by JAX, with the xla and reference backends. None of the two modes serves the other.
      backend: None takes the platform's default. On cpu results do not depend on the number of threads.

    Raises:
      ValueError: sizes that do not fit.
      Unsupported: the backend cannot run here.
    """
    if derivative == "forward" and backend is None:
        backend = "xla"
    chosen = choose(backend, dtype=planes.dtype.name, pallas=False)
    if planes.size >= 1 << 31:
        raise ValueError(f"expected planes of fewer than 2^31 numbers, got {planes.shape}; use fewer or smaller ones")
    if coordinates.dtype != planes.dtype:
        raise ValueError(
            f"expected planes and coordinates of one dtype, got {planes.dtype} and {coordinates.dtype}; convert one"
        )
    if planes.size == 0 or coordinates.size == 0:
        return jnp.zeros((*coordinates.shape[:2], planes.shape[3]), planes.dtype)
    if chosen == "reference":
        return reference.sample_planes(planes, coordinates)
    if derivative == "forward":
        if chosen != "xla":
            raise ValueError(f"forward mode is for backends xla and reference, got {chosen!r}")
        return xla.gather(planes, coordinates)
    return _sample(chosen, *alike(planes, coordinates))


def _sums(backend: Backend):
    """The module that has gather, scatter and contract."""
    if backend == "cpu":
        from renderers.kernels.plane_sample import cpu_handlers  # Numba is an extra, and takes a second to import

        return cpu_handlers
    return xla


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sample(backend, planes, coordinates):
    return _sums(backend).gather(planes, coordinates)


def _sample_forward(backend, planes, coordinates):
    return _sample(backend, planes, coordinates), (planes, coordinates)


def _sample_backward(backend, residuals, g):
    planes, coordinates = residuals
    # two calls, so that XLA drops the one that nobody asks for
    return (
        _planes_gradient(backend, planes.shape[1:3], coordinates, g),
        _coordinates_gradient(backend, planes, coordinates, g),
    )


_sample.defvjp(_sample_forward, _sample_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _coordinates_gradient(backend, planes, coordinates, g):
    return _sums(backend).contract(planes, coordinates, g)


def _coordinates_gradient_forward(backend, planes, coordinates, g):
    return _coordinates_gradient(backend, planes, coordinates, g), (planes, coordinates, g)


def _coordinates_gradient_backward(backend, residuals, direction):
    planes, coordinates, g = residuals
    sums = _sums(backend)
    return (
        sums.scatter(coordinates, g, planes.shape[1:3], direction),
        sums.contract(planes, coordinates, g, direction),
        sums.gather(planes, coordinates, direction),
    )


_coordinates_gradient.defvjp(_coordinates_gradient_forward, _coordinates_gradient_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _planes_gradient(backend, size, coordinates, g):
    return _sums(backend).scatter(coordinates, g, size)


def _planes_gradient_forward(backend, size, coordinates, g):
    return _planes_gradient(backend, size, coordinates, g), (coordinates, g)


def _planes_gradient_backward(backend, size, residuals, u):
    coordinates, g = residuals
    return _coordinates_gradient(backend, u, coordinates, g), _sample(backend, u, coordinates)


_planes_gradient.defvjp(_planes_gradient_forward, _planes_gradient_backward)
