"""Image quality: PSNR, SSIM, LPIPS with features passed in, and errors within masks; for values in [0, 1].

State with every number the background and which of the PSNRs it is: `psnr` of whole images unless said otherwise.

SSIM (Wang et al., "Image quality assessment", IEEE TIP 2004) compares local means m, variances v and covariance c of
two images a, b in an 11 x 11 Gaussian window of sigma 1.5:
    (2 m_a m_b + C1) (2 c + C2) / ((m_a^2 + m_b^2 + C1) (v_a + v_b + C2)),   C1 = 0.01^2, C2 = 0.03^2
Four blurred maps suffice, since v_a and v_b only occur as their sum. The windows are slid over rows of `w c`
interleaved values as eleven shifted sums, and the adjoint of the window is written as the same window. Value and
gradient of 0.8 L1 + 0.2 (1 - SSIM) at 480 x 270 x 3 in float32 on 2 cores, jax 0.10.2: 6 ms so, 50 ms by autodiff of
the same sums, 19 ms on channel-planar maps (the transposition is fused into every sum), 150-230 ms with `lax.conv`.
"""

import functools
import math
import typing
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Padding = Literal["valid", "same"]
WINDOW = 11
_REACH = WINDOW // 2
_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
_SMALLEST_ERROR = 1e-10
# LPIPS v0.1 (Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018)
_LPIPS_SHIFT = (-0.030, -0.088, -0.188)
_LPIPS_SCALE = (0.458, 0.448, 0.450)
_LPIPS_EPSILON = 1e-10
_RAW = [math.exp(-((i - _REACH) ** 2) / (2.0 * _SIGMA**2)) for i in range(WINDOW)]
_WEIGHTS = [value / math.fsum(_RAW) for value in _RAW]


def psnr(a: Float[Array, "*batch h w c"], b: Float[Array, "*batch h w c"]) -> Float[Array, ""]:
    """Peak signal-to-noise ratio in dB for a data range of 1: the mean over images of each image's PSNR.

    Capped at 100 dB (mean squared error 1e-10), so that equal images give a finite number, with gradient zero.
    """
    return jnp.mean(_decibels(jnp.mean((a - b) ** 2, axis=(-3, -2, -1))))


def psnr_foreground(
    a: Float[Array, "*batch h w c"], b: Float[Array, "*batch h w c"], mask: Float[Array, "*batch h w"]
) -> Float[Array, ""]:
    """PSNR over the pixels of the object: errors weighted by `mask` in [0, 1]; CO3D's psnr_fg.

    An image without foreground counts as 100 dB, the cap.
    """
    weights = jnp.broadcast_to(mask[..., None], a.shape)
    total = jnp.sum(weights, axis=(-3, -2, -1))
    error = jnp.sum(weights * (a - b) ** 2, axis=(-3, -2, -1)) / jnp.where(total > 0, total, 1.0)
    return jnp.mean(_decibels(error))


def psnr_masked_co3d(
    a: Float[Array, "*batch h w c"], b: Float[Array, "*batch h w c"], mask: Float[Array, "*batch h w"]
) -> Float[Array, ""]:
    """CO3D's psnr_masked: PSNR of the prediction `a`, as it is, against the truth `b` on black, over whole images.

    Higher than `psnr_foreground` by the share of the background, where a good prediction is black too.
    """
    return psnr(a, b * mask[..., None])


def psnr_pooled(a: Float[Array, "*batch h w c"], b: Float[Array, "*batch h w c"]) -> Float[Array, ""]:
    """The PSNR of the mean squared error over all images together, a variant found in older code; at most `psnr`."""
    return _decibels(jnp.mean((a - b) ** 2))


def mean_absolute_error(a: Float[Array, "*batch h w c"], b: Float[Array, "*batch h w c"]) -> Float[Array, ""]:
    """Mean of |a - b| over images, pixels and channels."""
    return jnp.mean(jnp.abs(a - b))


def lpips_input(images: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch h w 3"]:
    """Images in [0, 1] as LPIPS v0.1 hands them to its network: to [-1, 1], then its scaling layer."""
    shift, scale = (jnp.broadcast_to(jnp.asarray(v, images.dtype), images.shape) for v in (_LPIPS_SHIFT, _LPIPS_SCALE))
    return (2.0 * images - 1.0 - shift) / scale


def lpips(
    a: Float[Array, "*batch h w 3"],
    b: Float[Array, "*batch h w 3"],
    features: Callable[[Float[Array, "*batch h w 3"]], Sequence[Float[Array, "*batch _ _ _"]]],
    weights: Sequence[Float[Array, " _"]],
) -> Float[Array, ""]:
    """Learned perceptual distance, LPIPS v0.1, of images in [0, 1]: 0 for equal ones, the mean over images.

    Sum over layers of the mean over places of sum_c w_c (f_c / |f| - g_c / |g|)^2. The numbers mean what the papers'
    mean only with the published networks and weights; name with them the network (AlexNet to evaluate, VGG16 to train)
    or the number under another name.

    Args:
        a: images.
        b: images.
        features: activations of a network's layers for images scaled by `lpips_input`, channels last.
        weights: one vector a layer, non-negative, of as many entries as the layer has channels.

    Raises:
        ValueError: not one weight vector a layer.
    """
    layers_a, layers_b = features(lpips_input(a)), features(lpips_input(b))
    if not len(layers_a) == len(layers_b) == len(weights):
        raise ValueError(f"lpips needs one weight vector a layer, got {len(weights)} for {len(layers_a)} layers")
    total = jnp.zeros((), a.dtype)
    for f, g, w in zip(layers_a, layers_b, weights, strict=True):
        difference = (_unit_features(f) - _unit_features(g)) ** 2
        total = total + jnp.mean(jnp.sum(difference * jnp.broadcast_to(w, difference.shape), axis=-1))
    return total


def _unit_features(values):
    squared = jnp.sum(values * values, axis=-1, keepdims=True)
    some = squared > 0  # the inner where keeps the square root's infinite derivative away
    return values / (jnp.where(some, jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0) + _LPIPS_EPSILON)


def _decibels(error):
    return -10.0 * jnp.log10(jnp.maximum(error, _SMALLEST_ERROR))


def ssim(a: Float[Array, "*batch h w c"], b: Float[Array, "*batch h w c"]) -> Float[Array, ""]:
    """Structural similarity, at most 1: the mean over images, channels and the pixels whose window fits the image.

    Equals skimage's `structural_similarity` with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1`, averaged over the valid region.

    Raises:
        ValueError: images of fewer than 11 rows or columns.
    """
    return jnp.mean(ssim_map(a, b, padding="valid"))


def ssim_map(
    a: Float[Array, "*batch h w c"], b: Float[Array, "*batch h w c"], *, padding: Padding
) -> Float[Array, "*batch p q c"]:
    """SSIM of each pixel's window.

    Args:
        a: images in [0, 1].
        b: images in [0, 1].
        padding: "valid" keeps only whole windows, `(h - 10, w - 10)`; "same" gives `(h, w)` with five zeros around the
            image, the form that 3D Gaussian splatting trains with (windows at the border see black on both sides).

    Returns:
        Values in (-1, 1]. Reverse-mode differentiable to any order; forward mode (`jax.jvp`) is not available.

    Raises:
        ValueError: with "valid", images of fewer than 11 rows or columns.
    """
    *batch, height, width, channels = a.shape
    if padding == "valid" and min(height, width) < WINDOW:
        raise ValueError(f"ssim needs images of at least 11 x 11 pixels, got {height} x {width}; use a larger image")
    margin = 0 if padding == "valid" else _REACH
    # Interleaved rows: sliding by one pixel is sliding by `channels` values, so no transposition is needed.
    # Whole windows have variances that no constant changes: values around zero lose fewer digits in E[x^2] - E[x]^2.
    shift = 0.5 if padding == "valid" else 0.0
    flat_a, flat_b = (image.reshape((*batch, height, width * channels)) - shift for image in (a, b))

    def window(maps):
        return typing.cast(jax.Array, _window(maps, margin, channels))

    mean_a, mean_b = window(flat_a), window(flat_b)
    power, product = window(flat_a * flat_a + flat_b * flat_b), window(flat_a * flat_b)
    covariance, variances = product - mean_a * mean_b, power - (mean_a * mean_a + mean_b * mean_b)
    mean_a, mean_b = mean_a + shift, mean_b + shift
    numerator = (2.0 * mean_a * mean_b + _C1) * (2.0 * covariance + _C2)
    similarity = numerator / ((mean_a * mean_a + mean_b * mean_b + _C1) * (variances + _C2))
    return similarity.reshape((*batch, height + 2 * margin - 2 * _REACH, width + 2 * margin - 2 * _REACH, channels))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _window(maps: jax.Array, margin: int, channels: int) -> jax.Array:
    """Gaussian means of `maps` (..., rows, columns * channels) after padding with `margin` zeros."""
    return _slide(_slide(maps, -2, margin, 1), -1, margin, channels)


def _window_forward(maps, margin, channels):
    return _window(maps, margin, channels), None


def _window_backward(margin, channels, _, cotangent):
    # The window is symmetric, so the adjoint slides the same one over the output, padded to give the input's size back.
    return (_window(cotangent, 2 * _REACH - margin, channels),)


_window.defvjp(_window_forward, _window_backward)


def _slide(maps, axis, margin, stride):
    pads = [(0, 0)] * maps.ndim
    pads[axis] = (margin * stride, margin * stride)
    padded = jnp.pad(maps, pads)
    length = padded.shape[axis] - 2 * _REACH * stride

    def shifted(i):
        return jax.lax.slice_in_dim(padded, i * stride, i * stride + length, axis=axis)

    total = _WEIGHTS[_REACH] * shifted(_REACH)
    for i in range(_REACH):
        total = total + _WEIGHTS[i] * (shifted(i) + shifted(WINDOW - 1 - i))
    return total
