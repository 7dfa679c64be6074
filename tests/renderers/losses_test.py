"""Photometric losses: hand-computed values, weights that leave pixels out entirely, gradients against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers import losses
from renderers.metrics import ssim, ssim_map
from tests.helpers.close import assert_close
from tests.helpers.gradients import assert_finite_gradients, assert_gradients_match

ALL = [losses.l1, losses.mse, losses.dssim, losses.l1_ssim]


def images(shape=(18, 16, 3), seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    target = rng.random(shape)
    return jnp.asarray(np.clip(target + 0.2 * rng.normal(size=shape), 0, 1), dtype), jnp.asarray(target, dtype)


def test_values_by_hand():
    target = jnp.full((12, 12, 3), 0.5)
    rendered = target.at[..., 0].add(0.3)
    np.testing.assert_allclose(losses.l1(rendered, target), 0.1, rtol=4e-6)
    np.testing.assert_allclose(losses.mse(rendered, target), 0.03, rtol=4e-6)
    similarity = (1 + 1 + (2 * 0.4 + 1e-4) / (0.64 + 0.25 + 1e-4)) / 3  # no variance: the luminance term alone
    np.testing.assert_allclose(losses.dssim(rendered, target, padding="valid"), 1 - similarity, atol=1e-4)


def test_l1_ssim_is_the_weighted_sum():
    rendered, target = images()
    for weight in (0.0, 0.2, 1.0):
        expected = (1 - weight) * losses.l1(rendered, target) + weight * losses.dssim(rendered, target)
        np.testing.assert_allclose(losses.l1_ssim(rendered, target, ssim_weight=weight), expected, rtol=1e-6)


def test_dssim_is_one_minus_the_metric_with_its_padding():
    rendered, target = images()
    np.testing.assert_allclose(losses.dssim(rendered, target, padding="valid"), 1 - ssim(rendered, target), atol=1e-6)
    same = 1 - jnp.mean(ssim_map(rendered, target, padding="same"))
    np.testing.assert_allclose(losses.dssim(rendered, target), same, atol=1e-6)


@pytest.mark.parametrize("loss", ALL)
def test_uniform_weights_change_nothing(loss):
    rendered, target = images()
    expected = loss(rendered, target)
    np.testing.assert_allclose(loss(rendered, target, weights=jnp.full((18, 16), 3.0)), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ALL)
def test_pixels_of_weight_zero_have_no_say(loss):
    rendered, target = images()
    weights = jnp.ones((18, 16)).at[3:9, 4:12].set(0.0)
    value_and_gradient = jax.jit(jax.value_and_grad(lambda image: loss(image, target, weights=weights)))
    value, gradient = value_and_gradient(rendered)
    spoiled, _ = value_and_gradient(rendered.at[3:9, 4:12].set(7.0))
    assert value == spoiled
    assert_close(gradient[3:9, 4:12], np.zeros((6, 8, 3)))
    assert (np.abs(gradient[10:]) > 0).mean() > 0.9
    nothing, gradient = jax.value_and_grad(lambda image: loss(image, target, weights=jnp.zeros((18, 16))))(rendered)
    assert nothing == 0.0 and np.all(gradient == 0.0)


def test_weights_weigh():
    rendered, target = images()
    weights = jnp.zeros((18, 16)).at[2, 3].set(1.0).at[5, 6].set(3.0)
    error = np.abs(rendered - target).mean(-1)
    expected = (error[2, 3] + 3 * error[5, 6]) / 4
    np.testing.assert_allclose(losses.l1(rendered, target, weights=weights), expected, rtol=1e-6)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_gradients_equal_differences(padding):
    with jax.enable_x64(True):
        rendered, target = images((13, 12, 3), dtype=jnp.float64)
        weights = jnp.asarray(np.random.default_rng(2).uniform(0.2, 1.0, (13, 12)))

        def total(a, b, w):
            return losses.l1_ssim(a, b, padding=padding, weights=w) + losses.mse(a, b, weights=w)

        assert_gradients_match(total, rendered, target, weights, rtol=1e-6, atol=1e-8)
        assert_gradients_match(lambda a: losses.l1_ssim(a, target, padding=padding), rendered, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", ALL)
def test_best_value_is_zero_with_finite_gradients(loss):
    _, target = images()
    np.testing.assert_allclose(loss(target, target), 0.0, atol=1e-6)
    flat = jnp.full((12, 12, 3), 0.25)
    assert_finite_gradients(loss, target, target)
    assert_finite_gradients(loss, flat, flat)
    assert_finite_gradients(loss, 0 * flat, flat)


def test_gradient_descent_on_the_loss_recovers_the_target():
    rendered, target = images((16, 16, 3))
    step = jax.jit(lambda image: image - 10.0 * jax.grad(losses.dssim)(image, target))
    before = float(losses.dssim(rendered, target))
    for _ in range(60):
        rendered = step(rendered)
    assert losses.dssim(rendered, target) < 0.2 * before


def test_batches_are_means_over_images():
    rendered, target = images((2, 18, 16, 3))
    singles = [losses.l1_ssim(a, b) for a, b in zip(rendered, target, strict=True)]
    np.testing.assert_allclose(losses.l1_ssim(rendered, target), np.mean(singles), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(losses.l1_ssim))(rendered, target), singles, rtol=1e-5)


def test_float32_stays_float32_under_x64():
    with jax.enable_x64(True):
        rendered, target = images()
        weights = jnp.ones((18, 16), jnp.float32)
        for loss in ALL:
            gradient = jax.eval_shape(jax.grad(lambda a, loss=loss: loss(a, target, weights=weights)), rendered)
            assert gradient.dtype == jnp.float32
