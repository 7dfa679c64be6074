"""Reads Wavefront .obj with its .mtl and images, as one mesh or as a scene of one part a material."""

import os
import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from renderers.files import read_bytes
from renderers.meshes import atlas
from renderers.meshes.codecs import mtl, obj_text
from renderers.meshes.codecs.gltf_materials import Look
from renderers.meshes.codecs.polygons import triangulated
from renderers.meshes.mesh import Mesh
from renderers.meshes.scene import Part, Scene, scene_from_parts
from renderers.ply_header import Damaged


class _Model(NamedTuple):
    """Triangles of an .obj file; vertices are split only where they have several normals."""

    vertices: Float[np.ndarray, "v 3"]
    colors: Float[np.ndarray, "v 3"] | None
    normals: Float[np.ndarray, "v 3"] | None
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "t 2"] | None
    uv_faces: Int[np.ndarray, "f 3"] | None  # -1 where a face has no uv
    materials: Int[np.ndarray, " f"]
    looks: list[Look]
    names: list[str]
    notes: list[str]


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Reads all faces as one mesh whose vertices stay joined across materials."""
    model = _read(path)
    if not len(model.faces):
        raise Damaged("it has no faces")
    order = np.argsort(model.materials, kind="stable")
    if (np.diff(model.materials) < 0).any():
        model = model._replace(
            faces=model.faces[order], materials=model.materials[order],
            uv_faces=None if model.uv_faces is None else model.uv_faces[order],
        )  # fmt: skip
    used = np.unique(model.materials).tolist()
    look = atlas.combined([_surface(model, material) for material in used])
    uv_faces = look.uv_faces
    colors = model.colors
    return Mesh(
        vertices=jnp.asarray(model.vertices),
        faces=jnp.asarray(model.faces.astype(np.int32)),
        uv=None if look.uv is None else jnp.asarray(look.uv),
        uv_faces=None if uv_faces is None or np.array_equal(uv_faces, model.faces) else jnp.asarray(uv_faces),
        texture=look.texture,
        vertex_colors=None if colors is None else jnp.asarray(colors),
        material=look.material,
        normals=None if model.normals is None else jnp.asarray(model.normals),
    )


def read_scene(path: str | os.PathLike[str]) -> Scene:
    """Reads one part a material, vertices shared between materials repeated in each."""
    model = _read(path)
    parts = []
    for material in np.unique(model.materials).tolist():
        mine = model.materials == material
        used, faces = np.unique(model.faces[mine], return_inverse=True)
        surface = _surface(model, material)
        mesh = Mesh(
            vertices=jnp.asarray(model.vertices[used]),
            faces=jnp.asarray(faces.reshape(-1, 3).astype(np.int32)),
            uv=None if surface.uv is None else jnp.asarray(surface.uv),
            uv_faces=None if surface.uv is None else jnp.asarray(surface.uv_faces.astype(np.int32)),
            texture=surface.texture,
            vertex_colors=None if model.colors is None else jnp.asarray(model.colors[used]),
            material=surface.material,
            normals=None if model.normals is None else jnp.asarray(model.normals[used]),
        )
        wrap = model.looks[material].wrap
        parts.append(Part(mesh=mesh, name=model.names[material], wrap=wrap))  # type: ignore[arg-type]
    return scene_from_parts(tuple(parts), tuple(dict.fromkeys(model.notes)))


def _surface(model: _Model, material: int) -> atlas.Surface:
    """The faces of one material with the uv they use; none if a face of it has no uv."""
    mine, look = model.materials == material, model.looks[material]
    if model.uv is None or model.uv_faces is None or (model.uv_faces[mine] < 0).any():
        return atlas.Surface(None, model.faces[mine], None, look.material, look.wrap)
    if mine.all():
        return atlas.Surface(model.uv, model.uv_faces, look.texture, look.material, look.wrap)
    used, faces = np.unique(model.uv_faces[mine], return_inverse=True)
    return atlas.Surface(model.uv[used], faces.reshape(-1, 3), look.texture, look.material, look.wrap)


def _read(path: str | os.PathLike[str]) -> _Model:
    text = obj_text.parse(read_bytes(path))
    notes: list[str] = []
    library: dict[str, Look] = {}
    for name in dict.fromkeys(text.libraries):
        library = mtl.read_library(pathlib.Path(path).parent, name, notes) | library
    for name in text.names[1:]:
        if name not in library:
            notes.append(f"the material {name[:40]!r} is not defined")
    triangles, polygon = triangulated(text.corners[:, 0], text.counts, text.vertices)
    corners = text.corners[triangles]
    if not np.isfinite(text.normals).all():
        notes.append("its normals are not finite everywhere and are ignored")
        text = text._replace(normals=text.normals[:0], corners=text.corners * (1, 1, 0) - (0, 0, 1))
        corners = text.corners[triangles]
    vertices, colors, normals, faces = _split_by_normals(text, corners)
    has_uv = len(text.uv) > 0 and bool((corners[:, :, 1] >= 0).any())
    # .obj files hold display-referred colours, as scanners and MeshLab write them
    colors = None if colors is None else atlas.linear_from_srgb(colors)
    return _Model(
        vertices=vertices, colors=colors, normals=normals, faces=faces.astype(np.int32),
        uv=text.uv if has_uv else None, uv_faces=corners[:, :, 1].astype(np.int32) if has_uv else None,
        materials=text.materials[polygon], looks=[library.get(name, Look()) for name in text.names], names=text.names,
        notes=notes,
    )  # fmt: skip


def _split_by_normals(text: obj_text.ObjText, corners: np.ndarray):
    """Vertices, colours, normals and faces; a vertex is repeated for each different normal it has."""
    faces, choice = corners[:, :, 0], corners[:, :, 2]
    if not len(faces) or (choice < 0).any():
        return text.vertices, text.colors, None, faces
    values, same = np.unique(text.normals, axis=0, return_inverse=True)
    pairs, inverse = np.unique(
        faces.reshape(-1) * len(values) + same.reshape(-1)[choice.reshape(-1)], return_inverse=True
    )
    vertex, normal = pairs // len(values), values[pairs % len(values)]
    length = np.linalg.norm(normal.astype(np.float64), axis=1, keepdims=True)
    off = np.abs(length - 1) > 1e-6
    normal = np.where(off, normal / np.where(length > 0, length, 1), normal).astype(np.float32)
    if len(np.unique(vertex)) == len(vertex):  # one normal a vertex: nothing is split
        normals = np.zeros_like(text.vertices)
        normals[vertex] = normal
        return text.vertices, text.colors, normals, faces
    colors = None if text.colors is None else text.colors[vertex]
    return text.vertices[vertex], colors, normal, inverse.reshape(-1, 3)
