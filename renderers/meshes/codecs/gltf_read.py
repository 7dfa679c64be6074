"""Reads glTF 2.0 (.glb, or .gltf with files beside it or inside) into a Scene.

Supported beyond the core: KHR_mesh_quantization, KHR_texture_transform, KHR_materials_emissive_strength,
KHR_materials_pbrSpecularGlossiness (approximately), EXT_texture_webp, KHR_materials_unlit (as any other material).
Other extensions leave a note if the file can be read without them, and refuse it by name if not.
"""

import os
import pathlib

import jax.numpy as jnp
import numpy as np

from renderers.files import read_bytes
from renderers.meshes.codecs import gltf_json
from renderers.meshes.codecs.gltf_accessors import Accessors
from renderers.meshes.codecs.gltf_animations import read_animations, read_skins
from renderers.meshes.codecs.gltf_json import Json
from renderers.meshes.codecs.gltf_materials import Materials
from renderers.meshes.codecs.gltf_primitives import Primitives
from renderers.meshes.scene import Node, Scene, shown_nodes
from renderers.ply_header import Damaged

_SUPPORTED = {
    *("KHR_mesh_quantization", "KHR_texture_transform", "KHR_materials_unlit", "KHR_materials_emissive_strength"),
    *("KHR_materials_pbrSpecularGlossiness", "EXT_texture_webp", "KHR_materials_variants", "KHR_lights_punctual"),
}
_REMEDIES = {
    "KHR_draco_mesh_compression": "decompress it, for instance with `gltf-transform copy in.glb out.glb`",
    "EXT_meshopt_compression": "decompress it, for instance with `gltf-transform copy in.glb out.glb`",
    "KHR_texture_basisu": "convert its KTX2 images, for instance with `gltf-transform ktxdecompress in.glb out.glb`",
}


def read(path: str | os.PathLike[str]) -> Scene:
    """Reads a .glb or .gltf file; raises Damaged or FormatError (see `renderers.meshes.formats.read_scene`)."""
    return from_bytes(read_bytes(path), pathlib.Path(path).parent)


def from_bytes(content: bytes, folder: pathlib.Path | None) -> Scene:
    """Reads the bytes of such a file, whose other files lie in `folder`."""
    document, binary = gltf_json.parse_container(content)
    notes: list[str] = []
    _check_extensions(document, notes)
    accessors = Accessors(document, binary, folder)
    primitives = Primitives(document, accessors, Materials(document, accessors, folder, notes), notes)
    parents = _parents(document)
    nodes = tuple(_node(source, document, primitives) for source in gltf_json.objects(document, "nodes"))
    if gltf_json.objects(document, "cameras"):
        notes.append("its cameras are ignored")
    scene = Scene(
        parts=tuple(primitives.parts),
        nodes=nodes,
        skins=read_skins(document, accessors, parents, notes),
        animations=read_animations(document, accessors, notes),
        roots=_roots(document, nodes, notes),
        notes=tuple(dict.fromkeys(notes)),
    )
    try:
        shown_nodes(scene)
    except ValueError as error:
        raise Damaged(str(error)) from None
    for i, node in enumerate(nodes):
        skin = scene.skins[node.skin] if node.skin is not None else None
        for part in (scene.parts[p] for p in node.parts):
            if skin and part.joints is not None and int(np.asarray(part.joints).max()) >= len(skin.joints):
                raise Damaged(f"node {i} shows a vertex that follows a joint its skin of {len(skin.joints)} lacks")
    return scene


def _check_extensions(document: Json, notes: list[str]) -> None:
    for key in ("extensionsRequired", "extensionsUsed"):
        names = document.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Damaged(f"`{key}` is not a list of names")
        for name in names:
            if name in _SUPPORTED:
                continue
            if key == "extensionsRequired":
                remedy = _REMEDIES.get(name, "export it without that extension")
                raise Damaged(f"it needs the glTF extension {name[:60]}, which is not supported: {remedy}")
            notes.append(f"the extension {name[:60]} is ignored")


def _parents(document: Json) -> dict[int, int]:
    """Parents by node; raises Damaged unless the nodes form trees."""
    sources = gltf_json.objects(document, "nodes")
    parents: dict[int, int] = {}
    for i, source in enumerate(sources):
        for child in gltf_json.indices(source, "children", len(sources)):
            if child in parents or child == i:
                raise Damaged(f"node {child} has two parents: nodes must form trees")
            parents[child] = i
    _refuse_cycles(parents)
    return parents


def _node(source: Json, document: Json, primitives: Primitives) -> Node:
    mesh = gltf_json.index(source, "mesh", len(primitives))
    parts, weights = primitives.of_mesh(mesh) if mesh is not None else ((), None)
    if "weights" in source and weights is not None:
        weights = gltf_json.numbers(source, "weights", (0.0,) * len(weights))
    matrix = None
    if "matrix" in source:
        matrix = jnp.asarray(gltf_json.numbers(source, "matrix", tuple(np.eye(4).ravel())).reshape(4, 4).T)
    x, y, z, w = gltf_json.numbers(source, "rotation", (0.0, 0.0, 0.0, 1.0))
    return Node(
        translation=jnp.asarray(gltf_json.numbers(source, "translation", (0.0, 0.0, 0.0))),
        rotation=jnp.asarray(np.stack([w, x, y, z])),
        scale=jnp.asarray(gltf_json.numbers(source, "scale", (1.0, 1.0, 1.0))),
        matrix=matrix,
        morph_weights=None if weights is None else jnp.asarray(weights),
        children=gltf_json.indices(source, "children", len(gltf_json.objects(document, "nodes"))),
        parts=parts,
        skin=gltf_json.index(source, "skin", len(gltf_json.objects(document, "skins"))),
        name=gltf_json.text(source, "name"),
    )


def _refuse_cycles(parents: dict[int, int]) -> None:
    rooted: set[int] = set()
    for start in parents:
        chain, at = [], start
        while at in parents and at not in rooted:
            chain.append(at)
            at = parents[at]
            if len(chain) > len(parents):
                raise Damaged(f"node {at} is its own ancestor: nodes must form trees")
        rooted.update(chain)


def _roots(document: Json, nodes: tuple[Node, ...], notes: list[str]) -> tuple[int, ...]:
    scenes = gltf_json.objects(document, "scenes")
    if len(scenes) > 1:
        notes.append(f"of its {len(scenes)} scenes only the default one is shown")
    if not scenes:
        children = {child for node in nodes for child in node.children}
        return tuple(i for i in range(len(nodes)) if i not in children)
    return gltf_json.indices(scenes[gltf_json.integer(document, "scene", 0, 0, len(scenes) - 1)], "nodes", len(nodes))
