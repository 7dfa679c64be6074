"""Named meshes of real size, shared by tests and benchmarks: bumpy spheres of a given number of faces."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A sphere of rings and sectors with bumps, and the image it is drawn into.

    Attributes:
      rings: of quads from pole to pole; 2 * rings * sectors faces.
      sectors: around.
      size: image (height, width).
    """

    rings: int
    sectors: int
    size: tuple[int, int]


FACES_1K = Shape(rings=16, sectors=32, size=(256, 256))
FACES_100K = Shape(rings=158, sectors=316, size=(512, 512))
FACES_1M = Shape(rings=500, sectors=1000, size=(1080, 1920))
SHAPES = {"1k": FACES_1K, "100k": FACES_100K, "1m": FACES_1M}


def mesh(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """float32 vertices [v, 3] of about unit radius, and int32 faces [f, 3], counter-clockwise seen from outside."""
    rows, columns = shape.rings + 1, shape.sectors
    polar = np.linspace(0, np.pi, rows)[:, None]
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    radius = 1 + 0.05 * np.sin(7 * polar) * np.cos(9 * around)
    x, y, z = np.sin(polar) * np.cos(around), np.cos(polar) + 0 * around, -np.sin(polar) * np.sin(around)
    vertices = (np.stack([x, y, z], -1) * radius[..., None]).reshape(-1, 3)
    row, column = (v.reshape(-1) for v in np.meshgrid(np.arange(shape.rings), np.arange(columns), indexing="ij"))
    following = (column + 1) % columns
    a, b = row * columns + column, row * columns + following
    c, d = a + columns, b + columns
    faces = np.concatenate([np.stack([a, c, d], 1), np.stack([a, d, b], 1)])
    return vertices.astype(np.float32), faces.astype(np.int32)
