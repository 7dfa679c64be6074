"""Named scenes of real size, shared by tests and benchmarks: 2D Gaussians drawn from a seed.

`SCENE_50K` is the yardstick of the project's records (50,000 Gaussians, about 204,000 intersections at 512 x 512); the
others scale its density or push one dimension of the problem.
"""

import dataclasses

import numpy as np

from renderers.kernels.composite.reference import ALPHA_THRESHOLD

_BLUR = 0.3  # pixel^2 that projection adds to both variances
_BORDER = 4  # pixels outside the image in which centres still fall


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What a scene is drawn from.

    Attributes:
      num_gaussians: of them.
      size: image (height, width).
      channels: features a Gaussian.
      median_scale: pixels; standard deviations are log-normal around it.
      opacity_logit: mean of the normal distribution of opacities' logits.
      seed: of numpy's generator.
    """

    num_gaussians: int
    size: tuple[int, int]
    channels: int = 3
    median_scale: float = 2.2
    opacity_logit: float = 0.3
    seed: int = 0


SCENE_20K = Shape(num_gaussians=20_000, size=(512, 512))
SCENE_50K = Shape(num_gaussians=50_000, size=(512, 512))
SCENE_100K = Shape(num_gaussians=100_000, size=(512, 512))
SCENE_400K = Shape(num_gaussians=400_000, size=(512, 512))
FULL_HD = Shape(num_gaussians=200_000, size=(1080, 1920))
FEATURES = Shape(num_gaussians=50_000, size=(512, 512), channels=16)
FOG = Shape(num_gaussians=20_000, size=(512, 512), median_scale=6.0, opacity_logit=-4.0)
SHAPES = {
    "20k": SCENE_20K,
    "50k": SCENE_50K,
    "100k": SCENE_100K,
    "400k": SCENE_400K,
    "full_hd": FULL_HD,
    "features16": FEATURES,
    "fog": FOG,
}


def scene(shape: Shape) -> dict[str, np.ndarray]:
    """The float32 arguments of `api.composite`, by name.

    Centres are uniform, axes log-normal and turned at random, depths uniform in 1 .. 10. The same shape gives the same
    arrays on every machine.
    """
    rng = np.random.default_rng(shape.seed)
    n, (height, width) = shape.num_gaussians, shape.size
    x = rng.uniform(-_BORDER, width + _BORDER, n)
    y = rng.uniform(-_BORDER, height + _BORDER, n)
    scales = np.exp(rng.normal(np.log(shape.median_scale), 0.55, (n, 2))).clip(0.4, 60.0)
    angles = rng.uniform(0.0, np.pi, n)
    opacities = 1 / (1 + np.exp(-rng.normal(shape.opacity_logit, 1.6, n)))
    features = rng.uniform(0.0, 1.0, (n, shape.channels))
    depths = rng.uniform(1.0, 10.0, n)
    covariances = ellipse_covariances(scales, angles)
    arrays = {
        "means2d": np.stack([x, y], 1),
        "conics": conics_of(covariances),
        "opacities": opacities,
        "features": features,
        "extents": box_extents(covariances, opacities),
        "depths": depths,
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def ellipse_covariances(scales: np.ndarray, angles: np.ndarray, blur: float = _BLUR) -> np.ndarray:
    """Covariances (xx, xy, yy) [n, 3] of axes with standard deviations `scales` [n, 2], turned by `angles`, blurred."""
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = scales[:, 0] ** 2, scales[:, 1] ** 2
    xx, yy = first * cos**2 + second * sin**2 + blur, first * sin**2 + second * cos**2 + blur
    return np.stack([xx, (first - second) * cos * sin, yy], 1)


def conics_of(covariances: np.ndarray) -> np.ndarray:
    """Inverses (xx, xy, yy) of covariances given alike."""
    xx, xy, yy = covariances.T
    return np.stack([yy, -xy, xx], 1) / (xx * yy - xy * xy)[:, None]


def box_extents(covariances: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """Half sizes [n, 2] of the boxes outside which alpha is below 1/255.

    Zero for Gaussians that are never that opaque.
    """
    visible = opacities >= ALPHA_THRESHOLD
    deviations = np.sqrt(2 * np.log(np.where(visible, opacities / ALPHA_THRESHOLD, 1.0)))
    return np.where(visible[:, None], deviations[:, None] * np.sqrt(covariances[:, [0, 2]]), 0.0)
