"""What the variants are to each other: every identity between them that the papers state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generators.diffusion.guidance import classifier_free
from generators.distillation.csd import csd_loss
from generators.distillation.nfsd import nfsd_loss
from generators.distillation.sds import sds_loss
from generators.distillation.sjc import sjc_loss
from generators.distillation.vsd import particle_loss, vsd_loss
from generators.distillation.x0 import x0_loss
from tests.generators.distillation.worlds import KEY, TABLE, arrays, normal, one_of, smooth_images

LATENTS = arrays((8, 4, 4, 3))


def text(z, t, key):
    return jnp.sin(2.0 * z)


def unconditional(z, t, key):
    return 0.5 * z - 0.1


def negative(z, t, key):
    return jnp.cos(z) + 0.001 * t[:, None, None, None]


def guided(scale):
    return lambda z, t, key: classifier_free(text(z, t, key), unconditional(z, t, key), scale)


def gradient_of(loss):
    """The loss' gradient to the latents; also checks that it is what the record says."""
    gradient, aux = jax.grad(loss, has_aux=True)(LATENTS)
    np.testing.assert_array_equal(gradient, aux.grad / len(LATENTS))
    return aux.grad, aux


def test_sjc_is_sds_with_uniform_weights_on_the_same_noise():
    grad, aux = gradient_of(lambda z: sjc_loss(KEY, z, text, TABLE))
    expected, same = gradient_of(lambda z: sds_loss(KEY, z, text, TABLE, weighting="uniform", t_range=(0.01, 0.97)))
    np.testing.assert_array_equal(aux.noise, same.noise)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(aux.clean, same.clean, rtol=1e-3, atol=1e-3)


def test_sjc_without_variance_reduction_is_the_prediction_itself():
    grad, aux = gradient_of(lambda z: sjc_loss(KEY, z, text, TABLE, variance_reduced=False))
    reduced, _ = gradient_of(lambda z: sjc_loss(KEY, z, text, TABLE))
    np.testing.assert_allclose(grad, reduced + aux.noise, rtol=1e-3, atol=2e-4)


def test_csd_is_what_guidance_multiplies():
    """SDS(s) = w (eps_unc - eps) + s CSD, so that SDS(s) / s tends to CSD like 1 / s."""
    csd, _ = gradient_of(lambda z: csd_loss(KEY, z, text, TABLE, unconditional=unconditional))
    zero, _ = gradient_of(lambda z: csd_loss(KEY, z, unconditional, TABLE, unconditional=unconditional))
    assert not np.any(np.asarray(zero))
    residual, _ = gradient_of(lambda z: sds_loss(KEY, z, unconditional, TABLE))
    distances = []
    for scale in (10.0, 100.0, 1000.0):
        whole, _ = gradient_of(lambda z, scale=scale: sds_loss(KEY, z, guided(scale), TABLE))
        np.testing.assert_allclose((whole - residual) / scale, csd, atol=2e-5)
        distances.append(float(jnp.max(jnp.abs(whole / scale - csd))))
    np.testing.assert_allclose(distances[0] / np.array(distances), [1, 10, 100], rtol=1e-2)


def test_csd_leads_away_from_a_negative_condition():
    plain, aux = gradient_of(lambda z: csd_loss(KEY, z, text, TABLE, unconditional=unconditional, weighting="uniform"))
    away = {"negative": negative, "negative_weight": 0.5}
    both, _ = gradient_of(
        lambda z: csd_loss(KEY, z, text, TABLE, unconditional=unconditional, weighting="uniform", **away)
    )
    alpha, sigma = (np.asarray(f(aux.t))[:, None, None, None] for f in (TABLE.alpha, TABLE.sigma))
    noisy = alpha * LATENTS + sigma * aux.noise
    extra = 0.5 * (unconditional(noisy, aux.t, None) - negative(noisy, aux.t, None))
    np.testing.assert_allclose(both - plain, extra, atol=1e-5)


@pytest.mark.parametrize(("t_range", "subtracted"), [((0.02, 0.1999), 0.0), ((0.2, 0.9), 1.0)])
def test_nfsd_is_the_guided_prediction_less_the_bad_image_at_large_noise(t_range, subtracted):
    """delta_D + s (eps_text - eps_unc) with delta_D = eps_unc below t = 200, eps_unc - eps_negative from there on."""
    scale = 7.5
    grad, aux = gradient_of(
        lambda z: nfsd_loss(KEY, z, guided(scale), TABLE, negative=negative, weighting="uniform", t_range=t_range)
    )
    alpha, sigma = (np.asarray(f(aux.t))[:, None, None, None] for f in (TABLE.alpha, TABLE.sigma))
    z = alpha * LATENTS + sigma * aux.noise
    domain = unconditional(z, aux.t, None) - subtracted * negative(z, aux.t, None)
    expected = domain + scale * (text(z, aux.t, None) - unconditional(z, aux.t, None))
    np.testing.assert_allclose(grad, expected, atol=1e-5)


def test_x0_without_rescaling_is_sds_weighted_by_sigma_over_alpha():
    grad, aux = gradient_of(lambda z: x0_loss(KEY, z, guided(30.0), TABLE))
    expected, _ = gradient_of(lambda z: sds_loss(KEY, z, guided(30.0), TABLE, weighting="ism", shared_t=True))
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-4 * float(jnp.max(jnp.abs(expected))))
    np.testing.assert_allclose(grad, LATENTS - aux.clean, atol=1e-6)
    loss, _ = x0_loss(KEY, LATENTS, guided(30.0), TABLE)
    np.testing.assert_allclose(loss, 0.5 * np.sum((np.asarray(LATENTS) - aux.clean) ** 2) / 8, rtol=1e-5)


def test_x0_rescales_each_ring_to_the_contrast_of_the_conditional_estimate():
    strong = x0_loss(KEY, LATENTS, guided(30.0), TABLE, t_range=(0.3, 0.3))[1].clean
    plain = x0_loss(KEY, LATENTS, text, TABLE, t_range=(0.3, 0.3))[1].clean
    for phi in (0.0, 0.5, 1.0):
        grad, aux = gradient_of(
            lambda z, phi=phi: x0_loss(
                KEY, z, guided(30.0), TABLE, conditional=text, rescale=phi, views=4, t_range=(0.3, 0.3)
            )
        )
        for ring in (slice(0, 4), slice(4, 8)):
            factor = np.std(plain[ring], ddof=1) / np.std(strong[ring], ddof=1)
            assert factor < 0.5  # guidance of 30 did overshoot
            expected = (phi * factor + 1 - phi) * strong[ring]
            np.testing.assert_allclose(aux.clean[ring], expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(grad[ring], LATENTS[ring] - expected, rtol=1e-4, atol=1e-4)


def test_x0_refuses_broken_rings():
    with pytest.raises(ValueError, match="8 examples do not divide into groups of 3"):
        x0_loss(KEY, LATENTS, text, TABLE, conditional=text, views=3)


def test_vsd_with_a_single_particle_is_sds():
    """The exact score of one render is the noise that was put on it."""
    image = smooth_images(8, 4)[:1]
    _, vsd = vsd_loss(KEY, image, text, TABLE, particles=one_of(image))
    _, sds = sds_loss(KEY, image, text, TABLE)
    np.testing.assert_allclose(vsd.grad, sds.grad, atol=2e-4)


def test_vsd_rests_at_the_distribution_and_sds_at_its_mode():
    """Particles moved by VSD with their exact second score end as samples of N(0.7, 0.3); by SDS all end at 0.7."""
    mean, variance, rate = 0.7, 0.3, 2.0
    start = 2.0 + 1.5 * arrays((1000, 2, 1, 1))
    target = normal(mean, variance)

    def run(loss):
        def step(z, key):
            gradient = jax.grad(lambda z: loss(key, z)[0])(z)
            return z - rate * len(z) * gradient, None

        return jax.jit(lambda z: jax.lax.scan(step, z, jax.random.split(KEY, 100))[0])(start)

    def vsd(key, z):
        own = normal(*(jax.lax.stop_gradient(f(z)) for f in (jnp.mean, jnp.var)))
        return vsd_loss(key, z, target, TABLE, particles=own, t_range=(0.1, 0.5))

    particles = run(vsd)
    np.testing.assert_allclose(np.mean(particles), mean, atol=0.01)
    np.testing.assert_allclose(np.var(particles), variance, rtol=0.05)
    collapsed = run(lambda key, z: sds_loss(key, z, target, TABLE, t_range=(0.1, 0.5)))
    np.testing.assert_allclose(np.mean(collapsed), mean, atol=0.02)
    assert np.var(collapsed) < 0.25 * variance  # what is left is the noise of single draws


def test_vsd_of_renders_beside_the_distribution_points_to_it_from_each_of_them():
    """With the exact second score grad is the same for every render, sigma^3 alpha shift / (alpha^2 S + sigma^2)."""
    mean, variance = 0.7, 0.3
    renders = mean + 0.5 + variance**0.5 * LATENTS
    own = normal(mean + 0.5, variance)
    _, aux = vsd_loss(KEY, renders, normal(mean, variance), TABLE, particles=own, t_range=(0.4, 0.4))
    a, s = TABLE.alphas[400], TABLE.sigmas[400]
    np.testing.assert_allclose(aux.grad, s**3 * a * 0.5 / (a**2 * variance + s**2), rtol=1e-3)
    _, rest = vsd_loss(KEY, renders, own, TABLE, particles=own, t_range=(0.4, 0.4))
    assert not np.any(np.asarray(rest.grad))


def test_the_second_network_learns_the_score_of_the_renders():
    """`particle_loss` is least at the true mean, and the renders get no gradient from it."""
    renders = 0.4 + 0.5 * arrays((4000, 1, 1, 1))

    def loss(mean, renders):
        return particle_loss(KEY, renders, normal(mean, 0.25), TABLE)

    slope = jax.jit(jax.grad(loss))
    low, high = 0.0, 0.8
    assert float(slope(low, renders)) < 0 < float(slope(high, renders))
    for _ in range(12):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if float(slope(middle, renders)) < 0 else (low, middle)
    np.testing.assert_allclose(low, 0.4, atol=0.06)
    assert not np.any(np.asarray(jax.jit(jax.grad(loss, argnums=1))(0.1, renders)))
