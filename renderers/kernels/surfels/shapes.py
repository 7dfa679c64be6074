"""Named scenes of real size, shared by tests and benchmarks: surfels in front of a camera, drawn from a seed.

`SCENE_50K` is as dense on the image as the yardstick of `kernels/composite/shapes.py`.
"""

import dataclasses

import numpy as np

_BORDER = 4  # pixels outside the image in which centres still fall
_EXTENT = 3.33  # standard deviations that a box holds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What a scene is drawn from.

    Attributes:
      num_surfels: of them.
      size: image (height, width).
      channels: features a surfel; three of them are normals in real use.
      median_scale: pixels; standard deviations of a surfel seen frontally are log-normal around it.
      opacity_logit: mean of the normal distribution of opacities' logits.
      seed: of numpy's generator.
    """

    num_surfels: int
    size: tuple[int, int]
    channels: int = 6
    median_scale: float = 2.6
    opacity_logit: float = 0.3
    seed: int = 0


SCENE_50K = Shape(num_surfels=50_000, size=(512, 512))
SCENE_200K = Shape(num_surfels=200_000, size=(512, 512))
FULL_HD = Shape(num_surfels=200_000, size=(1080, 1920))
SHAPES = {"50k": SCENE_50K, "200k": SCENE_200K, "full_hd": FULL_HD}


def scene(shape: Shape) -> dict[str, np.ndarray]:
    """The arguments of `api.composite_surfels`, by name, floats in float32.

    Centres are uniform on the image, sizes on it log-normal, orientations and depths (1 .. 10) uniform, the field of
    view 53 degrees across. The same shape gives the same arrays on every machine.
    """
    rng = np.random.default_rng(shape.seed)
    n, (height, width) = shape.num_surfels, shape.size
    pixels = np.stack([rng.uniform(-_BORDER, side + _BORDER, n) for side in (width, height)], 1)
    depths = rng.uniform(1.0, 10.0, n)
    scales = np.exp(rng.normal(np.log(shape.median_scale), 0.55, (n, 2))).clip(0.4, 60.0) * depths[:, None] / width
    axes = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0][:, :, :2] * scales[:, None, :]
    transforms = transforms_of(pixels, depths, axes, focal=float(width), size=shape.size)
    means, radii = boxes_of(transforms)
    return {
        "transforms": transforms.astype(np.float32),
        "means2d": means.astype(np.float32),
        "opacities": (1 / (1 + np.exp(-rng.normal(shape.opacity_logit, 1.6, n)))).astype(np.float32),
        "features": rng.uniform(0.0, 1.0, (n, shape.channels)).astype(np.float32),
        "depths": depths.astype(np.float32),
        "radii": radii,
    }


def transforms_of(
    pixels: np.ndarray, depths: np.ndarray, axes: np.ndarray, focal: float, size: tuple[int, int]
) -> np.ndarray:
    """M [n, 3, 3] of surfels centred at pixels [n, 2] and depths [n] with axes [n, 3, 2] in the camera's frame.

    The camera has its principal point in the middle of the image.
    """
    middle = np.asarray(size[::-1]) / 2
    intrinsics = np.asarray([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    lateral = (pixels - middle) * depths[:, None] / focal
    centres = np.concatenate([lateral, depths[:, None]], 1)
    return intrinsics @ np.concatenate([axes, centres[:, :, None]], 2)


def boxes_of(transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [n, 2] in pixels and half sizes [n, 2] in whole pixels of boxes of 3.33 standard deviations."""
    m = np.asarray(transforms, np.float64)
    f = np.asarray([1.0, 1.0, -1.0]) / (m[:, 2] ** 2 @ np.asarray([1.0, 1.0, -1.0]))[:, None]
    means = np.stack([(f * m[:, k] * m[:, 2]).sum(-1) for k in range(2)], -1)
    squares = np.stack([means[:, k] ** 2 - (f * m[:, k] ** 2).sum(-1) for k in range(2)], -1)
    return means, np.ceil(_EXTENT * np.sqrt(np.maximum(squares, 1e-4))).astype(np.int32)
