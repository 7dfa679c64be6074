"""Scenes as one mesh: placement, mirrored parts, and an atlas that shows at every point what the parts showed there."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from renderers.meshes import atlas
from renderers.meshes.formats import FormatError, read_mesh, read_scene
from renderers.meshes.mesh import Material, Mesh, enclosed_volume, face_normals, plain_material
from renderers.meshes.scene import Part, Scene, merged, plain_node, scene_from_parts
from tests.helpers.blade import stripes
from tests.helpers.gltf_files import split
from tests.helpers.shared import shared_path

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "meshes"
TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
OUTWARD = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)


def tetrahedron(**looks) -> Mesh:
    return Mesh(vertices=jnp.asarray(TETRAHEDRON), faces=jnp.asarray(OUTWARD), **looks)


def test_parts_shown_twice_and_mirrored_keep_their_faces_outward():
    node = dataclasses.replace(plain_node(parts=(0,), translation=(5, 0, 0)), scale=jnp.array([-2.0, 1, 1]))
    normals = jnp.asarray(TETRAHEDRON / np.maximum(np.linalg.norm(TETRAHEDRON, axis=1, keepdims=True), 1e-9))
    uv = jnp.asarray(TETRAHEDRON[:, :2])
    part = Part(mesh=tetrahedron(normals=normals, uv=uv, texture=jnp.asarray(stripes())))
    scene = Scene(parts=(part,), nodes=(plain_node(parts=(0,)), node), roots=(0, 1))
    mesh = merged(scene)
    assert len(mesh.vertices) == 8 and len(mesh.faces) == 8
    np.testing.assert_allclose(enclosed_volume(mesh.vertices, mesh.faces[:4]), 1 / 6, rtol=1e-6)
    np.testing.assert_allclose(enclosed_volume(mesh.vertices, mesh.faces[4:]), 2 / 6, rtol=1e-6)
    np.testing.assert_allclose(mesh.vertices[4:], TETRAHEDRON * (-2, 1, 1) + (5, 0, 0), atol=1e-6)
    assert mesh.texture is part.mesh.texture  # one look: nothing is repacked
    uv_faces = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
    twice = np.concatenate([uv, uv])[np.asarray(mesh.faces)]
    np.testing.assert_array_equal(np.asarray(mesh.uv)[np.asarray(uv_faces)], twice)
    steep = np.asarray(normals) * (-0.5, 1, 1)  # by the inverse transpose
    expected = steep / np.maximum(np.linalg.norm(steep, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(mesh.normals[4:], expected, atol=1e-6)


def test_children_move_with_their_parents():
    nodes = (
        dataclasses.replace(plain_node(children=(1,), translation=(0, 1, 0)), scale=jnp.full(3, 2.0)),
        plain_node(parts=(0,), translation=(1, 0, 0)),
        plain_node(parts=(0,)),  # below no root: not shown
    )
    scene = Scene(parts=(Part(mesh=tetrahedron()),), nodes=nodes, roots=(0,))
    np.testing.assert_allclose(merged(scene).vertices, 2 * (TETRAHEDRON + (1, 0, 0)) + (0, 1, 0), atol=1e-6)


def test_nothing_to_show_is_said():
    with pytest.raises(FormatError, match="no triangles"):
        merged(scene_from_parts(()))
    loop = Scene(parts=(), nodes=(plain_node(children=(1,)), plain_node(children=(0,))), roots=(0,))
    with pytest.raises(ValueError, match="twice"):
        merged(loop)


def _texel(texture, uv, wrap=("repeat", "repeat")) -> np.ndarray:
    """Nearest texels at uv [n 2], v up, straight from the definition."""
    texture = np.asarray(texture)
    column = np.floor(np.asarray(uv, np.float64)[:, 0] * texture.shape[1]).astype(int)
    row = np.floor((1 - np.asarray(uv, np.float64)[:, 1]) * texture.shape[0]).astype(int)

    def inside(index, size, kind):
        if kind == "clamp":
            return np.clip(index, 0, size - 1)
        if kind == "mirror":
            return np.where(index // size % 2 == 0, index % size, size - 1 - index % size)
        return index % size

    return texture[inside(row, texture.shape[0], wrap[1]), inside(column, texture.shape[1], wrap[0])]


def _points(uv, uv_faces, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """40 random barycentric points of each face as uv, and the same weights."""
    weights = np.random.default_rng(seed).dirichlet([1, 1, 1], size=(len(uv_faces), 40))
    return np.einsum("fpk,fkc->fpc", weights, np.asarray(uv, np.float64)[np.asarray(uv_faces)]).reshape(-1, 2), weights


WRAPS = [("repeat", "repeat"), ("clamp", "repeat"), ("mirror", "clamp")]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("shift", [0.0, -0.3, 2.6])
def test_the_atlas_shows_at_every_point_what_the_texture_showed(wrap, shift):
    """Faces inside the unit square, across its border, and periods away from it."""
    rng = np.random.default_rng(1)
    uv = (rng.uniform(0, 1.4, (30, 2)) + shift).astype(np.float32)
    uv[::7] += 3
    faces = np.arange(30).reshape(10, 3)
    first = atlas.Surface(uv, faces, jnp.asarray(stripes(16, 8)), None, wrap)
    plain = atlas.Surface(None, faces[:3], None, plain_material(base_color=(0.2, 0.4, 0.6, 1)))
    result = atlas.combined([first, plain])
    before, _ = _points(uv, faces)
    after, _ = _points(result.uv, result.uv_faces[:10])
    np.testing.assert_allclose(_texel(result.texture, after), _texel(first.texture, before, wrap), atol=1e-6)
    # within half a texel of a corner the two may round to different sides: none did with these seeds
    inside, _ = _points(result.uv, result.uv_faces[10:])
    expected = atlas.srgb_from_linear(np.array([0.2, 0.4, 0.6], np.float32))
    np.testing.assert_allclose(_texel(result.texture, inside), np.tile(expected, (len(inside), 1)), atol=1e-6)


def test_a_texture_repeated_beyond_measure_becomes_its_mean():
    texture = jnp.asarray(stripes(8, 8))
    uv = np.array([[0, 0], [1e6, 0], [0, 1e30]], np.float32)
    plain = atlas.Surface(None, np.array([[0, 1, 2]]), None, plain_material(base_color=(0.5, 0.5, 0.5, 1)))
    result = atlas.combined([atlas.Surface(uv, np.array([[0, 1, 2]]), texture, None), plain])
    got = _texel(result.texture, result.uv[result.uv_faces[0]])
    np.testing.assert_allclose(got, np.tile(np.asarray(texture).mean((0, 1)), (3, 1)), atol=1e-6)
    assert result.texture.size < 10_000


def _materials() -> tuple[Material, Material]:
    textured = dataclasses.replace(
        plain_material(base_color=(0.5, 0.25, 1.0, 0.5), metallic=0.5, roughness=0.25),
        metallic_roughness_texture=jnp.asarray(stripes(4, 4)),
        normal_texture=jnp.asarray(stripes(8, 8)),
        occlusion_texture=jnp.asarray(stripes(4, 4)[:, :, :1]),
        occlusion_strength=jnp.float32(0.5),
        alpha_mode="BLEND",
        double_sided=True,
    )
    shining = dataclasses.replace(plain_material(metallic=1.0, roughness=0.75), emissive=jnp.array([4.0, 2.0, 0.0]))
    return textured, shining


def test_factors_of_all_kinds_are_baked_in():
    textured, shining = _materials()
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]], np.float32)
    faces = np.array([[0, 1, 2]])
    texture = jnp.asarray(stripes(8, 8))
    surfaces = [atlas.Surface(uv, faces, texture, textured), atlas.Surface(uv, faces, None, shining)]
    result = atlas.combined(surfaces)
    material = result.material
    before, _ = _points(uv, faces)
    after, other = _points(result.uv, result.uv_faces[:1])[0], _points(result.uv, result.uv_faces[1:])[0]
    linear = atlas.linear_from_srgb(_texel(texture, before)) * (0.5, 0.25, 1.0)
    np.testing.assert_allclose(atlas.linear_from_srgb(_texel(result.texture, after)[:, :3]), linear, atol=1e-5)
    np.testing.assert_allclose(_texel(result.texture, after)[:, 3], 0.5)
    np.testing.assert_allclose(_texel(result.texture, other), np.ones((40, 4)))
    assert material.alpha_mode == "BLEND" and material.double_sided
    # 4 x 4 textures were brought to 8 x 8: compare where that is exact, at a texture of one value
    rough = _texel(material.metallic_roughness_texture, other)
    np.testing.assert_allclose(rough[:, 1:], np.tile([0.75, 1.0], (40, 1)), atol=1e-6)
    emission = atlas.linear_from_srgb(_texel(material.emissive_texture, other)) * np.asarray(material.emissive)
    np.testing.assert_allclose(emission, np.tile([4.0, 2.0, 0.0], (40, 1)), atol=1e-4)
    np.testing.assert_allclose(_texel(material.emissive_texture, after), 0)
    np.testing.assert_allclose(_texel(material.occlusion_texture, other), 1)
    np.testing.assert_allclose(_texel(material.normal_texture, other), np.tile([0.5, 0.5, 1], (40, 1)))
    np.testing.assert_allclose(_texel(material.normal_texture, after), _texel(textured.normal_texture, before))


@pytest.mark.parametrize(
    ("cutoff", "alpha", "kept"), [(0.25, 0.3, True), (0.25, 0.2, False), (0.9, 0.8, False), (1.0, 1.0, True)]
)
def test_masks_of_any_cutoff_share_one(cutoff, alpha, kept):
    masked = dataclasses.replace(plain_material(base_color=(1, 1, 1, alpha)), alpha_mode="MASK",
                                 alpha_cutoff=jnp.float32(cutoff))  # fmt: skip
    faces = np.array([[0, 1, 2]])
    surfaces = [atlas.Surface(None, faces, None, m) for m in (masked, plain_material(base_color=(1, 0, 0, 0.1)))]
    result = atlas.combined(surfaces)
    assert result.material.alpha_mode == "MASK"
    first, opaque = (_texel(result.texture, result.uv[result.uv_faces[k]])[0, 3] for k in (0, 1))
    assert (first >= result.material.alpha_cutoff) == kept and opaque == 1


def test_textures_are_halved_until_they_fit():
    uv, faces = np.array([[0, 0], [1, 0], [0, 1]], np.float32), np.array([[0, 1, 2]])
    surfaces = [atlas.Surface(uv, faces, jnp.full((64, 64, 3), level), None) for level in (0.25, 0.75)]
    result = atlas.combined(surfaces, max_texels=5000)
    assert result.texture.shape[0] * result.texture.shape[1] <= 5000
    for face, level in ((0, 0.25), (1, 0.75)):
        points, _ = _points(result.uv, result.uv_faces[face : face + 1])
        np.testing.assert_allclose(_texel(result.texture, points), level, atol=1e-6)


def test_models_of_plain_colours_keep_them():
    """Each face of a CC0 model has the colour that the file's JSON gives its material."""
    document, _ = split((FIXTURES / "corn_crop.glb").read_bytes())
    mesh, scene = read_mesh(FIXTURES / "corn_crop.glb"), read_scene(FIXTURES / "corn_crop.glb")
    start = 0
    for part, primitive in zip(scene.parts, document["meshes"][0]["primitives"], strict=True):
        pbr = document["materials"][primitive["material"]]["pbrMetallicRoughness"]
        rows = np.asarray(mesh.uv_faces)[start : start + len(part.mesh.faces)]
        colors = atlas.linear_from_srgb(_texel(mesh.texture, np.asarray(mesh.uv)[rows[:, 0]]))
        np.testing.assert_allclose(colors, np.tile(pbr["baseColorFactor"][:3], (len(rows), 1)), atol=1e-5)
        start += len(rows)
    assert start == len(mesh.faces)
    np.testing.assert_allclose(mesh.material.roughness, pbr["roughnessFactor"], rtol=1e-6)


@pytest.mark.slow
def test_flight_helmet_in_one_atlas():
    """At random points of every part the atlas holds the colour of the part's own texture."""
    scene = read_scene(shared_path("data", "meshes", "pbr_gltf", "FlightHelmet", "FlightHelmet.gltf"))
    mesh, start = merged(scene), 0
    for part in scene.parts:
        faces = np.asarray(part.mesh.faces)[::500]
        rows = np.asarray(mesh.uv_faces)[start : start + len(part.mesh.faces)][::500]
        before, after = _points(part.mesh.uv, faces)[0], _points(mesh.uv, rows)[0]
        same = np.isclose(_texel(mesh.texture, after)[:, :3], _texel(part.mesh.texture, before)[:, :3], atol=1e-6).all(
            1
        )
        assert same.mean() > 0.995  # points that lie on a border between texels round either way
        start += len(part.mesh.faces)
    normals = face_normals(mesh.vertices, mesh.faces)
    assert float(jnp.mean(jnp.sum(normals * mesh.normals[mesh.faces[:, 0]], axis=1) > 0)) > 0.99
