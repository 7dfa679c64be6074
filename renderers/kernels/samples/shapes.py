"""Named sets of samples of real size over the scenes of `kernels.composite.shapes`, shared by tests and benchmarks."""

import dataclasses

import numpy as np

from renderers.kernels.composite import shapes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """What samples are drawn from.

    Attributes:
      scene: that they are taken of.
      count: of samples.
      window: (height, width) in pixels of the window about the image's middle that they fall in; None is the image.
      seed: of numpy's generator.
    """

    scene: shapes.Shape
    count: int
    window: tuple[int, int] | None = None
    seed: int = 0


RANDOM_PIXELS = Samples(scene=shapes.FULL_HD, count=4096)
PATCH = Samples(scene=shapes.FULL_HD, count=4096, window=(64, 64))
MANY = Samples(scene=shapes.FULL_HD, count=262_144)
SHAPES = {"random_pixels": RANDOM_PIXELS, "patch": PATCH, "many": MANY}


def positions(samples: Samples) -> np.ndarray:
    """float32 [count, 2] positions (x, y), uniform in the window; the same on every machine."""
    rng = np.random.default_rng(samples.seed)
    size = np.asarray(samples.scene.size)
    window = size if samples.window is None else np.asarray(samples.window)
    corner = (size - window) // 2
    return (rng.uniform(0, 1, (samples.count, 2)) * window + corner)[:, ::-1].astype(np.float32)
