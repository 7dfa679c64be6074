import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import rendering
from experiments.generation import observations
from experiments.generation.guides import OracleGuide
from experiments.generation.views import agreement, sample_views, smoothed
from generators.diffusion.schedules import Cosine
from tests.helpers.sphere_rings import cameras, sphere_ring

CENTER = np.array([0.1, -0.05, 0.05])


def two_colors(points):
    return np.where(points[:, :1] > CENTER[0], [[0.9, 0.1, 0.1]], [[0.1, 0.2, 0.9]])


@pytest.fixture(scope="module")
def ring():
    return sphere_ring(CENTER, 0.3, two_colors)


@jax.tree_util.register_pytree_node_class
class Sure:
    """A guide that always answers with one ring, and counts in what it was asked."""

    def __init__(self, ring, scale=1.0):
        self.ring = jnp.asarray(ring)
        self.size, self.schedule, self.scale = ring.shape[1], Cosine(shift=2.0), scale

    def clean(self, noisy, t, azimuths, elevations, guidance):
        assert noisy.shape[0] == azimuths.shape[0] == elevations.shape[0] == t.shape[0]
        return jnp.broadcast_to(guidance * self.ring, noisy.shape) + 0.0 * noisy

    def tree_flatten(self):
        return (self.ring,), (self.scale, self.size)

    @classmethod
    def tree_unflatten(cls, static, arrays):
        guide = object.__new__(cls)
        guide.ring, guide.schedule, guide.scale = arrays[0], Cosine(shift=2.0), static[0]
        guide.size = static[1]
        return guide


def test_samples_end_at_the_estimate():
    # Without noise at the last time DDIM's sample is its last estimate, whatever it started from.
    small = np.random.default_rng(0).uniform(-1, 1, (4, 4, 4, 8)).astype(np.float32)
    rings = sample_views(jax.random.key(0), Sure(small, scale=0.5), count=5, steps=3)
    assert rings.shape == (5, 4, 4, 4, 8)
    np.testing.assert_allclose(rings, np.broadcast_to(0.5 * small, rings.shape), atol=1e-5)
    stronger = sample_views(jax.random.key(0), Sure(small, scale=0.5), count=1, steps=3, guidance=1.5)
    np.testing.assert_allclose(stronger[0], 1.5 * small, atol=1e-5)


@jax.tree_util.register_pytree_node_class
class Unsure(Sure):
    """A guide whose estimate errs by a share of the noise that it is given."""

    def clean(self, noisy, t, azimuths, elevations, guidance):
        factors = (slice(None),) + (None,) * 4
        noise = (noisy - self.schedule.alpha(t)[factors] * self.ring[None]) / self.schedule.sigma(t)[factors]
        return self.ring[None] + 0.3 * noise


def test_smoothing_keeps_what_a_guide_is_sure_of_and_takes_the_rest_down_by_the_root_of_the_copies():
    small = jnp.asarray(np.random.default_rng(0).uniform(-0.5, 0.5, (4, 8, 8, 8)), jnp.float32)
    noisy = [smoothed(jax.random.key(1), Unsure(small), small, copies=copies) for copies in (1, 64)]
    np.testing.assert_allclose([np.std(ring - small) for ring in noisy], [0.3, 0.3 / 8], rtol=0.05)
    sure = smoothed(jax.random.key(1), Sure(small), jnp.zeros_like(small), copies=3)
    np.testing.assert_allclose(sure, small, atol=1e-6)


@pytest.mark.slow
def test_smoothing_leaves_the_object_of_an_oracle_what_it_is():
    """Of three boxes the one that the ring shows: the others are farther than the noise, if not out of sight of it."""
    guide = OracleGuide("a red box", count=3, seed=0, size=32)
    rings = np.asarray(guide.rings(0.0, rendering.ELEVATION))
    apart = min(np.std(a - b) for k, a in enumerate(rings) for b in rings[:k])
    for ring in rings:
        found = smoothed(jax.random.key(2), guide, jnp.asarray(ring), copies=4)
        assert np.std(found - ring) < 0.1 * apart


def test_points_lie_on_the_sphere(ring):
    seen = observations.surface_points(ring, cameras())
    sure = seen.weights > 0.9
    assert sure.sum() > 200
    offset = seen.points - CENTER
    np.testing.assert_allclose(np.linalg.norm(offset, axis=-1)[sure], 0.3, atol=0.006)
    cosine = (offset * seen.normals).sum(-1) / np.linalg.norm(offset, axis=-1)
    assert np.degrees(np.arccos(np.clip(cosine[sure], -1, 1))).max() < 3
    # A pixel at which the two colours meet holds their mixture
    away = sure & (np.abs(offset[:, 0]) > 0.08)
    assert (np.abs(seen.colors - two_colors(seen.points)).max(-1)[away] < 0.02).mean() > 0.995


def test_ground_is_the_outline_s_lowest_point(ring):
    # Rays at elevation 15 touch a sphere cos 15 of its radius below the centre (a little more, for they spread).
    ground = observations.ground_height(ring, cameras())
    assert abs(ground - (CENTER[1] - 0.3 * np.cos(np.radians(15)))) < 0.02


def test_emptiness_bounds_the_distance_and_is_tight_at_outlines(ring):
    rng = np.random.default_rng(1)
    nodes = rng.uniform(-0.5, 0.5, (4000, 3))
    empty = observations.Emptiness(ring, cameras(), ground=-np.inf, slack=0.01)
    bound = empty(nodes, 0.02)
    distance = np.linalg.norm(nodes - CENTER, axis=-1) - 0.3
    assert (bound <= np.maximum(distance, 0) + 0.03).all()
    outside = distance > 0.1
    assert (bound[outside] > 0).mean() > 0.95
    assert (bound[distance < -0.02] < 0).all()


def test_agreement_prefers_rings_of_one_object(ring):
    exact = agreement(ring, cameras())
    assert exact > 0.9
    swapped = ring[[1, 0, 3, 2]]  # each picture is right, but for another camera
    larger = np.concatenate([sphere_ring(CENTER, 0.22, two_colors)[:1], ring[1:]])
    mushy = ring.copy()
    mushy[..., 3:6] *= 0.7
    for worse in (swapped, larger, mushy):
        assert agreement(worse, cameras()) < exact - 0.02
    nothing = np.zeros_like(ring)
    nothing[..., 6:] = -1
    assert agreement(nothing, cameras()) == 0.0
