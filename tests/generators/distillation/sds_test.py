import dataclasses
import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion.schedules import scaled_linear
from generators.distillation.sds import sds_loss
from generators.distillation.timesteps import draw_timesteps, fantasia3d_2, table_length, weight
from tests.generators.distillation.worlds import KEY, TABLE, arrays, normal

# Written out from alpha_bar by itself: what each paper multiplies (eps_hat - eps) by.
WEIGHTS = {
    "sds": lambda bar: 1 - bar,
    "uniform": lambda bar: np.ones_like(bar),
    "fantasia3d": lambda bar: np.sqrt(bar) * (1 - bar),
    "fantasia3d_1": lambda bar: 1 / (1 - bar),
    "ism": lambda bar: np.sqrt((1 - bar) / bar),
}


def wavy(z, t, key):
    return jnp.sin(3.0 * z) + 0.001 * t[:, None, None, None]


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_the_gradient_is_the_weighted_residual_over_the_batch(weighting):
    latents = arrays()
    (loss, aux), gradient = jax.value_and_grad(
        lambda z: sds_loss(KEY, z, wavy, TABLE, weighting=weighting), has_aux=True
    )(latents)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    bar = np.cumprod(1 - betas)[np.asarray(aux.t)][:, None, None, None]
    noisy = np.sqrt(bar) * np.asarray(latents) + np.sqrt(1 - bar) * np.asarray(aux.noise)
    predicted = np.sin(3 * noisy) + 0.001 * np.asarray(aux.t)[:, None, None, None]
    expected = WEIGHTS[weighting](bar) * (predicted - np.asarray(aux.noise))
    np.testing.assert_allclose(aux.grad, expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(gradient, aux.grad / 8)
    np.testing.assert_allclose(loss, 0.5 * np.sum(expected**2) / 8, rtol=1e-4)
    np.testing.assert_allclose(aux.clean, (noisy - np.sqrt(1 - bar) * predicted) / np.sqrt(bar), rtol=1e-3, atol=1e-4)


def test_small_gradients_survive_beside_large_latents():
    """z - stopgradient(z - grad) in float32 would make 1e-5 beside 1,000 zero."""
    latents = 1e3 + arrays()

    def nearly_right(z, t, key):
        return (z - TABLE.alpha(t)[:, None, None, None] * latents) / TABLE.sigma(t)[:, None, None, None]

    gradient, aux = jax.grad(lambda z: sds_loss(KEY, z, nearly_right, TABLE), has_aux=True)(latents)
    assert 0 < float(jnp.max(jnp.abs(aux.grad))) < 1e-2
    np.testing.assert_array_equal(gradient, aux.grad / 8)


def test_the_mean_gradient_is_that_of_a_normal_distribution_and_rests_at_its_mean():
    """E[eps_hat - eps] = sigma alpha (z - mu) / (alpha^2 S + sigma^2): towards mu, and nothing at mu."""
    mean, variance, count = 0.7, 0.3, 20000
    t = 400
    a, s = TABLE.alphas[t], TABLE.sigmas[t]
    step = jax.jit(lambda z: sds_loss(KEY, z, normal(mean, variance), TABLE, t_range=(0.4, 0.4))[1])
    for offset in (0.0, 0.5, -2.0):
        latents = jnp.full((count, 1, 1, 2), mean + offset)
        aux = step(latents)
        expected = s**2 * s * a * offset / (a**2 * variance + s**2)
        error = jnp.std(aux.grad) / np.sqrt(2 * count)
        assert abs(float(jnp.mean(aux.grad)) - expected) < 4 * float(error)
        assert np.sign(expected) == np.sign(offset) and (offset == 0 or abs(expected) > 20 * float(error))
        assert int(aux.t[0]) == t


def test_no_derivative_reaches_the_denoiser():
    """Neither through its input, nor into what it closes over, nor is one ever computed inside it."""

    @jax.custom_jvp
    def network(z, scale):
        return scale * jnp.tanh(z)

    @network.defjvp
    def _(primals, tangents):
        raise AssertionError("the network was differentiated")

    latents = arrays()
    gradient = jax.grad(lambda z: sds_loss(KEY, z, lambda z_t, t, key: network(z_t, 2.0), TABLE)[0])(latents)
    assert float(jnp.max(jnp.abs(gradient))) > 0.1

    def of_scale(scale):
        return sds_loss(KEY, latents, lambda z_t, t, key: scale * jnp.tanh(z_t), TABLE)[0]

    assert float(jax.grad(of_scale)(2.0)) == 0.0
    assert float(of_scale(2.0)) != float(of_scale(2.1))
    auxiliary = jax.grad(lambda z: sum(jnp.sum(x) for x in _floats(sds_loss(KEY, z, wavy, TABLE)[1])))(latents)
    assert not np.any(np.asarray(auxiliary))


def _floats(record):
    values = [getattr(record, field.name) for field in dataclasses.fields(record)]
    return [value for value in values if jnp.issubdtype(value.dtype, jnp.floating)]


def test_elements_that_are_not_finite_are_left_out_and_counted():
    latents = arrays()

    def broken(z, t, key):
        return wavy(z, t, key).at[0, 0, 0, 0].set(jnp.nan).at[1, 2, 3, 1].set(jnp.inf)

    (loss, aux), gradient = jax.value_and_grad(lambda z: sds_loss(KEY, z, broken, TABLE), has_aux=True)(latents)
    _, whole = sds_loss(KEY, latents, wavy, TABLE)
    assert int(aux.num_nonfinite) == 2 and int(whole.num_nonfinite) == 0 and np.isfinite(loss)
    np.testing.assert_array_equal(gradient, whole.grad.at[0, 0, 0, 0].set(0).at[1, 2, 3, 1].set(0) / 8)


def test_clipping_bounds_each_element():
    _, whole = sds_loss(KEY, arrays(), wavy, TABLE)
    _, clipped = sds_loss(KEY, arrays(), wavy, TABLE, clip=0.3)
    assert float(jnp.max(jnp.abs(whole.grad))) > 0.3
    np.testing.assert_array_equal(clipped.grad, np.clip(whole.grad, -0.3, 0.3))


def test_timesteps_are_uniform_over_the_range_with_both_ends():
    draw = jax.jit(lambda low, high: draw_timesteps(KEY, 20000, (low, high)))
    values, counts = np.unique(draw(0.57, 0.576), return_counts=True)
    np.testing.assert_array_equal(values, np.arange(570, 577))
    assert np.sum((counts - 20000 / 7) ** 2 / (20000 / 7)) < 22.5  # chi squared of 6 degrees, 0.1 %
    np.testing.assert_array_equal(np.unique(draw(0.999, 1.0)), [999])
    for t in range(0, 1000, 37):
        np.testing.assert_array_equal(np.unique(draw(t / 1000, t / 1000)), [t])


def test_one_timestep_for_all_views_where_they_share_it():
    latents = jnp.repeat(arrays()[:1], 8, axis=0)
    shared = sds_loss(KEY, latents, wavy, TABLE, shared_t=True)[1]
    own = sds_loss(KEY, latents, wavy, TABLE)[1]
    assert len(np.unique(shared.t)) == 1 and len(np.unique(own.t)) > 4
    assert float(jnp.std(shared.noise, axis=0).min()) > 0.1  # the noise is not shared


def test_a_short_table_is_looked_up_within_its_length():
    short = scaled_linear(50)
    assert table_length(short) == 50 and table_length(TABLE, 20) == 20
    _, aux = sds_loss(KEY, jnp.zeros((8, 4, 4, 3)), wavy, short, t_range=(0.9, 1.0))
    assert int(aux.t.min()) >= 45 and int(aux.t.max()) <= 49
    assert int(aux.num_nonfinite) == 0


def test_a_schedule_is_any_object_with_two_functions():
    class Ours:
        def alpha(self, t):
            return jnp.cos(0.0015 * t)

        def sigma(self, t):
            return jnp.sin(0.0015 * t)

    _, aux = sds_loss(KEY, arrays(), wavy, Ours(), t_range=(0.3, 0.3))
    noisy = np.cos(0.45) * arrays() + np.sin(0.45) * aux.noise
    expected = np.sin(0.45) ** 2 * (np.sin(3 * noisy) + 0.3 - aux.noise)
    np.testing.assert_allclose(aux.grad, expected, rtol=1e-4, atol=1e-5)


def test_precision_is_that_of_the_latents():
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            of_latents = jax.value_and_grad(lambda z: sds_loss(KEY, z, wavy, TABLE), has_aux=True)
            (loss, aux), gradient = jax.eval_shape(of_latents, jnp.zeros((8, 4, 4, 3), dtype))
            assert loss.dtype == gradient.dtype == aux.grad.dtype == aux.noise.dtype == dtype
            assert aux.t.dtype == jnp.int32


def test_the_weighting_for_realism_switches_at_a_fifth():
    alpha, sigma = jnp.array([0.6]), jnp.array([0.8])
    weighting = jax.jit(lambda progress: fantasia3d_2(progress)(alpha, sigma))
    for progress in (0.0, 0.2):
        np.testing.assert_array_equal(weighting(progress), weight("fantasia3d", alpha, sigma))
    for progress in (0.21, 1.0):
        np.testing.assert_array_equal(weighting(progress), weight("fantasia3d_1", alpha, sigma))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"t_range must be \(low, high\).*got \(0.5, 0.2\)"):
        sds_loss(KEY, arrays(), wavy, TABLE, t_range=(0.5, 0.2))
    with pytest.raises(ValueError, match="shape of the latents"):
        sds_loss(KEY, arrays(), lambda z, t, key: jnp.concatenate([z, z], axis=-1), TABLE)
    with pytest.raises(ValueError, match="one of sds, uniform"):
        unchecked: typing.Any = inspect.unwrap(weight)
        unchecked("snr", jnp.ones(1), jnp.ones(1))
