"""Undistortion: photographs through a real lens become photographs of an ideal pinhole camera.

The pinhole camera keeps the focal length, so that the centre keeps its resolution, and sees the largest axis-aligned
rectangle of which every pixel was photographed: no border, no mask. Fisheye fields are cut at 60 degrees from the axis,
where the plane stretches pixels fourfold.

All photographs of one lens share one linear operator, a sparse matrix from source to output pixels: bilinear samples
of the photograph at full resolution, averaged over the area of each output pixel. Shrinking and undistorting are one
step with a single rounding at the end.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float, UInt8

from experiments.data.images import premultiplied, straight
from experiments.data.views import Lens
from experiments.errors import InputError
from renderers.cameras import distortion

_LARGEST_ANGLE = math.radians(60)
_BORDER_SAMPLES = 257
# Bounds the memory of building the operator: 16 bytes of temporaries a sample and tap.
_ROWS_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True)
class PinholeTarget:
    """An ideal camera: focal (fx, fy), principal (cx, cy) in pixels, size (height, width)."""

    focal: tuple[float, float]
    principal: tuple[float, float]
    size: tuple[int, int]


def pinhole_target(lens: Lens, size: tuple[int, int], downscale: int = 1) -> PinholeTarget:
    """The ideal camera that photographs of a lens are turned into.

    Args:
        lens: the real lens, in pixels of the photograph.
        size: (height, width) of the photograph.
        downscale: photograph pixels to one output pixel.

    Raises:
        InputError: if the lens folds over so early that no rectangle of the field of view is left.
    """
    height, width = size
    along = np.linspace(0.0, 1.0, _BORDER_SAMPLES)
    sides = [np.stack([np.full_like(along, x), along * height], axis=-1) for x in (0, width)]
    sides += [np.stack([along * width, np.full_like(along, y)], axis=-1) for y in (0, height)]
    left, right, top, bottom = _ideal(lens, np.stack(sides))
    low = np.array([left[:, 0].max(), top[:, 1].max()])
    high = np.array([right[:, 0].min(), bottom[:, 1].min()])
    focal = np.array(lens.focal) / downscale
    # A hair less than the rectangle: rounding in the lens equations must not reach over the border.
    out_width, out_height = (int(length) for length in np.floor((high - low) * focal + 1e-3))
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or min(out_width, out_height) < 1:
        raise InputError(
            f"no rectangle of the field of view is left after undistortion (focal {lens.focal}, coefficients "
            f"{lens.coefficients}); check the lens of this capture"
        )
    if out_width * out_height > 4 * max(1, height // downscale) * max(1, width // downscale):
        raise InputError(f"the lens coefficients {lens.coefficients} blow the image up more than fourfold; check them")
    center = 0.5 * (low + high)
    principal = 0.5 * np.array([out_width, out_height]) - center * focal
    return PinholeTarget(tuple(focal.tolist()), tuple(principal.tolist()), (out_height, out_width))


def resampling_operator(
    lens: Lens, size: tuple[int, int], target: PinholeTarget, downscale: int = 1
) -> scipy.sparse.csr_matrix:
    """Sparse matrix from the pixels of the photograph (row-major) to those of the target; each row sums to one.

    Args:
        lens: the real lens, in pixels of the photograph.
        size: (height, width) of the photograph.
        target: see `pinhole_target`.
        downscale: the one given to `pinhole_target`; each output pixel averages downscale^2 samples.
    """
    rows_out, columns_out = target.size
    taps = 4 * downscale * downscale
    indices = np.empty((rows_out, columns_out, taps), np.int32)
    weights = np.empty((rows_out, columns_out, taps), np.float32)
    band = max(1, _ROWS_AT_ONCE // (columns_out * downscale * downscale))
    inner = (np.arange(downscale) + 0.5) / downscale
    for start in range(0, rows_out, band):
        stop = min(start + band, rows_out)
        v = np.arange(start, stop)[:, None, None, None] + inner[None, None, :, None]
        u = np.arange(columns_out)[None, :, None, None] + inner[None, None, None, :]
        u, v = np.broadcast_arrays(u, v)
        pixels = np.stack([u, v], axis=-1).reshape(stop - start, columns_out, -1, 2)
        ideal = (pixels - target.principal) / target.focal
        indices[start:stop], weights[start:stop] = _bilinear_taps(_photographed(lens, ideal), size)
    weights /= downscale * downscale
    starts = np.arange(0, rows_out * columns_out * taps + 1, taps)
    shape = (rows_out * columns_out, size[0] * size[1])
    return scipy.sparse.csr_matrix((weights.ravel(), indices.ravel(), starts), shape=shape)


def resample(
    operator: scipy.sparse.csr_matrix, image: UInt8[np.ndarray, "h w c"], size: tuple[int, int]
) -> UInt8[np.ndarray, "out_h out_w c"]:
    """Applies `resampling_operator` to an image, RGB or straight-alpha RGBA; colours are averaged weighted by alpha."""
    channels = image.shape[-1]
    values = premultiplied(image) if channels == 4 else image.astype(np.float32)
    output = (operator @ values.reshape(-1, channels)).reshape(*size, channels)
    return straight(output) if channels == 4 else np.clip(np.round(output), 0, 255).astype(np.uint8)


def _ideal(lens: Lens, pixels: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
    """Points (X/Z, Y/Z) that the lens images at the given pixels."""
    distorted = jnp.asarray((pixels - lens.principal) / lens.focal, jnp.float32)
    coefficients = jnp.asarray(lens.coefficients, jnp.float32)
    if lens.model == "pinhole":
        return np.asarray(jax.jit(distortion.undistort_brown)(coefficients, distorted)[0], np.float64)
    radius = np.linalg.norm(distorted, axis=-1)
    angle = np.asarray(jax.jit(distortion.undistort_fisheye)(coefficients, jnp.asarray(radius))[0], np.float64)
    direction = np.asarray(distorted, np.float64) / np.maximum(radius, 1e-12)[..., None]
    return direction * np.tan(np.minimum(angle, _LARGEST_ANGLE))[..., None]


def _photographed(lens: Lens, ideal: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
    """Pixels at which the lens images the points (X/Z, Y/Z)."""
    coefficients = jnp.asarray(lens.coefficients, jnp.float32)
    distort = _distort_brown if lens.model == "pinhole" else _distort_fisheye
    distorted = np.asarray(distort(coefficients, jnp.asarray(ideal, jnp.float32)))
    return distorted * np.array(lens.focal, np.float32) + np.array(lens.principal, np.float32)


@jax.jit
def _distort_brown(coefficients, points):
    return distortion.distort_brown(coefficients, points)


@jax.jit
def _distort_fisheye(coefficients, points):
    radius = jnp.linalg.norm(points, axis=-1, keepdims=True)
    bent = distortion.distort_fisheye(coefficients, jnp.arctan(radius))
    return points * (bent / jnp.maximum(radius, 1e-12))


def _bilinear_taps(
    pixels: Float[np.ndarray, "*n s 2"], size: tuple[int, int]
) -> tuple[np.ndarray, Float[np.ndarray, "*n s*4"]]:
    """Indices and weights of the four pixel centres around each sample, the edge pixels repeated outwards."""
    height, width = size
    x = np.clip(pixels[..., 0] - 0.5, 0, width - 1)
    y = np.clip(pixels[..., 1] - 0.5, 0, height - 1)
    column = np.minimum(x.astype(np.int32), max(width - 2, 0))
    row = np.minimum(y.astype(np.int32), max(height - 2, 0))
    fx, fy = x - column, y - row
    right, below = min(1, width - 1), min(1, height - 1) * width
    first = row * width + column
    indices = np.stack([first, first + right, first + below, first + below + right], axis=-1)
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], axis=-1)
    flat = (*pixels.shape[:-2], -1)
    return indices.reshape(flat), weights.reshape(flat).astype(np.float32)
