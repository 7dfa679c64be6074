"""Guides against what is known exactly: limits of the posterior, Bayes by hand, and guidance as an affine map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import keys
from experiments.data.blocks import objects, rendering
from experiments.data.blocks.descriptions import parse
from experiments.generation import guides
from experiments.generation.guides import OracleGuide
from generators.diffusion.schedules import Cosine, discretized

SIZE = 8
CAPTION = "a red sphere"


@pytest.fixture(scope="module")
def oracle():
    return OracleGuide(CAPTION, count=3, seed=1, size=SIZE)


@pytest.fixture(scope="module")
def asked(oracle):
    """One compiled call for all tests: (noisy, t, azimuth, elevation, guidance) -> clean."""

    @jax.jit
    def clean(noisy, t, azimuth, elevation, guidance):
        return oracle.clean(noisy[None], t[None], azimuth[None], elevation[None], guidance)[0]

    return lambda *arguments: np.asarray(clean(*(jnp.asarray(a, jnp.float32) for a in arguments)))


def rings(azimuth, elevation):
    """The class drawn and rendered apart from the guide."""
    said = parse(CAPTION)
    made = [objects.build(said, keys.host_rng(1, "oracle objects", index)) for index in range(3)]
    render = jax.jit(functools.partial(rendering.render_ring, size=SIZE))
    return np.stack([np.asarray(render(one, jnp.float32(azimuth), jnp.float32(elevation))) for one in made])


def test_oracle_is_the_posterior_mean_of_its_class_at_the_asked_cameras(oracle, asked):
    known, t = rings(0.7, 0.3), 0.97
    alpha, sigma = (float(part(jnp.float32(t))) for part in (oracle.schedule.alpha, oracle.schedule.sigma))
    noisy = alpha * known[1] + sigma * np.random.default_rng(0).normal(size=known[1].shape)
    log_weights = -((noisy - alpha * known) ** 2).sum((1, 2, 3, 4)) / (2 * sigma**2)
    weights = np.exp(log_weights - log_weights.max())
    assert weights.min() / weights.sum() > 0.02  # all three take part, else the test would say little
    np.testing.assert_allclose(
        asked(noisy, t, 0.7, 0.3, 1.0), np.tensordot(weights / weights.sum(), known, 1), atol=2e-3
    )


def test_oracle_returns_what_it_was_shown_when_the_noise_is_small(asked):
    known = rings(0.7, 0.3)
    for ring in known:
        np.testing.assert_allclose(asked(ring, 1e-3, 0.7, 0.3, 1.0), ring, atol=1e-4)


def test_guidance_is_affine_and_without_the_prompt_the_oracle_shrinks_towards_nothing(oracle, asked):
    ring, t = rings(0.0, 0.2)[0], 0.5
    alpha, sigma = (float(part(jnp.float32(t))) for part in (oracle.schedule.alpha, oracle.schedule.sigma))
    noisy = alpha * ring + 0.1 * sigma
    without, with_prompt, halfway = (asked(noisy, t, 0.0, 0.2, scale) for scale in (0.0, 1.0, 0.5))
    np.testing.assert_allclose(halfway, 0.5 * (without + with_prompt), atol=1e-5)
    empty = np.array([0, 0, 0, 0, 0, 0, -1, -1], np.float32)
    # mean of x given alpha x + sigma e, both normal with deviation 1, by the normal equations
    expected = empty + alpha * (noisy - alpha * empty) / (alpha**2 + sigma**2)
    np.testing.assert_allclose(without, np.clip(expected, -1, 1), atol=1e-5)


class _Knowing:
    """A guide that always answers with one ring."""

    size, schedule, scale = SIZE, Cosine(shift=2.0), 1.0

    def __init__(self, ring):
        self._ring = ring

    def clean(self, noisy, t, azimuths, elevations, guidance):
        return self._ring[None]


def test_denoiser_predicts_the_noise_of_a_known_ring_at_the_tables_timesteps():
    table = discretized(Cosine(shift=2.0), guides.TIMESTEPS)
    ring, noise = jax.random.uniform(jax.random.key(0), (2, 4, SIZE, SIZE, 8), minval=-1.0)
    denoise = guides.denoiser(_Knowing(ring), jnp.float32(0.4), jnp.float32(0.1), 1.0)
    for timestep in (20, 500, 980):
        noisy = table.alpha(jnp.int32(timestep)) * ring + table.sigma(jnp.int32(timestep)) * noise
        predicted = denoise(noisy, jnp.full(4, timestep, jnp.int32), jax.random.key(1))
        np.testing.assert_allclose(predicted, noise, atol=2e-4)


def test_guides_go_through_jit_as_arguments(oracle):
    leaves, structure = jax.tree.flatten(oracle)
    again = jax.tree.unflatten(structure, leaves)
    assert (again.size, again.scale, again.schedule) == (oracle.size, oracle.scale, oracle.schedule)
