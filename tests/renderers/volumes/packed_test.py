"""Samples in one buffer see what samples in rows see, gradients included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.volumes import packed, quadrature, regularizers
from tests.helpers.records import assert_record
from tests.renderers.volumes.compiled import compiled

pk, q = compiled(packed), compiled(quadrature)

RAYS, SAMPLES, CAPACITY = 7, 9, 50


def rows(seed=0):
    """Edges [r, e] and which of the intervals are kept; ray 2 keeps none, ray 3 all."""
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.uniform(0, 2, (RAYS, SAMPLES + 1)), -1).astype(np.float32)
    keep = rng.uniform(size=(RAYS, SAMPLES)) < 0.6
    keep[2], keep[3] = False, True
    density = rng.uniform(0, 5, (RAYS, SAMPLES)).astype(np.float32)
    color = rng.uniform(0, 1, (RAYS, SAMPLES, 3)).astype(np.float32)
    return tuple(map(jnp.asarray, (edges, keep, density, color)))


@functools.partial(jax.jit, static_argnames="capacity")
def pack(edges, keep, capacity):
    return packed.pack(edges[:, :-1], edges[:, 1:], keep, capacity)


def in_buffer(values, keep):
    flat = values.reshape(-1, *values.shape[2:])[jnp.nonzero(keep.ravel(), size=CAPACITY, fill_value=0)[0]]
    return flat


def test_the_record_and_its_order():
    edges, keep, *_ = rows()
    samples = pack(edges, keep, CAPACITY)
    assert_record(samples)
    ray, index = np.nonzero(np.asarray(keep))
    used = len(ray)
    assert used < CAPACITY and samples.overflow == 0 and samples.complete.all()
    np.testing.assert_array_equal(samples.ray_index, [*ray, *[RAYS] * (CAPACITY - used)])
    np.testing.assert_array_equal(samples.starts[:used], np.asarray(edges)[ray, index])
    np.testing.assert_array_equal(samples.ends[:used], np.asarray(edges)[ray, index + 1])
    np.testing.assert_array_equal(samples.counts, np.asarray(keep).sum(1))


def test_overflow_is_counted_and_the_rays_that_lost_samples_are_named():
    edges, keep, *_ = rows()
    wanted = np.asarray(keep).sum(1)
    capacity = int(wanted[:4].sum() + 1)  # ray 4 keeps one
    samples = pack(edges, keep, capacity)
    assert samples.overflow == wanted.sum() - capacity
    np.testing.assert_array_equal(samples.counts, [*wanted[:4], 1, 0, 0])
    np.testing.assert_array_equal(samples.complete, np.arange(RAYS) < 4)
    assert (samples.ray_index == np.repeat(np.arange(RAYS), samples.counts)).all()


@pytest.mark.parametrize("kind", ["density", "alpha"])
def test_the_buffer_sees_what_rows_see(kind):
    edges, keep, density, color = rows()
    samples = pack(edges, keep, CAPACITY)
    cotangents = np.random.default_rng(5).normal(size=(RAYS, 3)).astype(np.float32)
    if kind == "alpha":
        density = (density / 5).at[3, 2].set(1.0)  # an opaque one

    def by_rows(density, color):
        lengths = jnp.diff(edges)
        if kind == "density":
            weights, _ = quadrature.weights_from_density(jnp.where(keep, density, 0.0), lengths)
        else:
            weights, _ = quadrature.weights_from_alpha(jnp.where(keep, density, 0.0))
        return (
            quadrature.composite(weights, color),
            quadrature.opacity(weights),
            quadrature.median_distance(edges, weights),
        )

    def by_buffer(density, color):
        function = packed.weights_from_density if kind == "density" else packed.weights_from_alpha
        weights, _ = function(in_buffer(density, keep), samples)
        seen = packed.sum_by_ray(weights[:, None] * in_buffer(color, keep), samples)
        return seen, packed.sum_by_ray(weights, samples), packed.median_distance(weights, samples)

    def with_gradients(function):
        def loss(density, color):
            seen = function(density, color)
            return jnp.sum(seen[0] * cotangents) + jnp.sum(seen[1] ** 2), seen

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(density, color)

    (_, expected), gradients = with_gradients(by_rows)
    (_, found), found_gradients = with_gradients(by_buffer)
    for a, b in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    seen = np.asarray(expected[1]) > 0
    assert seen.sum() == RAYS - 1 and found[2][2] == 0
    np.testing.assert_allclose(found[2][seen], expected[2][seen], atol=1e-5)
    for a, b in zip(found_gradients, gradients, strict=True):
        a, b = (np.where(np.asarray(keep).reshape(RAYS, SAMPLES, *[1] * (b.ndim - 2)), v, 0) for v in (a, b))
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_sums_do_not_lose_the_small_behind_the_large():
    """A running sum over all rays would have 1e8 in front of the second ray's samples."""
    edges = jnp.broadcast_to(jnp.linspace(0, 1, SAMPLES + 1), (RAYS, SAMPLES + 1))
    samples = pack(edges, jnp.ones((RAYS, SAMPLES), bool), RAYS * SAMPLES)
    values = jnp.where(samples.ray_index == 0, 1e8, 1e-3)
    in_front = np.asarray(pk.sum_in_front(values, samples)).reshape(RAYS, SAMPLES)
    np.testing.assert_allclose(in_front[1:], np.broadcast_to(np.arange(SAMPLES) * 1e-3, (RAYS - 1, SAMPLES)), rtol=1e-5)


def test_distances_and_distortion_are_those_of_rows():
    edges, _, density, _ = rows()
    samples = pack(edges, jnp.ones((RAYS, SAMPLES), bool), RAYS * SAMPLES + 3)
    weights, _ = q.weights_from_density(density, jnp.diff(edges))
    flat = jnp.concatenate([weights.ravel(), jnp.zeros(3)])
    middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
    expected = q.expected_distance(weights, middles)
    np.testing.assert_allclose(pk.expected_distance(flat, samples), expected, rtol=1e-5)

    def loss_and_gradient(loss, weights):
        value, pull = jax.vjp(loss, weights)
        return value, pull(jnp.ones_like(value))[0]

    found, gradient = jax.jit(lambda w: loss_and_gradient(lambda w: packed.distortion_loss(w, samples), w))(flat)
    expected, slope = jax.jit(lambda w: loss_and_gradient(lambda w: regularizers.distortion_loss(edges, w), w))(weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(gradient[:-3].reshape(weights.shape), slope, atol=2e-5)


def test_pruning_keeps_order_and_counts():
    edges, keep, density, _ = rows()
    samples = pack(edges, keep, CAPACITY)
    chosen = jnp.arange(CAPACITY) % 2 == 0
    pruned = pk.prune(samples, chosen, 30)
    kept = np.asarray(chosen & (samples.ray_index < RAYS))
    np.testing.assert_array_equal(pruned.starts[: kept.sum()], samples.starts[kept])
    np.testing.assert_array_equal(pruned.counts, np.bincount(samples.ray_index[kept], minlength=RAYS))
    assert pruned.overflow == 0 and pk.prune(samples, chosen, 5).overflow == kept.sum() - 5


def test_second_derivatives_exist_and_extremes_are_finite():
    edges, keep, density, _ = rows()
    samples = pack(edges, keep, CAPACITY)
    flat, along = in_buffer(density, keep), jnp.cos(jnp.arange(1.0 * CAPACITY))

    @jax.jit
    def slope_and_curvature(density):
        slope = jax.grad(lambda d: jnp.sum(packed.weights_from_density(d, samples)[0] ** 2))
        return slope(density), jax.grad(lambda d: jnp.vdot(slope(d), along))(density)

    up, down = (slope_and_curvature(flat + step * along)[0] for step in (1e-2, -1e-2))
    np.testing.assert_allclose(slope_and_curvature(flat)[1], (up - down) / 2e-2, atol=2e-3)

    @jax.jit
    def gradient(density):
        def seen(d):
            weights, _ = packed.weights_from_density(d, samples)
            return jnp.sum(weights) + jnp.sum(packed.median_distance(weights, samples))

        return jax.value_and_grad(seen)(density)

    for extreme in (0.0, 1e30):
        assert all(np.isfinite(v).all() for v in gradient(jnp.full(CAPACITY, extreme)))
