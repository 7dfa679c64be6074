"""Hundreds of views in the memory of one: by the compiled programs, and what `keep` makes of each view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import stack_cameras
from renderers.gaussians.rasterize import render, render_views
from tests.renderers.gaussians import scenes


def _loss(gaussians, cameras, photographs, **options):
    def keep(seen, view):
        return jnp.mean((seen.color - photographs[view].astype(jnp.float32) / 255) ** 2)

    return render_views(gaussians, cameras, keep=keep, **options).sum()


def _pictures(gaussians, cameras, photographs, **options):
    def keep(seen, view):
        return jnp.round(255 * jnp.clip(seen.color, 0, 1)).astype(jnp.uint8)

    return render_views(gaussians, cameras, keep=keep, **options)


def _temporaries(function, views, backend):
    size, capacity = (512, 512), 1 << 12
    photographs = jax.ShapeDtypeStruct((views, *size, 3), jnp.uint8)
    camera = scenes.camera(size=size)
    cameras = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((views, *leaf.shape), leaf.dtype), camera)
    made = jax.jit(lambda *inputs: function(*inputs, backend=backend, capacity=capacity))
    compiled = made.lower(scenes.gaussians(500), cameras, photographs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("function", [_pictures, jax.value_and_grad(_loss, (0, 1))], ids=["images", "gradients"])
def test_temporaries_do_not_grow_with_the_number_of_views(function, backend):
    few, many = (_temporaries(function, views, backend) for views in (4, 300))
    assert few > 3 * 512 * 512 * 4, "a view's own image is among them"
    assert many == pytest.approx(few, rel=0.01)


@pytest.mark.slow
def test_what_is_kept_equals_the_same_of_a_loop():
    gaussians = scenes.gaussians()
    views = [scenes.camera(turn=turn) for turn in (-0.4, 0.0, 0.5)]
    photographs = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, *scenes.SIZE, 3)), jnp.uint8)

    def looped(gaussians, views):
        seen = [render(gaussians, view).color for view in views]
        return sum(((color - photo / 255.0) ** 2).mean() for color, photo in zip(seen, photographs, strict=True))

    stacked = stack_cameras(views)
    found, slopes = jax.jit(jax.value_and_grad(_loss, (0, 1)))(gaussians, stacked, photographs)
    expected, expected_slopes = jax.jit(jax.value_and_grad(looped, (0, 1)))(gaussians, views)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    expected_slopes = (expected_slopes[0], stack_cameras(expected_slopes[1]))

    def close(a, b):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(1e-6, float(np.abs(b).max())), rtol=0)

    jax.tree.map(close, slopes, expected_slopes)
    assert float(jnp.abs(slopes[1].camera_from_world).max()) > 1e-4
