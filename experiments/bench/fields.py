"""Encodings of fields: the hash encoding and sampled planes, forwards, backwards, and through the points' gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.timing import median_ms
from renderers.kernels.dispatch import Backend, choose
from renderers.kernels.hash_encode import shapes as hash_shapes
from renderers.kernels.hash_encode.api import hash_encode
from renderers.kernels.plane_sample import shapes as plane_shapes
from renderers.kernels.plane_sample.api import sample_planes


def measure() -> dict[str, tuple[float, str]]:
    """Names to values with units, on the platform's default backend and on xla."""
    found: dict[str, tuple[float, str]] = {}
    for backend in dict.fromkeys((choose(pallas=("pallas_gpu",)), choose("xla"))):
        found |= hash_grid("instant_ngp", backend) | planes("triplane", backend) | planes("lrm", backend)
    return found


def hash_grid(name: str, backend: Backend) -> dict[str, tuple[float, str]]:
    """Milliseconds; "table" and "both" are forward and backward, with gradients to the table, and the points as well.

    "second" is the gradient by the table of the eikonal-like mean of the squared gradient by the points.
    """
    shape = hash_shapes.SHAPES[name]
    points, table, cotangents = (jnp.asarray(array) for array in hash_shapes.inputs(shape).values())

    def features(points, table):
        return hash_encode(points, table, shape.levels, backend=backend)

    def summed(points, table, cotangents):
        return jnp.sum(features(points, table) * cotangents)

    def steep(points, table, cotangents):
        return jnp.mean(jax.grad(summed)(points, table, cotangents) ** 2)

    calls: dict[str, Callable[..., Any]] = {
        "forward": lambda points, table, cotangents: features(points, table),
        "forward_backward_table": jax.value_and_grad(summed, argnums=1),
        "forward_backward_both": jax.value_and_grad(summed, argnums=(0, 1)),
        "second": jax.value_and_grad(steep, argnums=1),
    }
    return _timed(f"fields/{backend}/hash_{name}", calls, (points, table, cotangents))


def planes(name: str, backend: Backend) -> dict[str, tuple[float, str]]:
    """Milliseconds of the samples; "backward" is the planes' gradient alone, "both" adds that of the coordinates."""
    texels, coordinates, cotangents = (
        jnp.asarray(array) for array in plane_shapes.inputs(plane_shapes.SHAPES[name]).values()
    )

    def features(planes, coordinates):
        return sample_planes(planes, coordinates, backend=backend)

    def summed(planes, coordinates, cotangents):
        return jnp.sum(features(planes, coordinates) * cotangents)

    calls: dict[str, Callable[..., Any]] = {
        "forward": lambda planes, coordinates, cotangents: features(planes, coordinates),
        "backward": jax.grad(summed),  # the sum's own value is not asked for, so that XLA drops the forward pass
        "forward_backward": jax.value_and_grad(summed),
        "forward_backward_both": jax.value_and_grad(summed, argnums=(0, 1)),
    }
    return _timed(f"fields/{backend}/planes_{name}", calls, (texels, coordinates, cotangents))


def _timed(prefix: str, calls: dict[str, Callable[..., Any]], inputs: tuple) -> dict[str, tuple[float, str]]:
    found = {}
    for name, call in calls.items():
        compiled = jax.jit(call)
        found[f"{prefix}/{name}"] = (median_ms(lambda compiled=compiled: compiled(*inputs)), "ms")
    return found
