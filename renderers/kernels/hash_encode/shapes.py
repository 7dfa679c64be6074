"""Named encodings of real size, shared by tests and benchmarks."""

import dataclasses

import numpy as np

from renderers.kernels.hash_encode.levels import HashLevels, hash_levels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A call's sizes.

    Attributes:
      num_points: uniform in the unit cube.
      levels: lattices.
      features: a row of the table.
      seed: of numpy's generator.
    """

    num_points: int
    levels: HashLevels
    features: int = 2
    seed: int = 0


INSTANT_NGP = Shape(num_points=1 << 17, levels=hash_levels(16, 16, 2048, 19))  # the yardstick of the project's records
SMALL = Shape(num_points=1 << 15, levels=hash_levels(8, 16, 512, 15))
WIDE = Shape(num_points=1 << 16, levels=hash_levels(8, 16, 1024, 19), features=4)
SHAPES = {"instant_ngp": INSTANT_NGP, "small": SMALL, "wide": WIDE}


def inputs(shape: Shape) -> dict[str, np.ndarray]:
    """float32 points [n, 3], table [t, f] and cotangents [n, l f]; the same on every machine."""
    rng = np.random.default_rng(shape.seed)
    arrays = {
        "points": rng.uniform(0, 1, (shape.num_points, 3)),
        "table": rng.uniform(-1, 1, (shape.levels.num_rows, shape.features)),
        "cotangents": rng.normal(0, 1, (shape.num_points, shape.levels.num_levels * shape.features)),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}
