"""Compositing in numpy, float64, every Gaussian at every pixel: the oracle of the tests, and how near each pixel is to
a threshold that rounding could cross.

Shares no code with the library, its thresholds included.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Blended:
    """What the oracle saw.

    Attributes:
      image: [h, w, c] without background.
      transmittance: [h, w].
      weights: [n, h, w], alpha times transmittance in front, in the order of the input.
      margin: [h, w], smallest relative distance of an alpha to 1/255 or of a transmittance to 1e-4 before the
        pixel stops.
      clamp_margin: [h, w], the same to the clamp at 0.99, which bends the image but only breaks its gradient.
      rounding: [h, w], largest error of an exponent sigma that float32 arithmetic may make: the terms of sigma for a
        long thin ellipse are far larger than their sum.
    """

    image: np.ndarray
    transmittance: np.ndarray
    weights: np.ndarray
    margin: np.ndarray
    clamp_margin: np.ndarray
    rounding: np.ndarray


def blend(arrays: dict[str, np.ndarray], size: tuple[int, int]) -> Blended:
    """Composite `arrays` (as `api.composite` takes them) at pixel centres; Gaussians with zero extents are dropped."""
    y, x = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    return blend_at(arrays, x, y)


def blend_at(arrays: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Blended:
    """The same at positions x, y in pixels, of any shape, which takes the place of [h, w]."""
    a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    size = x.shape
    image, front = np.zeros((*size, a["features"].shape[1])), np.ones(size)
    weights = np.zeros((len(a["depths"]), *size))
    margin, clamp_margin, alive = np.full(size, np.inf), np.full(size, np.inf), np.ones(size, bool)
    rounding = np.zeros(size)
    for i in np.argsort(a["depths"], kind="stable"):
        if a["extents"][i, 0] <= 0:
            continue
        raw, drawn, terms = alpha_before_clamp(a, i, x, y)
        near = np.where(raw > 0, np.abs(255 * raw - 1), np.inf)
        clamp_near = np.where(drawn, np.abs(raw / 0.99 - 1), np.inf)
        alpha = np.where(drawn, np.minimum(raw, 0.99), 0.0)
        behind = front * (1 - alpha)
        near = np.minimum(near, np.where(drawn, np.abs(1e4 * behind - 1), np.inf))
        margin = np.where(alive, np.minimum(margin, near), margin)
        clamp_margin = np.where(alive, np.minimum(clamp_margin, clamp_near), clamp_margin)
        rounding = np.where(alive & (raw > 0.9 / 255), np.maximum(rounding, 6 * 2.0**-24 * terms), rounding)
        alive &= behind > 1e-4
        weights[i] = np.where(alive, alpha * front, 0.0)
        image += weights[i][..., None] * a["features"][i]
        front = np.where(alive, behind, front)
    return Blended(image, front, weights, margin, clamp_margin, rounding)


def alpha_before_clamp(arrays, i, x, y):
    """Opacity of Gaussian i at pixel centres x, y before the clamp; where it is drawn; the size of sigma's terms."""
    dx, dy = x - arrays["means2d"][i, 0], y - arrays["means2d"][i, 1]
    a, b, c = arrays["conics"][i]
    squares, cross = (a * dx * dx + c * dy * dy) / 2, b * dx * dy
    sigma = squares + cross
    raw = np.where(sigma >= 0, arrays["opacities"][i] * np.exp(-np.maximum(sigma, 0)), 0.0)
    return raw, raw >= 1 / 255, np.abs(squares) + np.abs(cross)
