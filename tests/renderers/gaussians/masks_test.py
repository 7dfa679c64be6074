"""Pixels that are masked off: background there, the same bits elsewhere, no gradient from there, no work."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.gaussians.rasterize import rasterize
from renderers.kernels.composite import shapes
from renderers.kernels.composite.api import composite
from tests.renderers.gaussians import scenes

SIZE = (20, 37)  # 2 x 3 tiles
N = 24
BACKGROUND = jnp.asarray([0.2, 0.7, 0.4])
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=(*SIZE, 5)), jnp.float32)


BACKENDS = [
    "xla",
    "cpu",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("reference", "pallas_gpu", "pallas_tpu")),
]
backends = pytest.mark.parametrize("backend", BACKENDS)


def _masks():
    rng = np.random.default_rng(0)
    tiles = np.ones(SIZE, bool)
    tiles[:16, 16:32] = False  # a whole tile
    return {
        "speckled": rng.random(SIZE) < 0.6,
        "tile off": tiles,
        "none": np.zeros(SIZE, bool),
        "all": np.ones(SIZE, bool),
    }


@functools.cache
def _program(backend, masked):
    """Images, and gradients of Gaussians, camera, background and probe under weights of every pixel."""

    def loss(arrays, camera, background, probe, mask, weights):
        seen = rasterize(
            *(arrays[name] for name in scenes.NAMES),
            camera,
            background=background,
            means2d_probe=probe,
            mask=mask if masked else None,
            capacity=256,
            backend=backend,
        )
        images = jnp.concatenate([seen.color, seen.alpha[..., None], seen.depth[..., None]], -1)
        return (images * weights).sum(), images

    run = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))
    inputs = scenes.splats(N), scenes.camera(size=SIZE), BACKGROUND, jnp.zeros((N, 2))
    return lambda mask, weights: run(*inputs, mask, weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["speckled", "tile off", "none", "all"])
@backends
def test_masked_pixels_show_the_background_and_the_others_do_not_change(backend, name):
    mask = _masks()[name]
    _, whole = _program(backend, False)(jnp.asarray(mask), WEIGHTS)
    _, seen = _program(backend, True)(jnp.asarray(mask), WEIGHTS)
    assert 0.2 < np.asarray(whole)[..., 3].mean() < 0.99
    np.testing.assert_array_equal(np.asarray(seen)[mask], np.asarray(whole)[mask])
    nothing = np.concatenate([BACKGROUND, [0, 0]])
    np.testing.assert_array_equal(
        np.asarray(seen)[~mask], np.broadcast_to(nothing.astype(np.float32), ((~mask).sum(), 5))
    )


@pytest.mark.parametrize("name", ["speckled", "tile off", "none"])
@backends
def test_gradients_are_those_of_a_loss_times_the_mask(backend, name):
    """Whatever the loss says of masked pixels, only the background hears it."""
    mask = _masks()[name]
    of_mask, _ = _program(backend, True)(jnp.asarray(mask), WEIGHTS)
    expected, _ = _program(backend, False)(jnp.asarray(mask), WEIGHTS * mask[..., None])
    behind = np.asarray(WEIGHTS)[~mask][:, :3].sum(0)
    np.testing.assert_allclose(of_mask[2], expected[2] + behind, rtol=1e-4, atol=1e-4)
    for i in (0, 1, 3):
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(of_mask[i]), jax.tree.leaves(expected[i]), strict=True
        ):
            where = f"{i}{jax.tree_util.keystr(path)}"
            assert (name == "none") == (not np.asarray(a).any()), where
            np.testing.assert_allclose(a, b, atol=2e-5 * max(1e-6, np.abs(b).max()), rtol=0, err_msg=where)


@pytest.mark.parametrize("backend", ["cpu", "xla"])
def test_tiles_of_none_but_masked_pixels_cost_nothing(backend):
    """One tile of 64: with binning included less than half the time, by the best of five."""
    size = (128, 128)
    fog = shapes.Shape(num_gaussians=1500, size=size, median_scale=12.0, opacity_logit=-5.0)  # no pixel stops early
    arrays = [jnp.asarray(array) for array in shapes.scene(fog).values()]
    run = jax.jit(lambda mask: composite(*arrays, size=size, mask=mask, capacity=1 << 17, backend=backend).image)

    def seconds(mask):
        mask, best = jnp.asarray(mask), np.inf
        run(mask).block_until_ready()
        for _ in range(5):
            began = time.perf_counter()
            run(mask).block_until_ready()
            best = min(best, time.perf_counter() - began)
        return best

    one_tile = np.zeros(size, bool)
    one_tile[32:48, 64:80] = True
    assert seconds(one_tile) < 0.5 * seconds(np.ones(size, bool))
