"""Losses on weights against brute force, and where they must vanish."""

import jax
import jax.numpy as jnp
import numpy as np

from renderers.volumes import regularizers, step_functions
from tests.helpers.gradients import assert_gradients_match
from tests.renderers.volumes.compiled import compiled
from tests.renderers.volumes.step_functions_test import histogram

rg, sf = compiled(regularizers), compiled(step_functions)


def test_distortion_is_the_double_sum_of_the_paper():
    t, w = histogram(empty=0.2)
    middles = 0.5 * (t[:, 1:] + t[:, :-1])
    pairs = np.abs(middles[:, :, None] - middles[:, None, :]) * w[:, :, None] * w[:, None, :]
    expected = pairs.sum((1, 2)) + (w**2 * jnp.diff(t)).sum(-1) / 3
    np.testing.assert_allclose(rg.distortion_loss(t, w), expected, rtol=1e-5)


def test_distortion_is_the_mean_distance_of_two_points_and_the_same_however_a_density_is_cut():
    """Intervals of the same density, cut in two, are the same function; and uniform on [0, 1] gives 1/3."""
    t, w = histogram()
    middles = 0.5 * (t[:, 1:] + t[:, :-1])
    finer = jnp.sort(jnp.concatenate([t, middles], -1), -1)
    np.testing.assert_allclose(rg.distortion_loss(finer, jnp.repeat(w / 2, 2, -1)), rg.distortion_loss(t, w), rtol=1e-5)
    np.testing.assert_allclose(
        rg.distortion_loss(jnp.linspace(0, 1, 8)[None], jnp.full((1, 7), 1 / 7)), 1 / 3, rtol=1e-5
    )


def test_interlevel_is_zero_where_the_proposal_bounds_the_field_and_only_there():
    t, w = histogram(rays=6)
    proposal = jnp.sort(jax.random.uniform(jax.random.key(3), (6, 7)), -1).at[:, 0].set(0.0).at[:, -1].set(1.0)
    _, bound = sf.inner_outer(proposal, t, w)  # the outer measure of the field dominates it on every interval
    # each field interval lies in proposal intervals that hold at least its weight
    np.testing.assert_allclose(rg.interlevel_loss(t, w, proposal, bound), 0, atol=1e-12)
    assert (rg.interlevel_loss(t, w, proposal, 0.3 * sf.resample(proposal, t, sf.pdf_from_weights(t, w))) > 1e-3).all()
    np.testing.assert_allclose(rg.interlevel_loss(t, w, t, w), 0, atol=1e-9)


def test_interlevel_by_hand_and_its_gradient_reaches_the_proposal_alone():
    t, w = jnp.array([[0.0, 0.5, 1.0]]), jnp.array([[0.6, 0.4]])
    proposal = jnp.array([[0.0, 0.25, 1.0]]), jnp.array([[0.1, 0.2]])
    # bounds: 0.3 for the first interval, 0.2 for the second
    np.testing.assert_allclose(rg.interlevel_loss(t, w, *proposal), 0.3**2 / 0.6 + 0.2**2 / 0.4, rtol=1e-5)
    gradients = jax.grad(lambda *a: jnp.sum(regularizers.interlevel_loss(*a)), (0, 1, 2, 3))(t, w, *proposal)
    assert not any(g.any() for g in gradients[:3])
    np.testing.assert_allclose(gradients[3], [[-2 * 0.3 / 0.6, -2 * 0.3 / 0.6 - 2 * 0.2 / 0.4]], rtol=1e-5)


def test_the_blurred_loss_is_zero_where_the_proposal_is_the_blurred_field_and_smooth_between():
    t, w = histogram()
    proposal = jnp.broadcast_to(jnp.linspace(-0.1, 1.1, 9), (5, 9))
    target = sf.blurred_weights(proposal, t, w, 0.03)
    np.testing.assert_allclose(rg.blurred_interlevel_loss(t, w, proposal, target + 1e-6, 0.03), 0, atol=1e-9)
    low = rg.blurred_interlevel_loss(t, w, proposal, 0.5 * target, 0.03)
    np.testing.assert_allclose(low, 0.5 * target.sum(-1), rtol=1e-3)  # (0.5 w)^2 / (0.5 w), summed


def test_opacity_losses():
    np.testing.assert_allclose(rg.sparsity_loss(jnp.array([0.0, 1.0])), [0.1, 1.01**0.5], rtol=1e-6)
    loss = np.asarray(rg.opaque_loss(jnp.array([0.0, 0.5, 1.0])))
    np.testing.assert_allclose(loss[1], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(loss[[0, 2]], 0.00791, rtol=1e-2)


def test_gradients_are_differences():
    with jax.enable_x64(True):
        t, w = (jnp.asarray(a, jnp.float64) for a in histogram(rays=2, intervals=6, empty=0.0))
        proposal = jnp.broadcast_to(jnp.linspace(0.03, 0.97, 5, dtype=jnp.float64), (2, 5))
        assert_gradients_match(regularizers.distortion_loss, t, w)
        assert_gradients_match(lambda p: regularizers.interlevel_loss(t, w, proposal, p), jnp.full((2, 4), 0.11))
        assert_gradients_match(
            lambda p: regularizers.blurred_interlevel_loss(t, w, proposal, p, 0.05), jnp.full((2, 4), 0.11)
        )
