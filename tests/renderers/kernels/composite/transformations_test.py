"""Compositing under jax's transformations and on several threads: always the numbers of a plain call."""

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numba
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from renderers.kernels.composite.api import composite
from tests.renderers.kernels.composite import scenes

SIZE = (20, 37)
VIEWS = 4
N = 40
DIFFERENTIABLE = ("means2d", "conics", "opacities", "features")


def _scenes():
    """Four scenes of the same shapes, stacked."""
    each = [scenes.random_scene(seed, n=N, size=SIZE) for seed in range(VIEWS)]
    return {name: jnp.asarray(np.stack([scene[name] for scene in each])) for name in each[0]}


SCENES = _scenes()
SHARED = {name: SCENES[name][0] for name in DIFFERENTIABLE}  # parameters that all views share, as in training
VIEW = {name: SCENES[name] for name in ("extents", "depths")} | {"shift": jnp.arange(VIEWS, dtype=jnp.float32)}


def loss(parameters, view, backend="cpu"):
    """Of one view: the shared Gaussians, moved and ordered by the view."""
    blended = composite(
        parameters["means2d"] + view["shift"],
        parameters["conics"],
        parameters["opacities"],
        parameters["features"],
        view["extents"],
        view["depths"],
        size=SIZE,
        capacity=None if backend == "cpu" else 1024,
        backend=backend,
    )
    return (blended.image**2).sum() + blended.transmittance.sum()


def _one_by_one(backend):
    single = jax.jit(jax.value_and_grad(partial(loss, backend=backend)))
    results = [single(SHARED, jax.tree.map(lambda leaf, i=i: leaf[i], VIEW)) for i in range(VIEWS)]
    values = jnp.stack([value for value, _ in results])
    return values, jax.tree.map(lambda *leaves: sum(leaves), *[gradient for _, gradient in results])


@pytest.fixture(scope="module")
def expected():
    return {backend: _one_by_one(backend) for backend in ("cpu", "xla")}


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for name in DIFFERENTIABLE:
        # sums over views in another order
        scale = float(jnp.abs(expected[1][name]).max())
        np.testing.assert_allclose(found[1][name], expected[1][name], atol=2e-6 * scale, rtol=0, err_msg=name)


def _by_vmap(backend, one):
    return lambda parameters: jax.vmap(lambda view: one(parameters, view))(VIEW)


def _by_map(backend, one):
    return lambda parameters: jax.lax.map(lambda view: one(parameters, view), VIEW)


def _by_scan(backend, one):
    def run(parameters):
        return jax.lax.scan(lambda carry, view: (carry + 1, one(parameters, view)), 0, VIEW)[1]

    return run


def _by_checkpointed_scan(backend, one):
    return _by_scan(backend, jax.checkpoint(one))


def _by_shard_map(backend, one):
    mesh = jax.make_mesh((VIEWS,), ("view",), axis_types=(AxisType.Auto,))
    each = PartitionSpec("view")

    @partial(jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), each), out_specs=each)
    def sharded(parameters, views):
        return jax.lax.map(lambda view: one(parameters, view), views)

    return lambda parameters: sharded(parameters, VIEW)


WAYS = {
    "vmap": _by_vmap,
    "map": _by_map,
    "scan": _by_scan,
    "checkpoint": _by_checkpointed_scan,
    "shard_map": _by_shard_map,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["cpu", pytest.param("xla", marks=pytest.mark.slow)])
def test_values_and_gradients_are_those_of_single_calls(backend, way, expected):
    values_of = WAYS[way](backend, partial(loss, backend=backend))

    def total(parameters):
        values = values_of(parameters)
        return values.sum(), values

    (_, values), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(SHARED)
    assert_same((values, gradients), expected[backend])


@pytest.mark.parametrize("backend", ["cpu", "xla"])
@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_taken_inside_shard_map(backend, check_vma, expected):
    """Data-parallel training: with `check_vma` jax sums the gradients of what is shared, without it the caller does."""
    mesh = jax.make_mesh((VIEWS,), ("view",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("view"))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=(specs[1], specs[0]), check_vma=check_vma)
    def step(parameters, views):
        (view,) = [jax.tree.map(lambda leaf: leaf[0], views)]
        value, gradient = jax.value_and_grad(partial(loss, backend=backend))(parameters, view)
        return value[None], gradient if check_vma else jax.lax.psum(gradient, "view")

    assert_same(step(SHARED, VIEW), expected[backend])


@pytest.mark.parametrize("axes", [(0, None), (None, 0)])
def test_vmap_over_some_arguments_only(axes):
    """The others are given to each call as they are, gradients included."""
    one = {name: SCENES[name][1] for name in SCENES}
    many = {name: jnp.stack([array, array * 1.01]) for name, array in one.items()}
    opacities, features = (
        many[n] if axis == 0 else one[n] for n, axis in zip(("opacities", "features"), axes, strict=True)
    )

    def image(opacities, features):
        fixed = (one["means2d"], one["conics"], opacities, features, one["extents"], one["depths"])
        return composite(*fixed, size=SIZE, backend="cpu").image

    batched = jax.jit(jax.vmap(image, axes))(opacities, features)
    for i in range(2):
        arguments = (v[i] if axis == 0 else v for v, axis in zip((opacities, features), axes, strict=True))
        np.testing.assert_array_equal(batched[i], image(*arguments))


def _step():
    return jax.jit(jax.value_and_grad(partial(loss, backend="cpu")))


def _bytes(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_many_calls_in_flight_do_not_disturb_each_other():
    step = _step()
    inputs = [jax.tree.map(lambda leaf, i=i: leaf[i % VIEWS], VIEW) for i in range(60)]
    in_flight = [step(SHARED, view) for view in inputs]
    expected = [_bytes(step(SHARED, view)) for view in inputs[:VIEWS]]
    for i, result in enumerate(in_flight):
        assert _bytes(result) == expected[i % VIEWS]


def test_two_python_threads_at_once():
    step = _step()
    views = [jax.tree.map(lambda leaf, i=i: leaf[i], VIEW) for i in range(2)]
    expected = [_bytes(step(SHARED, view)) for view in views]
    wrong = []

    def work(index):
        for _ in range(40):
            if _bytes(step(SHARED, views[index])) != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the kernels deadlocked"
    assert not wrong


def test_results_are_bit_equal_on_every_run_and_number_of_threads():
    """Called directly: `set_num_threads` masks Numba's threads for the calling thread only, which XLA's are not."""
    from renderers.kernels.composite import cpu

    scene = scenes.random_scene(7, n=400, size=(100, 120))
    names = ("means2d", "conics", "opacities", "features", "extents", "depths")
    arrays = [*(scene[name] for name in names), np.zeros((0, 0), np.float32)]
    rng = np.random.default_rng(0)
    g_image, g_final = (rng.normal(size=(100, 120, *more)).astype(np.float32) for more in ((3,), ()))
    seen = set()
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS), 1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        for _ in range(3):
            image, final = np.zeros((100, 120, 3), np.float32), np.zeros((100, 120), np.float32)
            out = np.zeros((400, cpu.GEOMETRY + 3), np.float32)
            cpu.forward(*arrays, image, final)
            cpu.backward(*arrays, image, final, g_image, g_final, out)
            seen.add((image.tobytes(), final.tobytes(), out.tobytes()))
    assert len(seen) == 1
