"""Step functions against brute force, their own inverses, and what may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.volumes import step_functions
from tests.helpers.gradients import assert_finite_gradients
from tests.renderers.volumes.compiled import compiled

sf = compiled(step_functions)


def histogram(rays=5, intervals=9, seed=0, empty=0.3):
    """Sorted edges in [0, 1] and weights, some of which are zero."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 1, (rays, intervals + 1)), -1).astype(np.float32)
    w = rng.uniform(0, 1, (rays, intervals)) * (rng.uniform(0, 1, (rays, intervals)) > empty)
    w[:, 4] += 0.1  # at least one is not
    return jnp.asarray(t), jnp.asarray(w / w.sum(-1, keepdims=True), jnp.float32)


def mass(t, w, a, b):
    """Weight of one ray's histogram within [a, b]: each interval by the share of it that lies inside."""
    inside = np.clip(np.minimum(t[1:], b) - np.maximum(t[:-1], a), 0, None)
    return np.sum(w * inside / np.maximum(np.diff(t), 1e-12))


def test_query_takes_the_interval_that_holds_the_point():
    t, y = jnp.array([[0.0, 1.0, 1.0, 3.0]]), jnp.array([[5.0, 6.0, 7.0]])
    found = sf.query(jnp.array([[-0.1, 0.0, 0.5, 1.0, 2.9, 3.0, 3.1]]), t, y, outside=-1.0)
    np.testing.assert_array_equal(found[0], [-1, 5, 5, 7, 7, 7, -1])


def test_density_and_weights_are_inverses_and_zero_width_is_harmless():
    t, w = histogram()
    np.testing.assert_allclose(sf.weights_from_pdf(t, sf.pdf_from_weights(t, w)), w, atol=1e-6)
    t = jnp.array([[0.0, 0.5, 0.5, 1.0]])
    assert_finite_gradients(lambda t, w: sf.pdf_from_weights(t, w), t, jnp.array([[0.2, 0.3, 0.5]]))


def test_the_distribution_starts_at_zero_ends_at_one_and_never_falls():
    rng = np.random.default_rng(1)
    w = jnp.asarray(rng.uniform(0, 1e3, (64, 200)) ** 8, jnp.float32)  # orders of magnitude apart
    w = w.at[:, -5:].set(0.0)
    c = sf.distribution(jnp.broadcast_to(jnp.linspace(0, 1, 201), (64, 201)), w)
    assert (c[:, 0] == 0).all() and (jnp.diff(c) >= 0).all()
    assert (c[:, -6:] == 1).all(), "what follows the last weight is at one exactly"


def test_inversion_is_the_inverse():
    t, w = histogram(empty=0.0)
    u = jnp.broadcast_to(jnp.linspace(0, 1, 41), (5, 41))
    points = np.asarray(sf.invert_distribution(u, t, w))
    for ray in range(5):
        found = [mass(np.asarray(t[ray]), np.asarray(w[ray]), 0, x) for x in points[ray]]
        np.testing.assert_allclose(found, u[ray], atol=2e-6)


def test_points_never_fall_into_intervals_without_weight():
    """Not even at the plateaus of the distribution, nor at its two ends."""
    w = jnp.array([[0.0, 0.25, 0.0, 0.0, 0.25, 0.5, 0.0]])
    t = jnp.arange(8.0)[None]
    u = jnp.array([[0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0]])
    np.testing.assert_allclose(sf.invert_distribution(u, t, w)[0], [1, 1.4, 4, 4.2, 5, 5.5, 6], rtol=1e-6)


def test_a_ray_without_weight_is_sampled_by_length():
    t = jnp.array([[0.0, 0.5, 4.0]])
    u = jnp.array([[0.0, 0.25, 0.5, 1.0]])
    np.testing.assert_allclose(sf.invert_distribution(u, t, jnp.zeros((1, 2)))[0], [0, 1, 2, 4], rtol=1e-6)
    assert np.isfinite(sf.invert_distribution(u, jnp.zeros((1, 3)), jnp.zeros((1, 2)))).all(), (
        "nor length: a missed ray"
    )


@pytest.mark.parametrize("jitter", ["none", "single", "stratified"])
def test_samples_follow_the_histogram(key, jitter):
    """Counts within each interval, against weights, within the error of sampling (0.5 / count where stratified)."""
    t, w = histogram(rays=2)
    count = 4000
    points = np.asarray(sf.sample(key, t, w, count, jitter=jitter))
    assert (np.diff(points) >= 0).all()
    for ray in range(2):
        shares = np.histogram(points[ray], np.asarray(t[ray], np.float64))[0] / count
        assert np.abs(shares - np.asarray(w[ray])).max() < 2.5 / count, "each interval, to its two border strata"


def test_jitter_is_uniform_in_each_stratum_and_without_it_the_middle(key):
    numbers = lambda jitter, rays: np.asarray(step_functions.stratified_numbers(key, (rays,), 4, jitter))  # noqa: E731
    np.testing.assert_allclose(numbers("none", 1)[0], [0.125, 0.375, 0.625, 0.875])
    each, one = numbers("stratified", 4000) * 4, numbers("single", 4000) * 4
    for sampled in (each, one):
        places = sampled - np.arange(4)
        assert (places >= 0).all() and (places < 1).all()
        assert np.abs(places.mean(0) - 0.5).max() < 5 * (1 / 12 / 4000) ** 0.5
    np.testing.assert_allclose(np.diff(one), 1, atol=1e-5)
    assert np.abs(np.corrcoef((each - np.arange(4)).T) - np.eye(4)).max() < 0.08


def test_intervals_are_ordered_within_the_histogram_and_hold_their_points(key):
    t, w = histogram()
    edges = sf.sample_intervals(key, t, w, 16)
    points = sf.sample(key, t, w, 16, jitter="single")
    assert edges.shape == (5, 17) and (jnp.diff(edges) >= 0).all()
    assert (edges[:, 0] >= t[:, 0]).all() and (edges[:, -1] <= t[:, -1]).all()
    assert ((edges[:, :-1] <= points) & (points <= edges[:, 1:])).all()
    with pytest.raises(ValueError, match="at least 2"):
        sf.sample_intervals(key, t, w, 1)


def brute_inner_outer(queries, t, w):
    inner, outer = np.zeros(len(queries) - 1), np.zeros(len(queries) - 1)
    for i, (a, b) in enumerate(zip(queries[:-1], queries[1:], strict=True)):
        for j, (c, d) in enumerate(zip(t[:-1], t[1:], strict=True)):
            outer[i] += w[j] * (min(b, d) > max(a, c))
            inner[i] += w[j] * (a <= c and d <= b)
    return inner, outer


def test_inner_and_outer_measures_by_brute_force():
    t, w = histogram(rays=8)
    queries = jnp.sort(jax.random.uniform(jax.random.key(1), (8, 12), minval=-0.1, maxval=1.1), -1)
    inner, outer = sf.inner_outer(queries, t, w)
    for ray in range(8):
        expected = brute_inner_outer(*(np.asarray(a[ray]) for a in (queries, t, w)))
        np.testing.assert_allclose((inner[ray], outer[ray]), expected, atol=1e-6)
        truth = [
            mass(np.asarray(t[ray]), np.asarray(w[ray]), a, b)
            for a, b in zip(queries[ray], queries[ray, 1:], strict=False)
        ]
        assert (inner[ray] <= np.array(truth) + 1e-6).all() and (np.array(truth) <= outer[ray] + 1e-6).all()


def test_measures_of_a_histograms_own_intervals_are_its_weights():
    t, w = histogram()
    np.testing.assert_allclose(sf.inner_outer(t, t, w), (w, w), atol=1e-6)


def test_dilation_is_the_largest_value_near_by():
    t, w = histogram(rays=3)
    p, distance = sf.pdf_from_weights(t, w), 0.05
    edges, dilated = sf.max_dilate(t, p, distance, domain=(0.0, 1.0))
    x = np.random.default_rng(0).uniform(0, 1, 200)
    near = x[:, None] + np.linspace(-distance, distance, 2001)[1:-1]
    at, around = (jnp.broadcast_to(jnp.asarray(a.reshape(1, -1), jnp.float32), (3, a.size)) for a in (x, near))
    all_found, values = sf.query(at, edges, dilated), np.asarray(sf.query(around, t, p))
    for ray in range(3):
        found, expected = np.asarray(all_found[ray]), values[ray].reshape(near.shape).max(1)
        assert (np.abs(found - expected) < 1e-5 * np.abs(p[ray]).max()).mean() > 0.98, (
            "but for narrow gaps in the brute force"
        )
        assert (found >= expected - 1e-4).all()
    _, weights = sf.max_dilate_weights(t, w, distance, domain=(0.0, 1.0))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_resampling_onto_its_own_edges_changes_nothing_and_keeps_the_integral():
    t, w = histogram()
    y = sf.pdf_from_weights(t, w)
    np.testing.assert_allclose(sf.resample(t, t, y), w, atol=1e-6)
    wider = jnp.concatenate([t[:, :1] - 1, t[:, 3:5], t[:, -1:] + 2], -1)
    np.testing.assert_allclose(sf.resample(wider, t, y).sum(-1), 1, rtol=1e-5)
    expected = [mass(np.asarray(t[1]), np.asarray(w[1]), a, b) for a, b in ((0.1, 0.2), (0.2, 0.7))]
    np.testing.assert_allclose(
        sf.resample(jnp.full((5, 3), 0.0) + jnp.array([[0.1, 0.2, 0.7]]), t, y)[1], expected, atol=1e-6
    )


def test_blurring_is_convolution_with_a_box():
    """Against the density averaged over many shifts; and by almost nothing it changes almost nothing."""
    t, w = histogram()
    queries = jnp.broadcast_to(jnp.linspace(-0.2, 1.2, 15), (5, 15))
    half = 0.07
    found = sf.blurred_weights(queries, t, w, half)
    p = sf.pdf_from_weights(t, w)
    shifts = (np.arange(400) + 0.5) / 400 * 2 * half - half
    expected = np.mean([np.asarray(sf.resample(queries + s, t, p)) for s in shifts.astype(np.float32)], 0)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(sf.blurred_weights(queries, t, w, 1e-3), sf.resample(queries, t, p), atol=5e-3)


def test_percentiles_split_the_weight():
    t, w = histogram()
    fractions = jnp.broadcast_to(jnp.array([0.1, 0.5, 0.9]), (5, 3))
    points = sf.weighted_percentile(t, w * 0.3, fractions)  # of whatever weight there is
    for ray in range(5):
        found = [mass(np.asarray(t[ray]), np.asarray(w[ray]), 0, x) for x in np.asarray(points[ray])]
        np.testing.assert_allclose(found, fractions[ray], atol=1e-5)


def test_more_axes_of_rays_and_none():
    t, w = histogram(rays=4)
    u = jnp.broadcast_to(jnp.linspace(0, 1, 41), (4, 41))
    shaped = sf.invert_distribution(u.reshape(2, 2, 41), t.reshape(2, 2, -1), w.reshape(2, 2, -1))
    single = sf.invert_distribution(u[0], t[0], w[0])
    np.testing.assert_allclose(shaped[0, 0], single, rtol=1e-6)
    assert np.abs(shaped[1, 1] - single).max() > 0.01, "or the rays could not be told apart"
