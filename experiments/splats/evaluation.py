"""Held-out quality of a splat fit, and the pictures that show it."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments import media
from experiments.splats.field_stop import through_stop
from experiments.splats.settings import FitConfig
from experiments.splats.training import State, composite_background, splat_view
from experiments.splats.views import Views
from renderers.metrics import psnr, ssim


@functools.partial(jax.jit, static_argnames=("config", "capacity"))
def _render(state: State, camera, background, *, config: FitConfig, capacity: int | None):
    rendering = splat_view(state.gaussians, state.alive, camera, config, background, capacity)
    return jnp.clip(rendering.color, 0.0, 1.0), rendering.expected_depth, rendering.alpha


@jax.jit
def _compare(color: Float[Array, "h w 3"], image, background):
    target = composite_background(image, background)
    return psnr(color, target), ssim(color, target), target


class Evaluator:
    """Renders views of a state and compares them with their photographs, on the whole frame.

    Args:
      views: photographs and cameras.
      config: the run's.
      capacity: bound on intersections, asked for at each render since it may grow during training.
    """

    def __init__(self, views: Views, config: FitConfig, capacity: Callable[[], int | None]) -> None:
        self._views, self._config, self._capacity = views, config, capacity
        self._background = jnp.full(3, float(views.white), jnp.float32)

    def render(self, state: State, camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour in [0, 1], expected depth in units of the normalised scene, alpha."""
        camera = jax.tree.map(jnp.asarray, camera)
        color, depth, alpha = _render(state, camera, self._background, config=self._config, capacity=self._capacity())
        return np.asarray(color), np.asarray(depth), np.asarray(alpha)

    def compare(self, state: State, view: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """Quality of a view, its render behind the field stop, and its photograph on the run's background.

        `psnr` in dB and `ssim`; where the capture has a field stop, `psnr_without_stop` compares the bare render.
        """
        bare, _, _ = self.render(state, self._views.cameras[view])
        stop, image = self._views.stops[view], jnp.asarray(self._views.images[view])
        color = through_stop(bare, stop)
        quality, similarity, target = _compare(jnp.asarray(color), image, self._background)
        numbers = {"psnr": float(quality), "ssim": float(similarity)}
        if not stop.is_open:
            numbers["psnr_without_stop"] = float(_compare(jnp.asarray(bare), image, self._background)[0])
        return numbers, color, np.asarray(target)

    def test(self, state: State, stopped: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Means over the test views; None if a stop was asked for. Empty without test views."""
        rows = []
        for view in self._views.test:
            if stopped():
                return None
            rows.append(self.compare(state, view)[0])
        return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}

    def picture(self, state: State, view: int) -> tuple[np.ndarray, float]:
        """Photograph, render, error and depth beside each other, and the PSNR."""
        numbers, color, target = self.compare(state, view)
        _, depth, alpha = self.render(state, self._views.cameras[view])
        seen = alpha > 0.5
        near, far = np.quantile(depth[seen], [0.02, 0.98]) if seen.any() else (0.0, 1.0)
        shaded = np.where(seen[..., None], media.depth_colors(depth, near=float(near), far=float(far)), 255)
        error = np.clip(4 * np.abs(color - target), 0, 1)
        return media.side_by_side(target, color, error, shaded.astype(np.uint8)), numbers["psnr"]
