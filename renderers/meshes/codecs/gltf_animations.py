"""glTF skins and animations as records (glTF 2.0, 3.7.3 and 3.11)."""

import jax.numpy as jnp
import numpy as np

from renderers.meshes.codecs import gltf_json
from renderers.meshes.codecs.gltf_accessors import Accessors
from renderers.meshes.codecs.gltf_json import Json
from renderers.meshes.scene import Animation, Channel, Skin
from renderers.ply_header import Damaged

_TYPES = {"translation": ("VEC3",), "rotation": ("VEC4",), "scale": ("VEC3",), "weights": ("SCALAR",)}


def read_skins(document: Json, accessors: Accessors, parents: dict[int, int], notes: list[str]) -> tuple[Skin, ...]:
    """The skins of a document; without inverse bind matrices they are identities.

    A skeleton root that is not above all joints, as some exporters name it, is left out.
    """
    num_nodes = len(gltf_json.objects(document, "nodes"))
    skins = []
    for i, source in enumerate(gltf_json.objects(document, "skins")):
        joints = gltf_json.indices(source, "joints", num_nodes)
        accessor = gltf_json.index(source, "inverseBindMatrices", len(accessors))
        if accessor is None:
            matrices = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
        else:
            matrices = accessors.floats(accessor, ("MAT4",)).reshape(-1, 4, 4).transpose(0, 2, 1)
        if not joints or len(matrices) < len(joints):
            raise Damaged(f"skin {i} has {len(joints)} joints and {len(matrices)} inverse bind matrices")
        skeleton = gltf_json.index(source, "skeleton", num_nodes)
        if skeleton is not None and not all(_is_below(joint, skeleton, parents) for joint in set(joints)):
            notes.append(f"skin {i}: its skeleton root is not above all of its joints and is ignored")
            skeleton = None
        skins.append(
            Skin(
                joint_from_mesh=jnp.array(matrices[: len(joints)]),
                joints=joints,
                skeleton=skeleton,
                name=gltf_json.text(source, "name"),
            )
        )
    return tuple(skins)


def _is_below(node: int | None, ancestor: int, parents: dict[int, int]) -> bool:
    while node is not None and node != ancestor:
        node = parents.get(node)
    return node is not None


def read_animations(document: Json, accessors: Accessors, notes: list[str]) -> tuple[Animation, ...]:
    """The animations of a document; channels of things that scenes do not hold leave a note."""
    num_nodes = len(gltf_json.objects(document, "nodes"))
    animations = []
    for i, source in enumerate(gltf_json.objects(document, "animations")):
        samplers = gltf_json.objects(source, "samplers")
        channels = []
        for channel in gltf_json.objects(source, "channels"):
            target = gltf_json.child(channel, "target")
            node, path = gltf_json.index(target, "node", num_nodes), gltf_json.text(target, "path")
            if node is None or path not in _TYPES:
                notes.append(f"animation {i}: a channel of {path[:40]!r} is ignored")
                continue
            sampler = samplers[gltf_json.integer(channel, "sampler", None, 0, len(samplers) - 1)]
            channels.append(_channel(sampler, accessors, node, path, f"animation {i}"))
        animations.append(Animation(channels=tuple(channels), name=gltf_json.text(source, "name")))
    return tuple(animations)


def _channel(sampler: Json, accessors: Accessors, node: int, path: str, what: str) -> Channel:
    interpolation = gltf_json.text(sampler, "interpolation", "LINEAR")
    if interpolation not in ("LINEAR", "STEP", "CUBICSPLINE"):
        raise Damaged(f"{what} has the unknown interpolation {interpolation[:20]!r}")
    last = len(accessors) - 1
    times = accessors.floats(gltf_json.integer(sampler, "input", None, 0, last), ("SCALAR",))[:, 0]
    values = accessors.floats(gltf_json.integer(sampler, "output", None, 0, last), _TYPES[path])
    if (np.diff(times) <= 0).any() or times[0] < 0:
        raise Damaged(f"{what} has keyframes that are not in order")
    runs = 3 if interpolation == "CUBICSPLINE" else 1
    if values.size % (len(times) * runs):
        raise Damaged(f"{what} has {len(times)} keyframes, but {values.size} numbers for them")
    values = values.reshape(len(times), runs, -1)
    if path != "weights" and values.shape[2] != (4 if path == "rotation" else 3):
        raise Damaged(f"{what} has {len(times)} keyframes, but {len(values) * values.shape[2]} numbers for them")
    if path == "rotation":
        values = np.roll(values, 1, axis=2)
    middle, (before, after) = runs // 2, (0, runs - 1)
    return Channel(
        times=jnp.array(times),
        values=jnp.array(values[:, middle]),
        in_tangents=jnp.array(values[:, before]) if runs == 3 else None,
        out_tangents=jnp.array(values[:, after]) if runs == 3 else None,
        node=node,
        path=path,  # type: ignore[arg-type]
        interpolation=interpolation,  # type: ignore[arg-type]
    )
