"""Contributions against dense weights (the image of one-hot colours), laws of sums over pixels and views."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.cameras.camera import Camera, stack_cameras
from renderers.cameras.rays import pixel_grid
from renderers.gaussians.queries import (
    Contributions,
    contributions,
    contributions_to_views,
    contributors,
    merge_contributions,
)
from renderers.gaussians.rasterize import rasterize
from renderers.kernels.dispatch import Unsupported
from tests.helpers.records import assert_record
from tests.renderers.gaussians import scenes

ATOL = 5e-6
N = 40
NAMES = scenes.NAMES[:4]
# kernels/samples/conformance_test.py has the reference, and more scenes
backends = pytest.mark.parametrize("backend", ["xla", "cpu"])
OPTIONS = ("backend", "capacity", "k", "order", "antialias")


def _inputs(arrays):
    return [arrays[name] for name in NAMES]


@functools.partial(jax.jit, static_argnames=OPTIONS)
def _contributions(arrays, camera, **options):
    return contributions(*_inputs(arrays), camera, **options)


@functools.partial(jax.jit, static_argnames=OPTIONS)
def _to_views(arrays, cameras, **options):
    return contributions_to_views(*_inputs(arrays), cameras, **options)


@functools.partial(jax.jit, static_argnames=OPTIONS)
def _contributors(arrays, camera, **options):
    return contributors(*_inputs(arrays), camera, **options)


@functools.cache
def _weights(turn=0.3):
    """[h, w, n]: the image whose colours are unit vectors; and its alpha."""
    arrays, camera = scenes.splats(), scenes.camera(turn=turn)
    seen = jax.jit(lambda *a: rasterize(*a, jnp.eye(N), camera, backend="reference"))(*_inputs(arrays))
    return np.asarray(seen.color), np.asarray(seen.alpha)


@backends
def test_contributions_are_sums_maxima_and_counts_of_weights(backend):
    rng = np.random.default_rng(0)
    mask, importance = rng.random(scenes.SIZE) < 0.7, rng.uniform(0, 3, scenes.SIZE).astype(np.float32)
    given = dict(mask=jnp.asarray(mask), importance=jnp.asarray(importance))
    found = _contributions(scenes.splats(), scenes.camera(), backend=backend, **given)
    assert_record(found)
    weights = _weights()[0] * mask[..., None]
    valued = weights * importance[..., None]
    np.testing.assert_allclose(found.total, valued.sum((0, 1)), atol=1e-4)
    np.testing.assert_allclose(found.largest, valued.max((0, 1)), atol=ATOL * 3)
    np.testing.assert_array_equal(found.pixels, (weights > 0).sum((0, 1)))
    np.testing.assert_array_equal(found.views, (weights > 0).any((0, 1)))
    assert found.overflow == 0 and found.pixels.max() > 50


@backends
def test_all_weights_sum_to_all_alphas(backend):
    """What is blended is what is not seen through."""
    everything = dict(mask=jnp.ones(scenes.SIZE, bool), importance=jnp.ones(scenes.SIZE))
    found = _contributions(scenes.splats(), scenes.camera(), backend=backend, **everything)
    np.testing.assert_allclose(found.total.sum(), _weights()[1].sum(), rtol=1e-5)
    assert (np.asarray(found.largest) <= np.asarray(found.total) + ATOL).all()
    assert (np.asarray(found.total) <= np.asarray(found.pixels) * np.asarray(found.largest) + 1e-4).all()


def test_removing_what_contributes_nowhere_changes_no_pixel():
    arrays, camera = scenes.splats(400), scenes.camera()
    arrays |= {"opacities": jnp.full(400, 0.95), "scales": arrays["scales"] * 3}  # much is hidden
    seen = np.asarray(_contributions(arrays, camera).largest) > 0
    assert 20 < seen.sum() < 380
    color = jax.jit(lambda kept: rasterize(*_inputs(arrays)[:3], 0.95 * kept, arrays["colors"], camera).color)
    whole = color(jnp.ones(400))
    np.testing.assert_array_equal(color(jnp.asarray(seen, jnp.float32)), whole)
    one_less = seen & (np.arange(400) != np.flatnonzero(seen)[0])
    assert np.abs(color(jnp.asarray(one_less, jnp.float32)) - whole).max() > 0


@pytest.mark.slow
@backends
def test_views_add_up(backend):
    turns = (-0.4, 0.0, 0.5)
    views = [scenes.camera(turn=turn) for turn in turns]
    rng = np.random.default_rng(0)
    importance = jnp.asarray(rng.uniform(0, 2, (3, *scenes.SIZE)), jnp.float32)
    mask = jnp.asarray(rng.random((3, *scenes.SIZE)) < 0.5)
    found = _to_views(scenes.splats(), stack_cameras(views), importance=importance, mask=mask, backend=backend)
    assert_record(found)
    weights = np.stack([_weights(turn)[0] for turn in turns]) * np.asarray(mask)[..., None]
    valued = weights * np.asarray(importance)[..., None]
    np.testing.assert_allclose(found.total, valued.sum((0, 1, 2)), atol=2e-4)
    np.testing.assert_allclose(found.largest, valued.max((0, 1, 2)), atol=1e-5)
    np.testing.assert_array_equal(found.pixels, (weights > 0).sum((0, 1, 2)))
    np.testing.assert_array_equal(found.views, (weights > 0).any((1, 2)).sum(0))
    assert found.overflow == 0


def test_memory_does_not_grow_with_the_views():
    def temporary(count):
        cameras = stack_cameras([scenes.camera(turn=0.1 * i) for i in range(count)])
        run = jax.jit(lambda cameras: contributions_to_views(*_inputs(scenes.splats()), cameras, backend="xla"))
        return run.lower(cameras).compile().memory_analysis().temp_size_in_bytes

    assert temporary(16) <= temporary(2) + 16 * 1024


def test_merging_is_associative_and_counts_saturate():
    def one(total, largest, pixels, views):
        fields = (jnp.asarray([total]), jnp.asarray([largest]), jnp.asarray([pixels]), jnp.asarray([views]))
        return Contributions(
            **dict(zip(("total", "largest", "pixels", "views"), fields, strict=True)), overflow=jnp.int32(1)
        )

    a, b, c = one(1.0, 0.5, 2**31 - 5, 1), one(2.0, 0.75, 3, 2), one(0.25, 0.1, 9, 4)
    left, right = merge_contributions(merge_contributions(a, b), c), merge_contributions(a, merge_contributions(b, c))
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert (left.pixels[0], left.views[0], left.largest[0], left.overflow) == (2**31 - 1, 7, 0.75, 3)


@pytest.mark.parametrize(("order", "backend"), [("weight", "cpu"), ("depth", "cpu"), ("weight", "xla")])
def test_contributors_of_all_pixels(backend, order):
    k = 6
    arrays, camera = scenes.splats(), scenes.camera()
    found = _contributors(arrays, camera, k=k, order=order, backend=backend)
    assert_record(found)
    weights = _weights()[0]
    z = np.asarray(arrays["means"] @ camera.camera_from_world[2, :3] + camera.camera_from_world[2, 3])
    np.testing.assert_array_equal(found.count, (weights > 0).sum(-1))
    assert found.count.max() > k and found.count.min() < k, "both more and fewer than are kept"
    ids, held = np.asarray(found.ids), np.asarray(found.ids) >= 0
    np.testing.assert_array_equal(held.sum(-1), np.minimum(found.count, k))
    np.testing.assert_array_equal(np.sort(~held, -1), ~held, err_msg="-1 comes last")
    named = np.where(held, np.take_along_axis(weights, np.maximum(ids, 0), -1), 0)
    np.testing.assert_allclose(found.weights, named, atol=ATOL)
    np.testing.assert_allclose(found.depths, np.where(held, z[ids], 0), rtol=1e-6)
    if order == "weight":
        np.testing.assert_allclose(found.weights, -np.sort(-weights, -1)[..., :k], atol=ATOL)
    else:
        near = np.argsort(z, kind="stable")
        blended = np.argsort(weights[..., near] <= 0, -1, kind="stable")[..., :k]
        np.testing.assert_array_equal(ids, np.where(held, near[blended], -1))


@pytest.mark.slow
@backends
def test_contributors_of_some_positions_are_those_of_the_image(backend):
    arrays, camera = scenes.splats(), scenes.camera()
    whole = _contributors(arrays, camera, k=50, order="weight", backend="cpu")
    assert (np.asarray(whole.ids)[..., N:] == -1).all(), "more are asked for than there are"
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 30, 25), rng.integers(0, 41, 25)
    positions = np.concatenate([pixel_grid(camera)[rows, columns], [[-1, 3], [np.nan, 3]]]).astype(np.float32)
    mask = np.arange(27) % 5 > 0
    given = dict(pixels=jnp.asarray(positions), mask=jnp.asarray(mask), order="weight")
    found = _contributors(arrays, camera, k=50, backend=backend, **given)
    for name in ("count", "ids"):
        expected = np.asarray(getattr(whole, name))[rows, columns]
        np.testing.assert_array_equal(np.asarray(getattr(found, name))[:25][mask[:25]], expected[mask[:25]])
    nothing = ~mask | (np.arange(27) >= 25)
    assert not np.asarray(found.count)[nothing].any() and (np.asarray(found.ids)[nothing] == -1).all()


@backends
def test_of_equal_weights_the_nearer_is_named_first(backend):
    """1/4, 3/4 * 1/3 and 1/2 * 1/2: three times the same float; the fourth Gaussian's weight is less."""
    view = scenes.camera()
    camera = Camera(jnp.eye(4), view.focal, view.principal, view.size)
    by_depth = [2, 0, 3, 1]
    depth, opacity = np.zeros(4), np.zeros(4)
    depth[by_depth], opacity[by_depth] = [1, 2, 3, 4], [1 / 4, 1 / 3, 1 / 2, 1 / 2]
    arrays = {
        "means": jnp.asarray(np.stack([0 * depth, 0 * depth, depth], 1), jnp.float32),
        "quaternions": jnp.ones((4, 4)),
        "scales": jnp.full((4, 3), 1e6),  # alpha is the opacity everywhere
        "opacities": jnp.asarray(opacity, jnp.float32),
    }
    found = _contributors(arrays, camera, k=2, order="weight", backend=backend)
    np.testing.assert_array_equal(found.ids[15, 20], by_depth[:2])
    np.testing.assert_array_equal(found.weights[15, 20], [0.25, 0.25])
    assert (found.count == 4).all()


def test_no_gradient_flows():
    arrays, camera = scenes.splats(), scenes.camera()

    def loss(arrays, camera):
        total = contributions(*_inputs(arrays), camera).total.sum()
        return total + contributors(*_inputs(arrays), camera, k=2).weights.sum()

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(arrays, camera)
    assert value > 0 and not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def test_a_batch_is_a_loop():
    several, camera = [scenes.splats(seed=seed) for seed in (0, 1)], scenes.camera()
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    given = dict(mask=jnp.ones(scenes.SIZE, bool), importance=jnp.ones(scenes.SIZE), backend="xla")
    of_batch = jax.vmap(lambda arrays: _contributions(arrays, camera, **given))(stacked)
    asked = dict(k=6, order="weight", backend="cpu")
    ids = jax.vmap(lambda arrays: _contributors(arrays, camera, **asked).ids)(stacked)
    for i in range(2):
        one = _contributions(several[i], camera, **given)
        np.testing.assert_allclose(of_batch.total[i], one.total, rtol=1e-5)
        np.testing.assert_array_equal(of_batch.pixels[i], one.pixels)
        np.testing.assert_array_equal(ids[i], _contributors(several[i], camera, **asked).ids)


def test_want_of_capacity_is_reported():
    arrays, camera = scenes.splats(400), scenes.camera()
    assert _contributors(arrays, camera, k=1, order="weight", backend="xla", capacity=64).overflow > 0
    assert _to_views(arrays, stack_cameras([camera, camera]), backend="xla", capacity=64).overflow > 0


def test_no_gaussians():
    none, camera = scenes.splats(0), scenes.camera()
    assert _contributions(none, camera).total.shape == (0,)
    found = _contributors(none, camera, k=2)
    assert not found.count.any() and (found.ids == -1).all() and found.ids.shape == (*scenes.SIZE, 2)


def test_what_cannot_be_is_refused_with_a_reason():
    arrays, camera = scenes.splats(), scenes.camera()
    with pytest.raises(Unsupported, match="use 'xla'"):
        contributions(*_inputs(arrays), camera, backend="pallas_tpu")
    with pytest.raises(ValueError, match="k >= 1"):
        contributors(*_inputs(arrays), camera, k=0)
