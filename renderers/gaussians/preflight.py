"""What a rendering will need in memory, told before it runs: compiled for the shapes asked, and never executed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled

from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.rasterize import rasterize, render
from renderers.kernels import tiling
from renderers.kernels.composite.memory import native_bytes
from renderers.kernels.dispatch import Backend, choose

INTERSECTIONS_PER_GAUSSIAN = 8  # assumed where nobody counted: trained scenes have 2 to 8 at one to two megapixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryStatement:
    """Bytes that a program holds on its device at once, by what for.

    Attributes:
      arguments: its inputs, which are there before and after.
      outputs: its results, but for those that take the place of donated inputs.
      temporaries: XLA's own, as its buffer assignment reuses them.
      native: what kernels allocate without XLA's knowledge; cpu backend only.
    """

    arguments: int
    outputs: int
    temporaries: int
    native: int = 0

    @property
    def total(self) -> int:
        """The peak."""
        return self.arguments + self.outputs + self.temporaries + self.native


def statement_of(compiled: Compiled, native: int = 0) -> MemoryStatement:
    """What a compiled program (`jax.jit(f).lower(...).compile()`) will hold while it runs.

    Args:
      compiled: for any device.
      native: bytes that its kernels allocate themselves (`composite.memory.native_bytes` for the cpu backend).

    Raises:
      NotImplementedError: the device's compiler does not analyse memory.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise NotImplementedError("this platform's compiler gives no memory analysis; measure a run instead")
    return MemoryStatement(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        native=native,
    )


def peak_memory(
    num_gaussians: int,
    size: tuple[int, int],
    *,
    sh_degree: int | None = 3,
    channels: int = 3,
    intersections: int | None = None,
    backend: Backend | None = None,
    gradients: bool = True,
) -> MemoryStatement:
    """Peak memory of rendering one float32 view, from XLA's analysis of the compiled program.

    Compiles (seconds), allocates nothing. The statement holds for the device that JAX runs on.

    Args:
      num_gaussians: of the scene.
      size: image (height, width).
      sh_degree: of a scene's colours; None rasterizes `channels` given values instead.
      channels: values a Gaussian, where `sh_degree` is None.
      intersections: (Gaussian, tile) pairs; None assumes `INTERSECTIONS_PER_GAUSSIAN` each.
      backend: as for `rasterize`.
      gradients: of a squared error, to every parameter of the scene and the camera; False is the image alone.

    Raises:
      Unsupported: the backend cannot run here.
    """
    chosen = choose(backend)
    if intersections is None:
        intersections = INTERSECTIONS_PER_GAUSSIAN * num_gaussians
    capacity = tiling.next_capacity(intersections)
    inputs = abstract_inputs(num_gaussians, size, sh_degree, channels, gradients=gradients)
    made = program(gradients=gradients, capacity=capacity, backend=chosen)
    compiled = jax.jit(made).lower(*inputs).compile()
    blended = 1 + (channels if sh_degree is None else 3)
    native = 0
    if chosen == "cpu":
        native = native_bytes(num_gaussians, size, blended, intersections, gradients=gradients)
    return statement_of(compiled, native)


def abstract_inputs(
    num_gaussians: int, size: tuple[int, int], sh_degree: int | None, channels: int = 3, *, gradients: bool
) -> tuple[Any, ...]:
    """What `program` takes, as shapes without data: scene, camera, and a target image where gradients are asked for.

    The scene is a record, or without SH the arrays of `rasterize`.
    """

    def floats(*shape: int) -> Any:  # stands in for an array
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    n = num_gaussians
    camera = Camera(floats(4, 4), floats(2), floats(2), size)
    if sh_degree is None:
        scene = (floats(n, 3), floats(n, 4), floats(n, 3), floats(n), floats(n, channels))
    else:
        channels = 3
        scene = Gaussians(
            means=floats(n, 3),
            quaternions=floats(n, 4),
            log_scales=floats(n, 3),
            opacity_logits=floats(n),
            sh=floats(n, (sh_degree + 1) ** 2, 3),
        )
    return (scene, camera, floats(*size, channels)) if gradients else (scene, camera)


def program(*, gradients: bool, capacity: int | None, backend: Backend | None) -> Callable[..., Any]:
    """The function that is compiled: a view's images, or its squared error to a target and that error's gradients."""

    def images(scene: Any, camera):
        if isinstance(scene, Gaussians):
            seen = render(scene, camera, capacity=capacity, backend=backend)
        else:
            means, quaternions, scales, opacities, colors = scene
            seen = rasterize(means, quaternions, scales, opacities, colors, camera, capacity=capacity, backend=backend)
        return seen.color, seen.alpha, seen.depth

    def error(scene, camera, target):
        return jnp.sum((images(scene, camera)[0] - target) ** 2)

    return jax.value_and_grad(error, (0, 1)) if gradients else images
