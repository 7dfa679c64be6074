"""Sampling rings: DDIM written out by hand, guidance that is traced, and a first view that is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import rendering
from experiments.prior import model
from experiments.prior.rings import LENGTH
from experiments.prior.sampling import sample_rings
from experiments.prior.settings import DiffusionSettings, ModelSettings

SETTINGS = ModelSettings(size=8, patch=4, rim=1, width=64, depth=1, text_width=64, text_depth=0)
DIFFUSION = DiffusionSettings()
KEY = jax.random.key(3)
WORDS = jnp.asarray(np.random.default_rng(0).integers(2, 9, size=(2, LENGTH)), jnp.int32)
AZIMUTHS, ELEVATIONS = jnp.array([0.0, 0.3]), jnp.full(2, rendering.ELEVATION)


@pytest.fixture(scope="module")
def params():
    """Weights of which none is zero, so that everything that the network is told counts."""
    fresh = model.initial_params(SETTINGS, 0)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), p.dtype), fresh)


@pytest.fixture(scope="module")
def draw(params):
    """(words, options) to rings."""
    sample = functools.partial(sample_rings, KEY, params, settings=SETTINGS, diffusion=DIFFUSION, steps=4)

    def draw(words=WORDS, guidance=2.0, **options):
        return np.asarray(sample(words, AZIMUTHS, ELEVATIONS, guidance=guidance, **options))

    return draw


def test_the_default_is_ddim_on_guided_clipped_estimates(params, draw):
    schedule, cameras = model.schedule(DIFFUSION), jax.jit(model.poses)(AZIMUTHS, ELEVATIONS)
    network = jax.jit(functools.partial(model.denoise, SETTINGS))
    z = jax.random.normal(jax.random.split(KEY)[0], (2, 4, 8, 8, 8))
    for now, after in ((1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)):
        t = jnp.full(2, now)
        told, untold = (network(params, z, t, words, cameras) for words in (WORDS, jnp.ones_like(WORDS)))
        clean = np.clip(untold + 2.0 * (told - untold), -1, 1)
        (alpha, sigma), (alpha_after, sigma_after) = (
            (float(schedule.alpha(jnp.asarray(t))), float(schedule.sigma(jnp.asarray(t)))) for t in (now, after)
        )
        z = jnp.asarray(alpha_after * clean + sigma_after * (z - alpha * clean) / sigma)
    np.testing.assert_allclose(draw(), z, atol=2e-5)


def test_guidance_is_traced_and_scales_what_captions_say(draw):
    other = WORDS[::-1]
    assert not np.allclose(draw(), draw(other), atol=1e-3)
    compiled = sample_rings._cache_size()
    np.testing.assert_array_equal(draw(guidance=0.0), draw(other, guidance=0.0))
    assert sample_rings._cache_size() == compiled


@pytest.mark.slow
def test_without_guidance_the_estimates_are_the_conditional_ones(draw):
    np.testing.assert_allclose(draw(guidance=None), draw(guidance=1.0), atol=1e-5)


@pytest.mark.slow
def test_of_a_known_view_colour_and_coverage_are_used_and_nothing_else(draw):
    given = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, size=(2, 8, 8, 8)), jnp.float32)
    rings = draw(given=given)
    assert not np.allclose(rings, draw(), atol=1e-2)
    unread = given.at[..., 3:7].set(jnp.nan)
    np.testing.assert_array_equal(draw(given=unread), rings)
    # Each of the two kinds of channel counts, also for the views that are not known
    for channel in (0, 7):
        assert np.abs(draw(given=given.at[..., channel].multiply(-1)) - rings)[:, 1:].max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver_pp", "euler", "heun"])
def test_every_sampler_ends_in_the_range_of_the_data(draw, sampler):
    rings = draw(sampler=sampler)
    assert np.isfinite(rings).all() and np.abs(rings).max() <= 1
    assert not np.allclose(rings, draw(), atol=1e-4)
