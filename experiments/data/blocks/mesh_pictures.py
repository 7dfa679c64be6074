"""Pictures of textured meshes in the channels and from the cameras of the block world's.

Colours are base colours without light. Cut-out and transparent surfaces let the background through, not what is behind
them. Meshes of all sizes go through few compiled programs: their triangles are taken apart, filled up to a power of
four, and their textures resampled to one of two sizes.
"""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from experiments.data.blocks import rendering
from experiments.data.blocks.rendering import Pictures
from renderers.cameras.camera import resize
from renderers.cameras.rays import camera_rays
from renderers.meshes.mesh import Mesh, plain_material, unit_or_zero
from renderers.meshes.rasterize import interpolate, rasterize_mesh
from renderers.meshes.textures import linear_from_srgb, sample_texture, srgb_from_linear

MOST_FACES = 1 << 18
_FEWEST_FACES = 1 << 14  # one program for most files
_TEXELS = 128  # along a side of textures; about as fine as the pictures, which are small


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Corners:
    """Triangles that share nothing, on the host; `c` is three times their number.

    Attributes:
      points: world frame, metres.
      normals: unit.
      uv: v up.
      colors: linear rgba that the texture is multiplied by.
      texture: rgba, display-referred, row 0 is the top.
      cutoff: smallest alpha that is seen, 0 for opaque surfaces; -1 for those that are seen by their alpha.
    """

    points: Float[np.ndarray, "c 3"]
    normals: Float[np.ndarray, "c 3"]
    uv: Float[np.ndarray, "c 2"]
    colors: Float[np.ndarray, "c 4"]
    texture: UInt8[np.ndarray, "t t 4"]
    cutoff: Float[np.ndarray, ""]


def taken_apart(mesh: Mesh) -> Corners:
    """A mesh as pictures are made of it: without light, its normals those of its faces where it has none.

    Raises:
      ValueError: it has more than MOST_FACES faces.
    """
    faces = np.asarray(mesh.faces)
    if len(faces) > MOST_FACES:
        raise ValueError(
            f"{len(faces)} triangles are more than the {MOST_FACES} that pictures are made of; simplify it"
        )
    corners = faces.reshape(-1)
    points = np.asarray(mesh.vertices, np.float32)[corners]
    given = _flat_normals(points) if mesh.normals is None else np.asarray(mesh.normals, np.float32)[corners]
    material = plain_material() if mesh.material is None else mesh.material
    colors = np.ones((len(corners), 4), np.float32)
    if mesh.vertex_colors is not None:
        width = mesh.vertex_colors.shape[1]
        colors[:, :width] = np.asarray(mesh.vertex_colors)[corners]
    uv, texture = np.zeros((len(corners), 2), np.float32), np.ones((1, 1, 3), np.float32)
    if mesh.uv is not None and mesh.texture is not None:
        uv_faces = faces if mesh.uv_faces is None else np.asarray(mesh.uv_faces)
        uv, texture = np.asarray(mesh.uv, np.float32)[uv_faces.reshape(-1)], np.asarray(mesh.texture)
    cutoff = {"OPAQUE": 0.0, "MASK": float(material.alpha_cutoff), "BLEND": -1.0}[material.alpha_mode]
    return Corners(
        points=points,
        normals=given,
        uv=uv,
        colors=colors * np.asarray(material.base_color, np.float32),
        texture=_resampled(texture),
        cutoff=np.asarray(cutoff, np.float32),
    )


def render_mesh_ring(
    corners: Corners, azimuth, elevation, *, views: int = 4, size: int = 32, supersampling: int = 4
) -> Float[Array, "v h w 8"]:
    """Channels of a mesh on a ring of cameras, as `rendering.render_ring` gives them of an assembly.

    Args:
      corners: of the mesh.
      azimuth: of the first camera, radians.
      elevation: of all cameras, radians.
      views: number of cameras.
      size: pixels along a side.
      supersampling: samples along a pixel's side, averaged; with 2 blades seen from the edge are lost.
    """
    return _ring(_filled_up(corners), azimuth, elevation, views, size, supersampling)


@functools.partial(jax.jit, static_argnames=("views", "size", "supersampling"))
def _ring(corners, azimuth, elevation, views, size, supersampling):
    cameras = rendering.ring_cameras(azimuth, elevation, views=views, size=size)

    def one(camera):
        return rendering.to_channels(_pictures(corners, camera, supersampling), camera)

    return jax.lax.map(one, cameras)


def _pictures(corners, camera, supersampling) -> Pictures:
    """What one camera sees."""
    height, width = camera.size
    fine = resize(camera, (height * supersampling, width * supersampling))
    faces = jnp.arange(len(corners.points), dtype=jnp.int32).reshape(-1, 3)
    seen = rasterize_mesh(corners.points, faces, fine, antialias=False)
    values = jnp.concatenate([corners.normals, corners.uv, corners.colors], axis=-1)
    normals, uv, factors = jnp.split(interpolate(values, faces, seen), (3, 5), axis=-1)
    texture = corners.texture.astype(jnp.float32) / 255.0
    texture = jnp.concatenate([linear_from_srgb(texture[..., :3]), texture[..., 3:]], axis=-1)
    looked_up = factors * sample_texture(texture, uv)
    color = srgb_from_linear(jnp.clip(looked_up[..., :3], 0.0, 1.0))
    alpha, cutoff = jnp.clip(looked_up[..., 3], 0.0, 1.0), corners.cutoff
    shown = jnp.where(cutoff == 0, 1.0, jnp.where(cutoff < 0, alpha, alpha >= cutoff))
    hit = jnp.where(seen.face_index >= 0, shown, 0.0)
    flat = jnp.sum(normals * normals, axis=-1, keepdims=True) < 1e-6  # files may hold normals without direction
    normals = jnp.where(flat, seen.normal, unit_or_zero(normals))
    away = jnp.sum(seen.normal * camera_rays(fine).directions, axis=-1, keepdims=True) > 0
    normals = jnp.where(away, -normals, normals)  # both sides are seen

    def averaged(channels):
        image = (hit[..., None] * channels).reshape(height, supersampling, width, supersampling, -1)
        return jnp.mean(image, axis=(1, 3))

    return Pictures(
        color=averaged(color),
        normal=averaged(normals),
        depth=averaged(seen.depth[..., None])[..., 0],
        coverage=averaged(jnp.ones_like(hit)[..., None])[..., 0],
    )


def _filled_up(corners: Corners) -> Corners:
    """With triangles without area, which nothing sees, up to one of few numbers of them."""
    count = len(corners.points) // 3
    faces = _FEWEST_FACES
    while faces < count:
        faces *= 4

    def fill(rows):
        return np.concatenate([rows, np.zeros((3 * (faces - count), rows.shape[1]), np.float32)])

    names = ("points", "normals", "uv", "colors")
    return dataclasses.replace(corners, **{name: fill(getattr(corners, name)) for name in names})


def _flat_normals(points):
    a, b, c = (points[k::3].astype(np.float64) for k in range(3))
    cross = np.cross(b - a, c - a)
    unit = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)
    return np.repeat(unit, 3, axis=0).astype(np.float32)


def _resampled(texture):
    """A texture as rgba bytes of one size."""
    rgba = np.ones((*texture.shape[:2], 4), np.float32)
    channels = texture.shape[2]
    rgba[..., : 3 if channels < 3 else channels] = texture[..., :1] if channels < 3 else texture
    image = Image.fromarray(np.round(np.clip(rgba, 0, 1) * 255).astype(np.uint8), "RGBA")
    return np.asarray(image.resize((_TEXELS, _TEXELS), Image.Resampling.BILINEAR)).copy()
