"""The Scene record: parts (meshes of one material each), the tree of nodes that places them, skins and animations.

What glTF 2.0 holds, in this project's conventions (sections 3.5 to 3.11 of that specification): quaternions wxyz, uv
with v up, transposed matrices. `merged` makes one Mesh of a Scene.
"""

import dataclasses
import typing
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from renderers.files import FormatError
from renderers.meshes import atlas
from renderers.meshes.mesh import Mesh

Wrap = Literal["repeat", "mirror", "clamp"]
Filter = Literal["linear", "nearest"]
Path = Literal["translation", "rotation", "scale", "weights"]
Interpolation = Literal["LINEAR", "STEP", "CUBICSPLINE"]

MAX_MERGED_VERTICES = 1 << 28
"""Scenes whose instances add up to more are not merged."""


def _static(default: typing.Any = dataclasses.MISSING) -> typing.Any:
    return dataclasses.field(default=default, metadata=dict(static=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Part:
    """A mesh of one material with what deforms it.

    Attributes:
      mesh: geometry and material in the frame of the node that shows it.
      tangents: unit tangents and the sign of the bitangent, for normal maps; None: from uv.
      joints: which joints of the node's skin move a vertex, `k` a multiple of 4; 0 where the weight is 0.
      weights: how much, adding up to one.
      morph_positions: offsets of positions by morph target.
      morph_normals: offsets of normals by morph target.
      name: of the mesh it belongs to.
      wrap: what uv outside the unit square means, along u and v.
      filter: how textures are magnified.
    """

    mesh: Mesh
    tangents: Float[Array, "v 4"] | None = None
    joints: Int[Array, "v k"] | None = None
    weights: Float[Array, "v k"] | None = None
    morph_positions: Float[Array, "m v 3"] | None = None
    morph_normals: Float[Array, "m v 3"] | None = None
    name: str = _static("")
    wrap: tuple[Wrap, Wrap] = _static(("repeat", "repeat"))
    filter: Filter = _static("linear")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Node:
    """A frame in the tree: `parent_from_node = translation @ rotation @ scale`, or `matrix` where that is given.

    Attributes:
      translation: in the parent's frame.
      rotation: unit quaternion wxyz.
      scale: along the node's axes, before the rotation.
      matrix: parent_from_node in full, for transforms that are no such product; the three others are then ignored.
      morph_weights: of the morph targets of its parts at rest.
      children: indices of nodes.
      parts: indices of the parts shown here.
      skin: index of the skin that moves them; the node's own transform then has no effect on them.
      name: as in the file.
    """

    translation: Float[Array, " 3"]
    rotation: Float[Array, " 4"]
    scale: Float[Array, " 3"]
    matrix: Float[Array, "4 4"] | None = None
    morph_weights: Float[Array, " m"] | None = None
    children: tuple[int, ...] = _static(())
    parts: tuple[int, ...] = _static(())
    skin: int | None = _static(None)
    name: str = _static("")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Skin:
    """Nodes that act as joints, and the transforms from the skinned mesh into each at rest.

    Attributes:
      joint_from_mesh: the inverse bind matrices.
      joints: indices of nodes.
      skeleton: index of the node at the root, if the file names it.
      name: as in the file.
    """

    joint_from_mesh: Float[Array, "j 4 4"]
    joints: tuple[int, ...] = _static()
    skeleton: int | None = _static(None)
    name: str = _static("")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Channel:
    """One property of one node over time.

    Attributes:
      times: of the keyframes in seconds, ascending.
      values: at the keyframes; rotations are quaternions wxyz.
      in_tangents: for CUBICSPLINE, the derivative by time before each keyframe; else None.
      out_tangents: that after each keyframe.
      node: index of the node.
      path: which property.
      interpolation: between keyframes; rotations are interpolated spherically under LINEAR.
    """

    times: Float[Array, " k"]
    values: Float[Array, "k c"]
    in_tangents: Float[Array, "k c"] | None = None
    out_tangents: Float[Array, "k c"] | None = None
    node: int = _static()
    path: Path = _static()
    interpolation: Interpolation = _static("LINEAR")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Animation:
    """Channels that play together."""

    channels: tuple[Channel, ...]
    name: str = _static("")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Scene:
    """Parts, placed by a forest of nodes.

    Attributes:
      parts: what can be shown; a part shown by several nodes appears several times.
      nodes: every node of the file, whether below a root or not.
      skins: see Skin.
      animations: see Animation.
      roots: indices of the nodes whose subtrees are the scene.
      notes: one line for each thing in the file that this record does not hold.
    """

    parts: tuple[Part, ...]
    nodes: tuple[Node, ...]
    skins: tuple[Skin, ...] = ()
    animations: tuple[Animation, ...] = ()
    roots: tuple[int, ...] = _static(())
    notes: tuple[str, ...] = _static(())


def plain_node(*, name: str = "", parts=(), children=(), skin=None, translation=(0.0, 0.0, 0.0)) -> Node:
    """A node without rotation and scale."""
    return Node(
        translation=jnp.asarray(translation, jnp.float32),
        rotation=jnp.array([1, 0, 0, 0], jnp.float32),
        scale=jnp.ones(3, jnp.float32),
        children=tuple(children), parts=tuple(parts), skin=skin, name=name,
    )  # fmt: skip


def scene_from_parts(parts: tuple[Part, ...], notes: tuple[str, ...] = ()) -> Scene:
    """A scene that shows each part once, in its own frame."""
    nodes = tuple(plain_node(name=part.name, parts=(i,)) for i, part in enumerate(parts))
    return Scene(parts=parts, nodes=nodes, roots=tuple(range(len(nodes))), notes=notes)


def matrix_from_parts(translation: np.ndarray, rotation: np.ndarray, scale: np.ndarray) -> Float[np.ndarray, "4 4"]:
    """Translation @ rotation @ scale in float64; a quaternion of length zero is no rotation."""
    length = np.linalg.norm(rotation)
    w, x, y, z = rotation / length if length > 0 else (1.0, 0.0, 0.0, 0.0)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= scale
    matrix[:3, 3] = translation
    return matrix


def shown_nodes(scene: Scene) -> list[tuple[int, int | None]]:
    """Nodes below the roots with their parents, parents first.

    Raises:
        ValueError: if the nodes are not a forest: one is reached twice.
    """
    order: list[tuple[int, int | None]] = [(root, None) for root in scene.roots]
    seen = set(scene.roots)
    for at, (index, _) in enumerate(order):  # grows while it is walked
        for child in scene.nodes[index].children:
            if child in seen or at > len(scene.nodes):
                raise ValueError(f"node {child} is reached twice: nodes must form trees")
            seen.add(child)
            order.append((child, index))
    return order


# hostile transforms overflow; `merged` refuses what comes of them
@np.errstate(over="ignore", invalid="ignore")
def rest_transforms(scene: Scene) -> dict[int, Float[np.ndarray, "4 4"]]:
    """world_from_node at rest, in float64, of every node below the roots. Runs on the host."""
    world: dict[int, np.ndarray] = {}
    for index, parent in shown_nodes(scene):
        node = scene.nodes[index]
        if node.matrix is not None:
            local = np.asarray(node.matrix, np.float64)
        else:
            local = matrix_from_parts(
                *(np.asarray(v, np.float64) for v in (node.translation, node.rotation, node.scale))
            )
        world[index] = local if parent is None else world[parent] @ local
    return world


def merged(scene: Scene, *, max_texels: int = 1 << 26) -> Mesh:
    """The whole scene as one mesh in world coordinates, in its rest pose. Runs on the host.

    Transforms that mirror turn faces over, so that they stay counter-clockwise seen from outside. Skinned parts are
    moved by their joints as these stand, morphed ones by their nodes' weights: a moment of an animation is
    `merged(animation.posed(scene, clip, time))`. Several materials become one: their textures are packed into an atlas
    and their factors are baked in (`atlas.combined`).

    Args:
        scene: what to merge.
        max_texels: of each texture of the atlas; textures are halved until it fits.

    Raises:
        FormatError: if nothing is shown, the instances add up to more than `MAX_MERGED_VERTICES`, or a vertex ends up
            beyond float32.
    """
    from renderers.meshes.animation import rest_geometry

    shown = [(index, part) for index, _ in shown_nodes(scene) for part in scene.nodes[index].parts]
    if not shown:
        raise FormatError("the scene shows no triangles")
    if sum(len(scene.parts[part].mesh.vertices) for _, part in shown) > MAX_MERGED_VERTICES:
        raise FormatError(f"the scene shows more than {MAX_MERGED_VERTICES} vertices")
    world = rest_transforms(scene)
    pieces = [rest_geometry(scene, world, index, part) for index, part in shown]
    for (index, _), (vertices, _, _) in zip(shown, pieces, strict=True):
        if not np.isfinite(vertices).all():
            raise FormatError(f"node {index} puts vertices beyond what float32 can hold")
    if len(pieces) == 1:
        ((vertices, faces, normals),), mesh = pieces, scene.parts[shown[0][1]].mesh
        part = scene.parts[shown[0][1]]
        if part.wrap == ("repeat", "repeat") or mesh.texture is None:
            return dataclasses.replace(
                mesh,
                vertices=jnp.asarray(vertices),
                faces=jnp.asarray(faces),
                uv_faces=None if mesh.uv_faces is None else _like(mesh.uv_faces, mesh.faces, faces),
                normals=None if normals is None else jnp.asarray(normals),
            )
    return _joined(scene, [part for _, part in shown], pieces, max_texels)


def _like(uv_faces, faces, turned: np.ndarray) -> Array:
    """`uv_faces` with corners in the order that turning the faces over gave them."""
    uv_faces = np.asarray(uv_faces)
    return jnp.asarray(uv_faces if np.array_equal(faces, turned) else uv_faces[:, [0, 2, 1]])


def _joined(scene: Scene, shown: list[int], pieces: list, max_texels: int) -> Mesh:
    meshes = [scene.parts[part].mesh for part in shown]
    surfaces = [
        atlas.Surface(
            uv=None if mesh.uv is None else np.asarray(mesh.uv),
            uv_faces=faces if mesh.uv_faces is None else np.asarray(_like(mesh.uv_faces, mesh.faces, faces)),
            texture=mesh.texture,
            material=mesh.material,
            wrap=scene.parts[part].wrap,
        )
        for mesh, part, (_, faces, _) in zip(meshes, shown, pieces, strict=True)
    ]
    look = atlas.combined(surfaces, max_texels=max_texels)
    starts = np.cumsum([0] + [len(vertices) for vertices, _, _ in pieces])
    faces = np.concatenate([faces + start for (_, faces, _), start in zip(pieces, starts, strict=False)])
    uv_faces = None if look.uv_faces is None or np.array_equal(look.uv_faces, faces) else jnp.asarray(look.uv_faces)
    normals = None
    if all(piece[2] is not None for piece in pieces):
        normals = jnp.asarray(np.concatenate([piece[2] for piece in pieces]))
    return Mesh(
        vertices=jnp.asarray(np.concatenate([vertices for vertices, _, _ in pieces])),
        faces=jnp.asarray(faces.astype(np.int32)),
        uv=None if look.uv is None else jnp.asarray(look.uv),
        uv_faces=uv_faces,
        texture=look.texture,
        vertex_colors=_joined_colors(meshes),
        material=look.material,
        normals=normals,
    )


def _joined_colors(meshes: list[Mesh]) -> Array | None:
    widths = [mesh.vertex_colors.shape[1] for mesh in meshes if mesh.vertex_colors is not None]
    if not widths:
        return None
    colors = [np.ones((len(mesh.vertices), max(widths)), np.float32) for mesh in meshes]
    for color, mesh in zip(colors, meshes, strict=True):
        if mesh.vertex_colors is not None:
            color[:, : mesh.vertex_colors.shape[1]] = np.asarray(mesh.vertex_colors)
    return jnp.asarray(np.concatenate(colors))
