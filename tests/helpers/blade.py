"""A blade of grass that bends: a small scene with a texture, a skin, a morph target and an animation of every kind."""

import jax.numpy as jnp
import numpy as np

from renderers.meshes.mesh import Material, Mesh, plain_material
from renderers.meshes.scene import Animation, Channel, Part, Scene, Skin, plain_node

HEIGHT = 2.0


def blade_scene(levels: int = 5) -> Scene:
    """A strip of `levels` rows of two vertices along y, its upper half bound to the second of two joints at y = 1."""
    y = np.linspace(0, HEIGHT, levels)
    half = 0.2 * (1 - y / (1.2 * HEIGHT))
    vertices = np.stack([np.stack([side * half, y, np.zeros_like(y)], 1) for side in (-1, 1)], 1).reshape(-1, 3)
    i = 2 * np.arange(levels - 1)[:, None]
    faces = np.stack([i + [0, 1, 3], i + [0, 3, 2]], 1).reshape(-1, 3)
    uv = np.stack([np.tile([0.0, 1.0], levels), np.repeat(y / HEIGHT, 2)], 1)
    second = np.clip(np.repeat(y, 2) - 0.5, 0, 1)
    weights = np.stack([1 - second, second, 0 * second, 0 * second], 1)
    joints = np.where(weights > 0, [0, 1, 0, 0], 0)
    mesh = Mesh(
        vertices=jnp.asarray(vertices, jnp.float32),
        faces=jnp.asarray(faces, jnp.int32),
        uv=jnp.asarray(uv, jnp.float32),
        texture=jnp.asarray(stripes(), jnp.float32),
        normals=jnp.tile(jnp.array([0, 0, 1], jnp.float32), (2 * levels, 1)),
        material=leaf_material(),
    )
    swell = np.stack([vertices * (1, 0, 0)]).astype(np.float32)
    part = Part(
        mesh=mesh, joints=jnp.asarray(joints, jnp.int32), weights=jnp.asarray(weights, jnp.float32),
        morph_positions=jnp.asarray(swell), name="blade",
    )  # fmt: skip
    nodes = (
        plain_node(name="shown", parts=(0,), skin=0),
        plain_node(name="root", children=(2,)),
        plain_node(name="knee", translation=(0, 1, 0)),
    )
    nodes = (nodes[0].__class__(**{**vars(nodes[0]), "morph_weights": jnp.zeros(1)}), *nodes[1:])
    bind = np.stack([np.eye(4), np.eye(4)]).astype(np.float32)
    bind[1, 1, 3] = -1
    skin = Skin(joint_from_mesh=jnp.asarray(bind), joints=(1, 2), skeleton=1, name="stem")
    return Scene(parts=(part,), nodes=nodes, skins=(skin,), animations=(sway(),), roots=(0, 1))


def sway() -> Animation:
    """The knee turns a quarter about z by 1 s and back by 2 s, the root glides, the blade swells at once at 1 s."""
    quarter = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    turn = Channel(
        times=jnp.array([0.0, 1.0, 2.0]), values=jnp.array([[1, 0, 0, 0], quarter, [1, 0, 0, 0]], jnp.float32),
        node=2, path="rotation",
    )  # fmt: skip
    glide = Channel(
        times=jnp.array([0.0, 2.0]), values=jnp.array([[0.0, 0, 0], [0, 0, 2]]), in_tangents=jnp.zeros((2, 3)),
        out_tangents=jnp.array([[0.0, 0, 3], [0, 0, 0]]), node=1, path="translation", interpolation="CUBICSPLINE",
    )  # fmt: skip
    swell = Channel(
        times=jnp.array([0.0, 1.0]), values=jnp.array([[0.0], [1.0]]), node=0, path="weights", interpolation="STEP"
    )
    return Animation(channels=(turn, glide, swell), name="sway")


def leaf_material() -> Material:
    """Every number of a material other than its default."""
    material = plain_material(base_color=(0.8, 0.9, 1.0, 1.0), metallic=0.25, roughness=0.625)
    changed = dict(alpha_mode="MASK", alpha_cutoff=jnp.float32(0.25), double_sided=True, name="leaf",
                   emissive=jnp.array([0.0, 0.5, 0.25]))  # fmt: skip
    return Material(**{**vars(material), **changed})


def stripes(height: int = 8, width: int = 4) -> np.ndarray:
    """A texture of distinct 8-bit colours [height width 3] in [0, 1]."""
    k = np.arange(height * width * 3).reshape(height, width, 3)
    return ((k * 37 + 11) % 256).astype(np.float32) / np.float32(255)
