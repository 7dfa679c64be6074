"""From what cameras all around see of a distilled scene to a textured mesh.

A scene that was distilled from small pictures has soft walls, or skins of a millimetre: no level of its density is the
surface. Its rays' mean depths are what the guide spoke of, so these are fused (Curless and Levoy 1996); what no camera
sees, undersides for the most part, counts as inside.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.data.blocks import rendering
from experiments.reconstruction.pictures import Pictures
from renderers.cameras.camera import Camera
from renderers.meshes import baking, cleanup, fusion, hole_filling, simplification, unwrapping
from renderers.meshes.extraction import marching_cubes
from renderers.meshes.mesh import Mesh, plain_material, vertex_normals

# Objects reach 0.475 metres; beyond, distances are known over _CELLS cells of the grid, 4.4 cm at 96 nodes
BOX: Float[np.ndarray, "2 3"] = 0.52 * np.array([[-1.0] * 3, [1.0] * 3])
OPAQUE = 0.5  # least opacity of a pixel with a depth
_RINGS = ((0.0, 8), (math.radians(15.0), 8), (math.radians(30.0), 8))  # elevation, cameras
_CELLS = 4  # of the grid, over which distances are known on both sides of a surface
_LOWEST = 0.003  # share of the seen places that may lie below the ground
_SURE = 0.9  # opacity of pixels whose colours textures are made from
_SMALLEST_PART = 0.02  # of the largest part's faces
_ROUGHNESS = 0.55

Told = Callable[[str, int, int], None]


def cameras_around(size: int) -> list[Camera]:
    """Cameras at the elevations that scenes are distilled from, where they are sound."""
    found = []
    for turn, (elevation, count) in enumerate(_RINGS):
        ring = rendering.ring_cameras(turn * math.pi / (len(_RINGS) * count), elevation, views=count, size=size)
        found += [jax.tree.map(lambda leaf, i=i: leaf[i], ring) for i in range(count)]
    return found


def fused(seen: Pictures, resolution: int) -> Mesh:
    """The surface that the depth maps agree on, even where the object ends below.

    Raises:
      ValueError: there is none.
    """
    # pixels half covered say little, whether they are taken as full or as empty
    certain = [np.square(2 * alpha - 1) + 1e-3 for alpha in seen.alphas]
    truncation = _CELLS * float(np.ptp(BOX[:, 1])) / (resolution - 1)
    volume = fusion.fuse_depths(seen.depths, seen.cameras, BOX, resolution, weights=certain, truncation=truncation)
    hidden = 2 * np.asarray(volume.hidden) > volume.num_views
    unseen = np.where(hidden, -1.0, 1.0)
    distance = np.where(np.asarray(volume.weight) > 0, np.asarray(volume.distance), unseen)
    height = np.linspace(BOX[0, 1], BOX[1, 1], resolution)[None, :, None]
    distance = np.clip(np.maximum(distance, (ground_height(seen) - height) / truncation), -1.0, 1.0)
    return marching_cubes(distance.astype(np.float32), BOX, level=0.0, inside="below")


def ground_height(seen: Pictures) -> float:
    """Height of the lowest places that are seen, metres: no camera was below, and there whatever is hidden would be in.

    Raises:
      ValueError: nothing is seen.
    """
    heights = []
    for camera, alpha, depth in zip(seen.cameras, seen.alphas, seen.depths, strict=True):
        row, column = np.nonzero((alpha > _SURE) & (depth > 0))
        at = np.stack([column, row], -1) + 0.5
        flat = (at - np.asarray(camera.principal)) / np.asarray(camera.focal)
        points = np.concatenate([flat, np.ones((len(flat), 1))], 1) * depth[row, column, None]
        pose = np.asarray(camera.camera_from_world, np.float64)
        heights.append((points - pose[:3, 3]) @ pose[:3, 1])
    everywhere = np.concatenate(heights)
    if not len(everywhere):
        raise ValueError("the cameras see nothing opaque")
    return float(np.quantile(everywhere, _LOWEST))


def textured(shape: Mesh, seen: Pictures, *, faces: int, texture: int, told: Told = lambda *_: None) -> Mesh:
    """The mesh cleaned, simplified and unwrapped, with what the pictures show of it and a material of dull plastic.

    Args:
      shape: without colours.
      seen: of the scene.
      faces: to keep at most.
      texture: texels along a side.
      told: called with the phase, parts done, parts.

    Raises:
      ValueError: nothing is left of the mesh.
    """
    mesh = unwrapping.unwrap(_finished(shape, faces), resolution=texture)
    colors = [c / np.maximum(a, 1e-3)[..., None] for c, a in zip(seen.colors, seen.alphas, strict=True)]
    baked = baking.bake_views(
        mesh,
        colors,
        seen.cameras,
        (texture, texture),
        masks=[(alpha > _SURE).astype(np.float32) for alpha in seen.alphas],
        tolerance=0.02,
        progress=lambda done, total: told("texture", done, total),
    )
    return dataclasses.replace(
        mesh,
        texture=jnp.clip(jnp.asarray(baked.texture, jnp.float32), 0.0, 1.0),
        normals=vertex_normals(mesh.vertices, mesh.faces),
        material=plain_material(roughness=_ROUGHNESS),
    )


def _finished(mesh: Mesh, faces: int) -> Mesh:
    mesh = cleanup.clean(mesh, smallest_share=_SMALLEST_PART)
    if len(mesh.faces) > faces:
        mesh = cleanup.clean(simplification.simplify(mesh, faces), smallest_share=_SMALLEST_PART)
    if not len(mesh.faces):
        raise ValueError("nothing is left of it")
    return dataclasses.replace(hole_filling.fill_holes(mesh), vertex_colors=None)
