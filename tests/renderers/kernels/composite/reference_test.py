"""The reference against a numpy evaluation that shares nothing with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.composite import reference
from tests.renderers.kernels.composite import brute_force, scenes
from tests.renderers.kernels.composite.conformance_test import SCENES


@functools.cache
def _compiled():
    return jax.jit(reference.composite, static_argnums=7)


def composite(scene, size=scenes.SIZE):
    with jax.enable_x64(True):
        a = {name: jnp.asarray(array, jnp.float64) for name, array in scene.items()}
        dropped = jnp.where(a["extents"][:, 0] > 0, a["opacities"], 0.0)
        probe = jnp.zeros_like(a["means2d"])
        image, transmittance = _compiled()(
            a["means2d"], a["conics"], dropped, a["features"], probe, a["depths"], None, size
        )
        return np.asarray(image), np.asarray(transmittance)


@pytest.mark.parametrize("name", SCENES)
def test_equals_numpy(name):
    scene = SCENES[name]()
    image, transmittance = composite(scene)
    expected = brute_force.blend(scene, scenes.SIZE)
    safe = expected.margin > 1e-9  # float64: only exact hits of a threshold may differ, by the order of operations
    assert safe.mean() > 0.97
    np.testing.assert_allclose(image[safe], expected.image[safe], atol=1e-13)
    np.testing.assert_allclose(transmittance[safe], expected.transmittance[safe], atol=1e-14)


def test_weights_and_transmittance_sum_to_one():
    scene = scenes.random_scene()
    scene["features"][:] = 1.0
    image, transmittance = composite(scene)
    np.testing.assert_allclose(image[..., 0] + transmittance, 1.0, atol=1e-13)


def test_one_gaussian_by_hand():
    scene = scenes.scene_of(
        means2d=np.asarray([[3.5, 2.5]]),
        scales=np.asarray([[2.0, 1.0]]),
        angles=np.zeros(1),
        opacities=np.asarray([0.75]),
        features=np.asarray([[2.0]]),
        depths=np.asarray([1.0]),
        blur=0.0,
    )
    image, transmittance = composite(scene, (6, 8))
    np.testing.assert_allclose(image[2, 3, 0], 1.5, rtol=1e-15)
    np.testing.assert_allclose(image[2, 5, 0], 1.5 * np.exp(-0.5), rtol=1e-7)  # conics are rounded to float32
    np.testing.assert_allclose(image[4, 3, 0], 1.5 * np.exp(-2.0), rtol=1e-7)
    np.testing.assert_allclose(transmittance[2, 3], 0.25, rtol=1e-15)


def test_alpha_is_clamped_dropped_and_stopped():
    def pixel(opacities, features):
        n = len(opacities)
        scene = {
            "means2d": np.full((n, 2), 0.5, np.float32),
            "conics": np.tile(np.asarray([[1.0, 0.0, 1.0]], np.float32), (n, 1)),
            "opacities": np.asarray(opacities, np.float32),
            "features": np.asarray(features, np.float32)[:, None],
            "extents": np.ones((n, 2), np.float32),
            "depths": np.arange(n, dtype=np.float32),
        }
        image, transmittance = composite(scene, (1, 1))
        return image[0, 0, 0], transmittance[0, 0]

    np.testing.assert_allclose(pixel([1.0, 0.5], [1.0, 1.0]), (0.99 + 0.01 * 0.5, 0.005), rtol=1e-12)
    np.testing.assert_allclose(pixel([0.0039, 0.5], [7.0, 1.0]), (0.5, 0.5), rtol=1e-12)
    # 0.01 * 0.05 = 5e-4; the third would leave 5e-6 <= 1e-4, and what follows it is not drawn either
    expected = 0.99 + 0.01 * float(np.float32(0.95))
    np.testing.assert_allclose(pixel([1.0, 0.95, 0.99, 0.1], [1, 1, 1, 1])[0], expected, rtol=1e-12)
