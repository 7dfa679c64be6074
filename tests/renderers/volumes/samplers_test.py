"""Where rays meet boxes and balls, and what samplers may and may not do with their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.volumes import samplers
from renderers.volumes.quadrature import weights_from_density
from tests.helpers.gradients import assert_finite_gradients
from tests.renderers.volumes.compiled import compiled

sp = compiled(samplers)

BOX = jnp.array([[-1.0, -2.0, 0.0], [1.0, 0.5, 3.0]])


def random_rays(count=400, seed=0):
    rng = np.random.default_rng(seed)
    origins = rng.uniform(-3, 3, (count, 3))
    directions = rng.uniform(-0.8, 0.8, (count, 3)) + [0.1, -0.4, 1.2] - origins
    directions[:60, 0], directions[30:90, 2] = 0.0, 0.0  # along faces, some along edges
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return jnp.asarray(origins, jnp.float32), jnp.asarray(directions, jnp.float32)


@pytest.mark.parametrize("shape", ["box", "sphere"])
def test_entry_and_exit_by_walking(shape):
    """Points between the two are inside, points outside are not; rays without any have no length."""
    origins, directions = random_rays()
    center, radius = jnp.array([0.5, 0.0, 1.0]), 1.5
    if shape == "box":
        near, far, hit = sp.ray_box(origins, directions, BOX, near=0.1, far=6.0)
        inside = lambda p: ((p >= np.asarray(BOX[0])) & (p <= np.asarray(BOX[1]))).all(-1)  # noqa: E731
    else:
        near, far, hit = sp.ray_sphere(origins, directions, center, radius, near=0.1, far=6.0)
        inside = lambda p: np.linalg.norm(p - np.asarray(center), axis=-1) <= radius  # noqa: E731
    t = np.linspace(0.1, 6, 1183)
    within = inside(np.asarray(origins)[:, None] + t[:, None] * np.asarray(directions)[:, None])
    expected = (t >= np.asarray(near)[:, None] + 1e-4) & (t <= np.asarray(far)[:, None] - 1e-4)
    doubtful = np.minimum(np.abs(t - np.asarray(near)[:, None]), np.abs(t - np.asarray(far)[:, None])) < 1e-3
    assert 50 < hit.sum() < 390
    assert (within == expected)[~doubtful].all()
    assert (near[~hit] == far[~hit]).all() and (far[hit] > near[hit]).all()


def test_a_ray_in_a_face_and_one_beside_it():
    origins = jnp.array([[1.0, 0.0, -1.0], [1.001, 0.0, -1.0]])
    along = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), (2, 3))
    near, far, hit = samplers.ray_box(origins, along, BOX)
    assert hit.tolist() == [True, False] and near[0] == 1 and far[0] == 4
    assert_finite_gradients(lambda o, d: samplers.ray_box(o, d, BOX, far=9.0)[:2], origins, along)
    assert_finite_gradients(lambda o, d: samplers.ray_sphere(o, d, jnp.zeros(3), 1.0, far=9.0)[:2], origins, along)


@pytest.mark.parametrize("jitter", ["none", "single", "stratified"])
def test_even_edges_fill_the_ray(key, jitter):
    near, far = jnp.array([0.5, 1.0]), jnp.array([2.5, 9.0])
    edges = sp.stratified_edges(key, near, far, 8, jitter=jitter)
    np.testing.assert_array_equal(edges[:, [0, -1]], jnp.stack([near, far], -1))
    even = np.linspace(near, far, 9, axis=-1)
    assert (jnp.diff(edges) >= 0).all()
    largest = np.abs(edges - even).max(-1) / (np.asarray(far - near) / 8)
    assert (largest < 1e-5).all() if jitter == "none" else (0.05 < largest).all() and (largest <= 0.5 + 1e-5).all()
    curved = sp.stratified_edges(key, near, far, 8, jitter="none", spacing="disparity")
    np.testing.assert_allclose(
        np.diff(1 / curved), np.broadcast_to((1 / far - 1 / near)[:, None] / 8, (2, 8)), rtol=1e-4
    )


def test_expected_color_does_not_depend_on_the_cut(key):
    """Stratified quadrature of a smooth medium: the mean over jitters is the integral, to second order."""
    near, far, count = jnp.zeros(2000), jnp.full(2000, 2.0), 8
    edges = sp.stratified_edges(key, near, far, count)
    density = lambda t: 1 + jnp.sin(3 * t)  # noqa: E731
    weights, _ = weights_from_density(density(0.5 * (edges[:, 1:] + edges[:, :-1])), jnp.diff(edges))
    opacity = 1 - np.exp(-(2 + (1 - np.cos(6)) / 3))
    assert abs(float(weights.sum(-1).mean()) - opacity) < 3e-3


def test_importance_goes_where_the_weight_is_and_merging_keeps_the_old(key):
    edges = jnp.broadcast_to(jnp.linspace(0, 1, 11), (3, 11))
    weights = jnp.zeros((3, 10)).at[:, 4].set(0.7)
    fine = sp.importance_edges(key, edges, weights, 32)
    assert (jnp.diff(fine) >= 0).all() and ((fine > 0.39) & (fine < 0.51)).all()
    spread = sp.importance_edges(key, edges, weights, 32, padding=1e3)
    np.testing.assert_allclose(jnp.diff(spread)[:, 1:-1], 1 / 32, rtol=0.02)
    merged = sp.merged_edges(key, edges, weights, 16)
    assert merged.shape == (3, 27) and (jnp.diff(merged) >= 0).all()
    assert all(jnp.isin(edges[ray], merged[ray]).all() for ray in range(3))
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(samplers.importance_edges(key, edges, w, 32) ** 2)))(weights)
    assert not gradient.any()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_annealing_goes_from_even_to_the_weights_and_skips_what_has_no_width(power):
    edges, weights = jnp.array([[0.0, 0.1, 0.1, 0.5, 1.0]]), jnp.array([[0.2, 0.5, 0.0, 0.3]])
    annealed = np.asarray(sp.annealed_weights(edges, weights, power, 1e-6)[0])
    width = np.diff(np.asarray(edges[0]))
    np.testing.assert_allclose(annealed[[0, 2, 3]], (np.array([2, 1e-6, 0.6]) ** power * width[[0, 2, 3]]), rtol=1e-4)
    assert annealed[1] == 0


def test_proposals_find_a_surface(key):
    """Two rounds: the last intervals lie about the shell that the proposal knows; weights carry its gradient.

    Rays that meet nothing, of no length, are harmless.
    """
    origins = jnp.tile(jnp.array([[0.0, 0.0, 4.0]]), (64, 1))
    directions = jnp.tile(jnp.array([[0.0, 0.0, -1.0]]), (64, 1))
    near, far = jnp.full(64, 1.0), jnp.full(64, 7.0).at[0].set(1.0)

    def run(scale):
        def density(points):
            return scale * jnp.exp(-(((jnp.linalg.norm(points, axis=-1) - 1) / 0.05) ** 2))

        options = dict(dilation=0.0, dilation_per_interval=0.5)
        return samplers.proposal_edges(key, origins, directions, near, far, [density, density], [32, 32, 24], **options)

    @jax.jit
    def sample(scale):
        (edges, histograms), pull = jax.vjp(run, scale)
        ones = jax.tree.map(jnp.ones_like, (edges, histograms))
        none = jax.tree.map(jnp.zeros_like, (edges, histograms))
        to_places, to_weights = pull((ones[0], none[1]))[0], pull((none[0], ones[1]))[0]
        return edges, histograms, to_places, to_weights

    edges, histograms, to_places, to_weights = sample(jnp.asarray(50.0))
    middles = 0.5 * (edges[1:, 1:] + edges[1:, :-1])
    assert (jnp.diff(edges) >= 0).all() and (edges[:, 0] >= 1).all() and (edges[:, -1] <= 7).all()
    assert (jnp.abs(middles - 3) < 0.4).mean() > 0.8, "12 percent of the ray hold the surface"
    assert [s.shape[1] for s, _ in histograms] == [33, 33]
    assert np.isfinite(to_weights) and to_weights != 0 and to_places == 0
    assert (edges[0] == 1).all() and not any(w[0].any() for _, w in histograms)
    with pytest.raises(ValueError, match="one count more"):
        samplers.proposal_edges(key, origins, directions, near, far, [], [8, 8])
