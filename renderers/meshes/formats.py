"""Mesh files: the front door that picks a format by suffix.

| suffix | reads | writes |
|---|---|---|
| .glb, .gltf | glTF 2.0: materials, textures, nodes, skins, morph targets, animations | .glb, all of that |
| .obj | with .mtl and its images; polygons, groups, vertex colours | .obj, .mtl and .png beside it |
| .ply | text and binary; polygons, colours, uv by vertex or by corner | binary, without the material, .png beside it |

`read_mesh` makes one Mesh of whatever the file holds; `read_scene` keeps its parts. Our own parsers: trimesh returns
zeros for Draco data without a word, takes long over headers that lie, and tears meshes apart at seams.
"""

import os
from collections.abc import Callable

from renderers.files import FormatError
from renderers.meshes.codecs import gltf_read, gltf_write, obj_read, obj_write, ply_mesh
from renderers.meshes.mesh import Mesh
from renderers.meshes.scene import Scene, merged
from renderers.ply_header import Damaged

__all__ = ["FormatError", "read_mesh", "read_scene", "write_mesh", "write_scene"]


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Reads a file as one mesh in its world frame, in its rest pose.

    Several materials become one (see `renderers.meshes.scene.merged`). Vertices stay joined as the file has them: where
    an .obj file gives a corner other texture coordinates, `uv_faces` differ from `faces`; where it gives a vertex
    several normals, the vertex is split.

    Args:
        path: the file, whose suffix tells the format. Files that it names must lie in its folder or below.

    Returns:
        float32 arrays. What a file holds beyond a mesh is left out in silence; `read_scene` has notes on it.

    Raises:
        FormatError: for an unknown suffix, a damaged or lying file, numbers that are not finite, content that is
            compressed in a way that is not supported, files outside the folder, or nothing with a surface.
    """
    return _guarded(path, lambda: _codec(path)[0](path))


def read_scene(path: str | os.PathLike[str]) -> Scene:
    """Reads a file with its parts, nodes, skins and animations; `notes` name what is left out.

    Args:
        path: the file, whose suffix tells the format. Files that it names must lie in its folder or below.

    Raises:
        FormatError: as `read_mesh`, but a file without a surface is an empty scene.
    """
    return _guarded(path, lambda: _codec(path)[1](path))


def write_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Writes a mesh; a file is replaced only once the new one is complete.

    Args:
        path: the destination; the suffix picks the format. An .obj comes with an .mtl and images named after it.
        mesh: values must be finite. A .glb splits vertices at seams of uv, and holds smooth normals if the mesh has
            none (and tangents for a normal map), so that other programs show it as we do. A .ply leaves out the
            material. Texture values are rounded to 8 bits.

    Raises:
        FormatError: for an unknown suffix, or a mesh whose arrays do not fit each other or are not finite.
        OSError: if the file cannot be written.
    """
    _guarded(path, lambda: _codec(path, writing=True)[2](path, mesh))


def write_scene(path: str | os.PathLike[str], scene: Scene) -> None:
    """Writes a scene with its skins and animations as .glb, which reads back equal: only what it holds is written.

    Exceptions: 1 - v is rounded once for uv that no file held before, directions are made unit and weights to add up to
    one where they are not, uv_faces become split vertices.

    Args:
        path: the destination, which must end in .glb.
        scene: values must be finite and indices valid; texture values are rounded to 8 bits.

    Raises:
        FormatError: for another suffix, or a scene whose arrays do not fit each other or are not finite.
        OSError: if the file cannot be written.
    """
    if not os.fspath(path).lower().endswith(".glb"):
        raise FormatError(f"{os.fspath(path)}: scenes are written as .glb only")
    _guarded(path, lambda: gltf_write.write(path, scene))


def _guarded(path: str | os.PathLike[str], work: Callable):
    try:
        return work()
    except Damaged as error:
        raise FormatError(" ".join(f"{os.fspath(path)}: {error}".split())) from None
    except FormatError as error:
        named = str(error) if os.fspath(path) in str(error) else f"{os.fspath(path)}: {error}"
        raise FormatError(" ".join(named.split())) from None


def _codec(path: str | os.PathLike[str], writing: bool = False) -> tuple[Callable, Callable, Callable]:
    name = os.fspath(path).lower()
    for suffix, codec in _FORMATS.items():
        if name.endswith(suffix) and not (writing and suffix == ".gltf"):
            return codec
    known = ", ".join(suffix for suffix in _FORMATS if not (writing and suffix == ".gltf"))
    raise FormatError(f"{os.fspath(path)}: unknown mesh format; known suffixes are {known}")


def _read_gltf(path: str | os.PathLike[str]) -> Mesh:
    return merged(gltf_read.read(path))


_FORMATS = {
    ".glb": (_read_gltf, gltf_read.read, gltf_write.write_mesh),
    ".gltf": (_read_gltf, gltf_read.read, gltf_write.write_mesh),
    ".obj": (obj_read.read_mesh, obj_read.read_scene, obj_write.write),
    ".ply": (ply_mesh.read_mesh, ply_mesh.read_scene, ply_mesh.write),
}
