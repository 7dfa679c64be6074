"""Meshes in PLY files: text or binary of both byte orders, polygons, colours, normals, uv by vertex or by corner.

Colours are display-referred in PLY, as scanners and MeshLab write them; the record's are linear. `comment TextureFile`
names an image beside the file (MeshLab).
"""

import os
import pathlib

import jax.numpy as jnp
import numpy as np

from renderers.files import read_bytes, write_bytes_atomically
from renderers.meshes.atlas import linear_from_srgb, srgb_from_linear
from renderers.meshes.codecs.checks import require_writable
from renderers.meshes.codecs.external import read_optional
from renderers.meshes.codecs.images import bytes_from_floats, decode_image, encode_png, floats_from_bytes
from renderers.meshes.codecs.ply_lists import Ragged, Table, read_tables
from renderers.meshes.codecs.polygons import triangulated
from renderers.meshes.mesh import Mesh
from renderers.meshes.scene import Part, Scene, scene_from_parts
from renderers.ply_header import Damaged

_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
_COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_TEXTURE = "TextureFile "


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Reads the faces of a PLY file; raises Damaged if it has none."""
    scene = read_scene(path)
    if not scene.parts:
        raise Damaged("it has no faces: it is a point cloud")
    return scene.parts[0].mesh


def read_scene(path: str | os.PathLike[str]) -> Scene:
    """Reads the faces of a PLY file as one part."""
    tables, comments = read_tables(read_bytes(path))
    notes: list[str] = []
    vertex, face = tables.get("vertex"), tables.get("face")
    if vertex is None or not {"x", "y", "z"} <= vertex.scalars.keys():
        raise Damaged("expected a `vertex` element with x, y, z")
    lists = {} if face is None else face.lists
    corners = next((lists[name] for name in ("vertex_indices", "vertex_index") if name in lists), None)
    if corners is None or not len(corners.values):
        return scene_from_parts((), ("it has no faces",))
    points = _columns(vertex, ("x", "y", "z"), "position")
    indices = corners.values
    if indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= len(points):
        raise Damaged(f"a face names vertex {indices.min()} or {indices.max()} of {len(points)}")
    indices = indices.astype(np.int64)
    triangles, polygon = triangulated(indices, corners.counts, points)
    uv, uv_faces = _uv(vertex, lists.get("texcoord"), corners, triangles)
    texture = _texture(pathlib.Path(path).parent, comments, notes) if uv is not None else None
    normals = None
    if {"nx", "ny", "nz"} <= vertex.scalars.keys():
        normals = _columns(vertex, ("nx", "ny", "nz"), None)
        if not np.isfinite(normals).all():
            notes.append("its normals are not finite everywhere and are ignored")
            normals = None
    colors = _colors(vertex)
    mesh = Mesh(
        vertices=jnp.asarray(points),
        faces=jnp.asarray(indices[triangles].astype(np.int32)),
        uv=None if uv is None else jnp.asarray(uv),
        uv_faces=None if uv_faces is None else jnp.asarray(uv_faces),
        texture=texture,
        vertex_colors=None if colors is None else jnp.asarray(colors),
        normals=None if normals is None else jnp.asarray(normals),
    )
    return scene_from_parts((Part(mesh=mesh),), tuple(notes))


@np.errstate(over="ignore", invalid="ignore")
def _columns(table: Table, names: tuple[str, ...], required: str | None) -> np.ndarray:
    values = np.stack([table.scalars[name].astype(np.float32) for name in names], axis=1)
    bad = ~np.isfinite(values).all(axis=1)
    if required and bad.any():
        raise Damaged(f"vertex {int(np.argmax(bad))} has a {required} that is not finite")
    return values


def _colors(vertex: Table) -> np.ndarray | None:
    names = next((names for names in _COLORS if set(names) <= vertex.scalars.keys()), None)
    if names is None:
        return None
    columns = [*names, *(name for name in ("alpha",) if name in vertex.scalars)]
    values = []
    for name in columns:
        kind = vertex.scalars[name].dtype
        scale = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
        values.append(_columns(vertex, (name,), "colour")[:, 0] / np.float32(scale))
    color = np.stack(values, axis=1).clip(0, 1)
    return np.concatenate([linear_from_srgb(color[:, :3]), color[:, 3:]], axis=1)


def _uv(vertex: Table, corner_uv: Ragged | None, corners: Ragged, triangles: np.ndarray):
    """uv and, where they are by corner, the indices of the triangles' corners into them."""
    if corner_uv is not None and (corner_uv.counts == 2 * corners.counts).all() and corner_uv.values.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            rows = corner_uv.values.astype(np.float32).reshape(-1, 2)
        if not np.isfinite(rows).all():
            raise Damaged("a face has texture coordinates that are not finite")
        uv, inverse = np.unique(rows, axis=0, return_inverse=True)
        return uv, inverse.reshape(-1)[triangles].astype(np.int32)
    names = next((names for names in _UV if set(names) <= vertex.scalars.keys()), None)
    return (None if names is None else _columns(vertex, names, "texture coordinate")), None


def _texture(folder: pathlib.Path, comments: list[str], notes: list[str]):
    name = next((comment[len(_TEXTURE) :].strip() for comment in comments if comment.startswith(_TEXTURE)), None)
    content = None if name is None else read_optional(folder, name, notes)
    return None if name is None or content is None else jnp.asarray(floats_from_bytes(decode_image(content, name[:60])))


def write(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Writes binary little-endian PLY, the texture as a PNG beside it; colours are rounded to 8 bits."""
    require_writable(os.fspath(path), mesh)
    path = pathlib.Path(path)
    count, faces = len(mesh.vertices), np.asarray(mesh.faces)
    columns: list[tuple[str, str, np.ndarray]] = []

    def add(names: str, kind: str, values) -> None:
        columns.extend((name, kind, np.asarray(values)[:, i]) for i, name in enumerate(names.split()))

    add("x y z", "f4", mesh.vertices)
    if mesh.normals is not None:
        add("nx ny nz", "f4", mesh.normals)
    if mesh.uv is not None and mesh.uv_faces is None:
        add("s t", "f4", mesh.uv)
    if mesh.vertex_colors is not None:
        color = np.asarray(mesh.vertex_colors, np.float32)
        encoded = np.concatenate([srgb_from_linear(color[:, :3]), color[:, 3:]], axis=1)
        add("red green blue alpha"[: 14 if color.shape[1] == 3 else None], "u1", bytes_from_floats(encoded))
    vertex = np.zeros(count, [(name, "<" + kind) for name, kind, _ in columns])
    for name, _, values in columns:
        vertex[name] = values
    fields = [("n", "u1"), ("corners", "<i4", 3)]
    by_corner = mesh.uv is not None and mesh.uv_faces is not None
    face = np.zeros(len(faces), fields + ([("m", "u1"), ("uv", "<f4", 6)] if by_corner else []))
    face["n"], face["corners"] = 3, faces
    if by_corner:
        face["m"], face["uv"] = 6, np.asarray(mesh.uv)[np.asarray(mesh.uv_faces)].reshape(-1, 6)
    names = {"f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0"]
    if mesh.texture is not None and mesh.uv is not None:
        image = path.with_name(f"{path.stem}_color.png")
        write_bytes_atomically(image, encode_png(bytes_from_floats(np.asarray(mesh.texture))))
        header.append(f"comment {_TEXTURE}{image.name}")
    header += [f"element vertex {count}", *(f"property {names[kind]} {name}" for name, kind, _ in columns)]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices"]
    header += ["property list uchar float texcoord"] if by_corner else []
    content = "\n".join([*header, "end_header", ""]).encode("utf-8") + vertex.tobytes() + face.tobytes()
    write_bytes_atomically(path, content)
