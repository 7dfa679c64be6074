"""Surfel compositing under jax's transformations and on several threads: always the numbers of a plain call."""

from functools import partial

import jax
import jax.numpy as jnp
import numba
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from renderers.kernels.surfels.api import composite_surfels
from renderers.kernels.surfels.reference import tile_rectangles
from tests.renderers.kernels.surfels import scenes

SIZE = (20, 37)
VIEWS = 4
DIFFERENTIABLE = ("transforms", "opacities", "features")  # shared by the views; the rest is each view's own


def _scenes():
    each = [scenes.random_scene(seed, n=20, size=SIZE) for seed in range(VIEWS)]
    return {name: jnp.asarray(np.stack([scene[name] for scene in each])) for name in each[0]}


def loss(shared, view, backend):
    blended = composite_surfels(
        shared["transforms"],
        view["means2d"],
        shared["opacities"],
        shared["features"],
        view["depths"],
        view["radii"],
        size=SIZE,
        capacity=None if backend == "cpu" else 256,
        backend=backend,
    )
    return (blended.image**2).sum() + (blended.distortion * blended.median_depth).sum() + blended.depth.sum()


@pytest.mark.parametrize("backend", ["cpu", pytest.param("xla", marks=pytest.mark.slow)])
def test_gradients_taken_inside_shard_map_are_those_of_single_calls(backend):
    """Data-parallel training: jax sums the gradients of what the views share."""
    stacked = _scenes()
    shared = {name: stacked[name][0] for name in DIFFERENTIABLE}
    views = {name: stacked[name] for name in ("means2d", "depths", "radii")}
    single = jax.jit(jax.value_and_grad(partial(loss, backend=backend)))
    results = [single(shared, jax.tree.map(lambda leaf, i=i: leaf[i], views)) for i in range(VIEWS)]
    expected = jax.tree.map(lambda *leaves: sum(leaves), *[gradient for _, gradient in results])

    mesh = jax.make_mesh((VIEWS,), ("view",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("view"))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=(specs[1], specs[0]))
    def step(shared, views):
        view = jax.tree.map(lambda leaf: leaf[0], views)
        value, gradient = jax.value_and_grad(partial(loss, backend=backend))(shared, view)
        return value[None], gradient

    values, gradients = step(shared, views)
    np.testing.assert_allclose(values, [value for value, _ in results], rtol=1e-6)
    for name in DIFFERENTIABLE:
        scale = float(jnp.abs(expected[name]).max())
        np.testing.assert_allclose(gradients[name], expected[name], atol=2e-6 * scale, rtol=0, err_msg=name)


@pytest.mark.slow
def test_results_are_bit_equal_on_every_number_of_threads():
    """Called directly: `set_num_threads` masks Numba's threads for the calling thread only, which XLA's are not."""
    from renderers.kernels.surfels import cpu

    size, n = (100, 120), 300
    scene = scenes.random_scene(7, n=n, size=size)
    rectangles = np.asarray(tile_rectangles(jnp.asarray(scene["means2d"]), jnp.asarray(scene["radii"]), size))
    inputs = [scene[name] for name in ("means2d", "opacities", "features", "depths")]
    arrays = [scene["transforms"].reshape(n, 9), *inputs, rectangles, np.zeros((0, 0), np.float32)]
    rng = np.random.default_rng(0)
    cotangents = [rng.normal(size=(*size, channels)).astype(np.float32) for channels in (3, 4)]
    seen = set()
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS), numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        image, planes = np.zeros((*size, 3), np.float32), np.zeros((*size, 4), np.float32)
        out = np.zeros((n, cpu.GEOMETRY + 3), np.float32)
        cpu.forward(*arrays, image, planes)
        cpu.backward(*arrays, image, planes, *cotangents, out)
        seen.add((image.tobytes(), planes.tobytes(), out.tobytes()))
    assert len(seen) == 1
