import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.distillation.ism import inverted, ism_loss, sdi_loss
from tests.generators.distillation.worlds import KEY, TABLE, arrays, normal, one_of, smooth_images


def text(z, t, key):
    return jnp.sin(2.0 * z)


def unconditional(z, t, key):
    return 0.5 * z - 0.1 + 0.0005 * t[:, None, None, None]


def by_hand(latents, noise, first, last, stride):
    """DDIM inversion of one image in plain Python, timestep by timestep."""
    a, s = TABLE.alphas, TABLE.sigmas
    z, now = a[first] * latents + s[first] * noise, first
    while now < last:
        after = min(now + stride, last)
        eps = np.asarray(unconditional(z[None], jnp.array([now]), None))[0]
        z = a[after] * (z - s[now] * eps) / a[now] + s[after] * eps
        now = after
    return z


WALKS = [(2, 150, 60), *(pytest.param(*walk, marks=pytest.mark.slow) for walk in ((5, 200, 25), (3, 10, 5)))]


@pytest.mark.parametrize(("steps", "stride", "delta"), WALKS)
def test_ism_is_the_difference_between_two_steps_of_a_walk(steps, stride, delta):
    latents = arrays((4, 3, 3, 2))
    loss = jax.jit(
        lambda z: ism_loss(
            KEY,
            z,
            text,
            TABLE,
            unconditional=unconditional,
            delta=delta,
            steps=steps,
            stride=stride,
            t_range=(0.02, 0.98),
        )
    )
    gradient, aux = jax.grad(loss, has_aux=True)(latents)
    np.testing.assert_array_equal(gradient, aux.grad / 4)
    noise = np.asarray(jax.random.normal(jax.random.split(KEY, 5)[1], latents.shape))
    for i, t in enumerate(np.asarray(aux.t)):
        before = max(t - delta, 0)
        z = by_hand(np.asarray(latents[i]), noise[i], max(before - steps * stride, 0), before, stride)
        own = np.asarray(unconditional(z[None], jnp.array([before]), None))[0]
        a, s = TABLE.alphas, TABLE.sigmas
        z_t = a[t] * (z - s[before] * own) / a[before] + s[t] * own
        expected = s[t] / a[t] * (np.sin(2 * z_t) - own)
        np.testing.assert_allclose(aux.grad[i], expected, rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(aux.noise[i], own, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_one_ideal_denoiser_for_both_sides_gives_no_gradient():
    """Inversion with the score of a single picture runs along a straight line on which eps does not change."""
    image = smooth_images(1)
    render = image + 0.3 * arrays(image.shape)
    same = one_of(image)
    settings = {"t_range": (0.5, 0.5), "weighting": "uniform"}
    aux, other = jax.jit(
        lambda z: [
            ism_loss(KEY, z, same, TABLE, unconditional=unconditional, **settings)[1]
            for unconditional in (same, normal(0.0, 1.0))
        ]
    )(render)
    assert float(jnp.max(jnp.abs(aux.grad))) < 1e-3 * float(jnp.max(jnp.abs(aux.noise)))
    assert float(jnp.max(jnp.abs(other.grad))) > 0.1


def test_inversion_tends_to_the_trajectory_of_a_normal_distribution_with_order_one():
    """dz / dt of N(mu, S): z_t - alpha mu grows like sqrt(alpha^2 S + sigma^2), whatever the element."""
    mean, variance, last = 0.4, 0.6, 480
    latents = arrays((2, 2, 2, 1))
    path = jnp.zeros(2, jnp.int32), jnp.full(2, last, jnp.int32)
    a, s = (np.asarray(v)[[0, last]] for v in (TABLE.alphas, TABLE.sigmas))
    spread = np.sqrt(a**2 * variance + s**2)
    start = a[0] * np.asarray(latents)
    exact = a[1] * mean + spread[1] / spread[0] * (start - a[0] * mean)
    errors = []
    for steps in (15, 30):
        found = inverted(
            KEY, latents, jnp.zeros_like(latents), normal(mean, variance), TABLE, path, last // steps, steps
        )
        errors.append(np.max(np.abs(found - exact)))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert errors[-1] < 0.06 and np.all(orders > 0.8) and np.all(orders < 1.5), (errors, orders)


@pytest.mark.slow
def test_offset_noise_is_constant_over_a_channel():
    """With t = delta and predictions of no noise, the clean estimate is the render with timestep 0's noise on it."""
    latents = jnp.zeros((4, 3, 3, 2))

    def none(z, t, key):
        return jnp.zeros_like(z)

    @jax.jit
    def clean(offset):
        settings = {"t_range": (0.025, 0.025), "delta": 25, "noise_offset": offset, "steps": 1}
        return ism_loss(KEY, latents, none, TABLE, unconditional=none, **settings)[1].clean

    difference = clean(5.0) - clean(0.0)
    np.testing.assert_allclose(np.std(difference, axis=(1, 2)), 0.0, atol=1e-6)
    expected = 5.0 * TABLE.sigmas[0] / TABLE.alphas[0] * jax.random.normal(jax.random.split(KEY, 5)[2], (4, 1, 1, 2))
    np.testing.assert_allclose(difference[:, :1, :1], expected, rtol=1e-4, atol=1e-5)


def test_sdi_compares_with_the_noise_that_inversion_finds():
    latents = arrays((4, 3, 3, 2))

    def loss(z, key, eta):
        return sdi_loss(key, z, text, TABLE, inverse=unconditional, eta=eta, t_range=(0.5, 0.5))

    without = jax.jit(jax.grad(lambda z, key: loss(z, key, 0.0), has_aux=True))
    gradient, aux = without(latents, KEY)
    np.testing.assert_array_equal(gradient, aux.grad / 4)
    a, s = TABLE.alphas[500], TABLE.sigmas[500]
    for i in range(4):
        z_t = by_hand(np.asarray(latents[i]), np.zeros_like(latents[i]), 0, 500, 50)
        noise = (z_t - a * np.asarray(latents[i])) / s
        np.testing.assert_allclose(aux.noise[i], noise, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(aux.grad[i], s / a * (np.sin(2 * z_t) - noise), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(without(latents, jax.random.fold_in(KEY, 1))[0], gradient)


@pytest.mark.slow
def test_fresh_noise_leaves_the_variance_of_inferred_noise():
    """Predictions of unit variance, refreshed by any share: the noisy image keeps the process' variance."""

    def unit(z, t, key):
        return jax.random.normal(key, z.shape)

    for eta in (0.0, 0.3, 1.0):
        _, aux = sdi_loss(
            KEY, jnp.zeros((4, 64, 64, 2)), unit, TABLE, inverse=unit, eta=eta, t_range=(0.9, 0.9), steps=1
        )
        np.testing.assert_allclose(np.var(aux.noise), 1.0, rtol=0.05)


@pytest.mark.slow
def test_steps_that_nobody_needs_are_not_computed():
    """Small timesteps take one or two of the five strides; the others must cost nothing."""
    calls = []

    def counting(z, t, key):
        jax.debug.callback(lambda: calls.append(1))
        return unconditional(z, t, key)

    latents = arrays((2, 2, 2, 1))
    grad = jax.jit(
        lambda share: ism_loss(KEY, latents, text, TABLE, unconditional=counting, t_range=(share, share))[1].grad
    )
    for share, inversions in ((0.1, 1), (0.4, 2), (0.9, 5)):
        calls.clear()
        jax.block_until_ready(grad(jnp.float32(share)))
        jax.effects_barrier()
        assert len(calls) == inversions + 1
