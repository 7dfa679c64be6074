"""A texture refined by a guide: its pictures, some noise, and what the guide makes of them (DreamGaussian, stage 2).

The views of the textured mesh are taken back to a moderate noise and denoised in a few steps; the texture moves to
what comes out: by the plain error of the colours, not by a score, which would saturate it (arXiv 2309.16653, section
3.3), and as simultaneous algebraic reconstruction does (Andersen and Kak 1984), without a rate to choose.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from experiments import keys
from experiments.data.blocks import rendering
from experiments.data.blocks.rendering import Pictures
from experiments.generation import score
from experiments.generation.distillation_settings import SplatsConfig
from experiments.generation.guides import Guide
from generators.diffusion import samplers, sampling
from renderers.cameras.camera import Camera, resize
from renderers.meshes.mesh import Mesh
from renderers.meshes.rasterize import interpolate, rasterize_mesh
from renderers.meshes.textures import sample_texture

_STEP = 0.4  # of the way to what the pixels of a step say of a texel; falls to none, so that their errors average out
_LEAST_SHARE = 1e-5  # of a pixel that a texel must take part in to move
_DENOISING = 4  # steps
_POOLED = 2  # pixels along a side that are averaged to one of the guide's


def refine(
    mesh: Mesh,
    guide: Guide,
    config: SplatsConfig,
    *,
    seed: int,
    told: Callable[[str, int, int], None] = lambda *_: None,
) -> Mesh:
    """The mesh with a texture that the guide takes less exception to.

    Args:
      mesh: with texture coordinates, a texture and normals.
      guide: what is asked.
      config: the route's, `refinement` steps from noise of `strength` on.
      seed: of cameras and noise.
      told: called with the phase, steps done, steps.
    """
    assert mesh.texture is not None  # it comes from an extraction
    texture = mesh.texture
    for step in range(config.refinement):
        texture = _step(texture, mesh, guide, jnp.int32(step), config=config, seed=seed)
        told("refinement", step + 1, config.refinement)
    return dataclasses.replace(mesh, texture=texture)


@functools.partial(jax.jit, static_argnames=("config", "seed"))
def _step(texture, mesh: Mesh, guide: Guide, step: Int[Array, ""], *, config: SplatsConfig, seed: int):
    """Every texel moves by a part of the mean error of the pixels that it takes part in."""
    azimuth, elevation = score.cameras_of_step(seed, step, config.score)
    cameras = rendering.ring_cameras(azimuth, elevation, views=4, size=guide.size)
    places, still = lax.map(lambda camera: _look(mesh, camera), cameras)
    with_ones = jnp.concatenate([texture, jnp.ones_like(texture[..., :1])], -1)
    wide = max(1, len(texture) // (_POOLED * guide.size))  # texels to the width of a fine pixel
    block = math.gcd(len(texture), 1 << (wide.bit_length() - 1))
    colors, pull_back = jax.vjp(lambda values: _colored(values, places, still.coverage, block), with_ones)
    seen = dataclasses.replace(jax.tree.map(_to_guide, still), color=colors[..., :3])
    ring = jax.vmap(rendering.to_channels)(seen, cameras)
    wanted = _image_to_image(keys.key(seed, "refinement", step), ring, guide, azimuth, elevation, config)
    inside = ((seen.coverage > 0.99) & (wanted[..., 7] > 0.9))[..., None].astype(jnp.float32)
    error = inside * (0.5 * (wanted[..., :3] + seen.coverage[..., None]) - seen.color)
    (sums,) = pull_back(jnp.concatenate([error, inside], -1))
    # the same for all texels of a block: blended over as far, so that no squares are left
    sums = lax.reduce_window(sums / block**2, 0.0, lax.add, (block, block, 1), (1, 1, 1), "SAME")
    change = sums[..., :3] / jnp.maximum(sums[..., 3:], _LEAST_SHARE)
    pace = _STEP * (1.0 - step / config.refinement)
    return jnp.clip(texture + pace * jnp.where(sums[..., 3:] > _LEAST_SHARE, change, 0.0), 0.0, 1.0)


def _look(mesh: Mesh, camera: Camera) -> tuple[Float[Array, "k l 2"], Pictures]:
    """Texture coordinates of a view's finer pixels, and its pictures, but with the coverage for the colour."""
    height, width = camera.size
    fine = resize(camera, (_POOLED * height, _POOLED * width))
    rendering_ = rasterize_mesh(mesh.vertices, mesh.faces, fine, attributes=mesh.normals, antialias=False)
    assert mesh.uv is not None and mesh.uv_faces is not None  # they come from `unwrap`
    hit = (rendering_.face_index >= 0).astype(jnp.float32)
    seen = Pictures(
        color=jnp.repeat(hit[..., None], 3, -1),
        normal=rendering_.attributes * hit[..., None],
        depth=rendering_.depth * hit,
        coverage=hit,
    )
    return interpolate(mesh.uv, mesh.uv_faces, rendering_), seen


def _colored(texture, places, coverage, block: int):
    """The texture's values as the guide sees them; blocks of texels are averaged, since samples lie that far apart."""
    height, width, channels = texture.shape
    coarse = texture.reshape(height // block, block, width // block, block, channels).mean((1, 3))
    return _to_guide(sample_texture(coarse, places, wrap="clamp") * coverage[..., None])


def _to_guide(image):
    """Means of the finer pixels, view by view."""
    views, height, width, *channels = image.shape
    return image.reshape(views, height // _POOLED, _POOLED, width // _POOLED, _POOLED, *channels).mean((2, 4))


def _image_to_image(key, ring, guide: Guide, azimuth, elevation, config: SplatsConfig):
    """What the guide makes of a ring whose noise is that of `strength`."""
    guidance = guide.scale if config.score.guidance is None else config.score.guidance
    times = jnp.linspace(config.strength, 0.0, _DENOISING + 1)
    noise_key, sample_key = jax.random.split(key)
    alpha, sigma = guide.schedule.alpha(times[0]), guide.schedule.sigma(times[0])
    noisy = alpha * ring + sigma * jax.random.normal(noise_key, ring.shape)

    def denoise(z, t):
        return guide.clean(z, jnp.broadcast_to(t, (1,)), azimuth[None], elevation[None], guidance)

    return sampling.sample(sample_key, noisy[None], denoise, guide.schedule, times, samplers.ddim)[0]
