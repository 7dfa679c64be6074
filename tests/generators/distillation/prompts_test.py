import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion.guidance import classifier_free, perpendicular_negative
from generators.distillation import prompts
from generators.distillation.prompts import BACK, FRONT, OVERHEAD, SIDE, view_prompts
from tests.generators.distillation.worlds import arrays

seen_views = jax.jit(prompts.seen_views)
soft_views = jax.jit(prompts.soft_views)
away_from = jax.jit(perpendicular_negative)


def radians(*degrees):
    return jnp.asarray(np.deg2rad(degrees), jnp.float32)


def test_prompts_are_in_the_order_of_the_indices():
    suffixed = view_prompts("a chair")
    assert suffixed[FRONT] == "a chair, front view" and suffixed[OVERHEAD] == "a chair, overhead view"
    assert view_prompts("a chair", "prefix")[BACK] == "back view of a chair"
    assert view_prompts("a chair", "prefix")[SIDE] == "side view of a chair"


def test_cameras_see_the_side_that_they_are_on():
    """Cameras at (sin az, ., cos az): +Z is in front, +X and -X are sides, -Z is behind, for any multiple of a turn."""
    azimuths = radians(0, 44, 46, 90, 134, 136, 180, 270, -44, -136, 360 - 44, 720 + 181)
    expected = [FRONT, FRONT, SIDE, SIDE, SIDE, BACK, BACK, SIDE, FRONT, BACK, FRONT, BACK]
    np.testing.assert_array_equal(seen_views(azimuths, jnp.zeros(12)), expected)
    np.testing.assert_array_equal(seen_views(azimuths, jnp.full(12, math.radians(61))), OVERHEAD)
    np.testing.assert_array_equal(seen_views(azimuths, jnp.full(12, math.radians(59))), expected)
    narrow = prompts.seen_views(radians(29, 31, 149, 151), jnp.zeros(4), front=math.radians(30), back=math.radians(30))
    np.testing.assert_array_equal(narrow, [FRONT, SIDE, SIDE, BACK])


def test_soft_views_are_pure_at_the_axes_and_continuous_between():
    level = jnp.zeros(4)
    axes = soft_views(radians(0, 90, 180, -90), level)
    expected = np.zeros((4, 4))
    expected[range(4), [FRONT, SIDE, BACK, SIDE]] = 1
    np.testing.assert_allclose(axes.positive, expected, atol=1e-6)
    azimuths = radians(*np.arange(-720, 720, 0.25))
    soft = soft_views(azimuths, jnp.zeros(len(azimuths)))
    np.testing.assert_allclose(jnp.sum(soft.positive, axis=1), 1.0, atol=1e-6)
    assert np.max(np.abs(np.diff(soft.positive, axis=0))) < 0.004
    assert np.max(np.abs(np.diff(soft.weights, axis=0))) < 0.01  # the two fits meet at the side
    assert np.max(soft.weights) < 1.1e-3
    mirrored = soft_views(-azimuths, jnp.zeros(len(azimuths)))
    np.testing.assert_allclose(mirrored.weights, soft.weights, atol=1e-3)  # the fits differ by 5e-4 where they meet


def test_negative_weights_are_those_of_the_published_fits():
    """Front and side at 45 degrees: r = 1/2 in both fits; at 135: the side's and the front's fits towards the back."""
    soft = soft_views(radians(45, 135, 0, 180), jnp.zeros(4))
    np.testing.assert_array_equal(soft.negative, [[FRONT, SIDE]] * 4)
    half = math.exp(-0.25)
    np.testing.assert_allclose(soft.weights[0], [-(4 * half - 2.426), -(4 * half - 2.426)], rtol=1e-5)
    np.testing.assert_allclose(soft.weights[1], [-(half + 0.967), -(half - 0.606)], rtol=1e-4)
    np.testing.assert_allclose(soft.weights[2], [0.0, -1.574], atol=1e-3)  # in front: away from the side only
    np.testing.assert_allclose(soft.weights[3], [-1.967, -0.394], atol=1e-3)  # behind: away from both


def test_perpendicular_negatives_of_no_weight_are_plain_guidance():
    """Overhead there is nothing to keep away from."""
    text, without = arrays((2, 4, 4, 3)), arrays((2, 4, 4, 3), 2)
    negatives = jnp.stack([jnp.sin(text), jnp.cos(text)])
    overhead = soft_views(radians(10, 100), radians(70, 80))
    np.testing.assert_array_equal(overhead.positive[:, OVERHEAD], 1.0)
    found = away_from(text, without, negatives, overhead.weights.T, 7.5)
    np.testing.assert_allclose(found, classifier_free(text, without, 7.5), atol=1e-6)
    level = soft_views(radians(10, 100), jnp.zeros(2))
    assert np.max(np.abs(away_from(text, without, negatives, level.weights.T, 7.5) - found)) > 0.1


@pytest.mark.parametrize("azimuth", [20.0, 120.0])
def test_negatives_do_not_weaken_what_is_wanted(azimuth):
    """They act across the positive direction only: the component along it is that of plain guidance."""
    text, without = arrays((2, 4, 4, 3)), jnp.zeros((2, 4, 4, 3))
    weights = soft_views(radians(azimuth, -azimuth), jnp.zeros(2)).weights.T
    found = away_from(text, without, jnp.stack([jnp.sin(text), text**2]), weights, 5.0)
    for i in range(2):
        along = np.vdot(found[i], text[i]) / np.vdot(text[i], text[i])
        np.testing.assert_allclose(along, 5.0, rtol=1e-5)
