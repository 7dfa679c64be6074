"""One camera searched for against one image, from coarse to fine, by Gauss-Newton or by gradient descent.

A level compares box-averaged images of 1 / factor of the size. Renders are made with two samples a pixel each way, so
that the splats' blur is that of the finest level as far as possible; coarser ones compensate opacities for theirs.
"""

import dataclasses
import functools
import time
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from experiments.splats.refinement_settings import RefineConfig
from renderers import least_squares
from renderers.cameras.camera import Camera, crop, resize
from renderers.cameras.refinement import corrected, correction_length
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.projection import project
from renderers.gaussians.rasterize import Rendering, render
from renderers.kernels import tiling
from renderers.kernels.dispatch import Backend, choose

_SMALLEST = 32  # pixels of a level's shorter side
_GRADIENT_STEPS = 10  # times as many as Gauss-Newton's
_SETTLED = 1e-5  # relative fall of the cost below which a level is over


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Problem:
    """What a camera has to explain.

    Attributes:
      gaussians: the scene.
      camera: where the search begins, at the image's full size.
      pivot: Float["3"], a point of the scene in that camera's frame.
      background: Float["3"].
      image: Float["h w 3"].
      weight: Float["h w 1"], 0 where the image says nothing.
    """

    gaussians: Gaussians
    camera: Camera
    pivot: Float[Array, " 3"]
    background: Float[Array, " 3"]
    image: Float[Array, "h w 3"]
    weight: Float[Array, "h w 1"]


@dataclasses.dataclass(frozen=True)
class _Level:
    """Static choices of a level: `factor` image pixels to one of its own, and how it is searched and rendered."""

    factor: int
    steps: int
    rate: float
    huber: float | None
    antialias: bool
    capacity: int | None
    backend: Backend | None

    @property
    def samples(self) -> int:
        """Render pixels to a pixel of the level."""
        return min(2, self.factor)


@dataclasses.dataclass(frozen=True)
class Found:
    """A search's course: corrections and costs after each step, seconds of each, and the steps' image sizes."""

    x: Float[np.ndarray, "s p"]
    costs: Float[np.ndarray, " s"]
    seconds: Float[np.ndarray, " s"]
    factors: Int[np.ndarray, " s"]


def factors(size: tuple[int, int], levels: int) -> list[int]:
    """Image pixels to a pixel of each level, coarse to fine."""
    return [2**k for k in reversed(range(levels)) if k == 0 or min(size) >> k >= _SMALLEST]


def search(problem: Problem, config: RefineConfig) -> Found:
    """Corrections of the problem's camera, step by step; the last is the result."""
    focal, principal = config.corrects != "pose", config.corrects == "principal"
    x = jnp.zeros(correction_length(problem.camera, focal=focal, principal=principal), jnp.float32)
    course: list[tuple[Array, float, float, int]] = [(x, float("nan"), 0.0, 0)]
    all_factors = factors(problem.camera.size, config.levels)
    for factor in all_factors:
        level = _Level(
            factor=factor,
            steps=config.steps * (1 if config.method == "gauss_newton" else _GRADIENT_STEPS),
            rate=config.rate * factor / all_factors[0],
            huber=config.huber or None,
            antialias=config.antialias,
            capacity=_capacity(problem, x, config, factor),
            backend=config.backend,
        )
        descend = _gauss_newton if config.method == "gauss_newton" else _gradient
        steps = descend(problem, x, level)
        while dropped := _overflow(problem, steps[-1][0], level):
            level = dataclasses.replace(level, capacity=tiling.next_capacity((level.capacity or 0) + dropped + 1))
            steps = descend(problem, x, level)
        course += steps
        x = steps[-1][0]
    columns = (np.asarray(column) for column in zip(*course, strict=True))
    return Found(*columns)


def _gauss_newton(problem, x, level):
    state = _step(problem, least_squares.start(x), level)
    course = []
    before, waited = float(state.cost), 0
    for _ in range(level.steps):
        began = time.perf_counter()
        state = _step(problem, state, level)
        cost = float(state.cost)
        course.append((state.x, cost, time.perf_counter() - began, level.factor))
        waited = waited + 1 if before - cost <= _SETTLED * before else 0
        before = cost
        if waited == 3:  # steps in a row that led nowhere: the damping has grown eightfold and more
            break
    return course


def _gradient(problem, x, level):
    moments = _adam(level).init(x)
    course = []
    for _ in range(level.steps):
        began = time.perf_counter()
        cost, x, moments = _descend(problem, x, moments, level)
        course.append((x, float(cost), time.perf_counter() - began, level.factor))
    return course


@functools.partial(jax.jit, static_argnames="level")
def _step(problem, state, level):
    return least_squares.step(lambda x: _residuals(problem, x, level, "forward"), state, huber=level.huber)


def _adam(level):
    return optax.adam(optax.cosine_decay_schedule(level.rate, level.steps, alpha=0.01), b1=0.8, b2=0.95)


@functools.partial(jax.jit, static_argnames="level")
def _descend(problem, x, moments, level):
    def cost(x):
        residuals = _residuals(problem, x, level, "reverse")
        return jnp.sum(0.5 * residuals**2 if level.huber is None else optax.huber_loss(residuals, delta=level.huber))

    value, slope = jax.value_and_grad(cost)(x)
    change, moments = _adam(level).update(slope, moments)
    return value, optax.apply_updates(x, change), moments


def _residuals(problem, x, level, derivative):
    seen = see(problem, corrected(problem.camera, x, problem.pivot), level, derivative).color
    target, weight = _shrunk(problem.image, level.factor), _shrunk(problem.weight, level.factor)
    return weight * (_shrunk(seen, level.samples) - target)


def see(problem: Problem, camera: Camera, level: _Level, derivative: typing.Literal["reverse", "forward"]) -> Rendering:
    """A level's render, before it is averaged."""
    return render(
        problem.gaussians,
        _sampled(camera, level.factor),
        background=problem.background,
        antialias=level.antialias or level.factor > level.samples,
        capacity=level.capacity,
        backend=level.backend,
        derivative=derivative,
    )


def _sampled(camera, factor):
    """The camera of a level's render; rows and columns that fill no pixel of the level are cut off."""
    height, width = (length // factor for length in camera.size)
    samples = min(2, factor)
    return resize(crop(camera, 0, 0, (height * factor, width * factor)), (height * samples, width * samples))


def _shrunk(image: Float[Array, "h w c"], factor: int) -> Float[Array, "h2 w2 c"]:
    """Means over squares of pixels."""
    height, width = (length // factor for length in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return blocks.mean((1, 3))


def _capacity(problem, x, config, factor):
    """Room for the intersections of a level, twice what its first render needs; None for backends that need none."""
    if choose(config.backend) in ("cpu", "reference"):
        return None
    camera = _sampled(corrected(problem.camera, x, problem.pivot), factor)
    return tiling.next_capacity(2 * int(_intersections(problem.gaussians, camera)))


@jax.jit
def _intersections(gaussians, camera):
    opacities, scales = jax.nn.sigmoid(gaussians.opacity_logits), jnp.exp(gaussians.log_scales)
    seen = project(gaussians.means, gaussians.quaternions, scales, opacities, camera)
    return tiling.count_intersections(seen.means2d, seen.extents, camera.size)


@functools.partial(jax.jit, static_argnames="level")
def _dropped(problem, x, level):
    return see(problem, corrected(problem.camera, x, problem.pivot), level, "reverse").overflow


def _overflow(problem, x, level):
    return 0 if level.capacity is None else int(_dropped(problem, x, level))
