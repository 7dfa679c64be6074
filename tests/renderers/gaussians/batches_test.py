"""Batches of scenes, and of scenes by cameras, under vmap: images, gradients and overflow of a Python loop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import stack_cameras
from renderers.gaussians.rasterize import render
from tests.renderers.gaussians import scenes

SIZE = (20, 33)  # 2 x 3 tiles
N = 16
SCENES, VIEWS = 2, 2
BACKGROUND = jnp.asarray([0.1, 0.2, 0.3])


backends = pytest.mark.parametrize(
    "backend", ["xla", "cpu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pallas_gpu", "pallas_tpu"))]
)


def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


ALL_SCENES = [scenes.gaussians(N, seed=seed) for seed in range(SCENES)]
CAMERAS = [scenes.camera(turn=turn, size=SIZE) for turn in (-0.4, 0.3)]


def _one(gaussians, camera, backend):
    """Inside a trace, with the capacity that the backend takes there by itself."""
    return render(gaussians, camera, background=BACKGROUND, backend=backend)


def _evaluated(render_them):
    """Rendering, and gradients of scenes and cameras, of a loss that tells all pixels apart."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(1, *SIZE, 4)), jnp.float32)

    def loss(gaussians, cameras):
        seen = render_them(gaussians, cameras)
        images = jnp.concatenate([seen.color**2 + seen.color, (seen.depth * seen.alpha)[..., None]], -1)
        return (images.reshape(-1, *SIZE, 4) * weights).sum(), seen

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))


@functools.cache
def _looped(backend):
    """[scene][view] of ((gradients of the scene, of the camera), rendering)."""
    one = _evaluated(functools.partial(_one, backend=backend))
    return [[one(gaussians, camera) for camera in CAMERAS] for gaussians in ALL_SCENES]


def _assert_same(found, expected, atol, where):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        scale = max(1e-3, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, atol=atol * scale, rtol=0, err_msg=f"{where} {jax.tree_util.keystr(path)}")


@pytest.mark.slow
@backends
def test_scenes_seen_each_by_its_camera(backend):
    looped = _looped(backend)
    run = _evaluated(jax.vmap(functools.partial(_one, backend=backend)))
    gradients, seen = run(_stack(ALL_SCENES), stack_cameras(CAMERAS))
    for i in range(SCENES):
        expected, alone = looped[i][i]
        assert alone.alpha.mean() > 0.1 and seen.overflow.shape == (SCENES,)
        _assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], seen), alone, 2e-6, f"scene {i}")
        for which in (0, 1):
            _assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], gradients[which]), expected[which], 2e-5, f"scene {i}")


@pytest.mark.slow
@backends
def test_scenes_by_cameras(backend):
    """Every scene by every camera: a scene's gradient is the sum over cameras, a camera's that over scenes."""
    looped = _looped(backend)
    one = functools.partial(_one, backend=backend)
    run = _evaluated(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    (of_scenes, of_cameras), seen = run(_stack(ALL_SCENES), stack_cameras(CAMERAS))
    assert seen.color.shape == (SCENES, VIEWS, *SIZE, 3)
    for i in range(SCENES):
        for j in range(VIEWS):
            _assert_same(jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], seen), looped[i][j][1], 2e-6, f"{i} {j}")
        summed = jax.tree.map(lambda *leaves: sum(leaves), *[looped[i][j][0][0] for j in range(VIEWS)])
        _assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], of_scenes), summed, 2e-5, f"scene {i}")
    for j in range(VIEWS):
        summed = jax.tree.map(lambda *leaves: sum(leaves), *[looped[i][j][0][1] for i in range(SCENES)])
        _assert_same(jax.tree.map(lambda leaf, j=j: leaf[j], of_cameras), summed, 2e-5, f"camera {j}")


def test_overflow_is_told_by_scene():
    """One scene of a batch lacks room: it alone says so, and the other is drawn in full."""
    crowded, sparse = scenes.gaussians(200), scenes.gaussians(200, seed=1)
    sparse = dataclasses.replace(sparse, opacity_logits=jnp.where(jnp.arange(200) < 10, 1.0, -20.0))
    camera = CAMERAS[0]

    def run(capacity):
        one = functools.partial(render, camera=camera, capacity=capacity, backend="xla")
        return jax.jit(jax.vmap(one))(_stack([crowded, sparse]))

    short, enough = run(128), run(2048)
    assert short.overflow[0] > 0 and short.overflow[1] == 0 and not enough.overflow.any()
    np.testing.assert_array_equal(short.color[1], enough.color[1])
    assert np.abs(np.asarray(short.color[0]) - np.asarray(enough.color[0])).max() > 0.01


def test_memory_of_a_batch_of_scenes_on_the_host_is_that_of_its_arrays():
    """The cpu kernels run scene after scene: per scene a batch keeps images and projected Gaussians, no lists."""

    def temporary(count):
        batch = _stack([scenes.gaussians(N, seed=0)] * count)
        run = jax.jit(jax.vmap(functools.partial(_one, camera=CAMERAS[0], backend="cpu")))
        return run.lower(batch).compile().memory_analysis().temp_size_in_bytes

    by_scene = (temporary(12) - temporary(4)) / 8
    image = np.prod(SIZE) * 5 * 4
    assert by_scene < 4 * image + N * 400
