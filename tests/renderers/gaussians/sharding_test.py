"""Rendering over four virtual devices equals rendering on one: images and every gradient."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from renderers.cameras.camera import stack_cameras
from renderers.gaussians.rasterize import render, render_views
from renderers.gaussians.sharding import render_gaussians_sharded, render_views_sharded
from tests.renderers.gaussians import scenes

SIZE = (70, 41)  # 5 tile rows: bands of 2, 2, 1 and none
IMAGES = ("color", "alpha", "depth")


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4,), ("device",), axis_types=(AxisType.Auto,))


def _close(actual, expected):
    """To 1e-5 of the largest entry: devices sum in another order."""
    for (path, b), a in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(actual), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max() <= 1e-5 * max(np.abs(b).max(), 1e-6), jax.tree_util.keystr(path)


def _weighted(rendering, weights):
    return sum(jnp.sum(getattr(rendering, name) * weights[name]) for name in IMAGES)


def _weights(shape):
    rng = np.random.default_rng(3)
    return {name: jnp.asarray(rng.normal(size=(*shape, *more)), jnp.float32) for name, more in
            zip(IMAGES, ((3,), (), ()), strict=True)}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "xla"])
def test_gaussians_dealt_out(mesh, backend):
    """43 Gaussians on 4 devices: one is made up. Mask, background, absgrad and camera included."""
    gaussians, camera = scenes.gaussians(43), scenes.camera(size=SIZE)
    background, weights = jnp.asarray([0.2, 0.5, 0.9]), _weights(SIZE)
    mask = jnp.asarray(np.random.default_rng(0).random(SIZE) > 0.3)
    shared = dict(mask=mask, capacity=1024, backend=backend)

    def run(draw, gaussians, camera, background, probe):
        rendering = draw(gaussians, camera, background=background, means2d_probe=probe, **shared)
        return _weighted(rendering, weights), rendering

    found, truth = (
        jax.jit(jax.value_and_grad(partial(run, draw), argnums=(0, 1, 2, 3), has_aux=True))(
            gaussians, camera, background, jnp.zeros((43, 2))
        )
        for draw in (partial(render_gaussians_sharded, mesh=mesh, axis="device"), render)
    )
    (_, rendering), gradients = found
    (_, expected), expected_gradients = truth
    assert np.asarray(expected.alpha).max() > 0.5 and expected.overflow == 0
    _close(dataclasses.asdict(rendering), dataclasses.asdict(expected))
    _close(gradients, expected_gradients)


@pytest.mark.slow
def test_bands_count_what_they_drop(mesh):
    """Every band keeps `capacity` intersections; what is over is summed, not lost."""
    gaussians, camera = scenes.gaussians(40), scenes.camera(size=SIZE)
    draw = jax.jit(
        partial(render_gaussians_sharded, mesh=mesh, axis="device", backend="xla"), static_argnames="capacity"
    )
    assert draw(gaussians, camera, capacity=4096).overflow == 0
    assert draw(gaussians, camera, capacity=32).overflow > 0


@pytest.mark.parametrize("views", [pytest.param(4, marks=pytest.mark.slow), 6])
def test_views_dealt_out(mesh, views):
    gaussians = scenes.gaussians(40)
    cameras = stack_cameras([scenes.camera(turn=0.1 * i) for i in range(views)])
    weights = _weights((views, *scenes.SIZE))

    def run(draw, gaussians, cameras):
        rendering = draw(gaussians, cameras)
        return _weighted(rendering, weights), rendering

    found, truth = (
        jax.jit(jax.value_and_grad(partial(run, draw), argnums=(0, 1), has_aux=True))(gaussians, cameras)
        for draw in (partial(render_views_sharded, mesh=mesh, axis="device"), render_views)
    )
    _close(found[0], truth[0])
    _close(found[1], truth[1])
    assert found[0][1].color.shape == (views, *scenes.SIZE, 3)


def test_an_unknown_axis_is_named(mesh):
    with pytest.raises(ValueError, match=r"expected an axis of the mesh, \('device',\), got 'view'"):
        render_gaussians_sharded(scenes.gaussians(), scenes.camera(), mesh, axis="view")
