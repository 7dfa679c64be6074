"""From a splat scene to a textured mesh, and how well the mesh stands for the scene."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import media, report
from experiments.errors import InputError
from experiments.reconstruction.pictures import Pictures
from experiments.reconstruction.settings import ReconstructConfig
from experiments.surfaces.targets import on_the_host
from experiments.surfaces.texture import fit_texture
from renderers.gaussians.gaussians import Gaussians
from renderers.meshes import cleanup, extraction, fusion, hole_filling, simplification
from renderers.meshes.mesh import Mesh, plain_material, vertex_normals
from renderers.meshes.render import render_mesh
from renderers.metrics import psnr

_DENSITY_LEVEL = 1.0  # DreamGaussian's
_SOLID = 0.9  # opacity of pixels whose colour textures are made from

Step = Callable[[int, int], None]


def fused_shape(pictures: Pictures, box: Float[np.ndarray, "2 3"], config: ReconstructConfig) -> Mesh:
    """The surface that all depth maps agree on (TSDF fusion), cleaned and simplified.

    Raises:
      InputError: the views see nothing opaque.
    """
    nodes = _nodes(box, config.resolution)
    # pixels half covered say little, whether they are taken as full or as empty
    certain = [np.square(2 * alpha - 1) + 1e-3 for alpha in pictures.alphas]
    volume = fusion.fuse_depths(pictures.depths, pictures.cameras, box, nodes, weights=certain)
    try:
        return finished(fusion.volume_mesh(volume), config)
    except ValueError as error:
        raise InputError(f"no surface in {config.input}: {error}; try a lower --opaque or --method=density") from error


def density_shape(gaussians: Gaussians, box: Float[np.ndarray, "2 3"], config: ReconstructConfig) -> Mesh:
    """The surface where the local density of the splats takes the level, cleaned and simplified.

    Raises:
      InputError: no such surface.
    """
    opacities = jax.nn.sigmoid(gaussians.opacity_logits)
    scales, level = jnp.exp(gaussians.log_scales), _DENSITY_LEVEL if config.level is None else config.level
    nodes = _nodes(box, config.resolution)
    density = extraction.splat_density(gaussians.means, gaussians.quaternions, scales, opacities, box, nodes)
    try:
        return finished(extraction.marching_cubes(density, box, level=level, inside="above"), config)
    except ValueError as error:
        raise InputError(f"no surface in {config.input}: {error}; try another --level") from error


def finished(mesh: Mesh, config: ReconstructConfig) -> Mesh:
    """Without small parts, with as many faces as asked for, without colours."""
    mesh = cleanup.clean(mesh, smallest_share=config.smallest_part)
    if len(mesh.faces) > config.faces:
        mesh = cleanup.clean(simplification.simplify(mesh, config.faces), smallest_share=config.smallest_part)
    if not len(mesh.faces):
        raise ValueError("nothing is left of the surface")
    # where simplification pinched the surface, the pinched faces were dropped
    return dataclasses.replace(hole_filling.fill_holes(mesh), vertex_colors=None)


def textured(mesh: Mesh, pictures: Pictures, config: ReconstructConfig, swept: Callable[[int, float], None]) -> Mesh:
    """The mesh with a texture that renders as the pictures do, and smooth normals."""
    solid = np.stack(pictures.alphas) > _SOLID
    colors = np.stack(pictures.colors) / np.maximum(np.stack(pictures.alphas), 1e-3)[..., None]
    nothing = np.zeros((*solid.shape, 0))
    targets = on_the_host(
        np.where(solid, 255, 0).astype(np.uint8),
        nothing.astype(np.uint8),
        np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8),
        nothing.astype(np.float32),
        pictures.cameras,
    )
    mesh = fit_texture(mesh, targets, size=config.texture, sweeps=config.steps, progress=swept)
    return dataclasses.replace(
        mesh, normals=vertex_normals(mesh.vertices, mesh.faces), material=plain_material(roughness=1.0)
    )


def compare(mesh: Mesh, pictures: Pictures) -> tuple[list[float], list[report.Picture]]:
    """PSNR of the unlit mesh against each picture, both on white, and pictures of both."""
    found, shown = [], []
    for camera, color, alpha in zip(pictures.cameras, pictures.colors, pictures.alphas, strict=True):
        wanted = np.clip(color + (1 - alpha)[..., None], 0, 1)
        seen = np.asarray(_unlit(mesh, camera))
        found.append(float(psnr(jnp.asarray(seen)[None], jnp.asarray(wanted)[None])))
        if len(shown) < 8:
            error = np.clip(4 * np.abs(seen - wanted), 0, 1)
            caption = f"{found[-1]:.2f} dB: splats, mesh, error x 4"
            shown.append(report.Picture(image=media.side_by_side(wanted, seen, error), caption=caption))
    return found, shown


@jax.jit
def _unlit(mesh, camera):
    return render_mesh(mesh, camera, light="none", background=jnp.ones(3), supersampling=2).color


def _nodes(box, resolution: int) -> tuple[int, int, int]:
    """Nodes by axis: cubic cells, `resolution` nodes along the longest side."""
    sides = box[1] - box[0]
    x, y, z = np.maximum(np.rint(sides / sides.max() * resolution).astype(int), 8)
    return int(x), int(y), int(z)
