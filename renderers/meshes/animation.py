"""Poses of a Scene over time: interpolated channels, the transforms of nodes, and linear-blend skinning.

Interpolation after glTF 2.0, appendix C; skinning after section 3.7.3.3: a vertex is moved by the weighted sum of
`world_from_joint @ joint_from_mesh`.
"""

import dataclasses
import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from renderers.meshes.mesh import Mesh, unit_or_zero
from renderers.meshes.scene import Animation, Channel, Interpolation, Scene, shown_nodes

_SMALLEST_LENGTH_SQUARED = 1e-30
_NEARLY_PARALLEL = 0.9995  # cosine above which the spherical and the normalised linear interpolation agree in float32


def unit_quaternion(quaternion: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """A quaternion of length one; the identity, with zero gradient, for one of length zero."""
    squared = jnp.sum(quaternion * quaternion, axis=-1, keepdims=True)
    some = squared > _SMALLEST_LENGTH_SQUARED
    unit = quaternion / jnp.sqrt(jnp.where(some, squared, 1.0))
    return jnp.where(some, unit, jnp.array([1, 0, 0, 0], unit.dtype).reshape((1,) * (unit.ndim - 1) + (4,)))


def slerp(start: Float[Array, " 4"], end: Float[Array, " 4"], fraction: Float[Array, ""]) -> Float[Array, " 4"]:
    """Unit quaternion `fraction` of the shorter way from one unit quaternion to another (Shoemake, 1985)."""
    cosine = jnp.sum(start * end)
    end = jnp.where(cosine < 0, -end, end)
    cosine = jnp.abs(cosine)
    near = cosine > _NEARLY_PARALLEL
    angle = jnp.arccos(jnp.where(near, 0.0, cosine))
    sine = jnp.sin(angle)
    a = jnp.where(near, 1 - fraction, jnp.sin((1 - fraction) * angle) / sine)
    b = jnp.where(near, fraction, jnp.sin(fraction * angle) / sine)
    return unit_quaternion(a * start + b * end)


def sample_channel(channel: Channel, time: Float[Array, ""]) -> Float[Array, " c"]:
    """The channel's value at `time` in seconds, held before the first and after the last keyframe.

    Differentiable in time between keyframes and in the values.
    """
    leave, arrive = (_or_zeros(tangents, channel.values) for tangents in (channel.out_tangents, channel.in_tangents))
    arrays = (channel.times, channel.values, arrive, leave)
    return _sample(*arrays, time, channel.interpolation, channel.path == "rotation")


def _or_zeros(tangents: Array | None, values: Array) -> Array:
    return jnp.zeros_like(values) if tangents is None else tangents


def _sample(times, values, arrive, leave, time, interpolation: Interpolation, rotation: bool) -> Float[Array, " c"]:
    """Value at `time` of keyframes [k] with values [k c] and, for CUBICSPLINE, tangents of that shape."""
    last = len(times) - 1
    after = jnp.minimum(jnp.clip(jnp.searchsorted(times, time, side="right"), 1, max(last, 1)), last)
    before = jnp.maximum(after - 1, 0)
    length = times[after] - times[before]
    t = jnp.clip((time - times[before]) / jnp.where(length > 0, length, 1), 0, 1)
    start, end = values[before], values[after]
    if interpolation == "STEP":
        value = jnp.where(t >= 1, end, start)
    elif interpolation == "CUBICSPLINE":
        squared, cubed = t * t, t * t * t
        value = (
            (2 * cubed - 3 * squared + 1) * start + (cubed - 2 * squared + t) * length * leave[before]
            + (3 * squared - 2 * cubed) * end + (cubed - squared) * length * arrive[after]
        )  # fmt: skip
    elif rotation:
        value = slerp(unit_quaternion(start), unit_quaternion(end), t)
    else:
        value = (1 - t) * start + t * end
    return unit_quaternion(value) if rotation else value


def duration(animation: Animation) -> float:
    """Time of the last keyframe in seconds."""
    return max((float(channel.times[-1]) for channel in animation.channels), default=0.0)


def posed(scene: Scene, animation: Animation, time: Float[Array, ""] | float) -> Scene:
    """The scene with the animated properties of its nodes replaced by their values at `time`, in seconds.

    Jit it where many moments are wanted.
    """
    time = jnp.asarray(time, jnp.float32)
    # channels of one shape are sampled together: models have hundreds
    groups: dict[tuple, list[Channel]] = {}
    for channel in animation.channels:
        key = (channel.interpolation, channel.path == "rotation", channel.values.shape)
        groups.setdefault(key, []).append(channel)
    changes: dict[int, dict[str, Array]] = {}
    names = {"weights": "morph_weights"}
    for (interpolation, rotation, _), channels in groups.items():
        times, values = (jnp.stack([getattr(channel, name) for channel in channels]) for name in ("times", "values"))
        arrive, leave = (
            jnp.stack([_or_zeros(getattr(channel, name), channel.values) for channel in channels])
            for name in ("in_tangents", "out_tangents")
        )
        sample = functools.partial(_sample, time=time, interpolation=interpolation, rotation=rotation)
        for channel, value in zip(channels, jax.vmap(sample)(times, values, arrive, leave), strict=True):
            changes.setdefault(channel.node, {})[names.get(channel.path, channel.path)] = value
    nodes = list(scene.nodes)
    for index, change in changes.items():
        nodes[index] = dataclasses.replace(nodes[index], **change)  # type: ignore[arg-type]
    return dataclasses.replace(scene, nodes=tuple(nodes))


def parent_from_nodes(scene: Scene) -> Float[Array, "n 4 4"]:
    """Every node's own transform, differentiable in the nodes' arrays."""
    q = unit_quaternion(jnp.stack([node.rotation for node in scene.nodes]))
    w, x, y, z = (q[:, k] for k in range(4))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotation = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    linear = rotation * jnp.stack([node.scale for node in scene.nodes])[:, None, :]
    upper = jnp.concatenate([linear, jnp.stack([node.translation for node in scene.nodes])[:, :, None]], axis=-1)
    last = jnp.broadcast_to(jnp.array([0, 0, 0, 1], upper.dtype), (len(upper), 1, 4))
    local = jnp.concatenate([upper, last], axis=1)
    given = [i for i, node in enumerate(scene.nodes) if node.matrix is not None]
    if given:
        local = local.at[jnp.array(given, jnp.int32)].set(
            jnp.stack([cast(Array, scene.nodes[i].matrix) for i in given])
        )
    return local


def world_from_nodes(scene: Scene) -> Float[Array, "n 4 4"]:
    """Every node's transform to the world, differentiable; identities for nodes that are not below a root."""
    local = parent_from_nodes(scene)
    depth: dict[int, int] = {}
    levels: dict[int, list[tuple[int, int]]] = {}
    for index, parent in shown_nodes(scene):
        depth[index] = 0 if parent is None else depth[parent] + 1
        levels.setdefault(depth[index], []).append((index, index if parent is None else parent))
    world = jnp.broadcast_to(jnp.eye(4, dtype=local.dtype), local.shape)
    for level, pairs in sorted(levels.items()):
        nodes, parents = (np.array(side, np.int32) for side in zip(*pairs, strict=True))
        world = world.at[nodes].set(local[nodes] if level == 0 else world[parents] @ local[nodes])
    return world


def skinning_transforms(scene: Scene, world: Float[Array, "n 4 4"], node: int) -> Float[Array, "j 4 4"]:
    """world_from_mesh of each joint of the node's skin: the joint's transform after its inverse bind matrix."""
    skin = scene.skins[cast(int, scene.nodes[node].skin)]
    return world[np.array(skin.joints, np.int32)] @ skin.joint_from_mesh


def deformed_mesh(scene: Scene, world: Float[Array, "n 4 4"], node: int, part: int) -> Mesh:
    """A part as shown by a node, in world coordinates: morphed, skinned or placed. Differentiable.

    Args:
        scene: perhaps one that `posed` returned.
        world: `world_from_nodes(scene)`.
        node: index of a node that shows the part.
        part: index of the part.

    Returns:
        The part's mesh with new vertices and normals; faces that mirroring turned inside out are not turned back.
    """
    source = scene.parts[part]
    vertices, normals = _morphed(scene, node, part)
    if scene.nodes[node].skin is not None and source.joints is not None:
        matrices = skinning_transforms(scene, world, node)
        blend = jnp.einsum("vk,vkij->vij", source.weights, matrices[source.joints])
        # files round their weights; the sum of a vertex's is its last entry
        blend = blend / jnp.where(blend[:, 3:, 3:] > 0, blend[:, 3:, 3:], 1)
    else:
        blend = jnp.broadcast_to(world[node], (len(vertices), 4, 4))
    placed = jnp.einsum("vij,vj->vi", blend[:, :3, :3], vertices) + blend[:, :3, 3]
    if normals is not None:
        normals = unit_or_zero(jnp.einsum("vij,vj->vi", _cofactors(blend[:, :3, :3]), normals))
    return dataclasses.replace(source.mesh, vertices=placed, normals=normals)


def _morphed(scene: Scene, node: int, part: int) -> tuple[Array, Array | None]:
    source, weights = scene.parts[part], scene.nodes[node].morph_weights
    vertices, normals = source.mesh.vertices, source.mesh.normals
    if weights is not None and source.morph_positions is not None:
        vertices = vertices + jnp.einsum("m,mvi->vi", weights, source.morph_positions)
        if normals is not None and source.morph_normals is not None:
            normals = normals + jnp.einsum("m,mvi->vi", weights, source.morph_normals)
    return vertices, normals


def _cofactors(matrices: Float[Array, "*n 3 3"]) -> Float[Array, "*n 3 3"]:
    """|Determinant| times inverse transpose: what normals turn by, also where a matrix is singular."""
    a, b, c = (matrices[..., :, k] for k in range(3))
    cofactors = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-1)
    determinant = jnp.sum(a * cofactors[..., :, 0], axis=-1)
    return jnp.where(determinant[..., None, None] < 0, -cofactors, cofactors)


# hostile transforms overflow; `merged` refuses what comes of them
@np.errstate(over="ignore", invalid="ignore")
def rest_geometry(
    scene: Scene, world: dict[int, np.ndarray], node: int, part: int
) -> tuple[Float[np.ndarray, "v 3"], np.ndarray, Float[np.ndarray, "v 3"] | None]:
    """Vertices, faces and normals of a part in world coordinates at rest, faces counter-clockwise from outside.

    Vertices are exactly those of the file where the node's transform is the identity. Runs on the host.

    Args:
        scene: the scene.
        world: world_from_node in float64, by node (`rest_transforms`).
        node: index of a node that shows the part.
        part: index of the part.
    """
    source = scene.parts[part]
    vertices, normals = (None if a is None else np.asarray(a) for a in _morphed(scene, node, part))
    assert vertices is not None
    faces = np.asarray(source.mesh.faces)
    index = scene.nodes[node].skin
    skin = None if index is None else scene.skins[index]
    if skin is not None and source.joints is not None:
        missing = [joint for joint in skin.joints if joint not in world]
        own = world | dict.fromkeys(missing, np.eye(4))
        matrices = np.stack([own[joint] for joint in skin.joints]) @ np.asarray(skin.joint_from_mesh, np.float64)
        blend = np.zeros((len(vertices), 4, 4))
        for k in range(source.joints.shape[1]):
            share = np.asarray(source.weights, np.float64)[:, k, None, None]
            blend += share * matrices[np.asarray(source.joints)[:, k]]
        blend /= np.where(blend[:, 3:, 3:] > 0, blend[:, 3:, 3:], 1)
    elif np.array_equal(world[node], np.eye(4)):
        return vertices, faces, normals
    else:
        blend = world[node][None]
    linear = blend[:, :3, :3]
    placed = (linear @ vertices.astype(np.float64)[:, :, None])[:, :, 0] + blend[:, :3, 3]
    flipped = np.linalg.det(linear) < 0
    if normals is not None:
        a, b, c = (linear[:, :, k] for k in range(3))
        cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-1)
        cofactors = np.where(flipped[:, None, None], -cofactors, cofactors)
        normals = (cofactors @ normals.astype(np.float64)[:, :, None])[:, :, 0]
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = (normals / np.where(length > 0, length, 1)).astype(np.float32)
    if flipped.mean() > 0.5:
        faces = faces[:, [0, 2, 1]]
    return placed.astype(np.float32), faces, normals
