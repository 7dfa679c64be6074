"""Held-out quality of a field, and the pictures that show it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments import media
from experiments.fields.rendering import FieldRenderer
from experiments.fields.training import State
from experiments.fields.views import Views
from experiments.splats.field_stop import through_stop
from experiments.splats.training import composite_background
from renderers.metrics import psnr, ssim


@jax.jit
def _compare(color: Float[Array, "h w 3"], image, background):
    target = composite_background(image, background)
    return psnr(color, target), ssim(color, target), target


class Evaluator:
    """Renders views of a state and compares them with their photographs, on the whole frame.

    Args:
      views: photographs and cameras.
      renderer: of whole images.
    """

    def __init__(self, views: Views, renderer: FieldRenderer) -> None:
        self._views, self._renderer = views, renderer
        self._background = jnp.full(3, views.background, jnp.float32)

    def render(self, state: State, camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour in [0, 1], expected distance in units of the normalised scene, alpha."""
        return self._renderer.image(state, camera, np.full(3, self._views.background, np.float32))

    def compare(
        self, state: State, view: int
    ) -> tuple[dict[str, float], np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Quality of a view, its render behind the field stop, its photograph on the run's background, depth and alpha.

        The quality is `psnr` in dB and `ssim`; where the capture has a field stop, `psnr_without_stop` compares the
        bare render.
        """
        bare, depth, alpha = self.render(state, self._views.cameras[view])
        stop, image = self._views.stops[view], jnp.asarray(self._views.images[view])
        color = through_stop(bare, stop)
        quality, similarity, target = _compare(jnp.asarray(color), image, self._background)
        numbers = {"psnr": float(quality), "ssim": float(similarity)}
        if not stop.is_open:
            numbers["psnr_without_stop"] = float(_compare(jnp.asarray(bare), image, self._background)[0])
        return numbers, color, np.asarray(target), (depth, alpha)

    def test(self, state: State, stopped: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Means over the test views; None if a stop was asked for. Empty without test views."""
        rows = []
        for view in self._views.test:
            if stopped():
                return None
            rows.append(self.compare(state, view)[0])
        return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}

    def picture(self, state: State, view: int) -> tuple[np.ndarray, dict[str, float], np.ndarray]:
        """Photograph, render, error and depth beside each other; the view's quality; and the render alone."""
        numbers, color, target, (depth, alpha) = self.compare(state, view)
        seen = alpha > 0.5
        near, far = np.quantile(depth[seen], [0.02, 0.98]) if seen.any() else (0.0, 1.0)
        shaded = np.where(seen[..., None], media.depth_colors(depth, near=float(near), far=float(far)), 255)
        error = np.clip(4 * np.abs(color - target), 0, 1)
        return media.side_by_side(target, color, error, shaded.astype(np.uint8)), numbers, color
