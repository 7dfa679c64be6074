"""Writes Scene and Mesh records as .glb (glTF 2.0 in one file); the same record gives the same bytes."""

import dataclasses
import json
import os
import struct

import jax.numpy as jnp
import numpy as np

from renderers.files import FormatError, write_bytes_atomically
from renderers.meshes.codecs.checks import require_writable
from renderers.meshes.codecs.gltf_buffers import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, Buffers
from renderers.meshes.codecs.gltf_json import BIN_CHUNK, GLB_MAGIC, JSON_CHUNK, Json
from renderers.meshes.codecs.gltf_write_materials import MaterialWriter, plain
from renderers.meshes.codecs.seams import unified
from renderers.meshes.codecs.tangents import vertex_tangents
from renderers.meshes.mesh import Mesh, vertex_normals
from renderers.meshes.scene import Node, Part, Scene, Skin, scene_from_parts, shown_nodes

_GENERATOR = "Galatea (galatea3d)"
_RESTART = 0xFFFF  # the largest 16-bit index means something else
_NOT_UNIT = 5e-4
_WEIGHT_ERROR = 2e-7  # by non-zero weight: what rounding to float32 may leave


def write_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Writes one mesh, with smooth normals where it has none, and tangents if it has a normal map."""
    require_writable(os.fspath(path), mesh)
    if mesh.normals is None:
        normals = vertex_normals(jnp.asarray(mesh.vertices, jnp.float32), jnp.asarray(mesh.faces))
        mesh = dataclasses.replace(mesh, normals=normals)
    tangents = None
    if mesh.uv is not None and mesh.material is not None and mesh.material.normal_texture is not None:
        mesh = _split_at_seams(mesh)
        normals = _unit(np.asarray(mesh.normals, np.float32), (0, 1, 0))
        arrays = (np.asarray(mesh.vertices), normals, np.asarray(mesh.uv), np.asarray(mesh.faces))
        tangents = jnp.asarray(vertex_tangents(*arrays))
    write(path, scene_from_parts((Part(mesh=mesh, tangents=tangents),)))


def _split_at_seams(mesh: Mesh) -> Mesh:
    whole = unified(mesh)
    by_vertex = {name: getattr(mesh, name) for name in ("vertices", "normals", "vertex_colors")}
    split = {name: None if values is None else np.asarray(values)[whole.source] for name, values in by_vertex.items()}
    split |= {"faces": whole.faces.astype(np.int32), "uv": whole.uv, "uv_faces": None}
    return dataclasses.replace(mesh, **split)  # type: ignore[arg-type]


def write(path: str | os.PathLike[str], scene: Scene) -> None:
    """Writes a scene; see `renderers.meshes.formats.write_scene`."""
    write_bytes_atomically(path, to_bytes(scene, os.fspath(path)))


def to_bytes(scene: Scene, where: str = "a .glb file") -> bytes:
    """The bytes of the .glb file; `where` names it in messages."""
    _require_valid(scene, where)
    buffers = Buffers()
    materials = MaterialWriter(buffers)
    primitives = [_primitive(part, buffers, materials) for part in scene.parts]
    document: Json = {"asset": {"version": "2.0", "generator": _GENERATOR}}
    meshes: dict[tuple, int] = {}
    nodes = [_node(node, scene, meshes) for node in scene.nodes]
    if scene.roots:
        document |= {"scene": 0, "scenes": [{"nodes": list(scene.roots)}]}
    lists: dict[str, list] = {
        "nodes": nodes,
        "meshes": [_mesh(parts, weights, scene, primitives) for parts, weights in meshes],
        "materials": materials.materials,
        "textures": materials.textures,
        "samplers": materials.samplers,
        "images": materials.images,
        "skins": [_skin(skin, buffers) for skin in scene.skins],
        "animations": [written for a in scene.animations if (written := _animation(a, buffers))["channels"]],
        "accessors": buffers.accessors,
        "bufferViews": buffers.views,
        "extensionsUsed": sorted(materials.extensions),
    }
    document |= {name: items for name, items in lists.items() if items}
    binary = buffers.content()
    if binary:
        document["buffers"] = [{"byteLength": len(binary)}]
    return _container(document, binary)


def _container(document: Json, binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    chunks = struct.pack("<II", len(text) + -len(text) % 4, JSON_CHUNK) + text + b" " * (-len(text) % 4)
    if binary:
        chunks += struct.pack("<II", len(binary), BIN_CHUNK) + binary
    if len(chunks) + 12 >= 1 << 32:
        raise FormatError(f"the file would have {len(chunks)} bytes; .glb files hold 4 GiB at most")
    return struct.pack("<III", GLB_MAGIC, 2, len(chunks) + 12) + chunks


def _require_valid(scene: Scene, where: str) -> None:
    for part in scene.parts:
        require_writable(where, part.mesh)
        if not len(part.mesh.faces):
            raise FormatError(f"cannot write {where}: glTF has no meshes without faces")
        _require_fitting(part, where)
    nodes, parts, skins = range(len(scene.nodes)), range(len(scene.parts)), range(len(scene.skins))
    named = [(node.children, nodes) for node in scene.nodes] + [(node.parts, parts) for node in scene.nodes]
    named += [((node.skin,), skins) for node in scene.nodes if node.skin is not None]
    named += [(skin.joints, nodes) for skin in scene.skins] + [(scene.roots, nodes)]
    named += [((skin.skeleton,), nodes) for skin in scene.skins if skin.skeleton is not None]
    named += [((channel.node,), nodes) for animation in scene.animations for channel in animation.channels]
    for indices, there in named:
        if not all(index in there for index in indices):
            raise FormatError(f"cannot write {where}: {indices} should be indices below {len(there)}")
    for node in scene.nodes:
        joints = [scene.parts[part].joints for part in node.parts]
        highest = max((int(np.asarray(values).max()) for values in joints if values is not None), default=-1)
        if node.skin is not None and highest >= len(scene.skins[node.skin].joints):
            raise FormatError(f"cannot write {where}: a vertex follows joint {highest}, which its skin does not have")
    try:
        shown_nodes(scene)
    except ValueError as error:
        raise FormatError(f"cannot write {where}: {error}") from None


def _require_fitting(part: Part, where: str) -> None:
    count = len(part.mesh.vertices)
    for name, axis in (("tangents", 0), ("joints", 0), ("weights", 0), ("morph_positions", 1), ("morph_normals", 1)):
        values = getattr(part, name)
        if values is not None and (values.shape[axis] != count or not np.isfinite(np.asarray(values)).all()):
            raise FormatError(f"cannot write {where}: {name} of shape {values.shape} do not fit {count} vertices")
    shapes = [None if values is None else values.shape for values in (part.joints, part.weights)]
    if shapes[0] != shapes[1] or (shapes[0] is not None and (len(shapes[0]) != 2 or shapes[0][1] % 4)):
        raise FormatError(f"cannot write {where}: expected joints and weights of one shape [v, 4 k], got {shapes}")


def _primitive(part: Part, buffers: Buffers, materials: MaterialWriter) -> Json:
    mesh, whole = part.mesh, unified(part.mesh)

    def rows(values) -> np.ndarray:
        return np.asarray(values, np.float32)[whole.source]

    attributes = {"POSITION": buffers.accessor(rows(mesh.vertices), ARRAY_BUFFER, bounds=True)}
    floats = {
        "NORMAL": None if mesh.normals is None else _unit(rows(mesh.normals), (0, 1, 0)),
        "TANGENT": None if part.tangents is None else _unit(rows(part.tangents), (1, 0, 0)),
        "TEXCOORD_0": None if whole.uv is None else _uv_downwards(whole.uv),
        "COLOR_0": None if mesh.vertex_colors is None else rows(mesh.vertex_colors),
    }
    for name, values in floats.items():
        if values is not None:
            attributes[name] = buffers.accessor(values, ARRAY_BUFFER)
    if part.joints is not None and part.weights is not None:
        weights = _shares(rows(part.weights))
        joints = np.where(weights > 0, np.asarray(part.joints)[whole.source], 0)
        joints = joints.astype(np.uint8 if joints.max() < 256 else np.uint16)
        for k in range(joints.shape[1] // 4):
            attributes[f"JOINTS_{k}"] = buffers.accessor(joints[:, 4 * k : 4 * k + 4], ARRAY_BUFFER)
            attributes[f"WEIGHTS_{k}"] = buffers.accessor(weights[:, 4 * k : 4 * k + 4], ARRAY_BUFFER)
    small = len(whole.source) <= _RESTART
    indices = whole.faces.reshape(-1).astype(np.uint16 if small else np.uint32)
    primitive: Json = {
        "attributes": attributes,
        "indices": buffers.accessor(indices, ELEMENT_ARRAY_BUFFER),
        "material": materials.index(part),
    }
    if part.morph_positions is not None:
        primitive["targets"] = _targets(part, whole.source, buffers)
    return primitive


def _targets(part: Part, source: np.ndarray, buffers: Buffers) -> list[Json]:
    targets = []
    for m, positions in enumerate(np.asarray(part.morph_positions, np.float32)):
        target = {"POSITION": buffers.accessor(positions[source], ARRAY_BUFFER, bounds=True)}
        if part.morph_normals is not None:
            normals = np.asarray(part.morph_normals[m], np.float32)
            target["NORMAL"] = buffers.accessor(normals[source], ARRAY_BUFFER)
        targets.append(target)
    return targets


def _uv_downwards(uv: np.ndarray) -> np.ndarray:
    return np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)


def _unit(directions: np.ndarray, otherwise: tuple[int, int, int]) -> np.ndarray:
    """Directions (a fourth column is a sign) of length one; those that already are stay as they are, to the bit."""
    length = np.linalg.norm(directions[:, :3].astype(np.float64), axis=1, keepdims=True)
    unit = np.where(length > 1e-12, directions[:, :3] / np.where(length > 1e-12, length, 1), otherwise)
    fixed = directions.copy()
    fixed[:, :3] = np.where(np.abs(length - 1) > _NOT_UNIT / 2, unit, directions[:, :3])
    fixed[:, 3:] = np.where(directions[:, 3:] < 0, -1, 1)
    return fixed


def _shares(weights: np.ndarray) -> np.ndarray:
    """Weights that are positive and add up to one; rows that already do stay as they are, to the bit."""
    weights = np.maximum(weights, 0)
    total = weights.sum(axis=1, keepdims=True, dtype=np.float64)
    lost = total[:, 0] == 0
    weights[lost, 0], total[lost] = 1, 1
    off = np.abs(total - 1) > _WEIGHT_ERROR * np.maximum((weights > 0).sum(axis=1, keepdims=True), 1)
    return np.where(off, weights / total, weights).astype(np.float32)


def _node(node: Node, scene: Scene, meshes: dict[tuple, int]) -> Json:
    written: Json = {"name": node.name} if node.name else {}
    if node.matrix is not None:
        written["matrix"] = plain(np.asarray(node.matrix).T.reshape(-1))
    else:
        w, x, y, z = np.asarray(node.rotation, np.float32)
        for name, values, rest in (("translation", node.translation, 0), ("rotation", np.stack([x, y, z, w]), None),
                                   ("scale", node.scale, 1)):  # fmt: skip
            default = [0, 0, 0, 1] if rest is None else [rest] * 3
            if not np.array_equal(np.asarray(values), default):
                written[name] = plain(values)
    if node.children:
        written["children"] = list(node.children)
    if node.parts:
        weights = None if node.morph_weights is None else tuple(plain(node.morph_weights))  # type: ignore[arg-type]
        written["mesh"] = meshes.setdefault((node.parts, weights), len(meshes))
        if node.skin is not None and all(scene.parts[part].joints is not None for part in node.parts):
            written["skin"] = node.skin
    return written


def _mesh(parts: tuple[int, ...], weights: tuple | None, scene: Scene, primitives: list[Json]) -> Json:
    name = scene.parts[parts[0]].name
    mesh: Json = {"name": name} if name else {}
    mesh["primitives"] = [primitives[part] for part in parts]
    return mesh | ({} if weights is None else {"weights": list(weights)})


def _skin(skin: Skin, buffers: Buffers) -> Json:
    matrices = np.asarray(skin.joint_from_mesh, np.float32).transpose(0, 2, 1).reshape(-1, 16)
    written: Json = {"name": skin.name} if skin.name else {}
    written |= {"inverseBindMatrices": buffers.accessor(matrices), "joints": list(skin.joints)}
    return written | ({} if skin.skeleton is None else {"skeleton": skin.skeleton})


def _animation(animation, buffers: Buffers) -> Json:
    written: Json = {"name": animation.name} if animation.name else {}
    samplers, channels = [], []
    for channel in animation.channels:
        runs = [np.asarray(channel.values, np.float32)]
        if channel.interpolation == "CUBICSPLINE":
            runs = [np.asarray(channel.in_tangents), runs[0], np.asarray(channel.out_tangents)]
        values = np.stack(runs, axis=1).astype(np.float32)
        if channel.path == "rotation":
            values = np.roll(values, -1, axis=2)
        values = values.reshape(-1, 1 if channel.path == "weights" else values.shape[2])
        times = buffers.accessor(np.asarray(channel.times, np.float32), bounds=True)
        sampler = {"input": times, "output": buffers.accessor(values), "interpolation": channel.interpolation}
        if sampler not in samplers:
            samplers.append(sampler)
        target = {"node": channel.node, "path": channel.path}
        channels.append({"sampler": samplers.index(sampler), "target": target})
    return written | {"samplers": samplers, "channels": channels}
