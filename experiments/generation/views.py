"""Views of what a prompt means: sampled from a guide, and the set chosen that agrees best with itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from experiments.data.blocks import rendering
from experiments.generation.guides import Guide
from experiments.generation.observations import coverage_of, depths_of, surface_points
from generators.diffusion import samplers, sampling, time_grids
from renderers.cameras.camera import Camera

_BEHIND = 0.03  # metres by which a point may be nearer than what another view sees there
_NOISE_TIME = 0.6  # of `smoothed`: less noise takes out less, more of it (0.8) nothing more
_AT_ONCE = 4  # rings sampled in one call: fewer would leave cores idle, more only take memory


def sample_views(
    key: PRNGKeyArray,
    guide: Guide,
    *,
    count: int = 1,
    azimuth: float = 0.0,
    elevation: float = rendering.ELEVATION,
    guidance: float | None = None,
    steps: int = 20,
) -> Float[Array, "n 4 h w 8"]:
    """Rings that a guide makes of noise, by DDIM; channels of `rendering`, in [-1, 1].

    Args:
      key: of the noise.
      guide: what is asked.
      count: rings.
      azimuth: of the first camera of each, see `rendering.ring_cameras`; radians.
      elevation: of all cameras.
      guidance: scale of classifier-free guidance; None for what suits the guide.
      steps: of the sampler.
    """
    scale = guide.scale if guidance is None else guidance
    parts = []
    for start in range(0, count, _AT_ONCE):
        asked = min(_AT_ONCE, count)  # every call of one size, so that one program is compiled
        noise_key = jax.random.fold_in(key, start)
        parts.append(_sampled(noise_key, guide, asked, azimuth, elevation, scale, steps))
    return jnp.concatenate(parts)[:count]


@functools.partial(jax.jit, static_argnames="copies")
def smoothed(
    key: PRNGKeyArray, guide: Guide, ring: Float[Array, "4 h w 8"], *, copies: int = 16
) -> Float[Array, "4 h w 8"]:
    """The canonical ring that a guide sees on average in noisy copies of one of its samples.

    A network's estimate errs differently for every noise; a sample carries the errors of its last steps, as bumps of
    depths above all. Noise as at time 0.6 leaves the object what it is, and the mean over copies has the errors that
    all share. The estimates are those with the prompt, without guidance beyond it, which exaggerates shapes.

    Args:
      key: of the noise.
      guide: that the sample came from.
      ring: channels of `rendering`, in [-1, 1].
      copies: whose estimates are averaged.
    """
    time = jnp.full(copies, _NOISE_TIME)
    noise = jax.random.normal(key, (copies, *ring.shape))
    noisy = guide.schedule.alpha(time[0]) * ring[None] + guide.schedule.sigma(time[0]) * noise
    return jnp.mean(guide.clean(noisy, time, jnp.zeros(copies), jnp.full(copies, rendering.ELEVATION), 1.0), axis=0)


def ring_of(guide: Guide) -> Camera:
    """The canonical cameras of a guide's views, stacked."""
    return _cameras(0.0, rendering.ELEVATION, views=4, size=guide.size)


# one program rather than one an operation
_cameras = jax.jit(rendering.ring_cameras, static_argnames=("views", "size"))


def agreement(ring: Float[np.ndarray, "v h w 8"], cameras: Camera) -> float:
    """Share of what a ring's pixels see that its other pictures do not contradict, times how clear they are; in [0, 1].

    A point contradicts a picture that shows nothing there, or that sees something farther away through it. Clear are
    pixels whose normal has length one: where a guide wavers between surfaces its mean is shorter.

    Args:
      ring: channels in [-1, 1].
      cameras: of the pictures, stacked.
    """
    points = surface_points(ring, cameras)
    if not len(points.points):
        return 0.0
    coverage, depth = coverage_of(ring), depths_of(ring)
    height, width = cameras.size
    agreed, asked = 0.0, 0.0
    for view in range(len(ring)):
        others = points.views != view
        pose = np.asarray(cameras.camera_from_world[view], np.float64)
        seen = points.points[others] @ pose[:3, :3].T + pose[:3, 3]
        focal, principal = np.asarray(cameras.focal[view]), np.asarray(cameras.principal[view])
        place = np.floor(seen[:, :2] / np.maximum(seen[:, 2:], 1e-6) * focal + principal).astype(int)
        column, row = (np.clip(place[:, k], 0, size - 1) for k, size in ((0, width), (1, height)))
        shown = coverage[view, row, column] > 0.25
        # Farther by the pixel's own slope is no contradiction: the mean of the depths around decides
        free = shown & (coverage[view, row, column] > 0.9) & (depth[view, row, column] - seen[:, 2] > _BEHIND)
        agreed += float(np.sum(shown & ~free))
        asked += float(np.sum(others))
    inside = coverage > 0.9
    length = np.linalg.norm(ring[..., 3:6], axis=-1)[inside]
    clear = float(np.clip(length, 0, 1).mean()) if length.size else 0.0
    return agreed / max(asked, 1.0) * clear


@functools.partial(jax.jit, static_argnames=("count", "steps"))
def _sampled(key, guide, count, azimuth, elevation, guidance, steps):
    of_noise, of_steps = jax.random.split(key)
    noise = jax.random.normal(of_noise, (count, 4, guide.size, guide.size, rendering.CHANNELS))
    azimuths, elevations = jnp.full(count, azimuth), jnp.full(count, elevation)

    def denoise(z, t):
        return guide.clean(z, jnp.full(count, t), azimuths, elevations, guidance)

    times = time_grids.uniform_times(steps)
    return sampling.sample(of_steps, noise, denoise, guide.schedule, times, samplers.ddim)
