"""Guides: what a route asks for the views that a prompt means.

A guide estimates clean rings, four pictures of eight channels each (`experiments.data.blocks.rendering`), from noisy
ones, for the cameras that the route chose. Two kinds: the trained multi-view prior, and oracles, whose estimate is the
exact posterior mean over objects that are known. Both are pytrees: they go into jitted functions as arguments.
"""

import typing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from experiments import keys
from experiments.data.blocks import objects, rendering, solids
from experiments.data.blocks.descriptions import Description, parse, words_of
from experiments.data.blocks.solids import Assembly
from experiments.prior import model
from experiments.prior.rings import LENGTH
from experiments.prior.weights import Prior
from generators.diffusion.guidance import classifier_free
from generators.diffusion.schedules import Cosine
from generators.distillation.oracle import posterior_mean
from generators.distillation.surrogate import Denoise
from generators.text.words import WordTokenizer

TIMESTEPS = 1000  # of the table that distillation losses count in
_SHIFT = 2.0  # of an oracle's schedule: the prior's
_LEAST_NOISE = 1e-4


class Guide(typing.Protocol):
    """What a prompt looks like, asked for by noisy rings.

    Attributes:
      size: pixels along a side of a view.
      schedule: of the noise, in continuous time.
      scale: of guidance that suits it where the user says nothing; 1 takes the estimate as it is.
    """

    size: int
    schedule: Cosine
    scale: float

    def clean(
        self,
        noisy: Float[Array, "b v h w 8"],
        t: Float[Array, " b"],
        azimuths: Float[Array, " b"],
        elevations: Float[Array, " b"],
        guidance: float | Float[Array, ""],
    ) -> Float[Array, "b v h w 8"]:
        """Estimate of the clean rings, in [-1, 1]; `t` in [0, 1], angles of `rendering.ring_cameras`, radians.

        `guidance` is the scale of classifier-free guidance: 0 the estimate without the prompt, 1 the one with it.
        """
        ...


@jax.tree_util.register_pytree_node_class
class PriorGuide:
    """The multi-view prior, told a prompt.

    Args:
      prior: weights and settings.
      prompt: whose words the prior knows (`experiments.generation.prompts.check_prompt`).
    """

    def __init__(self, prior: Prior, prompt: str) -> None:
        read = WordTokenizer(prior.vocabulary, LENGTH)
        self._settings, self._diffusion = prior.settings, prior.diffusion
        self._params = jax.tree.map(jnp.asarray, prior.params)
        self._words: Int[Array, " l"] = jnp.asarray(read.encode(words_of(prompt)))
        self._nothing: Int[Array, " l"] = jnp.asarray(read.nothing())
        self.size, self.schedule, self.scale = prior.settings.size, model.schedule(prior.diffusion), 2.0

    def clean(self, noisy, t, azimuths, elevations, guidance):
        """See `Guide`."""
        count = len(noisy)
        cameras = model.poses(azimuths, elevations)
        words = jnp.concatenate([jnp.tile(row, (count, 1)) for row in (self._words, self._nothing)])
        twice = [jnp.concatenate([array, array]) for array in (noisy, t, cameras)]
        estimates = model.denoise(self._settings, self._params, twice[0], twice[1], words, twice[2])
        return jnp.clip(classifier_free(estimates[:count], estimates[count:], guidance), -1.0, 1.0)

    def tree_flatten(self):
        """Arrays, and what is static."""
        return (self._params, self._words, self._nothing), (self._settings, self._diffusion)

    @classmethod
    def tree_unflatten(cls, static, arrays):
        """Inverse of `tree_flatten`."""
        guide = object.__new__(cls)
        guide._params, guide._words, guide._nothing = arrays
        guide._settings, guide._diffusion = static
        guide.size, guide.schedule, guide.scale = static[0].size, model.schedule(static[1]), 2.0
        return guide


@jax.tree_util.register_pytree_node_class
class OracleGuide:
    """A perfect multi-view model of a description: the posterior mean over objects of its class, seen by the cameras.

    z = alpha x + sigma eps with x one of the objects' rings, all equally likely, has the posterior mean
    sum_k w_k x_k, w = softmax_k(-|z - alpha x_k|^2 / (2 sigma^2)): no network is nearer to the truth. Without the
    prompt (guidance 0) it knows no objects: values are independent, normal about an empty picture, of deviation 1.

    Args:
      description: of the class, or a caption of it.
      count: objects, drawn as the world draws them.
      seed: of their proportions.
      size: pixels along a side of a view.
    """

    def __init__(self, description: Description | str, *, count: int = 16, seed: int = 0, size: int = 32) -> None:
        said = parse(description) if isinstance(description, str) else description
        made = [objects.build(said, keys.host_rng(seed, "oracle objects", index)) for index in range(count)]
        self._set(solids.stacked(made), size)

    @classmethod
    def of_objects(cls, assemblies: Sequence[Assembly], *, size: int = 32) -> "OracleGuide":
        """The oracle of given objects; of a single one it always answers with that one's ring."""
        guide = object.__new__(cls)
        guide._set(solids.stacked(list(assemblies)), size)
        return guide

    def _set(self, assemblies: Assembly, size: int) -> None:
        self.objects: Assembly = jax.tree.map(jnp.asarray, assemblies)
        self.size, self.schedule, self.scale = size, Cosine(shift=_SHIFT), 1.0

    def clean(self, noisy, t, azimuths, elevations, guidance):
        """See `Guide`."""
        alpha, sigma = self.schedule.alpha(t), jnp.maximum(self.schedule.sigma(t), _LEAST_NOISE)

        def one(noisy, azimuth, elevation, alpha, sigma):
            rings = self.rings(azimuth, elevation, views=len(noisy))
            found = posterior_mean(noisy[None], rings, alpha, sigma)[0]
            return classifier_free(found, _mean_of_normal(noisy, alpha, sigma), guidance)

        return jnp.clip(jax.vmap(one)(noisy, azimuths, elevations, alpha, sigma), -1.0, 1.0)

    def rings(self, azimuth, elevation, *, views: int = 4) -> Float[Array, "k v h w 8"]:
        """All objects as seen by a ring of cameras."""
        return jax.vmap(lambda one: rendering.render_ring(one, azimuth, elevation, views=views, size=self.size))(
            self.objects
        )

    def tree_flatten(self):
        """Arrays, and what is static."""
        return (self.objects,), self.size

    @classmethod
    def tree_unflatten(cls, static, arrays):
        """Inverse of `tree_flatten`."""
        guide = object.__new__(cls)
        guide.objects = arrays[0]
        guide.size, guide.schedule, guide.scale = static, Cosine(shift=_SHIFT), 1.0
        return guide


def _mean_of_normal(noisy, alpha, sigma):
    """Posterior mean of values that are normal about an empty picture with deviation 1."""
    empty = jnp.zeros((1, 1, 1, rendering.CHANNELS)).at[..., 6:].set(-1.0)
    return empty + alpha / (alpha**2 + sigma**2) * (noisy - alpha * empty)


def denoiser(guide: Guide, azimuth: Float[Array, ""], elevation: Float[Array, ""], guidance) -> Denoise:
    """A guide that looks at one ring, in the form that `generators.distillation` asks for.

    Args:
      guide: in continuous time, predicting what is clean.
      azimuth, elevation: of the ring's cameras, see `rendering.ring_cameras`.
      guidance: scale.

    Returns:
      denoise(z_t [v h w 8], t Int["v"], key): the noise that the guide sees in the views of the ring, all at one
      timestep of `discretized(guide.schedule, TIMESTEPS)`.
    """

    def denoise(noisy, timesteps, key):
        del key  # a guide is a function of what it sees
        t = continuous(timesteps[:1])
        clean = guide.clean(noisy[None], t, azimuth[None], elevation[None], guidance)[0]
        return (noisy - guide.schedule.alpha(t[0]) * clean) / jnp.maximum(guide.schedule.sigma(t[0]), _LEAST_NOISE)

    return denoise


def continuous(timesteps: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """Times in [0, 1] of integer timesteps, see `discretized`."""
    return (timesteps.astype(jnp.float32) + 1.0) / TIMESTEPS
