"""The examples are the world's truth; a tiny network learns two objects; the training goes on as if never stopped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from experiments import runtime
from experiments.checkpoints import Checkpoints
from experiments.data.blocks import geometry, solids
from experiments.prior.rings import Rings
from experiments.prior.settings import OptimizerSettings
from experiments.single_pass import data, model, training
from experiments.single_pass.settings import ExampleSettings, ModelSettings, TrainSinglePassConfig

CONFIG = TrainSinglePassConfig(
    model=ModelSettings(width=64, depth=1, texels=16, features=8, hidden=32),
    example=ExampleSettings(near=96, anywhere=160, photographs=0.25, subsets=0.25),
    optimizer=OptimizerSettings(batch=4, warmup=10, rate=4e-3, decay=0.5, average=0.9),
)
STEPS = 100
NUMBERS = (6, 8)  # of two solids each


@pytest.fixture(scope="module")
def objects():
    """Four rows of two objects; what their views show is anything that tells them apart."""
    assemblies = data.on_host(0, "train", NUMBERS)
    views = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 8)).astype(np.uint8)
    rows = np.array([0, 1, 0, 1])
    rings = Rings(
        views=views[rows],
        words=np.zeros((4, 24), np.int32),
        azimuths=np.zeros(4, np.float32),
        elevations=np.zeros(4, np.float32),
    )
    return data.Objects(rings=rings, assemblies=solids.stacked([assemblies[row] for row in rows], 2))


@pytest.fixture(scope="module")
def examples(objects):
    return jax.jit(lambda: data.make_examples(jax.random.key(5), objects, CONFIG.example))()


def _trained(state, objects, start, stop):
    for step in range(start, stop):
        at, fraction = jnp.int32(step), jnp.float32(step / STEPS)
        state, metrics, _ = training.update(state, objects, at, fraction, config=CONFIG)
    return state, metrics


@pytest.mark.slow
def test_answers_are_the_exact_distances_and_colours(objects, examples):
    for row, assembly in enumerate(data.on_host(0, "train", NUMBERS)):
        points = np.asarray(examples.points[row], np.float64)
        parts = geometry.signed_distances(assembly, points)
        truth = np.clip(parts.min(axis=1), -model.REACH, model.REACH)
        np.testing.assert_allclose(examples.distances[row], truth, atol=2e-6)
        two = np.partition(parts, 1, axis=1) if parts.shape[1] > 1 else np.array([[0.0, 1.0]])
        clear = two[:, 1] - two[:, 0] > 1e-4  # elsewhere two solids are equally near
        nearest = np.asarray(assembly.colors)[parts.argmin(axis=1)]
        np.testing.assert_allclose(np.asarray(examples.colors[row])[clear], nearest[clear], atol=1e-6)
        near = np.abs(parts.min(axis=1)[: CONFIG.example.near])
        assert np.median(near) < 0.02 and (near < 0.2).all()  # half are of spread 8 mm, half of 40
        assert np.abs(points).max() <= 0.5
    np.testing.assert_array_equal(examples.colored, np.abs(examples.distances) < 0.03)


@pytest.mark.slow
def test_shown_views_are_photographs_subsets_and_whole_rings():
    settings = ExampleSettings(photographs=0.5, subsets=0.2, lit=1.0, disturbed=0.0)
    clean = jnp.zeros((512, 4, 1, 1, 8)).at[..., :3].set(0.2).at[..., 5].set(-1.0).at[..., 7].set(1.0)
    shown = jax.jit(lambda key: data.shown_views(key, clean, settings))(jax.random.key(0))
    views, seen, whole = map(np.asarray, shown)
    photograph = (seen == [True, False, False, False]).all(1) & ~whole.any(1)
    assert photograph.mean() == pytest.approx(0.5, abs=0.07) and seen[:, 0].all()
    assert (seen & whole).all(1).mean() == pytest.approx(0.3, abs=0.07)
    color = views[..., :3].reshape(512, 4, 3)
    np.testing.assert_allclose(color[whole], 0.2, atol=1e-6)
    assert (color[~whole] <= 0.2 + 1e-6).all() and color[~whole].std() > 0.05  # light is never brighter than colour
    np.testing.assert_allclose(views[..., 7], 1.0)


@pytest.mark.slow
def test_two_objects_are_learnt_and_a_resumed_run_is_the_unbroken_one(objects, examples, tmp_path):
    @jax.jit
    def distances(params):
        planes = model.planes_of_views(CONFIG.model, params, examples.views, examples.camera_from_world)
        return model.read_points(CONFIG.model, params, planes, examples.points)[0]

    def iou(state):
        anywhere = slice(CONFIG.example.near, None)
        a, b = (np.asarray(d[:, anywhere] < 0) for d in (distances(state.average), examples.distances))
        return (a & b).sum() / (a | b).sum()

    state = training.fresh_state(CONFIG)
    assert iou(state) < 0.3
    begun, _ = _trained(state, objects, 0, 2)
    with Checkpoints(tmp_path / "checkpoints") as saved:
        saved.save(2, begun, {})
        saved.wait()
        target = jax.eval_shape(lambda: training.fresh_state(CONFIG))
        restored = saved.restore_newest(lambda aux: target)
    assert restored is not None
    unbroken, _ = _trained(begun, objects, 2, 5)
    loaded = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), restored.state)  # one program serves both
    again, _ = _trained(loaded, objects, 2, 5)
    jax.tree.map(np.testing.assert_array_equal, unbroken, again)
    whole, metrics = _trained(unbroken, objects, 5, STEPS)
    assert iou(whole) > 0.75
    assert float(metrics["color"]) < 0.1


@pytest.mark.slow
def test_a_batch_split_over_devices_has_the_gradient_of_the_whole(objects, examples):
    config = dataclasses.replace(CONFIG, loss=dataclasses.replace(CONFIG.loss, slope=0.0))
    params = model.initial_params(CONFIG.model, 0)
    mesh = runtime.data_mesh()
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    spread = jax.tree.map(lambda leaf: jax.device_put(leaf, split), examples)
    measure = jax.jit(training.gradient, static_argnums=(2, 3))
    alone, terms = measure(params, examples, config, None)
    together, shared = measure(params, spread, config, mesh)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), alone, together)
    assert float(terms["loss"]) == pytest.approx(float(shared["loss"]), rel=1e-5)


@pytest.mark.slow
def test_the_slope_term_is_that_of_finite_differences(examples):
    params, settings = model.initial_params(CONFIG.model, 0), CONFIG.model
    planes = model.planes_of_views(settings, params, examples.views, examples.camera_from_world)
    near = CONFIG.example.near
    found = training.slope_error(settings, params, planes, examples, near)
    points = examples.points[:, 0:near:4]
    step = 1e-3
    slopes = jnp.stack(
        [
            (
                model.read_points(settings, params, planes, points + step * offset)[0]
                - model.read_points(settings, params, planes, points - step * offset)[0]
            )
            / (2 * step)
            for offset in jnp.eye(3)[:, None, None]
        ],
        axis=-1,
    )
    inner = np.abs(np.asarray(examples.distances[:, 0:near:4])) < 0.05
    wanted = np.sum(np.asarray((slopes - examples.slopes[:, 0:near:4]) ** 2).sum(-1) * inner) / inner.sum()
    assert float(found) == pytest.approx(wanted, rel=0.02)
