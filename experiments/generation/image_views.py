"""The other sides of a photographed object: rings from the multi-view prior whose first picture is known."""

import pathlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import keys, media
from experiments.data.blocks import rendering
from experiments.generation.views import agreement
from experiments.prior.pictures import contact_sheet
from experiments.prior.rings import LENGTH
from experiments.prior.sampling import sample_rings
from experiments.prior.weights import Prior
from generators.text.words import WordTokenizer

_AT_ONCE = 4  # rings sampled in one call


def completed_ring(
    prior: Prior,
    view: Float[np.ndarray, "h w 8"],
    *,
    azimuth: float,
    elevation: float,
    candidates: int,
    steps: int,
    seed: int,
    folder: pathlib.Path,
    told=lambda *_: None,
) -> tuple[Float[np.ndarray, "4 h w 8"], float]:
    """Of several rings about a known first view, the one that agrees best with itself, and its score.

    Leaves previews/views.png.

    Args:
      prior: weights and settings.
      view: colour and coverage are read.
      azimuth: of the view, radians.
      elevation: of all views, radians.
      candidates: rings to choose from.
      steps: of the sampler.
      seed: of the noise.
      folder: of the run.
      told: called with phase, parts done, parts.
    """
    words = WordTokenizer(prior.vocabulary, LENGTH).nothing()
    rings = []
    for start in range(0, candidates, _AT_ONCE):
        told("views", start, candidates)
        count = min(_AT_ONCE, candidates)  # every call of one size, so that one program is compiled
        sampled = sample_rings(
            keys.key(seed, "views", start),
            prior.params,
            jnp.broadcast_to(jnp.asarray(words), (count, LENGTH)),
            jnp.full(count, azimuth, jnp.float32),
            jnp.full(count, elevation, jnp.float32),
            settings=prior.settings,
            diffusion=prior.diffusion,
            steps=steps,
            guidance=None,  # there are no words to be guided by
            given=jnp.broadcast_to(jnp.asarray(view), (count, *view.shape)),
        )
        rings.extend(np.asarray(sampled))
    rings = np.stack(rings[:candidates])
    cameras = rendering.ring_cameras(azimuth, elevation, views=4, size=prior.settings.size)
    scores = [agreement(ring, cameras) for ring in rings]
    order = np.argsort(scores)[::-1]
    captions = [f"candidate {i}, agreement {scores[i]:.3f}" for i in order]
    media.write_png(folder / "previews" / "views.png", contact_sheet(rings[order], captions, columns=1, zoom=4))
    told("views", candidates, candidates)
    return rings[order[0]], scores[order[0]]
