"""Writes Wavefront .obj with an .mtl and PNG images beside it, all named after it."""

import os
import pathlib

import numpy as np

from renderers.files import write_bytes_atomically
from renderers.meshes.atlas import srgb_from_linear
from renderers.meshes.codecs.checks import require_writable
from renderers.meshes.codecs.images import bytes_from_floats, encode_png
from renderers.meshes.mesh import Mesh, plain_material


def write(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Writes images first and the .obj last, so that an .obj that is there is complete."""
    require_writable(os.fspath(path), mesh)
    path = pathlib.Path(path)
    has_look = mesh.material is not None or mesh.texture is not None
    lines = [f"mtllib {path.stem}.mtl", f"usemtl {_name(mesh)}"] if has_look else []
    if has_look:
        write_bytes_atomically(path.with_suffix(".mtl"), _library(path, mesh).encode())
    write_bytes_atomically(path, b"".join([*(f"{line}\n".encode() for line in lines), *_geometry(mesh)]))


def _name(mesh: Mesh) -> str:
    name = "" if mesh.material is None else mesh.material.name
    return "_".join(name.replace("#", "_").split()) or "material"


def _geometry(mesh: Mesh) -> list[bytes]:
    vertices = np.asarray(mesh.vertices, np.float32)
    if mesh.vertex_colors is not None:
        vertices = np.concatenate([vertices, srgb_from_linear(np.asarray(mesh.vertex_colors)[:, :3])], axis=1)
    faces = np.asarray(mesh.faces).astype(np.int64) + 1
    uv_faces = faces if mesh.uv_faces is None else np.asarray(mesh.uv_faces).astype(np.int64) + 1
    text = [_lines("v", vertices)]
    if mesh.uv is not None:
        text.append(_lines("vt", np.asarray(mesh.uv, np.float32)))
    if mesh.normals is not None:
        text.append(_lines("vn", np.asarray(mesh.normals, np.float32)))
    corner = {(False, False): "{0}", (True, False): "{0}/{1}", (False, True): "{0}//{0}", (True, True): "{0}/{1}/{0}"}
    form = corner[mesh.uv is not None, mesh.normals is not None].format
    corners = [form(v, t) for v, t in zip(faces.reshape(-1).tolist(), uv_faces.reshape(-1).tolist(), strict=True)]
    text.append("".join(f"f {a} {b} {c}\n" for a, b, c in zip(*[iter(corners)] * 3, strict=True)))
    return [block.encode() for block in text]


def _lines(keyword: str, rows: np.ndarray) -> str:
    """Rows as text that reads back as the same float32."""
    form = f"{keyword} " + " ".join(["%.9g"] * rows.shape[1]) + "\n"
    return "".join(form % row for row in map(tuple, rows.tolist()))


def _library(path: pathlib.Path, mesh: Mesh) -> str:
    material = mesh.material or plain_material()
    color = np.asarray(material.base_color, np.float32)

    def numbers(values) -> str:
        return " ".join(f"{value:.9g}" for value in np.atleast_1d(np.asarray(values, np.float32)).tolist())

    lines = [f"newmtl {_name(mesh)}", f"Kd {numbers(color[:3])}", f"d {numbers(color[3])}"]
    lines += [f"Pr {numbers(material.roughness)}", f"Pm {numbers(material.metallic)}"]
    if np.asarray(material.emissive).any():
        lines.append(f"Ke {numbers(material.emissive)}")
    images = {}
    if mesh.texture is not None and mesh.uv is not None:
        texture = np.asarray(mesh.texture)
        images["map_Kd", "color"] = texture[:, :, :3] if texture.shape[2] == 4 else texture
        if texture.shape[2] == 4:
            images["map_d", "alpha"] = texture[:, :, 3:]
    rough_metal = material.metallic_roughness_texture
    if rough_metal is not None and mesh.uv is not None:
        images["map_Pr", "roughness"] = np.asarray(rough_metal)[:, :, 1:2]
        images["map_Pm", "metallic"] = np.asarray(rough_metal)[:, :, 2:3]
    others = {("norm", "normal"): material.normal_texture, ("map_Ke", "emissive"): material.emissive_texture}
    others["map_ao", "occlusion"] = material.occlusion_texture
    images |= {key: np.asarray(v) for key, v in others.items() if v is not None and mesh.uv is not None}
    for (keyword, what), values in images.items():
        name = f"{path.stem}_{what}.png"
        write_bytes_atomically(path.with_name(name), encode_png(bytes_from_floats(values)))
        lines.append(f"{keyword} {name}")
    return "\n".join(lines) + "\n"
