"""The surface of distilled splats as a textured mesh.

By the depths that cameras around see, fused; or by the splats' local density (DreamGaussian, arXiv 2309.16653, section
3.2), the splats no thinner than the grid can tell and what they enclose filled: distilled splats are skins of a
millimetre, between which a grid would see nothing, about nothing, and open below, where no camera was.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from experiments.errors import InputError
from experiments.generation import view_fusion
from experiments.generation.distillation_settings import SplatsConfig
from experiments.generation.view_fusion import BOX, Told
from experiments.reconstruction import pictures
from renderers.gaussians.gaussians import Gaussians
from renderers.meshes import extraction
from renderers.meshes.mesh import Mesh

_THINNEST = 0.7  # of a cell: standard deviations below it fall between the nodes


def extract(gaussians: Gaussians, config: SplatsConfig, *, size: int, told: Told = lambda *_: None) -> Mesh:
    """The surface, textured with what cameras around see of the splats.

    Args:
      gaussians: of the descent, world frame.
      config: the route's.
      size: pixels along a side of these pictures; as in the descent, since the rasterizer widens splats by a share of a
        pixel, and seen in smaller pixels they would be thinner than what was distilled.
      told: called with the phase, parts done, parts.

    Raises:
      InputError: the splats have no surface.
    """
    views = view_fusion.cameras_around(size)
    seen = pictures.take(gaussians, views, view_fusion.OPAQUE, lambda done: told("pictures", done, len(views)))
    try:
        fusing = config.surface == "fusion"
        shape = view_fusion.fused(seen, config.resolution) if fusing else dense(gaussians, config)
        return view_fusion.textured(shape, seen, faces=config.faces, texture=config.texture, told=told)
    except ValueError as error:
        raise InputError(
            f"the splats have no surface ({error}): more --splats.steps or another --seed may help"
        ) from error


def dense(gaussians: Gaussians, config: SplatsConfig) -> Mesh:
    """The surface where the splats' local density has the level of the settings.

    Raises:
      ValueError: there is none.
    """
    cell = float(np.ptp(BOX[:, 0])) / (config.resolution - 1)
    density = extraction.splat_density(
        gaussians.means,
        gaussians.quaternions,
        jnp.maximum(jnp.exp(gaussians.log_scales), _THINNEST * cell),
        jax.nn.sigmoid(gaussians.opacity_logits),
        BOX,
        config.resolution,
    )
    filled = np.where(enclosed(density < config.level), np.maximum(density, 2 * config.level), density)
    return extraction.marching_cubes(filled, BOX, level=config.level, inside="above", close_at_border=True)


def enclosed(empty: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Empty nodes from which no way leads through empty ones to the grid's border without passing under all matter."""
    matter = np.flatnonzero(~empty.all((0, 2)))
    found = np.zeros_like(empty)
    if not len(matter):
        return found
    above = empty[:, matter[0] :]
    padded = np.pad(above, ((1, 1), (0, 1), (1, 1)), constant_values=True)
    regions = np.zeros(padded.shape, np.int32)
    ndimage.label(padded, output=regions)
    inner = regions[1:-1, :-1, 1:-1]
    found[:, matter[0] :] = above & (inner != regions[0, 0, 0])
    return found
