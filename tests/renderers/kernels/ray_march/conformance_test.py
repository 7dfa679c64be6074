"""Every backend of the march against a loop in numpy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.ray_march import shapes
from renderers.kernels.ray_march.api import march
from tests.helpers.records import assert_record

BACKENDS = ["reference", "xla", "cpu"]
SCENES = {
    "object": shapes.Shape(rays=60, resolution=16, num_steps=80, capacity=2000),
    "nested": shapes.Shape(rays=60, resolution=12, levels=3, num_steps=80, capacity=2000, cone=0.05, radius=2.5),
    # blocks of 8 cells lie wholly in or out of the finer box, and are passed over at every level
    "aligned": shapes.Shape(rays=60, resolution=32, levels=2, num_steps=80, capacity=2000, cone=0.02, radius=0.7),
}


def scene(name):
    shape = SCENES[name]
    arrays = shapes.inputs(shape)
    occupied = arrays["occupied"]
    occupied &= np.random.default_rng(1).uniform(size=occupied.shape) < 0.8  # holes, so that levels differ
    steps = dict(shortest=2 * 3**0.5 / 70, cone=shape.cone, longest=0.2)
    arrays["ends"][:3] = arrays["starts"][:3]  # some rays have nothing
    return arrays, steps


def brute_force(name):
    """Steps taken as (ray, start, end, nearness of its middle to a border); and rays that ran out."""
    arrays, steps = scene(name)
    occupied, box = arrays["occupied"], arrays["box"].astype(np.float64)
    levels, resolution = occupied.shape[:2]
    taken, ran_out = [], []
    for ray in range(SCENES[name].rays):
        t = arrays["starts"][ray]
        for _ in range(SCENES[name].num_steps):
            after = np.float32(
                t + np.clip(np.float32(t * np.float32(steps["cone"])), steps["shortest"], steps["longest"])
            )
            middle = 0.5 * (float(t) + float(after))
            point = arrays["origins"][ray].astype(np.float64) + middle * arrays["directions"][ray]
            relative = (point - box.mean(0)) / (0.5 * (box[1] - box[0]))
            level = next((n for n in range(levels) if np.abs(relative).max() <= 2**n), None)
            if middle < arrays["ends"][ray] and level is not None:
                cells = (relative / 2**level + 1) / 2 * resolution
                index = np.clip(np.floor(cells).astype(int), 0, resolution - 1)
                border = np.abs(cells - np.round(cells)).min() < 1e-4
                if occupied[(level, *index)] or border:
                    taken.append((ray, t, after, border))
            t = after
        ran_out.append(t < arrays["ends"][ray])
    return taken, np.array(ran_out)


@functools.cache
def compiled(name, backend, capacity):
    _, steps = scene(name)
    return jax.jit(lambda *a: march(*a, num_steps=SCENES[name].num_steps, capacity=capacity, backend=backend, **steps))


def run(name, backend, capacity=None):
    arrays, _ = scene(name)
    inputs = [jnp.asarray(arrays[n]) for n in ("origins", "directions", "starts", "ends", "occupied", "box")]
    return compiled(name, backend, capacity or SCENES[name].capacity)(*inputs)


ROWS = [
    pytest.param(backend, name, marks=[] if backend == "cpu" or name == "nested" else [pytest.mark.slow])
    for backend in BACKENDS
    for name in SCENES
]


@pytest.mark.parametrize(("backend", "name"), ROWS)
def test_steps_are_those_of_the_loop(backend, name):
    found = run(name, backend)
    assert_record(found)
    used = int(found.wanted.sum())
    got = {
        (int(ray), round(float(start), 4)): float(end)
        for ray, start, end in zip(found.ray_index[:used], found.starts[:used], found.ends[:used], strict=True)
    }
    expected, ran_out = brute_force(name)
    sure = {(ray, round(float(start), 4)): float(end) for ray, start, end, border in expected if not border}
    doubtful = {(ray, round(float(start), 4)) for ray, start, _, border in expected if border}
    assert 100 < len(sure) < SCENES[name].capacity and len(doubtful) < 10
    assert len(got) == used
    missing, extra = set(sure) - set(got), set(got) - set(sure) - doubtful
    assert not missing and not extra, (sorted(missing)[:5], sorted(extra)[:5])
    np.testing.assert_allclose([got[k] for k in sure], list(sure.values()), rtol=1e-6)
    order = np.stack([found.ray_index[:used], found.starts[:used]], -1)
    assert (np.lexsort((order[:, 1], order[:, 0])) == np.arange(used)).all()
    np.testing.assert_array_equal(found.wanted, np.bincount(found.ray_index[:used], minlength=len(ran_out)))
    np.testing.assert_array_equal(found.ran_out, ran_out)
    assert (found.ray_index[used:] == len(ran_out)).all() and not found.starts[used:].any()


@pytest.mark.parametrize("backend", ["xla", "cpu", pytest.param("reference", marks=pytest.mark.slow)])
def test_what_exceeds_the_capacity_is_dropped_from_the_back(backend):
    whole, part = run("object", backend), run("object", backend, 100)
    for field in ("starts", "ends", "ray_index"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[:100])
    np.testing.assert_array_equal(part.wanted, whole.wanted)


@pytest.mark.parametrize("backend", ["xla", "cpu"])
def test_nothing_occupied_and_everything(backend):
    arrays, steps = scene("object")
    options = dict(num_steps=80, capacity=4800, backend=backend, **(steps | dict(cone=0.0)))
    inputs = [jnp.asarray(arrays[n]) for n in ("origins", "directions", "starts", "ends")]
    walk = jax.jit(lambda occupied: march(*inputs, occupied, jnp.asarray(arrays["box"]), **options))
    assert not walk(jnp.zeros((1, 16, 16, 16), bool)).wanted.any()
    full = walk(jnp.ones((1, 16, 16, 16), bool)).wanted
    length = np.maximum(arrays["ends"] - arrays["starts"], 0)
    assert (np.abs(full - length / steps["shortest"]) <= 1).all()


def test_batches_are_runs_one_by_one():
    arrays, steps = scene("object")
    box = jnp.asarray(arrays["box"])
    inputs = [jnp.asarray(arrays[n])[:8].reshape(2, 4, -1) for n in ("origins", "directions", "starts", "ends")]
    inputs[2:] = [a[..., 0] for a in inputs[2:]]
    for backend in ("xla", "cpu"):
        single = jax.jit(
            lambda *a, backend=backend: march(
                *a, jnp.asarray(arrays["occupied"]), box, num_steps=40, capacity=64, backend=backend, **steps
            )
        )
        together = jax.vmap(single)(*inputs)
        for i in range(2):
            jax.tree.map(
                np.testing.assert_array_equal,
                jax.tree.map(lambda a, i=i: a[i], together),
                single(*(a[i] for a in inputs)),
            )


def test_impossible_sizes_are_refused():
    arrays, steps = scene("object")
    inputs = [jnp.asarray(arrays[n]) for n in ("origins", "directions", "starts", "ends", "occupied", "box")]
    with pytest.raises(ValueError, match="at least one step"):
        march(*inputs, num_steps=0, capacity=8, **steps)
    with pytest.raises(ValueError, match="shortest"):
        march(*inputs, num_steps=8, capacity=8, shortest=0.0)
