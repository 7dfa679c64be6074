"""Animation: interpolation against closed forms, poses of the blade against geometry, skinning against the host's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes.animation import deformed_mesh, duration, posed, sample_channel, slerp, world_from_nodes
from renderers.meshes.mesh import face_normals
from renderers.meshes.scene import Channel, Skin, merged, plain_node, rest_transforms
from tests.helpers.blade import HEIGHT, blade_scene

SLERP, SAMPLE = jax.jit(slerp), jax.jit(sample_channel)


def quaternion(axis, angle) -> jax.Array:
    axis = np.asarray(axis) / np.linalg.norm(axis)
    return jnp.asarray([np.cos(angle / 2), *(np.sin(angle / 2) * axis)], jnp.float32)


@pytest.mark.parametrize("angle", [1e-4, 0.05, 1.0, 3.0])
def test_slerp_turns_at_constant_speed_the_short_way(angle):
    axis, start = [1, 2, -2], quaternion([0, 1, 0], 0.7)
    one = jnp.array([1.0, 0, 0, 0])
    for fraction in (0.0, 0.25, 0.5, 1.0):
        got = SLERP(one, quaternion(axis, angle), jnp.float32(fraction))
        np.testing.assert_allclose(got, quaternion(axis, fraction * angle), atol=2e-6)
    np.testing.assert_allclose(SLERP(start, -start, jnp.float32(0.3)), start, atol=1e-6)


def _channel(interpolation, path="translation", **arrays) -> Channel:
    arrays = {name: jnp.asarray(values, jnp.float32) for name, values in arrays.items()}
    return Channel(**arrays, node=0, path=path, interpolation=interpolation)


def test_cubic_splines_reproduce_a_cubic():
    times = np.array([0.5, 1.0, 3.0])
    value, slope = (lambda t: t**3 - 2 * t * t + 1), (lambda t: 3 * t * t - 4 * t)
    slopes = slope(times)[:, None]
    channel = _channel(
        "CUBICSPLINE", times=times, values=value(times)[:, None], in_tangents=slopes, out_tangents=slopes
    )
    for t in (0.5, 0.7, 1.0, 1.9, 3.0):
        np.testing.assert_allclose(SAMPLE(channel, jnp.float32(t)), [value(t)], atol=2e-5)


@pytest.mark.parametrize(("interpolation", "expected"), [("LINEAR", [1, 1, 2, 3, 5, 5]), ("STEP", [1, 1, 1, 3, 5, 5])])
def test_values_between_and_beyond_keyframes(interpolation, expected):
    channel = _channel(interpolation, times=[1.0, 2, 3], values=[[1.0], [3], [5]])
    got = [float(SAMPLE(channel, jnp.float32(t))[0]) for t in (0.0, 1.0, 1.5, 2.0, 3.0, 9.0)]
    assert got == expected


def test_a_single_keyframe_is_a_constant():
    channel = _channel("LINEAR", "rotation", times=[1.0], values=[[2.0, 0, 0, 0]])
    assert SAMPLE(channel, jnp.float32(0.5)).tolist() == [1, 0, 0, 0]


@jax.jit
def _blade_at(scene, time):
    moved = posed(scene, scene.animations[0], time)
    return deformed_mesh(moved, world_from_nodes(moved), 0, 0)


def test_the_blade_bends_where_it_should():
    """At 1 s the knee at y = 1 has turned a quarter about z, the root glided to the Hermite middle, width doubled."""
    scene = blade_scene()
    assert duration(scene.animations[0]) == 2
    rest = np.asarray(scene.parts[0].mesh.vertices)
    vertices = np.asarray(_blade_at(scene, 1.0).vertices)
    tip, base = vertices[-2:], vertices[:2]
    glide = 0.125 * 2 * 3 + 0.5 * 2  # h10(1/2) times 2 s times slope 3, and h01(1/2) times 2
    swollen = rest * (2, 1, 1)
    np.testing.assert_allclose(base, swollen[:2] + (0, 0, glide), atol=1e-6)
    # beyond the knee (x, y) goes to (1 - y, 1 + x)
    expected = np.stack([-(swollen[-2:, 1] - 1), 1 + swollen[-2:, 0], np.full(2, glide)], 1)
    np.testing.assert_allclose(tip, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(tip[0] - np.array([0, 1, glide])), HEIGHT / 2, rtol=0.01)


def test_host_and_device_pose_alike_and_weights_need_not_add_up():
    scene = blade_scene()
    part = dataclasses.replace(scene.parts[0], weights=0.9 * scene.parts[0].weights)
    for variant in (scene, dataclasses.replace(scene, parts=(part,))):
        mesh, whole = _blade_at(variant, 0.7), merged(jax.jit(posed)(variant, variant.animations[0], 0.7))
        np.testing.assert_allclose(mesh.vertices, whole.vertices, atol=1e-6)
        np.testing.assert_allclose(mesh.normals, whole.normals, atol=1e-6)
        np.testing.assert_allclose(mesh.vertices, _blade_at(scene, 0.7).vertices, atol=1e-6)


def test_rotating_a_bone_has_the_derivative_of_differences():
    scene = blade_scene()
    time, step = 0.4, 1e-2
    slope = jax.jit(jax.jacfwd(lambda time: _blade_at(scene, time).vertices))(jnp.float32(time))
    difference = (_blade_at(scene, time + step).vertices - _blade_at(scene, time - step).vertices) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=2e-3, atol=2e-3)


def test_normals_follow_a_stretched_surface_also_when_it_is_mirrored():
    scene = blade_scene()
    turned = dataclasses.replace(
        plain_node(parts=(0,)), scale=jnp.array([-3.0, 1, 0.5]), rotation=quaternion([1, 1, 0], 1.0)
    )
    scene = dataclasses.replace(scene, nodes=(turned,), roots=(0,), skins=())
    mesh = jax.jit(lambda scene: deformed_mesh(scene, world_from_nodes(scene), 0, 0))(scene)
    outward = -face_normals(mesh.vertices, mesh.faces)  # the transform mirrors
    np.testing.assert_allclose(mesh.normals[mesh.faces[:, 0]], outward, atol=1e-5)


def test_transforms_of_a_chain_agree_with_the_host_and_a_matrix_wins():
    angle = quaternion([3, 1, 2], 0.8)
    nodes = [dataclasses.replace(plain_node(translation=(k, 2, -1)), rotation=angle, scale=jnp.array([1.0, 2, 0.5]))
             for k in range(4)]  # fmt: skip
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32).at[3].set(jnp.array([0, 0, 0, 1.0]))
    nodes[2] = dataclasses.replace(nodes[2], matrix=matrix)
    nodes = [
        dataclasses.replace(node, children=children) for node, children in zip(nodes, ((2,), (), (1,), ()), strict=True)
    ]
    scene = dataclasses.replace(blade_scene(), nodes=tuple(nodes), roots=(0,))
    device, host = jax.jit(world_from_nodes)(scene), rest_transforms(scene)
    assert host.keys() == {0, 1, 2}
    for index, transform in host.items():
        np.testing.assert_allclose(device[index], transform, atol=2e-5)
    np.testing.assert_array_equal(device[3], np.eye(4))


def test_a_skin_at_its_bind_pose_leaves_the_mesh_where_it_is():
    scene = blade_scene()
    moved = dataclasses.replace(
        scene.nodes[1], rotation=quaternion([1, 0, 2], 2.0), translation=jnp.array([1.0, -2, 3])
    )
    scene = dataclasses.replace(scene, nodes=(scene.nodes[0], moved, scene.nodes[2]))
    world = jax.jit(world_from_nodes)(scene)
    bound = Skin(joint_from_mesh=jnp.asarray(np.linalg.inv(world[1:])), joints=(1, 2))
    scene = dataclasses.replace(scene, skins=(bound,))
    np.testing.assert_allclose(
        jax.jit(deformed_mesh, static_argnums=(2, 3))(scene, world, 0, 0).vertices,
        scene.parts[0].mesh.vertices,
        atol=1e-5,
    )
