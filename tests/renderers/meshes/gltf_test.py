"""glTF: what is written against its rules, trimesh and Khronos' validator; what is read against files by hand."""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import struct
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from PIL import Image

from renderers.meshes.formats import FormatError, read_mesh, read_scene, write_mesh, write_scene
from renderers.meshes.mesh import Material, Mesh, face_normals, plain_material
from renderers.meshes.scene import Part, scene_from_parts
from tests.helpers.blade import blade_scene, stripes
from tests.helpers.gltf_files import Builder, array, assert_well_formed, split, triangle
from tests.helpers.shared import shared_path

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "meshes"
VALIDATOR = "GALATEA_GLTF_VALIDATOR"


def grid(n: int = 5, **looks) -> Mesh:
    """A wavy n x n height field with a seam of uv in the middle."""
    y, x = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    vertices = np.stack([x, y, 0.1 * np.sin(5 * x + 3 * y)], -1).reshape(-1, 3)
    i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).reshape(-1, 1)
    faces = np.concatenate([i + [0, 1, n + 1], i + [0, n + 1, n]])
    uv = np.concatenate([vertices[:, :2] * 0.5, vertices[:, :2] * 0.5 + [0.5, 0.25]])
    uv_faces = faces + len(vertices) * (vertices[faces][:, :, 0].mean(1) > 0.5)[:, None]
    arrays = dict(vertices=vertices, uv=uv)
    return Mesh(
        **{name: jnp.asarray(values, jnp.float32) for name, values in arrays.items()},
        faces=jnp.asarray(faces, jnp.int32), uv_faces=jnp.asarray(uv_faces, jnp.int32), **looks,
    )  # fmt: skip


def full_material() -> Material:
    """Every kind of texture, distinct 8-bit values."""
    return dataclasses.replace(
        plain_material(base_color=(0.5, 0.25, 0.125, 1.0), metallic=0.75, roughness=0.5),
        metallic_roughness_texture=jnp.asarray(stripes(8, 4)),
        normal_texture=jnp.asarray(stripes(4, 4)),
        occlusion_texture=jnp.asarray(stripes(8, 4)[:, :, :1]),
        emissive_texture=jnp.asarray(stripes(2, 2)),
        emissive=jnp.array([2.0, 1.0, 0.5]),
        normal_scale=jnp.float32(0.5),
        occlusion_strength=jnp.float32(0.25),
        name="all of it",
    )


COLORS = jnp.asarray(np.linspace(0, 1, 100).reshape(25, 4), jnp.float32)
MESHES = {
    "plain": lambda: grid(),
    "textured": lambda: grid(texture=jnp.asarray(stripes(8, 8)), material=full_material()),
    "coloured": lambda: grid(vertex_colors=COLORS, normals=jnp.tile(jnp.array([0.0, 0, 1]), (25, 1))),
}


def assert_equal(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def validated(*paths: pathlib.Path) -> None:
    """Khronos' validator finds neither errors nor warnings."""
    package, node = os.environ.get(VALIDATOR), shutil.which("node")
    if node is None or package is None or not pathlib.Path(package).exists():
        pytest.skip(f"needs node, `npm install gltf-validator` and {VALIDATOR}=<path>/node_modules/gltf-validator")
    script = """
        const validator = require(process.argv[1]), fs = require("fs");
        Promise.all(process.argv.slice(2).map(f => validator.validateBytes(new Uint8Array(fs.readFileSync(f)))))
            .then(reports => console.log(JSON.stringify(reports)));"""
    out = subprocess.run([node, "-e", script, package, *map(str, paths)], capture_output=True, text=True, check=True)
    for path, report in zip(paths, json.loads(out.stdout), strict=True):
        severe = [issue for issue in report["issues"]["messages"] if issue["severity"] < 2]
        assert not severe, (path.name, severe[:3])


@pytest.mark.parametrize("name", MESHES)
def test_what_is_written_is_well_formed_and_trimesh_reads_the_same(tmp_path, name):
    mesh, path = MESHES[name](), tmp_path / "a.glb"
    write_mesh(path, mesh)
    assert_well_formed(path.read_bytes())
    (other,) = trimesh.load(path, process=False).geometry.values()
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces)]
    np.testing.assert_array_equal(other.vertices[other.faces], corners)
    if name == "plain":
        return
    if name == "coloured":
        expected = np.round(np.asarray(COLORS)[np.asarray(mesh.faces)] * 255)
        np.testing.assert_allclose(other.visual.vertex_attributes["color"][other.faces] * 255, expected, atol=1)
        return
    np.testing.assert_allclose(other.visual.uv[other.faces], np.asarray(mesh.uv)[np.asarray(mesh.uv_faces)], atol=1e-7)
    material = other.visual.material
    for image, texture in (
        (material.baseColorTexture, mesh.texture),
        (material.metallicRoughnessTexture, mesh.material.metallic_roughness_texture),
        (material.normalTexture, mesh.material.normal_texture),
        (material.emissiveTexture, mesh.material.emissive_texture),
    ):
        np.testing.assert_array_equal(np.asarray(image) / np.float32(255), texture)
    assert (material.metallicFactor, material.roughnessFactor) == (0.75, 0.5)


@pytest.mark.parametrize("name", MESHES)
def test_meshes_come_back_with_seams_as_split_vertices(tmp_path, name):
    mesh, path = MESHES[name](), tmp_path / "a.glb"
    write_mesh(path, mesh)
    back = read_mesh(path)
    np.testing.assert_array_equal(back.vertices[back.faces], mesh.vertices[mesh.faces])
    np.testing.assert_allclose(back.uv[back.faces], mesh.uv[mesh.uv_faces], atol=6e-8)
    assert 25 < len(back.vertices) < 40  # only the seam's five vertices are doubled
    for texture, original in ((back.texture, mesh.texture), (back.material, mesh.material)):
        assert_equal(texture, original)


def test_an_orm_image_is_shared_and_a_separate_occlusion_is_not(tmp_path):
    mesh = grid(texture=jnp.asarray(stripes(8, 8)), material=full_material())
    for occlusion, images in ((mesh.material.occlusion_texture, 4), (mesh.material.occlusion_texture[::-1], 5)):
        changed = dataclasses.replace(mesh.material, occlusion_texture=occlusion)
        write_mesh(tmp_path / "a.glb", dataclasses.replace(mesh, material=changed))
        assert len(split((tmp_path / "a.glb").read_bytes())[0]["images"]) == images
        np.testing.assert_array_equal(read_mesh(tmp_path / "a.glb").material.occlusion_texture, occlusion)


def test_a_scene_with_skin_morph_target_and_animation_comes_back_to_the_bit(tmp_path):
    scene, path = blade_scene(), tmp_path / "a.glb"
    write_scene(path, scene)
    assert_well_formed(path.read_bytes())
    assert_equal(read_scene(path), scene)
    write_scene(tmp_path / "b.glb", read_scene(path))
    assert (tmp_path / "b.glb").read_bytes() == path.read_bytes()
    assert path.read_bytes() == (FIXTURES / "swaying_blade.glb").read_bytes()


def test_a_real_skinned_model_comes_back_to_the_bit(tmp_path):
    scene = read_scene(FIXTURES / "dolphin.glb")
    assert len(scene.skins[0].joints) == 13 and scene.animations[0].channels
    write_scene(tmp_path / "a.glb", scene)
    assert_well_formed((tmp_path / "a.glb").read_bytes())
    assert_equal(read_scene(tmp_path / "a.glb"), dataclasses.replace(scene, notes=()))


def test_khronos_validator_on_files_of_ours(tmp_path):
    paths = [tmp_path / f"{name}.glb" for name in MESHES]
    for path, make in zip(paths, MESHES.values(), strict=True):
        write_mesh(path, make())
    write_scene(tmp_path / "blade.glb", blade_scene())
    validated(*paths, tmp_path / "blade.glb")


FOX = pytest.param("pbr_glb/Fox_animated.glb", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["pbr_gltf/FlightHelmet/FlightHelmet.gltf", FOX])
def test_real_files_come_back_to_the_bit_and_validate(tmp_path, name):
    scene = read_scene(shared_path("data", "meshes", *name.split("/")))
    write_scene(tmp_path / "a.glb", scene)
    assert_equal(read_scene(tmp_path / "a.glb"), scene)
    if "Helmet" in name:
        assert len(scene.parts) == 6 and all(part.tangents is not None for part in scene.parts)
    validated(tmp_path / "a.glb")


def test_indices_take_32_bits_when_they_must(tmp_path):
    write_mesh(tmp_path / "a.glb", dataclasses.replace(grid(257), uv=None, uv_faces=None))
    document, binary = split((tmp_path / "a.glb").read_bytes())
    indices = array(document, binary, document["meshes"][0]["primitives"][0]["indices"])
    assert indices.dtype == np.uint32 and indices.max() == 257 * 257 - 1


def test_strides_sparse_and_quantized_accessors(tmp_path):
    builder = Builder()
    rows = np.zeros(4, [("p", "<i2", 3), ("pad", "<i2"), ("c", "u1", 4)])
    rows["p"] = [[-32768, 0, 0], [32767, 0, 0], [0, 16384, 0], [0, 0, 0]]
    rows["c"] = [[255, 0, 51, 255]] * 4
    view = builder.view(rows.tobytes(), byteStride=12)
    position = {"bufferView": view, "componentType": 5122, "count": 4, "type": "VEC3", "normalized": True}
    position["sparse"] = {
        "count": 1,
        "indices": {"bufferView": builder.view(np.array([3], "<u2").tobytes()), "componentType": 5123},
        "values": {"bufferView": builder.view(np.array([1, 2, 32767], "<i2").tobytes())},
    }
    color = {"bufferView": view, "byteOffset": 8, "componentType": 5121, "count": 4, "type": "VEC4", "normalized": True}
    builder.document["accessors"] += [position, color]
    index = builder.accessor([0, 1, 2, 0, 1, 3], "SCALAR", "<u1")
    builder.show({"POSITION": 0, "COLOR_0": 1}, indices=index)
    builder.document["extensionsRequired"] = builder.document["extensionsUsed"] = ["KHR_mesh_quantization"]
    (tmp_path / "a.glb").write_bytes(builder.glb())
    mesh = read_mesh(tmp_path / "a.glb")
    expected = [[-1, 0, 0], [1, 0, 0], [0, 16384 / 32767, 0], [1 / 32767, 2 / 32767, 1]]
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-7)
    np.testing.assert_allclose(mesh.vertex_colors, [[1, 0, 0.2, 1]] * 4, atol=1e-7)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 1, 3]]


@pytest.mark.parametrize(("mode", "corners"), [(5, [0, 1, 2, 3, 4, 5]), (6, [2, 0, 1, 3, 5, 4])])
def test_strips_and_fans_keep_their_orientation(tmp_path, mode, corners):
    builder = Builder()  # a ladder of quads in the plane z = 0
    position = builder.accessor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0], [1, 2, 0]], "VEC3")
    builder.show({"POSITION": position}, mode=mode, indices=builder.accessor(corners, "SCALAR", "<u2"))
    (tmp_path / "a.gltf").write_bytes(builder.gltf())
    mesh = read_mesh(tmp_path / "a.gltf")
    np.testing.assert_allclose(face_normals(mesh.vertices, mesh.faces), [[0, 0, 1]] * 4, atol=1e-6)


def test_texture_transforms_move_the_uv(tmp_path):
    """A quarter turn and a shift: the corner at u = 1 of the file's map is where the rotated, moved map has it."""
    builder = triangle()
    uv = np.array([[0, 0], [1, 0], [0, 1]])
    builder.document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = builder.accessor(uv, "VEC2")
    builder.document["meshes"][0]["primitives"][0]["material"] = 0
    transform = {"offset": [0.5, 0.25], "rotation": np.pi / 2, "scale": [2, 3]}
    info = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    png = (FIXTURES / "paint.png").read_bytes()
    builder.document |= {
        "images": [{"bufferView": builder.view(png), "mimeType": "image/png"}],
        "textures": [{"source": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": info}}],
    }
    (tmp_path / "a.glb").write_bytes(builder.glb())
    # counter-clockwise as seen with v pointing down: (u, v) -> (v, -u), after scaling by (2, 3)
    expected = np.array([[0.5, 0.25], [0.5, 0.25 - 2], [0.5 + 3, 0.25]])
    got = np.asarray(read_mesh(tmp_path / "a.glb").uv)
    np.testing.assert_allclose(np.stack([got[:, 0], 1 - got[:, 1]], 1), expected, atol=1e-6)


def test_weights_that_are_no_numbers_are_read_as_none(tmp_path):
    builder = triangle()
    attributes = builder.document["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = builder.accessor([[0, 1, 9, 9]] * 3, "VEC4", "<u1")
    weights = [[0.5, 0.5, 0, 0], [np.nan, 1, 0, 0], [np.nan] * 4]
    attributes["WEIGHTS_0"] = builder.accessor(weights, "VEC4")
    builder.document["nodes"] = [{"mesh": 0, "skin": 0}, {}, {}]
    builder.document["skins"] = [{"joints": [1, 2]}]
    (tmp_path / "a.glb").write_bytes(builder.glb())
    scene = read_scene(tmp_path / "a.glb")
    assert scene.parts[0].weights.tolist() == [[0.5, 0.5, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert scene.parts[0].joints.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert any("weights" in note for note in scene.notes)


def _compressed(builder: Builder, required: bool) -> None:
    name = "KHR_draco_mesh_compression"
    builder.document["extensionsUsed"] = [name]
    if required:
        builder.document["extensionsRequired"] = [name]
    builder.document["meshes"][0]["primitives"][0]["extensions"] = {name: {"bufferView": 0, "attributes": {}}}
    for key in ("bufferView",):
        builder.document["accessors"][0].pop(key)


def _ktx2(builder: Builder, **texture) -> None:
    image = {"bufferView": builder.view(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(64)), "mimeType": "image/ktx2"}
    info = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    builder.document |= {"images": [image], "textures": [texture], "materials": [info]}
    builder.document["meshes"][0]["primitives"][0]["material"] = 0


BASISU = {"extensions": {"KHR_texture_basisu": {"source": 0}}}
REFUSED = {
    "draco": (lambda b: _compressed(b, True), "KHR_draco_mesh_compression", "gltf-transform"),
    "draco not required": (lambda b: _compressed(b, False), "KHR_draco_mesh_compression", "gltf-transform"),
    "meshopt": (
        lambda b: b.document.update(extensionsRequired=["EXT_meshopt_compression"]),
        "EXT_meshopt",
        "transform",
    ),
    "basisu": (lambda b: b.document.update(extensionsRequired=["KHR_texture_basisu"]), "KTX2", "ktxdecompress"),
    "basisu not required": (lambda b: _ktx2(b, **BASISU), "KTX2", "ktxdecompress"),
    "ktx2 as png": (lambda b: _ktx2(b, source=0), "KTX2", "ktxdecompress"),
    "unknown extension": (lambda b: b.document.update(extensionsRequired=["ACME_wobble"]), "ACME_wobble", "export"),
    "version 1": (lambda b: b.document.update(asset={"version": "1.0"}), "version", "convert"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_name_with_a_remedy(tmp_path, case):
    change, name, remedy = REFUSED[case]
    builder = triangle()
    change(builder)
    (tmp_path / "a.glb").write_bytes(builder.glb())
    with pytest.raises(FormatError, match=f"a.glb.*{name}.*{remedy}") as caught:
        read_mesh(tmp_path / "a.glb")
    assert "\n" not in str(caught.value)


def _set(*path, to):
    def change(builder: Builder) -> None:
        place = builder.document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def _positions(values):
    def change(builder: Builder) -> None:
        builder.document["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = builder.accessor(values, "VEC3")

    return change


def _indices(values):
    def change(builder: Builder) -> None:
        builder.document["meshes"][0]["primitives"][0]["indices"] = builder.accessor(values, "SCALAR", "<u4")

    return change


def _bomb(builder: Builder) -> None:
    png = bytearray((FIXTURES / "paint.png").read_bytes())
    png[16:24] = struct.pack(">II", 8192, 8192)
    _ktx2(builder, source=0)
    builder.document["images"] = [{"bufferView": builder.view(bytes(png)), "mimeType": "image/png"}]


HOSTILE = {
    "nan": _positions([[0, 0, np.nan], [1, 0, 0], [0, 1, 0]]),
    "index past the end": _indices([0, 1, 3]),
    "not triangles": _indices([0, 1]),
    "accessor past its view": _set("accessors", 0, "count", to=4),
    "view past its buffer": _set("bufferViews", 0, "byteLength", to=1 << 30),
    "offset overflow": _set("accessors", 0, "byteOffset", to=(1 << 40) - 1),
    "count without data": _set("accessors", 0, to={"componentType": 5126, "count": 1 << 39, "type": "VEC3"}),
    "negative": _set("accessors", 0, "count", to=-1),
    "fraction": _set("accessors", 0, "count", to=1.5),
    "not a number": _set("nodes", 0, "translation", to=[0, "x", 0]),
    "huge number": _set("nodes", 0, "scale", to=[10**400, 1, 1]),
    "own child": _set("nodes", 0, "children", to=[0]),
    "cycle": _set("nodes", to=[{"mesh": 0}, {"children": [2]}, {"children": [1]}]),
    "two parents": _set("nodes", to=[{"mesh": 0, "children": [2]}, {"children": [2]}, {}]),
    "shown twice": _set("nodes", to=[{"mesh": 0, "children": [0]}]),
    "image bomb": _bomb,
    "overflowing transform": _set("nodes", 0, to={"mesh": 0, "scale": [3e38, 1, 1], "translation": [3e38, 0, 0]}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_lies_are_refused(tmp_path, case):
    builder = triangle()
    HOSTILE[case](builder)
    (tmp_path / "a.glb").write_bytes(builder.glb())
    with pytest.raises(FormatError, match="a.glb"):
        read_mesh(tmp_path / "a.glb")


@pytest.mark.parametrize(
    "uri",
    ["../secret.bin", "a/../../secret.bin", "/etc/passwd", "file:///etc/passwd", "http://host/x", "C:\\x",
     "%2e%2e/secret.bin",
     "link.bin", "folder", "", "no\0pe", "data:;base64,!!!", "data:text/plain,abc", "x" * 5000],
)  # fmt: skip
def test_buffers_stay_in_the_folder(tmp_path, uri):
    folder = tmp_path / "inside"
    (folder / "folder").mkdir(parents=True)
    builder = triangle()
    (tmp_path / "secret.bin").write_bytes(builder.binary)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    builder.document["buffers"] = [{"byteLength": len(builder.binary), "uri": uri}]
    (folder / "a.gltf").write_text(json.dumps(builder.document))
    with pytest.raises(FormatError, match="a.gltf") as caught:
        read_mesh(folder / "a.gltf")
    assert "\n" not in str(caught.value)


def test_files_beside_and_below_are_read(tmp_path):
    builder = triangle()
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data" / "a.bin").write_bytes(builder.binary)
    builder.document["buffers"] = [{"byteLength": len(builder.binary), "uri": "my%20data/a.bin"}]
    (tmp_path / "a.gltf").write_text(json.dumps(builder.document))
    assert read_mesh(tmp_path / "a.gltf").vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "I;16", "1"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    levels = np.array([[0, 255], [128, 64]], np.uint8)
    image = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    builder = triangle()
    _ktx2(builder, source=0)
    builder.document["images"] = [{"bufferView": builder.view(stream.getvalue()), "mimeType": "image/png"}]
    uv = builder.accessor([[0, 0], [1, 0], [0, 1]], "VEC2")
    builder.document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = uv
    (tmp_path / "a.glb").write_bytes(builder.glb())
    texture = np.asarray(read_mesh(tmp_path / "a.glb").texture)
    expected = np.asarray(Image.fromarray(levels).convert("1").convert("L")) if mode == "1" else levels
    np.testing.assert_array_equal(np.rint(texture[:, :, 1] * 255), expected)
    assert texture.shape == (2, 2, 4 if "A" in mode else 3)


def test_scenes_that_do_not_hold_together_are_not_written(tmp_path):
    scene = blade_scene()
    part, node = scene.parts[0], scene.nodes[0]
    wrong = [
        dataclasses.replace(scene, parts=(dataclasses.replace(part, weights=None),)),
        dataclasses.replace(scene, parts=(dataclasses.replace(part, joints=part.joints + 2),)),
        dataclasses.replace(scene, nodes=(dataclasses.replace(node, parts=(1,)), *scene.nodes[1:])),
        dataclasses.replace(scene, nodes=(dataclasses.replace(node, children=(1,)), *scene.nodes[1:])),
        dataclasses.replace(scene, parts=(dataclasses.replace(part, tangents=jnp.zeros((3, 4))),)),
        scene_from_parts((Part(mesh=Mesh(vertices=jnp.zeros((0, 3)), faces=jnp.zeros((0, 3), jnp.int32))),)),
    ]
    for number, bad in enumerate(wrong):
        with pytest.raises(FormatError, match="cannot write"):
            write_scene(tmp_path / f"{number}.glb", bad)
    assert not list(tmp_path.iterdir())
