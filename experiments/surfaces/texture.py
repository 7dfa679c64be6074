"""The texture of a fitted mesh: unwrapped, baked from the views, then corrected until its renders are the views.

Baking blends what several views see of a texel, and blurs where they disagree by a fraction of a pixel. The correction
is the simultaneous algebraic reconstruction technique (Andersen and Kak 1984): each sweep renders all views, and every
texel moves by the mean error of the pixels that it takes part in. No rates, no regulariser; texels that no view sees
keep the colour that baking gave them, the nearest one.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from experiments.surfaces.fit import ViewTargets
from renderers.cameras.camera import Camera, resize
from renderers.meshes.baking import bake_views
from renderers.meshes.mesh import Mesh
from renderers.meshes.rasterize import interpolate, rasterize_mesh
from renderers.meshes.textures import sample_texture
from renderers.meshes.unwrapping import unwrap

_SAMPLES = 2  # along a side of a pixel
_LEAST_SHARE = 1e-3  # of a pixel that a texel must take part in to be corrected


def fit_texture(
    mesh: Mesh,
    targets: ViewTargets,
    *,
    size: int,
    sweeps: int,
    progress: Callable[[int, float], None] | None = None,
) -> Mesh:
    """The mesh with a texture from the colours of views.

    Args:
      mesh: shape, in the frame of the cameras.
      targets: views with colours; pixels that the object covers in part are left out.
      size: texels along a side.
      sweeps: corrections after baking.
      progress: called after each sweep with its number and the mean absolute error before it.

    Raises:
      ValueError: the mesh has too many charts for the size.
    """
    mesh = unwrap(mesh, resolution=size)
    cameras = [jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), targets.cameras) for i in range(len(targets.masks))]
    colors = [image.astype(np.float32) / 255 for image in targets.colors]
    covered = [(mask == 255).astype(np.float32) for mask in targets.masks]
    baked = bake_views(mesh, colors, cameras, (size, size), masks=covered)
    texture = jnp.asarray(baked.texture, jnp.float32)
    looks = [_look(mesh, camera) for camera in cameras]
    uv = jnp.stack([look[0] for look in looks])
    weights = jnp.stack([look[1] * mask for look, mask in zip(looks, covered, strict=True)])
    wanted = jnp.asarray(np.stack(colors))
    for sweep in range(sweeps):
        texture, error = _corrected(texture, uv, wanted, weights)
        if progress is not None:
            progress(sweep + 1, float(error))
    return dataclasses.replace(mesh, texture=texture)


@jax.jit
def _look(mesh: Mesh, camera: Camera) -> tuple[Float[Array, "k l 2"], Float[Array, "h w"]]:
    """Texture coordinates of all samples of a view, and 1 for pixels all of whose samples meet the mesh."""
    height, width = camera.size
    fine = resize(camera, (_SAMPLES * height, _SAMPLES * width))
    rendering = rasterize_mesh(mesh.vertices, mesh.faces, fine, antialias=False)
    assert mesh.uv is not None and mesh.uv_faces is not None  # it comes from `unwrap`
    uv = interpolate(mesh.uv, mesh.uv_faces, rendering)
    hit = (rendering.face_index >= 0).astype(uv.dtype)
    return uv, jnp.floor(_pooled(hit[..., None])[..., 0] + 1e-3)


@jax.jit
def _corrected(texture, uv, wanted, weights):
    """One sweep over all views, and the mean absolute error that it starts from."""

    def add(sums, view):
        places, image, weight = view
        with_ones = jnp.concatenate([texture, jnp.ones_like(texture[..., :1])], axis=-1)
        seen, pull_back = jax.vjp(lambda values: _pooled(sample_texture(values, places, wrap="clamp")), with_ones)
        error = (image - seen[..., :3]) * weight[..., None]
        return sums + pull_back(jnp.concatenate([error, weight[..., None]], axis=-1))[0], jnp.abs(error).sum()

    start = jnp.zeros((*texture.shape[:2], 4), texture.dtype)
    sums, errors = lax.scan(add, start, (uv, wanted, weights))
    share = sums[..., 3:]
    change = jnp.where(share > _LEAST_SHARE, sums[..., :3] / jnp.maximum(share, _LEAST_SHARE), 0.0)
    return jnp.clip(texture + change, 0.0, 1.0), errors.sum() / jnp.maximum(3 * weights.sum(), 1.0)


def _pooled(image):
    height, width, channels = image.shape
    return jnp.mean(image.reshape(height // _SAMPLES, _SAMPLES, width // _SAMPLES, _SAMPLES, channels), axis=(1, 3))
