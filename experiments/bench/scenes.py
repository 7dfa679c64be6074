"""Named splat scenes of real size: 3D Gaussians with colour harmonics and a camera, drawn from a seed.

On the image they look like those of `composite/shapes.py`: centres uniform, axes log-normal around 2.2 pixels, about
four intersections a Gaussian at any number of them.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from renderers.cameras.camera import Camera
from renderers.gaussians.gaussians import Gaussians

_BORDER = 4  # pixels outside the image in which centres still fall


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """What a scene is drawn from.

    Attributes:
      num_gaussians: of them.
      size: image (height, width).
      sh_degree: of the colours.
      median_scale: pixels; standard deviations are log-normal around it.
      seed: of numpy's generator.
    """

    num_gaussians: int
    size: tuple[int, int] = (1080, 1920)
    sh_degree: int = 3
    median_scale: float = 2.2
    seed: int = 0


SCENES = {
    "100k": Scene(num_gaussians=100_000),
    "300k": Scene(num_gaussians=300_000),
    "500k": Scene(num_gaussians=500_000),
    "1m": Scene(num_gaussians=1_000_000),
    "3m": Scene(num_gaussians=3_000_000),
    "10m": Scene(num_gaussians=10_000_000),
}


def draw(scene: Scene) -> tuple[Gaussians, Camera]:
    """The scene on JAX's default device; float32 from the start, so that ten million pass through little memory."""
    rng = np.random.default_rng(scene.seed)
    n, (height, width) = scene.num_gaussians, scene.size
    focal = 0.6 * width

    def uniform(low, high, *shape):
        return rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)

    def normal(mean, deviation, *shape):
        return rng.standard_normal(shape, np.float32) * np.float32(deviation) + np.float32(mean)

    depths = uniform(1, 10, n)
    means = np.stack([uniform(-_BORDER, width + _BORDER, n), uniform(-_BORDER, height + _BORDER, n), depths], 1)
    means[:, :2] = (means[:, :2] - np.asarray([width / 2, height / 2], np.float32)) * (depths / np.float32(focal))[
        :, None
    ]
    log_pixels = np.clip(normal(math.log(scene.median_scale), 0.55, n, 3), math.log(0.4), math.log(60))
    sh = normal(0, 0.1, n, (scene.sh_degree + 1) ** 2, 3)
    sh[:, 0] *= 10
    gaussians = Gaussians(
        means=jax.device_put(means),
        quaternions=jax.device_put(normal(0, 1, n, 4)),
        log_scales=jax.device_put(log_pixels + np.log(depths / np.float32(focal))[:, None]),
        opacity_logits=jax.device_put(normal(0.3, 1.6, n)),
        sh=jax.device_put(sh),
    )
    camera = Camera(jnp.eye(4), jnp.full(2, focal), jnp.asarray([width / 2, height / 2]), scene.size)
    return gaussians, camera
