"""What surfaces are at every pixel: textures, vertex colours and factors of glTF 2.0 materials, and normals.

Several meshes are put in one list of faces first, so that all but their textures is evaluated once.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from renderers.cameras.camera import Camera, camera_center
from renderers.cameras.rays import camera_rays
from renderers.meshes.mesh import Material, Mesh, plain_material, unit_or_zero, vertex_normals
from renderers.meshes.rasterize import MeshRendering, barycentric_derivatives, interpolate
from renderers.meshes.shading import SurfacePoints, bent_normals
from renderers.meshes.textures import Wrap, linear_from_srgb, sample_texture

# barycentric coordinates near the corners, the middles of the sides, and the centre of a face
_WITHIN = ((0.9, 0.05, 0.05), (0.05, 0.9, 0.05), (0.05, 0.05, 0.9), (0.5, 0.45, 0.05), (0.05, 0.5, 0.45),
           (0.45, 0.05, 0.5), (1 / 3, 1 / 3, 1 / 3))  # fmt: skip


class Joined(NamedTuple):
    """Meshes as one list of faces.

    Attributes:
      vertices, faces: of all.
      normals: unit, by vertex.
      colors: linear rgba by vertex; ones where a mesh has none. None: no mesh has any.
      uv, uv_faces: texture coordinates; None: no mesh has any that are needed.
      part: number of the mesh that each face belongs to.
      starts: first face of each mesh.
    """

    vertices: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    normals: Float[Array, "v 3"]
    colors: Float[Array, "v 4"] | None
    uv: Float[Array, "t 2"] | None
    uv_faces: Int[Array, "f 3"] | None
    part: Int[Array, " f"]
    starts: tuple[int, ...]


class SurfaceLook(NamedTuple):
    """Surfaces by pixel, and how opaque they are."""

    points: SurfacePoints
    alpha: Float[Array, "h w"]


def joined(meshes: Sequence[Mesh]) -> Joined:
    """Puts meshes in one list of faces; normals are their own, or smooth ones of their faces. Differentiable."""
    normals = [vertex_normals(m.vertices, m.faces) if m.normals is None else m.normals for m in meshes]
    some_colors, some_uv = any(m.vertex_colors is not None for m in meshes), any(map(_is_textured, meshes))
    colors = [
        jnp.ones((len(m.vertices), 4), m.vertices.dtype) if m.vertex_colors is None else _with_alpha(m.vertex_colors)
        for m in meshes
    ]
    uv = [m.uv if m.uv is not None else jnp.zeros((1, 2), m.vertices.dtype) for m in meshes]
    uv_faces = [
        jnp.zeros_like(m.faces) if m.uv is None else m.faces if m.uv_faces is None else m.uv_faces for m in meshes
    ]
    part = [jnp.full(len(m.faces), number, jnp.int32) for number, m in enumerate(meshes)]
    return Joined(
        vertices=jnp.concatenate([m.vertices for m in meshes]),
        faces=_shifted([m.faces for m in meshes], [len(m.vertices) for m in meshes]),
        normals=jnp.concatenate(normals),
        colors=jnp.concatenate(colors) if some_colors else None,
        uv=jnp.concatenate(uv) if some_uv else None,
        uv_faces=_shifted(uv_faces, [len(v) for v in uv]) if some_uv else None,
        part=jnp.concatenate(part),
        starts=tuple(sum(len(m.faces) for m in meshes[:k]) for k in range(len(meshes))),
    )


def opaque_faces(mesh: Mesh) -> Bool[Array, " f"]:
    """Faces of a mesh of alpha mode BLEND that let nothing through, so that they can be drawn before what does.

    Alpha is looked up in the texture's finest level at seven points of each face, so smaller holes are missed. Not
    differentiable.
    """
    factor = jnp.ones(4, mesh.vertices.dtype) if mesh.material is None else mesh.material.base_color
    alpha = jnp.broadcast_to(factor[3], (len(mesh.faces), len(_WITHIN)))
    shares = jnp.asarray(_WITHIN, mesh.vertices.dtype)

    def within(values, faces):
        return jnp.einsum("pk,fkc->fpc", shares, values[faces], precision=jax.lax.Precision.HIGHEST)

    if mesh.vertex_colors is not None and mesh.vertex_colors.shape[-1] == 4:
        alpha = alpha * within(mesh.vertex_colors[:, 3:], mesh.faces)[..., 0]
    if mesh.texture is not None and mesh.uv is not None and mesh.texture.shape[-1] == 4:
        uv = within(mesh.uv, mesh.faces if mesh.uv_faces is None else mesh.uv_faces)
        alpha = alpha * sample_texture(mesh.texture[..., 3:], uv)[..., 0]
    return jax.lax.stop_gradient(jnp.all(alpha > 1 - 0.5 / 255, -1))


def surface_look(
    meshes: Sequence[Mesh],
    scene: Joined,
    rendering: MeshRendering,
    camera: Camera,
    *,
    anisotropy: int = 1,
    wrap: Wrap | tuple[Wrap, Wrap] = "repeat",
) -> SurfaceLook:
    """Evaluates materials at the pixels that see meshes; elsewhere values are finite and mean nothing.

    Differentiable in textures, colours, factors, vertices and camera. Normals are turned to the viewer's side. Alpha is
    that of the material's mode: 1 if OPAQUE, 0 or 1 if MASK.

    Args:
      meshes: whose materials and textures.
      scene: `joined(meshes)`.
      rendering: of the scene's faces.
      camera: of the rendering.
      anisotropy, wrap: as for `textures.sample_texture`.
    """
    materials = [plain_material() if mesh.material is None else mesh.material for mesh in meshes]
    hit = rendering.face_index >= 0
    part = scene.part[jnp.maximum(rendering.face_index, 0)]
    positions = interpolate(scene.vertices, scene.faces, rendering)
    views = _views(camera, positions, hit)
    dtype = positions.dtype

    def factor(name):
        values = jnp.stack([jnp.asarray(getattr(material, name), dtype) for material in materials])
        return values[0] if len(meshes) == 1 else values[part]

    look = _Textures(meshes, part, *_coordinates(scene, rendering, camera), anisotropy, wrap, hit.shape, dtype)
    textures = [mesh.texture for mesh in meshes]
    base = jnp.broadcast_to(factor("base_color"), (*hit.shape, 4)) * look.colors(textures, 4)
    if scene.colors is not None:
        base = base * interpolate(scene.colors, scene.faces, rendering)
    surface = look.values([material.metallic_roughness_texture for material in materials], 3)
    occlusion = look.values([material.occlusion_texture for material in materials], 1)[..., 0]
    emissive = look.colors([material.emissive_texture for material in materials], 3)
    normals = unit_or_zero(interpolate(scene.normals, scene.faces, rendering))
    flat = jnp.sum(normals * normals, -1, keepdims=True) < 0.5  # no direction at a vertex: the face's own
    normals = jnp.where(flat, rendering.normal, normals)
    maps = [material.normal_texture for material in materials]
    if scene.uv is not None and any(image is not None for image in maps):
        values = look.values(maps, 3, default=(0.5, 0.5, 1.0))
        scale = jnp.broadcast_to(factor("normal_scale"), hit.shape)[..., None]
        normals = bent_normals(normals, *_tangents(scene, rendering), values, scale)
    away = jnp.sum(rendering.normal * views, -1, keepdims=True) < 0
    strength = factor("occlusion_strength")
    points = SurfacePoints(
        positions=positions,
        normals=jnp.where(away, -normals, normals),
        views=views,
        base_color=base[..., :3],
        metallic=jnp.clip(factor("metallic") * surface[..., 2], 0, 1),
        roughness=jnp.clip(factor("roughness") * surface[..., 1], 0, 1),
        emissive=jnp.broadcast_to(factor("emissive"), positions.shape) * emissive,
        occlusion=1 + strength * (occlusion - 1),
    )
    return SurfaceLook(points, _alpha(materials, part, base[..., 3], factor("alpha_cutoff")))


@dataclasses.dataclass(frozen=True)
class _Textures:
    """Looks textures up, each mesh's at the pixels that see it; ones, or a default, elsewhere."""

    meshes: Sequence[Mesh]
    part: Int[Array, "h w"]
    uv: Float[Array, "h w 2"] | None
    footprint: Float[Array, "h w 2 2"] | None
    anisotropy: int
    wrap: Wrap | tuple[Wrap, Wrap]
    size: tuple[int, ...]
    dtype: jnp.dtype

    def values(self, images, channels, default=None):
        start = jnp.ones(channels, self.dtype) if default is None else jnp.asarray(default, self.dtype)
        result = jnp.broadcast_to(start, (*self.size, channels))
        for number, (mesh, image) in enumerate(zip(self.meshes, images, strict=True)):
            if image is None or mesh.uv is None or self.uv is None:
                continue
            found = sample_texture(
                image, self.uv, footprint=self.footprint, anisotropy=self.anisotropy, wrap=self.wrap
            )  # fmt: skip
            found = found if found.shape[-1] == channels else _with_alpha(found)[..., :channels]
            result = found if len(images) == 1 else jnp.where((self.part == number)[..., None], found, result)
        return result

    def colors(self, images, channels):
        """Of sRGB textures, filtered as linear light."""
        linear = [
            None if image is None else jnp.concatenate([linear_from_srgb(image[..., :3]), image[..., 3:]], -1)
            for image in images
        ]
        return self.values(linear, channels)


def _is_textured(mesh):
    material = mesh.material
    fields = () if material is None else dataclasses.fields(material)
    of_material = any(f.name.endswith("_texture") and getattr(material, f.name) is not None for f in fields)
    return mesh.uv is not None and (mesh.texture is not None or of_material)


def _shifted(lists, counts):
    if len(lists) == 1:
        return lists[0]
    return jnp.concatenate([faces + sum(counts[:k]) for k, faces in enumerate(lists)])


def _coordinates(scene, rendering, camera):
    """Texture coordinates of pixels and their derivatives by the pixel's position."""
    if scene.uv is None:
        return None, None
    derivatives = barycentric_derivatives(rendering, scene.vertices, scene.faces, camera)
    corners = scene.uv[scene.uv_faces[jnp.maximum(rendering.face_index, 0)]]  # [h, w, 3, 2]
    footprint = jnp.sum(corners[..., :, :, None] * derivatives[..., :, None, :], -3)
    return interpolate(scene.uv, scene.uv_faces, rendering), footprint


def _with_alpha(color):
    """rgba of one to four channels."""
    if color.shape[-1] == 4:
        return color
    if color.shape[-1] == 1:
        color = jnp.repeat(color, 3, -1)
    return jnp.concatenate([color, jnp.ones_like(color[..., :1])], -1)


def _alpha(materials: Sequence[Material], part, alpha, cutoff):
    alpha = jnp.clip(alpha, 0.0, 1.0)
    cut = (alpha >= jnp.broadcast_to(cutoff, alpha.shape)).astype(alpha.dtype)
    modes = jnp.asarray([("OPAQUE", "MASK", "BLEND").index(material.alpha_mode) for material in materials])[part]
    return jnp.where(modes == 0, 1.0, jnp.where(modes == 1, cut, alpha))


def _views(camera, positions, hit: Bool[Array, "h w"]):
    if camera.model == "orthographic":
        return -camera_rays(camera).directions
    center = jnp.broadcast_to(camera_center(camera), positions.shape)
    return unit_or_zero(jnp.where(hit[..., None], center - positions, 1.0))


def _tangents(scene, rendering):
    """How the surface goes with u and with v, of the face at each pixel; zero where uv does not say."""
    index = jnp.maximum(rendering.face_index, 0)
    corners, uv = scene.vertices[scene.faces[index]], scene.uv[scene.uv_faces[index]]
    sides, steps = corners[..., 1:, :] - corners[..., :1, :], uv[..., 1:, :] - uv[..., :1, :]
    (u1, v1), (u2, v2) = ((steps[..., k, 0, None], steps[..., k, 1, None]) for k in (0, 1))
    turn = jnp.sign(u1 * v2 - u2 * v1)
    return (sides[..., 0, :] * v2 - sides[..., 1, :] * v1) * turn, (
        sides[..., 1, :] * u1 - sides[..., 0, :] * u2
    ) * turn
