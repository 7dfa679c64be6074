"""PSNR by hand; SSIM against skimage and a direct double loop; edges and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from skimage.metrics import structural_similarity

from renderers import metrics
from renderers.metrics import psnr, ssim, ssim_map
from tests.helpers.close import assert_close
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match

_ssim = jax.jit(ssim)
_ssim_map = jax.jit(ssim_map, static_argnames="padding")


def photo_like(shape=(40, 53, 3), seed=0):
    """Smooth areas, edges and noise, and a degraded copy."""
    rng = np.random.default_rng(seed)
    image = scipy.ndimage.gaussian_filter(rng.random(shape), (6, 6, 0))
    image = (image - image.min()) / np.ptp(image)
    image[5:20, 10:30] = [0.9, 0.2, 0.05][: shape[-1]]
    image = np.clip(image + 0.02 * rng.normal(size=shape), 0.0, 1.0)
    other = np.clip(scipy.ndimage.gaussian_filter(image, (0.8, 0.8, 0)) + 0.05 * rng.normal(size=shape), 0.0, 1.0)
    return image, other


def skimage_valid(a, b):
    """skimage's map cut to whole windows; truncate 3.5 makes its radius int(3.5 * 1.5 + 0.5) = 5."""
    _, full = structural_similarity(
        a, b, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return full[5:-5, 5:-5]


def test_ssim_equals_skimage_in_float64():
    with jax.enable_x64(True):
        a, b = photo_like()
        expected = skimage_valid(a, b)
        assert_close(_ssim_map(jnp.asarray(a), jnp.asarray(b), padding="valid"), expected, atol=1e-12)
        np.testing.assert_allclose(_ssim(jnp.asarray(a), jnp.asarray(b)), expected.mean(), atol=1e-13)


@pytest.mark.parametrize("shape", [(11, 11, 1), (40, 53, 3), (120, 64, 4)])
def test_ssim_equals_skimage_in_float32(shape):
    rng = np.random.default_rng(1)
    a = scipy.ndimage.gaussian_filter(rng.random(shape), (2, 2, 0))
    b = np.clip(a + 0.03 * rng.normal(size=shape), 0, 1)
    found = _ssim(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(found, skimage_valid(a, b).mean(), atol=1e-6)
    found = _ssim(*(jnp.asarray(image, jnp.float32) for image in photo_like()))
    np.testing.assert_allclose(found, skimage_valid(*photo_like()).mean(), atol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_ssim_map_equals_a_direct_two_dimensional_window(padding):
    with jax.enable_x64(True):
        a, b = photo_like((17, 14, 2), seed=3)
        y, x = np.mgrid[-5:6, -5:6]
        window = np.exp(-(x**2 + y**2) / 4.5)
        window /= window.sum()
        expected = np.zeros(a.shape)
        for channel in range(2):

            def mean(image, channel=channel):
                return scipy.ndimage.correlate(image[..., channel], window, mode="constant", cval=0.0)

            m_a, m_b = mean(a), mean(b)
            v_a, v_b, c = mean(a * a) - m_a**2, mean(b * b) - m_b**2, mean(a * b) - m_a * m_b
            top = (2 * m_a * m_b + 1e-4) * (2 * c + 9e-4)
            expected[..., channel] = top / ((m_a**2 + m_b**2 + 1e-4) * (v_a + v_b + 9e-4))
        if padding == "valid":
            expected = expected[5:-5, 5:-5]
        assert_close(_ssim_map(jnp.asarray(a), jnp.asarray(b), padding=padding), expected, atol=1e-12)


def test_ssim_laws():
    a, b = (jnp.asarray(image, jnp.float32) for image in photo_like())
    np.testing.assert_allclose(_ssim(a, a), 1.0, atol=1e-6)
    np.testing.assert_allclose(_ssim(a, b), _ssim(b, a), atol=1e-7)
    assert _ssim(a, b) < 0.99
    np.testing.assert_allclose(_ssim(a[::-1, ::-1], b[::-1, ::-1]), _ssim(a, b), atol=1e-6)
    np.testing.assert_allclose(_ssim(a.swapaxes(0, 1), b.swapaxes(0, 1)), _ssim(a, b), atol=1e-6)
    # Constant images p, q have no variance: (2 p q + C1) / (p^2 + q^2 + C1).
    flat = jnp.ones((12, 13, 3))
    np.testing.assert_allclose(_ssim(0.25 * flat, 0.75 * flat), (0.375 + 1e-4) / (0.625 + 1e-4), atol=2e-4)


def test_means_are_over_images_not_over_pixels():
    a, b = (jnp.asarray(image, jnp.float32) for image in photo_like())
    batch_a, batch_b = jnp.stack([a, a])[None], jnp.stack([b, a + 0.1])[None]
    singles = [_ssim(a, b), _ssim(a, a + 0.1)]
    np.testing.assert_allclose(_ssim(batch_a, batch_b), np.mean(singles), atol=1e-6)
    expected = np.mean([psnr(a, b), psnr(a, a + 0.1)])
    np.testing.assert_allclose(psnr(batch_a, batch_b), expected, rtol=1e-6)
    pooled = -10 * np.log10(np.mean((batch_a - batch_b) ** 2))
    assert abs(float(psnr(batch_a, batch_b)) - pooled) > 0.5
    np.testing.assert_allclose(jax.vmap(psnr)(batch_a[0], batch_b[0]).mean(), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(ssim)(batch_a[0], batch_b[0]), singles, atol=1e-6)


def test_psnr_by_hand():
    a = jnp.zeros((4, 5, 3))
    np.testing.assert_allclose(psnr(a, a + 0.1), 20.0, rtol=1e-6)
    np.testing.assert_allclose(psnr(a, a + 1.0), 0.0, atol=1e-6)
    np.testing.assert_allclose(psnr(a, a), 100.0, rtol=1e-6)


def test_gradients_are_finite_for_equal_and_constant_images():
    a, _ = (jnp.asarray(image, jnp.float32) for image in photo_like((13, 12, 3)))
    flat = jnp.full((13, 12, 3), 0.5)
    for pair in ((a, a), (flat, flat), (0 * flat, 0 * flat), (flat, a)):
        assert_finite_gradients(psnr, *pair)
        assert_finite_gradients(ssim, *pair)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_gradients_equal_differences(padding):
    with jax.enable_x64(True):
        a, b = (jnp.asarray(image) for image in photo_like((13, 12, 2)))
        assert_gradients_match(lambda x, y: ssim_map(x, y, padding=padding), a, b, rtol=1e-6, atol=1e-7)
        assert_gradients_match(psnr, a, b, rtol=1e-6)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, got 10 x 30"):
        ssim(jnp.zeros((10, 30, 3)), jnp.zeros((10, 30, 3)))


def test_float32_stays_float32_under_x64():
    with jax.enable_x64(True):
        a = jnp.ones((12, 12, 3), jnp.float32)
        assert jax.eval_shape(psnr, a, a).dtype == jax.eval_shape(ssim, a, a).dtype == jnp.float32


def test_masked_psnrs_by_hand():
    a, b, mask = jnp.zeros((2, 4, 4, 3)), jnp.full((2, 4, 4, 3), 0.1), jnp.zeros((2, 4, 4)).at[:, :2].set(1.0)
    b = b.at[1, :2].set(0.2)
    expected = (20.0 - 10 * np.log10(0.04)) / 2
    np.testing.assert_allclose(metrics.psnr_foreground(a, b, mask), expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.psnr_foreground(a, b, 0.3 * mask), expected, rtol=1e-6)  # weights are relative
    # half of the image is black in the truth as in the prediction: 3 dB more
    np.testing.assert_allclose(metrics.psnr_masked_co3d(a, b, mask), expected + 10 * np.log10(2), rtol=1e-6)
    np.testing.assert_allclose(metrics.psnr_foreground(a, b, 0 * mask), 100.0, rtol=1e-6)
    pooled = -10 * np.log10((3 * 0.01 + 0.04) / 4)
    np.testing.assert_allclose(metrics.psnr_pooled(a, b), pooled, rtol=1e-6)
    assert metrics.psnr_pooled(a, b) < metrics.psnr(a, b)
    np.testing.assert_allclose(metrics.mean_absolute_error(a, b), 0.125, rtol=1e-6)


def lpips_layers(images):
    """Two layers that a test can compute by hand: the scaled image, and its rectified mean over 2 x 2 pixels."""
    *batch, h, w, c = images.shape
    return images, jnp.maximum(images.reshape(*batch, h // 2, 2, w // 2, 2, c).mean((-4, -2)), 0.0)


def test_lpips_is_its_formula():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 6, 8, 3)), rng.random((2, 6, 8, 3))
    weights = [np.array([0.2, 0.0, 0.7]), np.array([1.0, 2.0, 0.5])]
    total = 0.0
    scaled = [(2 * x - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450] for x in (a, b)]
    for layer, weight in enumerate(weights):
        f, g = (np.asarray(lpips_layers(jnp.asarray(x))[layer], np.float64) for x in scaled)
        for i, j, k in np.ndindex(f.shape[:3]):
            units = [x[i, j, k] / max(np.linalg.norm(x[i, j, k]), 1e-10) for x in (f, g)]
            total += (weight * (units[0] - units[1]) ** 2).sum() / np.prod(f.shape[:3])
    layer_weights = [jnp.asarray(w, jnp.float32) for w in weights]
    found = metrics.lpips(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), lpips_layers, layer_weights)
    np.testing.assert_allclose(found, total, rtol=1e-5)
    images = jnp.asarray(a, jnp.float32)
    assert metrics.lpips(images, images, lpips_layers, layer_weights) == 0.0
    assert_finite_gradients(lambda x: metrics.lpips(x, 0 * x, lpips_layers, layer_weights), images)
    with pytest.raises(ValueError, match="one weight vector a layer, got 1 for 2"):
        metrics.lpips(images, images, lpips_layers, layer_weights[:1])
