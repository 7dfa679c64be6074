"""OBJ and PLY: what files of every dialect mean, worked out by hand, against each other and against trimesh."""

import dataclasses
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from renderers.meshes.atlas import linear_from_srgb
from renderers.meshes.codecs.polygons import triangulated
from renderers.meshes.connectivity import is_watertight
from renderers.meshes.formats import FormatError, read_mesh, read_scene, write_mesh, write_scene
from renderers.meshes.mesh import Mesh, enclosed_volume, face_normals, plain_material, surface_area
from tests.helpers.blade import blade_scene, stripes
from tests.helpers.shared import shared_path
from tests.renderers.meshes.formats_fuzz_test import MTL, OBJ, PLY, binary_ply
from tests.renderers.meshes.gltf_test import FIXTURES, full_material, grid

CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]


def obj(faces: list[str], extra: str = "") -> str:
    return "".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in CUBE) + extra + "".join(f"f {face}\n" for face in faces)


def test_a_cube_of_quads_is_watertight_and_has_its_volume(tmp_path):
    (tmp_path / "a.obj").write_text(obj([" ".join(str(i + 1) for i in quad) for quad in QUADS]))
    mesh = read_mesh(tmp_path / "a.obj")
    assert len(mesh.vertices) == 8 and len(mesh.faces) == 12 and is_watertight(np.asarray(mesh.faces))
    np.testing.assert_allclose(enclosed_volume(mesh.vertices, mesh.faces), 1, rtol=1e-6)
    np.testing.assert_allclose(surface_area(mesh.vertices, mesh.faces), 6, rtol=1e-6)


DIALECTS = {
    "positive": ["{0}/{0}/1 {1}/{1}/1 {2}/{2}/1", 1],
    "negative": ["{0}/{0}/-1 {1}/{1}/-1 {2}/{2}/-1", -4],
    "no uv": ["{0}//1 {1}//1 {2}//1", 1],
    "no normal": ["{0}/{0} {1}/{1} {2}/{2}", 1],
    "mixed": ["{0}/{0}/1 {1}//1 {2}", 1],
    "tabs and comment": ["\t{0}  {1}\t{2}   # first", 1],
}


@pytest.mark.parametrize("name", DIALECTS)
def test_corners_of_every_form(tmp_path, name):
    form, first = DIALECTS[name]
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 5 5 5\nvt 0 0\nvt 1 0\nvt 0 1\nvt .5 .5\nvn 0 0 1\n"
    text += f"f {form.format(first, first + 1, first + 2)}\r\n"
    (tmp_path / "a.obj").write_text(text)
    mesh = read_mesh(tmp_path / "a.obj")
    corners = mesh.vertices[mesh.faces[0]]
    assert corners.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    if name in ("positive", "negative", "no normal"):
        uv_faces = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
        assert mesh.uv[uv_faces[0]].tolist() == [[0, 0], [1, 0], [0, 1]]
    if name in ("positive", "negative", "no uv"):
        assert mesh.normals[mesh.faces[0]].tolist() == [[0, 0, 1]] * 3
    assert (mesh.normals is None) == (name in ("no normal", "mixed", "tabs and comment"))


def test_vertices_split_where_normals_do_and_nowhere_else(tmp_path):
    normals = "vn 0 0 1\nvn 0 0 1\nvn 0 1 0\n"  # the first two are one
    text = (
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\n"
        + normals
        + "f 1//1 2//1 3//2\nf 1//2 3//2 4//1\nf 1//3 5//3 2//3\n"
    )
    (tmp_path / "a.obj").write_text(text)
    mesh = read_mesh(tmp_path / "a.obj")
    assert len(mesh.vertices) == 7  # vertices 1 and 2 are on the hard edge
    expected = [[0, 0, 1]] * 6 + [[0, 1, 0]] * 3
    assert mesh.normals[mesh.faces.reshape(-1)].tolist() == expected


def test_concave_polygons_are_covered_once():
    """Areas of the triangles add up to the shoelace area and none is turned over; a fan would overlap itself."""
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radii = np.where(np.arange(14) % 2, 0.3, 1.0)
    star = np.stack([radii * np.cos(angles), radii * np.sin(angles), 0 * angles], 1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    points = np.concatenate([star @ turn.T, CUBE]).astype(np.float32)
    corners = np.concatenate([np.arange(14), [14, 15, 17, 16], [0, 1]])
    triangles, polygon = triangulated(corners, np.array([14, 4, 2]), points)
    assert np.bincount(polygon).tolist() == [12, 2]
    shape = points[corners[triangles[polygon == 0]]].astype(np.float64)
    cross = np.cross(shape[:, 1] - shape[:, 0], shape[:, 2] - shape[:, 0]) @ (turn @ [0, 0, 1])
    x, y = star[:, 0], star[:, 1]
    area = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    np.testing.assert_allclose(0.5 * cross.sum(), area, rtol=1e-6)
    assert (cross > -1e-9).all()
    assert triangles[polygon == 1].tolist() == [[14, 15, 16], [14, 16, 17]]
    arrow = np.array([[0, 0, 0], [2, -1, 0], [0.5, 0, 0], [2, 1, 0]], np.float32)
    for k in range(4):
        (first, second), _ = triangulated((np.arange(4) + k) % 4, np.array([4]), arrow)
        assert {(first[0] + k) % 4, (second[0] + k) % 4} == {2}  # around the inward corner


def test_materials_of_an_obj_keep_their_looks_and_vertices_stay_joined(tmp_path):
    (tmp_path / "a.obj").write_bytes(OBJ)
    (tmp_path / "box.mtl").write_bytes(MTL)
    (tmp_path / "paint.png").write_bytes((FIXTURES / "paint.png").read_bytes())
    mesh, scene = read_mesh(tmp_path / "a.obj"), read_scene(tmp_path / "a.obj")
    assert [part.name for part in scene.parts] == ["paint", "glass"] and not scene.notes
    paint, glass = (part.mesh.material for part in scene.parts)
    np.testing.assert_allclose(paint.base_color, [0.8, 0.1, 0.1, 1])
    np.testing.assert_allclose([paint.roughness, glass.roughness], [0.5, (2 / 102) ** 0.25], rtol=1e-6)
    assert (glass.alpha_mode, float(glass.base_color[3])) == ("BLEND", 0.5) and scene.parts[0].wrap[0] == "clamp"
    np.testing.assert_array_equal(scene.parts[0].mesh.texture, jnp.asarray(stripes(8, 8)))
    assert len(mesh.vertices) == 5 and len(mesh.faces) == 5  # the quad is two triangles
    np.testing.assert_allclose(mesh.vertex_colors[4], [0, 1, 1])


def test_what_an_obj_lacks_leaves_notes(tmp_path):
    (tmp_path / "a.obj").write_text("mtllib gone.mtl\nmtllib here.mtl\nusemtl x\n" + obj(["1 2 3"]))
    (tmp_path / "here.mtl").write_text("newmtl x\nKd 0.5 0.5 0.5\nmap_Kd gone.png\n")
    scene = read_scene(tmp_path / "a.obj")
    assert len(scene.notes) == 2 and "gone.mtl" in scene.notes[0] and "gone.png" in scene.notes[1]
    np.testing.assert_allclose(read_mesh(tmp_path / "a.obj").material.base_color, [0.5, 0.5, 0.5, 1])


@pytest.mark.parametrize("line", ["mtllib ../x.mtl", "mtllib /etc/passwd", "mtllib C:\\x.mtl", "map_Kd ..\\x.png",
                                  "map_Kd -bm 1 /etc/passwd", "bump http://x/y.png"])  # fmt: skip
def test_files_of_an_obj_stay_in_its_folder(tmp_path, line):
    library = "mtllib here.mtl\n" if not line.startswith("mtllib") else line + "\n"
    (tmp_path / "here.mtl").write_text("newmtl x\n" + line + "\n")
    (tmp_path / "a.obj").write_text(library + obj(["1 2 3"]))
    with pytest.raises(FormatError, match="a.obj.*inside its own folder"):
        read_mesh(tmp_path / "a.obj")


BAD_OBJ = {
    "index past the end": obj(["1 2 9"]),
    "index zero": obj(["0 1 2"]),
    "negative past the start": obj(["-1 -2 -9"]),
    "nan": obj(["1 2 3"], "v nan 0 0\n"),
    "overflow": obj(["1 2 3"], "v 1e39 0 0\n"),
    "word": obj(["1 2 3"], "v a b c\n"),
    "two coordinates": obj(["1 2 3"], "v 1 2\n"),
    "corner": obj(["1 2 3x"]),
    "digits": obj(["1 2 " + "9" * 40]),
    "no faces": obj([]),
}


@pytest.mark.parametrize("case", BAD_OBJ)
def test_damaged_objs_are_refused(tmp_path, case):
    (tmp_path / "a.obj").write_text(BAD_OBJ[case])
    with pytest.raises(FormatError, match="a.obj") as caught:
        read_mesh(tmp_path / "a.obj")
    assert "\n" not in str(caught.value)


def test_text_and_binary_plys_of_both_byte_orders_agree(tmp_path):
    (tmp_path / "paint.png").write_bytes((FIXTURES / "paint.png").read_bytes())
    meshes = []
    for name, content in (("a", PLY), ("l", binary_ply("<")), ("b", binary_ply(">"))):
        (tmp_path / f"{name}.ply").write_bytes(content)
        meshes.append(read_mesh(tmp_path / f"{name}.ply"))
    for mesh in meshes:
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), mesh, meshes[0]))
    mesh = meshes[0]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    uv = [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]], [[0, 0], [1, 0], [1, 1]]]
    assert mesh.uv[mesh.uv_faces].tolist() == uv
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.float32) / 255
    np.testing.assert_allclose(mesh.vertex_colors, linear_from_srgb(colors), rtol=1e-6)
    np.testing.assert_array_equal(mesh.texture, jnp.asarray(stripes(8, 8)))


BAD_PLY = {
    "count": PLY.replace(b"face 2", b"face 9"),
    "huge": PLY.replace(b"vertex 4", b"vertex 999999999999"),
    "index": PLY.replace(b"4 0 1 2 3", b"4 0 1 2 4"),
    "long list": PLY.replace(b"3 0 1 2 6", b"9 0 1 2 6"),
    "nan": PLY.replace(b"1 1 0.5", b"1 1 nan"),
    "points": PLY.replace(b"face 2", b"face 0"),
    "no z": PLY.replace(b"float z", b"float w"),
    "binary cut": binary_ply("<")[:-3],
    "binary list": binary_ply("<").replace(b"\x04\0\0\0\0\x01", b"\xff\0\0\0\0\x01"),
}


@pytest.mark.parametrize("case", BAD_PLY)
def test_damaged_plys_are_refused(tmp_path, case):
    (tmp_path / "a.ply").write_bytes(BAD_PLY[case])
    with pytest.raises(FormatError, match="a.ply"):
        read_mesh(tmp_path / "a.ply")


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_what_is_written_comes_back(tmp_path, suffix):
    normals = jnp.tile(jnp.array([0.6, 0, 0.8], jnp.float32), (25, 1))
    colors = linear_from_srgb(np.arange(75).reshape(25, 3).astype(np.float32) / 255)
    mesh = grid(texture=jnp.asarray(stripes(8, 8)), normals=normals, vertex_colors=jnp.asarray(colors),
                material=full_material() if suffix == ".obj" else None)  # fmt: skip
    path = tmp_path / f"a b{suffix}"
    write_mesh(path, mesh)
    first = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    back = read_mesh(path)
    np.testing.assert_array_equal(back.vertices, mesh.vertices)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    np.testing.assert_array_equal(back.uv[back.uv_faces], mesh.uv[mesh.uv_faces])
    np.testing.assert_array_equal(back.normals, mesh.normals)
    np.testing.assert_array_equal(back.texture, mesh.texture)
    np.testing.assert_allclose(back.vertex_colors, mesh.vertex_colors, rtol=1e-5, atol=1e-7)
    if suffix == ".obj":
        for name in ("base_color", "metallic", "roughness", "emissive", "normal_texture", "occlusion_texture"):
            np.testing.assert_array_equal(getattr(back.material, name), getattr(mesh.material, name))
        got, expected = (m.metallic_roughness_texture[:, :, 1:] for m in (back.material, mesh.material))
        np.testing.assert_array_equal(got, expected)
    write_mesh(path, mesh)
    assert first == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_broken_meshes_leave_the_old_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_mesh(path, dataclasses.replace(grid(), material=plain_material()))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    broken = [
        dict(vertices=grid().vertices.at[3, 1].set(jnp.nan)),
        dict(faces=grid().faces.at[0, 0].set(25)),
        dict(uv_faces=grid().uv_faces[1:]),
        dict(normals=jnp.zeros((3, 3))),
        dict(texture=jnp.zeros((4, 4))),
    ]
    for changes in broken:
        with pytest.raises(FormatError, match=f"cannot write .*a{suffix}"):
            write_mesh(path, Mesh(**(vars(grid()) | changes)))
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_unknown_suffixes_are_named(tmp_path):
    for call in (read_mesh, read_scene, lambda p: write_mesh(p, grid()), lambda p: write_scene(p, blade_scene())):
        with pytest.raises(FormatError, match="a.stl"):
            call(tmp_path / "a.stl")
    with pytest.raises(FormatError, match="no such file"):
        read_mesh(tmp_path / "a.obj")


LIKE_TRIMESH = ["formats/BoxTextured.ply", "formats/Duck.glb", "classic/spot.obj", "formats/CesiumMilkTruck.glb",
                "formats/boolean.glb", "pbr_glb/low-poly-tree.glb", "pbr_glb/SunglassesKhronos.glb"]  # fmt: skip


@pytest.mark.parametrize(
    "name", [*LIKE_TRIMESH[:3], *(pytest.param(n, marks=pytest.mark.slow) for n in LIKE_TRIMESH[3:])]
)
def test_trimesh_finds_the_same_surface(name):
    path = shared_path("data", "meshes", *name.split("/"))
    mesh, other = read_mesh(path), trimesh.load(path, process=False, force="scene").to_geometry()
    assert len(mesh.faces) == len(other.faces)
    got = [
        float(surface_area(mesh.vertices, mesh.faces)),
        *np.ptp(np.asarray(mesh.vertices)[mesh.faces].reshape(-1, 3), 0),
    ]
    np.testing.assert_allclose(got, [other.area, *other.extents], rtol=1e-4)


def test_a_scanned_obj_with_a_texture(tmp_path):
    with zipfile.ZipFile(shared_path("data", "meshes", "formats", "fuze.zip")) as archive:
        archive.extractall(tmp_path)
    mesh, scene = read_mesh(tmp_path / "fuze.obj"), read_scene(tmp_path / "fuze.obj")
    assert mesh.texture is not None and mesh.uv is not None and scene.parts[0].name == "material_0"
    # its own normals agree with those of its faces
    agreement = jnp.sum(face_normals(mesh.vertices, mesh.faces) * mesh.normals[mesh.faces[:, 0]], axis=1)
    assert float(jnp.mean(agreement > 0.5)) > 0.95
