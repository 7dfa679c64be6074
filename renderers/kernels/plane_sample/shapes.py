"""Named sets of planes of real size, shared by tests and benchmarks."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A call's sizes.

    Attributes:
      size: texels (height, width) of each plane.
      channels: of each texel.
      num_points: coordinates a plane, uniform in it.
      num_planes: of them.
      seed: of numpy's generator.
    """

    size: tuple[int, int]
    channels: int
    num_points: int
    num_planes: int = 3
    seed: int = 0


TRIPLANE = Shape(size=(256, 256), channels=16, num_points=1 << 17)  # the yardstick of the project's records
LRM = Shape(size=(64, 64), channels=80, num_points=1 << 15)  # the published LRM's planes
SHAPES = {"triplane": TRIPLANE, "lrm": LRM}


def inputs(shape: Shape) -> dict[str, np.ndarray]:
    """float32 planes [p, h, w, c], coordinates [p, n, 2] and cotangents [p, n, c]; the same on every machine."""
    rng = np.random.default_rng(shape.seed)
    arrays = {
        "planes": rng.normal(0, 1, (shape.num_planes, *shape.size, shape.channels)),
        "coordinates": rng.uniform(-1, 1, (shape.num_planes, shape.num_points, 2)),
        "cotangents": rng.normal(0, 1, (shape.num_planes, shape.num_points, shape.channels)),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}
