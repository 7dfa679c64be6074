"""Named marches of real size, shared by tests and benchmarks."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A ball in a grid, seen by random rays from around it.

    Attributes:
      rays: how many.
      resolution: cells along a side of each level.
      levels: nested boxes.
      num_steps: a ray.
      capacity: places in the buffer.
      radius: of the ball that is occupied, level 0 being [-1, 1]^3.
      cone: growth of steps.
      seed: of numpy's generator.
    """

    rays: int = 8192
    resolution: int = 128
    levels: int = 1
    num_steps: int = 512
    capacity: int = 1 << 18
    radius: float = 0.5
    cone: float = 0.0
    seed: int = 0


OBJECT = Shape()
HALF_STEPS = Shape(num_steps=256)
SCENE = Shape(levels=4, cone=1 / 256, radius=6.0, num_steps=1024, capacity=1 << 20)
FULL = Shape(radius=10.0, capacity=1 << 22)
SHAPES = {"object": OBJECT, "half_steps": HALF_STEPS, "scene": SCENE, "full": FULL}


def inputs(shape: Shape) -> dict[str, np.ndarray]:
    """origins, directions, starts, ends, occupied and box of a march; the same on every machine."""
    rng = np.random.default_rng(shape.seed)
    reach = 2.0 ** (shape.levels - 1)
    away = rng.normal(size=(shape.rays, 3))
    origins = 3.0 * away / np.linalg.norm(away, axis=1, keepdims=True)
    toward = rng.uniform(-0.9, 0.9, (shape.rays, 3)) - origins
    directions = toward / np.linalg.norm(toward, axis=1, keepdims=True)
    axis = (np.arange(shape.resolution) + 0.5) / shape.resolution * 2 - 1
    distance = np.sqrt(sum(np.meshgrid(*[axis**2] * 3, indexing="ij")))
    occupied = np.stack([distance * 2**level < shape.radius for level in range(shape.levels)])
    near = np.max((-np.sign(directions) * reach - origins) / directions, axis=1)
    far = np.min((np.sign(directions) * reach - origins) / directions, axis=1)
    near = np.maximum(near, 0.0)
    arrays = dict(origins=origins, directions=directions, starts=near, ends=np.maximum(far, near))
    arrays["box"] = np.array([[-1.0] * 3, [1.0] * 3])
    return {name: array.astype(np.float32) for name, array in arrays.items()} | {"occupied": occupied}


def shortest_step(shape: Shape) -> float:
    """The diagonal of level 0 over the number of steps a ray may have, or with a cone over 512."""
    return 2 * 3**0.5 / (512 if shape.cone else shape.num_steps)
