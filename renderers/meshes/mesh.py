"""The Mesh record, its material, and what follows from vertices and faces alone: normals, areas, volume.

Faces are counter-clockwise seen from outside, so that normals point out. `uv` has its origin at the lower left of the
image, u to the right and v up (OBJ's convention; glTF's v down is turned over when such files are read), while row 0 of
a texture is the top of the image. A surface may be cut open in uv: `uv_faces` then index `uv` independently of `faces`.
"""

import dataclasses
import typing
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]
_SMALLEST_LENGTH_SQUARED = 1e-30  # below float32's normal range squared: a face or a sum without a direction


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Material:
    """Metallic-roughness surface of glTF 2.0, section 3.9: factors multiply textures, which are in [0, 1], row 0 top.

    The base colour texture is `Mesh.texture`. None for a texture means a texture of ones (normal map: none).

    Attributes:
      base_color: linear rgb and alpha factors.
      metallic: factor in [0, 1].
      roughness: perceptual roughness factor in [0, 1].
      emissive: linear rgb factors.
      metallic_roughness_texture: linear; green is roughness, blue is metallic.
      normal_texture: tangent-space normals as (n + 1) / 2, linear, +Y up.
      occlusion_texture: linear; red is the share of ambient light that arrives.
      emissive_texture: sRGB.
      normal_scale, occlusion_strength: as in glTF.
      alpha_cutoff: for alpha mode MASK.
      alpha_mode, double_sided, name: static.
    """

    base_color: Float[Array, " 4"]
    metallic: Float[Array, ""]
    roughness: Float[Array, ""]
    emissive: Float[Array, " 3"]
    metallic_roughness_texture: Float[Array, "h w 3"] | None = None
    normal_texture: Float[Array, "h w 3"] | None = None
    occlusion_texture: Float[Array, "h w 1"] | None = None
    emissive_texture: Float[Array, "h w 3"] | None = None
    normal_scale: Float[Array, ""] | float = 1.0
    occlusion_strength: Float[Array, ""] | float = 1.0
    alpha_cutoff: Float[Array, ""] | float = 0.5
    alpha_mode: AlphaMode = dataclasses.field(default="OPAQUE", metadata=dict(static=True))
    double_sided: bool = dataclasses.field(default=False, metadata=dict(static=True))
    name: str = dataclasses.field(default="", metadata=dict(static=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
@typing.no_type_check
class Mesh:
    """A triangle mesh with one material.

    Attributes:
      vertices: positions in world units.
      faces: vertex indices, counter-clockwise seen from outside.
      uv: texture coordinates, origin at the lower left, v up; one a vertex unless `uv_faces` is given.
      uv_faces: indices into `uv`, where the surface is cut open.
      texture: base colour, display-referred sRGB in [0, 1], row 0 is the top; a fourth channel is alpha.
      vertex_colors: linear rgb or rgba a vertex, in [0, 1]; multiplies the base colour.
      material: None is white, rough and not metallic.
      normals: unit normals a vertex where the file or the maker gives them; None: `vertex_normals`.
    """

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    uv: Float[Array, "t 2"] | None = None
    uv_faces: Int[Array, "f 3"] | None = None
    texture: Float[Array, "h w c"] | None = None
    vertex_colors: Float[Array, "v c"] | None = None
    material: Material | None = None
    normals: Float[Array, "v 3"] | None = None


def plain_material(*, base_color=(1.0, 1.0, 1.0, 1.0), metallic: float = 0.0, roughness: float = 1.0) -> Material:
    """A material without textures; the default is what a mesh without material is rendered as."""
    return Material(
        base_color=jnp.asarray(base_color, jnp.float32),
        metallic=jnp.float32(metallic),
        roughness=jnp.float32(roughness),
        emissive=jnp.zeros(3, jnp.float32),
    )


def unit_or_zero(vectors: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Vectors of length one; zero, with zero gradient, where there is no direction."""
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    some = squared > _SMALLEST_LENGTH_SQUARED
    # the inner where keeps the square root's infinite derivative away from lengths of zero
    return jnp.where(some, vectors / jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0)


def face_cross_products(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "f 3"]:
    """Normals of faces times twice their areas, `(b - a) x (c - a)`."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    return jnp.cross(b - a, c - a)


def face_normals(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "f 3"]:
    """Unit normals of faces, outward for counter-clockwise ones; zero for degenerate faces."""
    return unit_or_zero(face_cross_products(vertices, faces))


def face_areas(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, " f"]:
    """Areas of faces; a degenerate face has area zero with zero gradient."""
    cross = face_cross_products(vertices, faces)
    squared = jnp.sum(cross * cross, axis=-1)
    some = squared > _SMALLEST_LENGTH_SQUARED
    return jnp.where(some, 0.5 * jnp.sqrt(jnp.where(some, squared, 1.0)), 0.0)


def vertex_normals(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, "v 3"]:
    """Unit normals of vertices: the mean of adjacent faces' normals weighted by area. Zero for unused vertices."""
    cross = face_cross_products(vertices, faces)
    summed = jnp.zeros_like(vertices).at[faces.reshape(-1)].add(jnp.repeat(cross, 3, axis=0))
    return unit_or_zero(summed)


def enclosed_volume(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, ""]:
    """Signed volume inside a closed surface (divergence theorem), positive where normals point out."""
    centered = vertices - jnp.mean(vertices, axis=0)[None]  # keeps products small where the mesh is far from the origin
    a, b, c = (centered[faces[:, k]] for k in range(3))
    return jnp.sum(jnp.sum(a * jnp.cross(b, c), axis=-1)) / 6.0


def surface_area(vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"]) -> Float[Array, ""]:
    """Sum of the areas of all faces."""
    return jnp.sum(face_areas(vertices, faces))
