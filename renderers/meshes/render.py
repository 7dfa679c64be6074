"""Just give me a picture: meshes with textures, materials and light to an antialiased image.

`rasterize` finds what pixels see, `materials` what it is made of, `shading` what light it sends, `silhouettes` softens
outlines. Each can be called by itself; this is the order in which they make a picture.
"""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from renderers.cameras.camera import Camera, resize
from renderers.kernels.dispatch import Backend
from renderers.meshes.environment import studio_light
from renderers.meshes.lights import Lighting
from renderers.meshes.materials import joined, opaque_faces, surface_look
from renderers.meshes.mesh import Mesh, unit_or_zero, vertex_normals
from renderers.meshes.rasterize import interpolate, rasterize_mesh
from renderers.meshes.shading import shade
from renderers.meshes.silhouettes import antialias as antialias_outlines
from renderers.meshes.textures import linear_from_srgb, srgb_from_linear


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class MeshImage:
    """A picture of meshes.

    Attributes:
      color: display-referred sRGB in [0, 1] over the background, or linear radiance over it.
      alpha: share of the pixel that is covered, transparency counted.
      depth: camera z at the pixel's centre, metres; 0 where empty.
      normal: unit normal of the face at the pixel's centre, world frame; 0 where empty.
      face_index: over all meshes in a row; -1 where empty.
    """

    color: Float[Array, "h w 3"]
    alpha: Float[Array, "h w"]
    depth: Float[Array, "h w"]
    normal: Float[Array, "h w 3"]
    face_index: Int[Array, "h w"]


def render_mesh(
    mesh: Mesh | Sequence[Mesh],
    camera: Camera,
    *,
    light: Lighting | Literal["studio", "none"] = "studio",
    background: Float[Array, "*hw 3"] | None = None,
    antialias: bool = True,
    supersampling: int = 1,
    linear: bool = False,
    anisotropy: int = 1,
    opposite: Int[Array, "f 3"] | None = None,
    backend: Backend | None = None,
) -> MeshImage:
    """A picture of one mesh, or of several that hide each other, each with its own material.

    Differentiable in everything that is float. Both sides of faces are drawn. Of several transparent layers the front
    one is drawn: alpha mode BLEND over the opaque surfaces behind it, those of the same mesh as well where its alpha is
    1 on all of a face; MASK (cut out below the cutoff) over the background.

    Args:
      mesh: with texture, vertex colours or a plain material.
      camera: any model.
      light: one or several lights; "studio" is `environment.studio_light`; "none" shows base colours as they are, which
        is what textures are fitted with.
      background: display-referred rgb, one colour or an image of the camera's size; None is black. (With `linear`:
        linear.)
      antialias: outlines by exact area, see `silhouettes`.
      supersampling: static; samples a side of each pixel, for shading finer than pixels.
      linear: static; leave out the sRGB curve and the clipping.
      anisotropy: static; most texture samples along a pixel's longer axis.
      opposite: `connectivity.opposite_vertices` of the faces of a single mesh; saves making it at every call.
      backend: of the z-buffer.

    Raises:
      ValueError: no mesh, or supersampling below 1.
      Unsupported: the backend cannot run here.
    """
    meshes = [mesh] if isinstance(mesh, Mesh) else list(mesh)
    if not meshes or supersampling < 1:
        raise ValueError(f"got {len(meshes)} meshes and supersampling {supersampling}; both must be at least 1")
    height, width = camera.size
    large = resize(camera, (height * supersampling, width * supersampling)) if supersampling > 1 else camera
    behind = _background(background, camera.size, meshes[0].vertices.dtype, linear)
    behind = jnp.repeat(jnp.repeat(behind, supersampling, 0), supersampling, 1)
    empty = jnp.zeros(large.size, behind.dtype)
    canvas = _Canvas(
        color=behind,
        alpha=empty,
        depth=empty,
        normal=jnp.zeros_like(behind),
        face_index=jnp.full(large.size, -1, jnp.int32),
    )
    starts = [sum(len(part.faces) for part in meshes[:k]) for k in range(len(meshes))]
    for layer in _layers(meshes):
        shown = [None if keep is None else keep(meshes[k]) for k, keep in layer]
        canvas = _painted(
            canvas, [meshes[k] for k, _ in layer], [starts[k] for k, _ in layer], shown, large, light=light,
            clip=not linear, anisotropy=anisotropy, backend=backend,
        )  # fmt: skip
    if antialias:
        canvas = _softened(canvas, meshes, large, opposite if len(meshes) == 1 else None, backend)
    color, alpha = _averaged(canvas.color, supersampling), _averaged(canvas.alpha[..., None], supersampling)[..., 0]
    color = color if linear else srgb_from_linear(jnp.clip(color, 0.0, 1.0))
    middle = slice(supersampling // 2, None, supersampling)
    depth, normal, index = (v[middle, middle] for v in (canvas.depth, canvas.normal, canvas.face_index))
    return MeshImage(color=color, alpha=alpha, depth=depth, normal=normal, face_index=index)


def render_normals(
    mesh: Mesh,
    camera: Camera,
    *,
    frame: Literal["world", "camera"] = "world",
    smooth: bool = True,
    background: float = 0.0,
    opposite: Int[Array, "f 3"] | None = None,
    backend: Backend | None = None,
) -> Float[Array, "h w 4"]:
    """Normals as colours, `(n + 1) / 2`, and the mask: what multi-view normal generators draw. Differentiable.

    Args:
      mesh: its normals, or smooth ones of its faces.
      camera: any model.
      frame: "camera" has x right, y up, z towards the viewer, as normal maps are drawn.
      smooth: interpolated normals of vertices; False: of faces.
      background: value of all three channels off the mesh.
      opposite: `connectivity.opposite_vertices(mesh.faces)`; saves making it at every call.
      backend: of the z-buffer.
    """
    rendering = rasterize_mesh(mesh.vertices, mesh.faces, camera, antialias=False, backend=backend)
    normals = rendering.normal
    if smooth:
        at_vertices = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
        normals = unit_or_zero(interpolate(at_vertices, mesh.faces, rendering, backend=backend))
    if frame == "camera":
        rotation = camera.camera_from_world[:3, :3] * jnp.asarray([[1.0], [-1.0], [-1.0]], normals.dtype)
        normals = jnp.einsum("ij,hwj->hwi", rotation, normals, precision=jax.lax.Precision.HIGHEST)
    hit = (rendering.face_index >= 0)[..., None]
    image = jnp.where(hit, 0.5 * normals + 0.5, background)
    mask, image = antialias_outlines(
        image, rendering, mesh.vertices, mesh.faces, camera, opposite=opposite, backend=backend
    )
    return jnp.concatenate([image, mask[..., None]], -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Canvas:
    """The picture so far, linear, and what its pixels see."""

    color: Float[Array, "h w 3"]
    alpha: Float[Array, "h w"]
    depth: Float[Array, "h w"]
    normal: Float[Array, "h w 3"]
    face_index: Int[Array, "h w"]


def _layers(meshes):
    """Meshes, by number and with the choice of their faces, to be drawn first and then over those.

    What blends comes last, but for its faces that let nothing through: files with one glass pane, read as one mesh, are
    of alpha mode BLEND all over.
    """
    first, second = [], []
    for k, mesh in enumerate(meshes):
        if _alpha_mode(mesh) != "BLEND":
            first.append((k, None))
        elif _alpha_varies(mesh):
            first.append((k, opaque_faces))
            second.append((k, lambda mesh: ~opaque_faces(mesh)))
        else:
            second.append((k, None))
    return [layer for layer in (first, second) if layer]


def _alpha_varies(mesh):
    textured = mesh.texture is not None and mesh.uv is not None and mesh.texture.shape[-1] == 4
    return textured or (mesh.vertex_colors is not None and mesh.vertex_colors.shape[-1] == 4)


def _painted(canvas, meshes, starts, shown, camera, *, light, clip, anisotropy, backend):
    """The canvas with some more meshes, which hide each other, in front of or behind what is there."""
    scene = joined(meshes)
    faces = scene.faces
    if any(keep is not None for keep in shown):
        keep = [jnp.ones(len(m.faces), bool) if keep is None else keep for m, keep in zip(meshes, shown, strict=True)]
        faces = jnp.where(jnp.concatenate(keep)[:, None], faces, -1)  # which nothing sees
    rendering = rasterize_mesh(scene.vertices, faces, camera, antialias=False, backend=backend)
    seen = rendering.face_index >= 0
    seen &= (canvas.face_index < 0) | (rendering.depth < canvas.depth)
    look = surface_look(meshes, scene, rendering, camera, anisotropy=anisotropy)
    color = (
        look.points.base_color
        if light == "none"
        else shade(look.points, studio_light() if light == "studio" else light)
    )
    color = jnp.clip(color, 0.0, 1.0) if clip else color
    opacity = jnp.where(seen, look.alpha, 0.0)
    color = jnp.where(seen[..., None], canvas.color + opacity[..., None] * (color - canvas.color), canvas.color)
    visible = seen & (opacity > 0)
    shift = jnp.asarray([start - own for start, own in zip(starts, scene.starts, strict=True)], jnp.int32)
    index = rendering.face_index + shift[scene.part[jnp.maximum(rendering.face_index, 0)]]
    return _Canvas(
        color=color,
        alpha=canvas.alpha + (1 - canvas.alpha) * opacity,
        depth=jnp.where(visible, rendering.depth, canvas.depth),
        normal=jnp.where(visible[..., None], rendering.normal, canvas.normal),
        face_index=jnp.where(visible, index, canvas.face_index),
    )


def _softened(canvas, meshes, camera, opposite, backend):
    """The canvas with outlines by exact area; those behind something transparent stay hard."""
    scene = joined(meshes)
    colors = jnp.concatenate([canvas.color, canvas.alpha[..., None]], -1)
    mask, colors = antialias_outlines(
        colors, canvas, scene.vertices, scene.faces, camera, opposite=opposite, backend=backend
    )
    # where nothing is transparent the mask is better: it knows features thinner than a pixel
    alpha = mask if all(_alpha_mode(mesh) == "OPAQUE" for mesh in meshes) else colors[..., 3]
    return dataclasses.replace(canvas, color=colors[..., :3], alpha=alpha)


def _alpha_mode(mesh):
    return "OPAQUE" if mesh.material is None else mesh.material.alpha_mode


def _background(background, size, dtype, linear):
    if background is None:
        return jnp.zeros((*size, 3), dtype)
    color = jnp.broadcast_to(jnp.asarray(background, dtype), (*size, 3))
    return color if linear else linear_from_srgb(color)


def _averaged(image, factor):
    height, width, channels = image.shape
    blocks = image.reshape(height // factor, factor, width // factor, factor, channels)
    return jnp.mean(blocks, (1, 3)) if factor > 1 else image
