"""Guidance: what it does at the scales where that is known, and what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion import guidance, process
from generators.diffusion.schedules import Cosine, log_snr, time_of_log_snr

RNG = np.random.default_rng(0)
CONDITIONAL, UNCONDITIONAL, Z = (jnp.asarray(x, jnp.float32) for x in RNG.normal(size=(3, 8, 4, 3)))


def test_scales_0_and_1_are_the_two_predictions():
    np.testing.assert_array_equal(guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 0.0), UNCONDITIONAL)
    np.testing.assert_allclose(guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 1.0), CONDITIONAL, atol=1e-6)
    np.testing.assert_allclose(
        guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 7.5), 7.5 * CONDITIONAL - 6.5 * UNCONDITIONAL, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["noise", "velocity", "flow"])
def test_guidance_of_other_predictions_is_that_of_the_clean_one(kind):
    schedule, t = Cosine(), jnp.asarray(0.4)
    clean = lambda p: process.to_clean(p, kind, Z, t, schedule)  # noqa: E731
    of_kind = clean(guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 3.0))
    of_clean = guidance.classifier_free(clean(CONDITIONAL), clean(UNCONDITIONAL), 3.0)
    np.testing.assert_allclose(of_kind, of_clean, atol=2e-5)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("ddof", [0, 1])
def test_rescaling_matches_the_spread_of_each_group(group, ddof):
    guided = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 9.0)
    kept = guidance.rescaled(guided, CONDITIONAL, 0.0, group=group, ddof=ddof)
    np.testing.assert_array_equal(kept, guided)
    matched = guidance.rescaled(guided, CONDITIONAL, 1.0, group=group, ddof=ddof)
    in_groups = lambda x: np.asarray(x).reshape(8 // group, -1)  # noqa: E731
    wanted = np.std(in_groups(CONDITIONAL), axis=1, ddof=ddof)
    np.testing.assert_allclose(np.std(in_groups(matched), axis=1, ddof=ddof), wanted, rtol=1e-5)
    # Only the length changes, and phi goes from one to the other in a straight line
    ratio = in_groups(matched) / in_groups(guided)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-5)
    half = guidance.rescaled(guided, CONDITIONAL, 0.5, group=group, ddof=ddof)
    np.testing.assert_allclose(half, 0.5 * (guided + matched), atol=1e-5)


def test_rescaling_takes_the_axes_it_is_given():
    guided = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 5.0)
    matched = guidance.rescaled(guided, CONDITIONAL, 1.0, axes=(1,))
    np.testing.assert_allclose(np.std(matched, axis=1), np.std(CONDITIONAL, axis=1), rtol=1e-5)
    with pytest.raises(ValueError, match="8 examples do not divide into groups of 3"):
        guidance.rescaled(guided, CONDITIONAL, 0.5, group=3)


def test_rescaling_even_pictures_has_finite_values_and_derivatives():
    even = jnp.ones((2, 4))
    value, slope = jax.jit(jax.value_and_grad(lambda x: jnp.sum(guidance.rescaled(x, even, 0.7))))(even)
    assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_the_interval_guides_inside_and_not_outside():
    t = jnp.array([0.1, 0.3, 0.5, 0.7, 0.9])
    scales = guidance.limited_interval(t, 4.0, first=0.3, last=0.7)
    np.testing.assert_array_equal(scales, [1, 4, 4, 4, 1])
    outside = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, scales[0])
    np.testing.assert_allclose(outside, CONDITIONAL, atol=1e-6)
    # An interval of noise levels, as in the paper
    level = jax.jit(lambda level: time_of_log_snr(Cosine(), -2 * jnp.log(level)))(2.0)
    np.testing.assert_allclose(jnp.exp(-0.5 * log_snr(Cosine(), level)), 2.0, rtol=1e-5)


def test_negatives_lead_away_only_across_what_is_wanted():
    negatives = jnp.asarray(RNG.normal(size=(2, 8, 4, 3)), jnp.float32)
    plain = guidance.classifier_free(CONDITIONAL, UNCONDITIONAL, 6.0)
    nothing = guidance.perpendicular_negative(CONDITIONAL, UNCONDITIONAL, negatives, jnp.zeros((2, 8)), 6.0)
    np.testing.assert_allclose(nothing, plain, atol=1e-5)

    weights = -jnp.asarray(RNG.uniform(0.5, 1.5, size=(2, 8)), jnp.float32)
    guided = guidance.perpendicular_negative(CONDITIONAL, UNCONDITIONAL, negatives, weights, 6.0)
    flat = lambda x: np.asarray(x, np.float64).reshape(8, -1)  # noqa: E731
    p = flat(CONDITIONAL - UNCONDITIONAL)
    np.testing.assert_allclose(np.sum(flat(guided - plain) * p, axis=1), 0, atol=1e-3)
    for b in range(8):  # by hand, example by example
        total = p[b].copy()
        for k in range(2):
            q = flat(negatives[k] - UNCONDITIONAL)[b]
            total += float(weights[k, b]) * (q - q @ p[b] / (p[b] @ p[b]) * p[b])
        np.testing.assert_allclose(flat(guided)[b], flat(UNCONDITIONAL)[b] + 6 * total, atol=1e-4)

    # A negative that says the same as the positive has nothing across it
    same = guidance.perpendicular_negative(CONDITIONAL, UNCONDITIONAL, CONDITIONAL[None], weights[:1], 6.0)
    np.testing.assert_allclose(same, plain, atol=1e-4)


def test_negatives_of_a_positive_that_says_nothing_are_finite():
    weights = -jnp.ones((1, 8))
    guided = guidance.perpendicular_negative(UNCONDITIONAL, UNCONDITIONAL, CONDITIONAL[None], weights, 2.0)
    np.testing.assert_allclose(guided, UNCONDITIONAL - 2 * (CONDITIONAL - UNCONDITIONAL), atol=1e-5)
