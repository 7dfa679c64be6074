"""The surface of a distilled field as a textured mesh: what cameras all around see of it, fused."""

import functools

import jax
import numpy as np

from experiments.errors import InputError
from experiments.generation import view_fusion
from experiments.generation.distillation_settings import NerfConfig
from experiments.generation.field_distillation import State, merged, see
from experiments.generation.view_fusion import Told
from experiments.reconstruction.pictures import Pictures
from renderers.cameras.camera import Camera
from renderers.meshes.mesh import Mesh

_PICTURE = 96  # pixels along a side
_CAPACITY = 1 << 16  # samples of a picture at first


def extract(state: State, config: NerfConfig, told: Told = lambda *_: None) -> Mesh:
    """The surface where rays end on average, with its base colours.

    Args:
      state: of the descent.
      config: the route's.
      told: called with the phase, parts done, parts.

    Raises:
      InputError: the field has no surface.
    """
    seen = take(state, config, view_fusion.cameras_around(_PICTURE), told)
    try:
        shape = view_fusion.fused(seen, config.resolution)
        return view_fusion.textured(shape, seen, faces=config.faces, texture=config.texture, told=told)
    except ValueError as error:
        raise InputError(f"the field has no surface ({error}): more --nerf.steps or another --seed may help") from error


def take(state: State, config: NerfConfig, cameras: list[Camera], told: Told = lambda *_: None) -> Pictures:
    """Pictures of the field through the centres of pixels."""
    colors, alphas, depths, capacity = [], [], [], _CAPACITY
    for done, camera in enumerate(cameras, 1):
        color, alpha, depth, wanted = _picture(state.params, state.grid, camera, config=config, capacity=capacity)
        while int(wanted) > capacity:
            capacity *= 4
            color, alpha, depth, wanted = _picture(state.params, state.grid, camera, config=config, capacity=capacity)
        alpha = np.asarray(alpha)
        colors.append(np.clip(np.asarray(color), 0.0, 1.0))
        alphas.append(alpha)
        mean = np.asarray(depth) / np.maximum(alpha, 1e-6)
        depths.append(np.where(alpha > view_fusion.OPAQUE, mean, 0.0).astype(np.float32))
        told("pictures", done, len(cameras))
    return Pictures(cameras=tuple(cameras), colors=tuple(colors), alphas=tuple(alphas), depths=tuple(depths))


@functools.partial(jax.jit, static_argnames=("config", "capacity"))
def _picture(params, grid, camera: Camera, *, config: NerfConfig, capacity: int):
    one = jax.tree.map(lambda leaf: leaf[None], camera)
    seen, _, wanted = see(
        merged(params, config), grid, one, jax.random.key(0), config=config, capacity=capacity, centered=True
    )
    return seen.color[0], seen.coverage[0], seen.depth[0], wanted
