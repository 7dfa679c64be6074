"""Planes to a textured mesh: distances on a grid, marching cubes, repairs, a texture of the field's colours."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.errors import InputError
from experiments.single_pass import model
from experiments.single_pass.weights import SinglePass
from renderers.cameras.camera import Camera
from renderers.meshes.baking import bake_field
from renderers.meshes.cleanup import clean
from renderers.meshes.extraction import marching_cubes, sample_grid
from renderers.meshes.mesh import Mesh, plain_material, vertex_normals
from renderers.meshes.simplification import simplify
from renderers.meshes.unwrapping import unwrap

_SMALLEST_PART = 0.02  # of the largest part's faces: specks in the air are dropped, feet of a table are not
_CHUNK = 1 << 15
_ROUGHNESS = 0.55


def planes_of(
    trained: SinglePass,
    views: Float[np.ndarray | Array, "v h w 8"],
    cameras: Camera,
    *,
    whole: Bool[np.ndarray, " v"] | None = None,
) -> Float[Array, "3 s s f"]:
    """The field of one object.

    Args:
      trained: network.
      views: channels of `rendering`, in [-1, 1].
      cameras: of the views, stacked; of the block world's field of view and pixels.
      whole: views of which all channels are known; the others are photographs, with colour and coverage. None: all.
    """
    whole = np.ones(len(views), bool) if whole is None else np.asarray(whole)
    poses = jnp.asarray(cameras.camera_from_world)
    return _planes(trained.settings, trained.params, jnp.asarray(views)[None], poses[None], jnp.asarray(whole)[None])[0]


def surface(
    trained: SinglePass,
    planes: Float[Array, "3 s s f"],
    *,
    resolution: int = 96,
    told: Callable[[str, int, int], None] = lambda *_: None,
) -> Mesh:
    """The surface of a field as a closed mesh without colours.

    Args:
      trained: network that made the planes.
      planes: of the object.
      resolution: nodes along a side of the grid.
      told: called with phase, parts done, parts.

    Raises:
      InputError: the field is empty.
    """

    values = sample_grid(
        lambda points: distances_at(trained, planes, points),
        np.array(model.BOX),
        resolution,
        chunk=_CHUNK,
        progress=lambda done, total: told("shape", done, total),
    )
    if not (values < 0).any():
        raise InputError(
            "the network sees no object in these views; is the picture framed, and are the --weights trained?"
        )
    mesh = marching_cubes(values, np.array(model.BOX), level=0.0, inside="below")
    return clean(mesh, smallest_share=_SMALLEST_PART)


def painted(
    trained: SinglePass,
    planes: Float[Array, "3 s s f"],
    mesh: Mesh,
    *,
    faces: int = 8000,
    texture: int = 512,
    told: Callable[[str, int, int], None] = lambda *_: None,
) -> Mesh:
    """The surface with a texture of the field's base colours, smooth normals, and a material of dull plastic.

    Args:
      trained: network that made the planes.
      planes: of the object.
      mesh: their surface.
      faces: the mesh is simplified to this many first.
      texture: texels along a side.
      told: called with phase, parts done, parts.
    """
    if len(mesh.faces) > faces:
        mesh = clean(simplify(mesh, faces), smallest_share=_SMALLEST_PART)
    told("charts", 0, 1)
    mesh = unwrap(mesh, resolution=texture)
    told("charts", 1, 1)

    baked = bake_field(
        mesh,
        lambda points, _: colors_at(trained, planes, points),
        (texture, texture),
        chunk=_CHUNK,
        progress=lambda done, total: told("texture", done, total),
    )
    return dataclasses.replace(
        mesh,
        texture=jnp.asarray(baked.texture),
        normals=jax.jit(vertex_normals)(mesh.vertices, mesh.faces),
        material=plain_material(roughness=_ROUGHNESS),
    )


def distances_at(
    trained: SinglePass, planes: Float[Array, "3 s s f"], points: Float[Array, "n 3"]
) -> Float[Array, " n"]:
    """Signed distances of world points in metres, cut off at `model.REACH`."""
    return _read(trained.settings, trained.params, planes, points)[0]


def colors_at(trained: SinglePass, planes: Float[Array, "3 s s f"], points: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Base colours at world points, display-referred, in [0, 1]."""
    return _read(trained.settings, trained.params, planes, points)[1]


@functools.partial(jax.jit, static_argnames="settings")
def _planes(settings, params, views, poses, whole):
    return model.planes_of_views(settings, params, views, poses, None, whole)


@functools.partial(jax.jit, static_argnames="settings")
def _read(settings, params, planes, points):
    distances, colors = model.read_points(settings, params, planes[None], points[None])
    return distances[0], colors[0]
