"""Pictures and depth maps of a splat scene from many cameras: what its mesh is made from and measured by."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.data.captures import load_capture, split_holdout
from experiments.reconstruction.settings import ReconstructConfig
from experiments.splats.scene import Normalisation, cameras
from renderers.cameras.camera import Camera, resize
from renderers.cameras.trajectories import fibonacci_hemisphere
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.rasterize import render
from renderers.kernels import tiling

_VIEW_ANGLE = np.radians(40.0)
_ROOM = 1.05  # of the box that is reconstructed around the splats that matter
_OUTLIERS = 0.002  # of the opacity that may lie outside the box on each side
_MARKED = 0.1  # splats of less opacity do not count for the box


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """A scene seen by cameras, all arrays on the host.

    Attributes:
      cameras: all of one size.
      colors: display-referred, nothing behind them.
      alphas: opacity in [0, 1].
      depths: camera z of what is opaque, 0 elsewhere.
    """

    cameras: tuple[Camera, ...]
    colors: tuple[Float[np.ndarray, "h w 3"], ...]
    alphas: tuple[Float[np.ndarray, "h w"], ...]
    depths: tuple[Float[np.ndarray, "h w"], ...]


def splat_extent(gaussians: Gaussians) -> Float[np.ndarray, "2 3"]:
    """Box around nearly all of the opacity; stray splats stay outside."""
    means, opacities = np.asarray(gaussians.means, np.float64), np.asarray(jax.nn.sigmoid(gaussians.opacity_logits))
    reach = 2.0 * np.exp(np.asarray(gaussians.log_scales, np.float64)).max(1)
    kept = opacities > _MARKED if (opacities > _MARKED).any() else np.ones(len(means), bool)
    corners = []
    for sign in (-1.0, 1.0):
        edges = means[kept] + sign * reach[kept, None]
        corners.append([_quantile(edges[:, k], opacities[kept], 0.5 + sign * (0.5 - _OUTLIERS)) for k in range(3)])
    low, high = np.array(corners)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6 * max(float((high - low).max()), 1e-6))
    return np.stack([middle - _ROOM * half, middle + _ROOM * half])


def cameras_around(box: Float[np.ndarray, "2 3"], config: ReconstructConfig) -> tuple[list[Camera], list[Camera]]:
    """Cameras on a sphere that see the whole box: those to reconstruct from, and others to test on."""
    center, radius = (box[0] + box[1]) / 2, float(np.linalg.norm(box[1] - box[0])) / 2
    up = np.zeros(3)
    up["xyz".index(config.up[1])] = 1.0 if config.up[0] == "+" else -1.0
    low, high = (float(np.radians(angle)) for angle in (min(config.elevation), max(config.elevation)))
    total = config.views + config.test_views
    poses = np.asarray(
        fibonacci_hemisphere(
            total,
            radius / np.sin(_VIEW_ANGLE / 2),
            elevation_range=(low, high),
            target=jnp.asarray(center, jnp.float32),
            up=jnp.asarray(up, jnp.float32),
        )
    )
    tested = np.zeros(total, bool)
    if config.test_views:
        tested[np.linspace(0, total - 1, config.test_views + 2).round().astype(int)[1:-1]] = True
    focal = jnp.full(2, config.image_size / (2 * np.tan(_VIEW_ANGLE / 2)), jnp.float32)
    principal = jnp.full(2, config.image_size / 2, jnp.float32)
    size = (config.image_size, config.image_size)
    made = [Camera(jnp.asarray(pose), focal, principal, size) for pose in poses]
    return [made[i] for i in np.flatnonzero(~tested)], [made[i] for i in np.flatnonzero(tested)]


def capture_cameras(config: ReconstructConfig) -> tuple[list[Camera], list[Camera]]:
    """Cameras of the capture's training and test views, in its own frame, at the size of the pictures to take.

    Raises:
      InputError: the capture cannot be read.
    """
    capture = load_capture(str(config.data))
    train, test = split_holdout(capture.names, "" if capture.test_names else "8", capture.test_names)
    made = []
    for camera in cameras(capture, Normalisation(np.zeros(3), 1.0)):
        height, width = camera.size
        factor = config.image_size / max(height, width)
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        made.append(resize(jax.tree.map(jnp.asarray, camera), size))
    return [made[int(i)] for i in train], [made[int(i)] for i in test][: config.test_views]


def take(
    gaussians: Gaussians, views: Sequence[Camera], opaque: float, taken: Callable[[int], None] = lambda count: None
) -> Pictures:
    """Renders a splat scene.

    Args:
      gaussians: the scene.
      views: cameras.
      opaque: least opacity of a pixel with a depth.
      taken: called with the number of pictures so far.
    """
    colors, alphas, depths = [], [], []
    capacity: int | None = None
    for camera in views:
        seen = _render(gaussians, camera, capacity=capacity)
        while int(seen.overflow):
            capacity = tiling.next_capacity((capacity or 0) + int(seen.overflow) + 1)
            seen = _render(gaussians, camera, capacity=capacity)
        alpha = np.asarray(seen.alpha)
        colors.append(np.clip(np.asarray(seen.color), 0.0, 1.0))
        alphas.append(alpha)
        depths.append(np.where(alpha > opaque, np.asarray(seen.expected_depth), 0.0).astype(np.float32))
        taken(len(colors))
    return Pictures(cameras=tuple(views), colors=tuple(colors), alphas=tuple(alphas), depths=tuple(depths))


@functools.partial(jax.jit, static_argnames="capacity")
def _render(gaussians: Gaussians, camera: Camera, *, capacity: int | None):
    return render(gaussians, camera, capacity=capacity)


def _quantile(values, weights, at) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(share, at)), len(values) - 1)])
