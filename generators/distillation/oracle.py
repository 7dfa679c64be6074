"""The perfect denoiser of a known set of images: what distillation is tested with, and the upper bound of a route.

If x_0 is one of x_1 .. x_k with probabilities p and z = alpha x_0 + sigma eps, then by Bayes
p_k(z) ~ p_k exp(-|z - alpha x_k|^2 / 2 sigma^2), and the best estimate of x_0 is the mean of the x_k under it.
Everything that a diffusion model predicts follows: eps = (z - alpha mean) / sigma = -sigma grad log p(z).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Level = float | Float[Array, ""] | Float[Array, " b"]
_HIGHEST = jax.lax.Precision.HIGHEST
_TINY = 1e-12  # stands for sigma = 0, whose limit is the nearest image


@jax.jit
def posterior_mean(
    noisy: Float[Array, " b *n"],
    clean_set: Float[Array, " k *n"],
    alpha: Level,
    sigma: Level,
    log_weights: Float[Array, " k"] | None = None,
) -> Float[Array, " b *n"]:
    """The expected clean image given a noisy one, exactly, for images out of a finite set.

    The mean of the set at alpha = 0, the nearest image at sigma = 0. Takes b k n elements of work, not of memory.
    Differentiable; near ties the derivative is steep, as the true one is.

    Args:
      noisy: alpha clean + sigma noise.
      clean_set: all images there are; joint over views or channels if n covers them.
      alpha: factor of the clean image, one for all or one each.
      sigma: standard deviation of the noise.
      log_weights: logarithms of prior probabilities, up to a constant; -inf takes an image out (but not all).
    """
    weights = posterior_weights(noisy, clean_set, alpha, sigma, log_weights)
    flat = clean_set.reshape(len(clean_set), -1)
    return jnp.matmul(weights, flat, precision=_HIGHEST).reshape(noisy.shape)


@jax.jit
def posterior_weights(
    noisy: Float[Array, " b *n"],
    clean_set: Float[Array, " k *n"],
    alpha: Level,
    sigma: Level,
    log_weights: Float[Array, " k"] | None = None,
) -> Float[Array, "b k"]:
    """Probability of each image of the set given a noisy one; arguments as for `posterior_mean`.

    In float32 the exponents of two images are differences of numbers of size n / 2: too coarse for small sigma. With
    d = x_k - x_j and r = z - alpha x_j for a nearby x_j they are alpha d (r - alpha d / 2) / sigma^2, summed over
    elements, which is small wherever the probability is not.
    """
    z, images = noisy.reshape(len(noisy), -1), clean_set.reshape(len(clean_set), -1)
    alpha, sigma = (jnp.broadcast_to(jnp.asarray(v, z.dtype), (len(z),))[:, None] for v in (alpha, sigma))
    sigma = jnp.maximum(sigma, _TINY)
    prior = jnp.zeros(len(images), z.dtype) if log_weights is None else log_weights.astype(z.dtype)
    # Which one is taken changes rounding only, not the result; so it may be found roughly, and without a derivative.
    products = jnp.matmul(z, images.T, precision=_HIGHEST)
    rough = alpha * (products - 0.5 * alpha * jnp.sum(images**2, axis=-1)[None]) / sigma**2 + prior[None]
    near = images[jnp.argmax(jax.lax.stop_gradient(rough), axis=-1)]
    scaled = (alpha / sigma)[:, None] * (images[None] - near[:, None])
    residual = (z - alpha * near) / sigma
    return jax.nn.softmax(jnp.sum(scaled * (residual[:, None] - 0.5 * scaled), axis=-1) + prior[None], axis=-1)


def posterior_noise(
    noisy: Float[Array, " b *n"],
    clean_set: Float[Array, " k *n"],
    alpha: Level,
    sigma: Level,
    log_weights: Float[Array, " k"] | None = None,
) -> Float[Array, " b *n"]:
    """The expected noise given a noisy image, what the losses call a prediction of eps; sigma must be positive.

    Arguments as for `posterior_mean`.
    """
    clean = posterior_mean(noisy, clean_set, alpha, sigma, log_weights)
    return (noisy - _over(noisy, alpha) * clean) / _over(noisy, sigma)


def posterior_score(
    noisy: Float[Array, " b *n"],
    clean_set: Float[Array, " k *n"],
    alpha: Level,
    sigma: Level,
    log_weights: Float[Array, " k"] | None = None,
) -> Float[Array, " b *n"]:
    """Gradient of log p(noisy) with respect to it, -eps / sigma; arguments as for `posterior_mean`, sigma positive."""
    return -posterior_noise(noisy, clean_set, alpha, sigma, log_weights) / _over(noisy, sigma)


def gaussian_posterior_mean(
    noisy: Float[Array, " b *n"],
    mean: Float[Array, " *n"],
    variance: Float[Array, " *n"],
    alpha: Level,
    sigma: Level,
) -> Float[Array, " b *n"]:
    """The expected clean image for images whose elements are independent and normal.

    What serves as the unconditional prediction of an oracle (`csd_loss`, `ism_loss`): broad, and without an opinion of
    its own where a set of images has one.

    Args:
      noisy: alpha clean + sigma noise.
      mean: of the clean images.
      variance: of the clean images.
      alpha: factor of the clean image, one for all or one each.
      sigma: standard deviation of the noise.
    """
    alpha, sigma = _over(noisy, alpha), _over(noisy, sigma)
    mean, variance = mean[None], variance[None]
    return mean + alpha * variance * (noisy - alpha * mean) / (alpha**2 * variance + sigma**2)


def _over(noisy, level):
    """A number for each image of a batch, ready to multiply all its elements."""
    level = jnp.broadcast_to(jnp.asarray(level, noisy.dtype), (len(noisy),))
    return level.reshape(len(noisy), *([1] * (noisy.ndim - 1)))
