"""Surfel compositing in numpy, float64, every surfel at every pixel: the oracle of the tests, and how near each
pixel is to a threshold that rounding could cross.

Shares no code with the library, its thresholds included, and intersects rays with planes by Cramer's rule: with c_k the
columns of M and p the pixel, u : v : 1 = det(p, c_1, c_2) : det(c_0, p, c_2) : det(c_0, c_1, p).
"""

import dataclasses

import numpy as np

_EPS = 2.0**-24


@dataclasses.dataclass(frozen=True)
class Blended:
    """What the oracle saw.

    Attributes:
      image: [h, w, c] without background.
      planes: [h, w, 4]: transmittance, depth, distortion, median depth.
      weights: [n, h, w], alpha times transmittance in front, in the order of the input.
      margin: [h, w], smallest relative distance of an alpha to 1/255 or of a transmittance to 1e-4 before the pixel
        stops.
      median_margin: [h, w], the same of a transmittance to 1/2.
      smooth_margin: [h, w], the same of an alpha to its clamp and of the two exponents to each other, which bend images
        but only break their gradients.
      rounding: [h, w], largest error of an exponent that float32 arithmetic may make.
    """

    image: np.ndarray
    planes: np.ndarray
    weights: np.ndarray
    margin: np.ndarray
    median_margin: np.ndarray
    smooth_margin: np.ndarray
    rounding: np.ndarray


def blend(arrays: dict[str, np.ndarray], size: tuple[int, int]) -> Blended:
    """Composite `arrays` (as `api.composite_surfels` takes them)."""
    a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    y, x = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    n = len(a["depths"])
    image, front, depth, median = (
        np.zeros((*size, a["features"].shape[1])),
        np.ones(size),
        np.zeros(size),
        np.zeros(size),
    )
    distortion, weights, alive = np.zeros(size), np.zeros((n, *size)), np.ones(size, bool)
    margin, median_margin, smooth, rounding = (np.full(size, np.inf) for _ in range(4))
    rounding[:] = 0
    for i in np.argsort(a["depths"], kind="stable"):
        if a["radii"][i, 0] <= 0:
            continue
        sigma, branch, error = exponent(a["transforms"][i], a["means2d"][i], x, y)
        raw = np.where(in_tiles(a["means2d"][i], a["radii"][i], x, y), a["opacities"][i] * np.exp(-sigma), 0.0)
        drawn = raw >= 1 / 255
        alpha = np.where(drawn, np.minimum(raw, 0.99), 0.0)
        behind = front * (1 - alpha)
        near = np.where(raw > 0, np.abs(255 * raw - 1), np.inf)
        near = np.minimum(near, np.where(drawn, np.abs(1e4 * behind - 1), np.inf))
        margin = np.where(alive, np.minimum(margin, near), margin)
        clamped = np.where(drawn, np.minimum(np.abs(raw / 0.99 - 1), branch), np.inf)
        smooth = np.where(alive, np.minimum(smooth, clamped), smooth)
        rounding = np.where(alive & (raw > 0.9 / 255), np.maximum(rounding, error), rounding)
        alive &= behind > 1e-4
        w = weights[i] = np.where(alive, alpha * front, 0.0)
        median_margin = np.where(w > 0, np.minimum(median_margin, np.abs(2 * front - 1)), median_margin)
        median = np.where((w > 0) & (front > 0.5), a["depths"][i], median)
        distortion += 2 * w * (a["depths"][i] * (1 - front) - depth)
        depth += w * a["depths"][i]
        image += w[..., None] * a["features"][i]
        front = np.where(alive, behind, front)
    planes = np.stack([front, depth, distortion, median], -1)
    return Blended(image, planes, weights, margin, median_margin, smooth, rounding)


def in_tiles(mean, radius, x, y):
    """Pixels of the 16-pixel tiles that the box meets."""
    inside = np.ones(x.shape, bool)
    for centre, half, at in zip(mean, radius, (x, y), strict=True):
        tile = np.floor(at / 16)
        inside &= (tile >= np.floor((centre - half) / 16)) & (tile < np.ceil((centre + half) / 16))
    return inside


def exponent(m, mean, x, y):
    """Sigma at pixel centres (infinite where the ray misses the plane), how clearly one of its branches is smaller, and
    the error that float32 may make of it, M being counted from the middle of the pixel's tile.
    """
    pixel = np.stack([x, y, np.ones_like(x)], -1)
    c0, c1, c2 = m.T
    with np.errstate(all="ignore"):
        u, v, z = (pixel @ np.cross(a, b) for a, b in ((c1, c2), (c2, c0), (c0, c1)))
        u, v = u / z, v / z
        on_plane = np.where(z != 0, (u * u + v * v) / 2, np.inf)
    filtered = (x - mean[0]) ** 2 + (y - mean[1]) ** 2
    sigma = np.where(on_plane <= filtered, on_plane, filtered)
    with np.errstate(all="ignore"):
        branch = np.where(filtered > 1e-12, np.abs(on_plane / filtered - 1), np.inf)
        middle_x, middle_y = np.floor(x / 16) * 16 + 8, np.floor(y / 16) * 16 + 8
        sizes = _sizes_of_terms(m, middle_x, middle_y, x - middle_x, y - middle_y)
        error_u, error_v = (
            4 * _EPS * (s + np.abs(q) * sizes[2]) / np.abs(z) for s, q in zip(sizes, (u, v), strict=False)
        )
        error = np.where(on_plane <= 1.5 * filtered, np.abs(u) * error_u + np.abs(v) * error_v, 0.0)
        error = np.where(np.isnan(error), 0.0, error)
    # where the filter is clearly smaller a wrong u hardly matters, unless z itself may be wrong in sign or zero
    error = error + 2 * _EPS * np.abs(mean).max() * np.sqrt(filtered)
    return np.where(z != 0, sigma, np.inf), branch, error


def _sizes_of_terms(m, middle_x, middle_y, x, y):
    """Sums of the absolute values of the terms that the three components of zeta are made of."""
    a_u, a_v, a_w = np.abs(m)
    rows = [
        np.abs(m[0] - middle_x[..., None] * m[2]) + a_u,
        np.abs(m[1] - middle_y[..., None] * m[2]) + a_v,
        np.broadcast_to(a_w, (*x.shape, 3)),
    ]

    def products(a, b):
        return np.stack(
            [a[..., (k + 1) % 3] * b[..., (k + 2) % 3] + a[..., (k + 2) % 3] * b[..., (k + 1) % 3] for k in range(3)],
            -1,
        )

    terms = np.abs(x)[..., None] * products(rows[1], rows[2]) + np.abs(y)[..., None] * products(rows[2], rows[0])
    terms = terms + products(rows[0], rows[1])
    return terms[..., 0], terms[..., 1], terms[..., 2]
