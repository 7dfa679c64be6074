"""Folders of named meshes: names to captions, the place in the world, and files that are not to be trusted."""

import dataclasses
import pathlib
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import named_meshes
from experiments.data.blocks import mesh_pictures, rendering
from experiments.data.blocks.descriptions import vocabulary, words_of
from experiments.errors import InputError
from generators.text.words import WordTokenizer
from renderers.meshes.formats import write_mesh
from renderers.meshes.mesh import Mesh
from tests.helpers.shared import shared_path

_FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "meshes"


def tent():
    """A coloured tetrahedron with flat sides that share no vertices."""
    corners = np.array([[0.4, -0.3, 0.3], [-0.4, -0.3, 0.3], [0.0, -0.3, -0.4], [0.1, 0.35, 0.0]], np.float32)
    sides = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])
    vertices, colors = corners[sides].reshape(-1, 3), np.repeat(np.eye(4, 3, dtype=np.float32), 3, axis=0)
    normals = np.cross(vertices[1::3] - vertices[::3], vertices[2::3] - vertices[::3])
    normals = np.repeat(normals / np.linalg.norm(normals, axis=1, keepdims=True), 3, axis=0)
    return Mesh(
        vertices=jnp.asarray(vertices), faces=jnp.arange(12, dtype=jnp.int32).reshape(4, 3),
        vertex_colors=jnp.asarray(colors), normals=jnp.asarray(normals),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "name", "caption"),
    [
        ("Pine_Tree_2.glb", "pine tree", "a pine tree"),
        ("crops_pack__PalmTree_4.glb", "palm tree", "a palm tree"),
        ("house interior__Bathroom_WashingMachine.obj", "bathroom washing machine", "a bathroom washing machine"),
        ("apple.ply", "apple", "an apple"),
        ("TRex-old.gltf", "rex old", "a rex old"),
        ("Flowers.glb", "flowers", "flowers"),
        ("crops_pack__Cactus_4.glb", "cactus", "a cactus"),
        ("grass.glb", "grass", "a grass"),
    ],
)
def test_names_are_captions(file, name, caption):
    assert named_meshes.name_of(pathlib.Path(file)) == name
    assert named_meshes._with_article(name) == caption


@pytest.mark.parametrize("file", ["123.glb", "__.glb", "x_1.glb", "стол.glb", "a_bb_cc_dd_ee_ff_gg_hh_ii_jj.glb"])
def test_names_without_words_are_refused(file):
    with pytest.raises(InputError, match="must say what it is in 1 to 8 words") as error:
        named_meshes.name_of(pathlib.Path(file))
    assert "\n" not in str(error.value)


def test_new_words_follow_the_known_ones():
    """The numbers of the block world's words stay, whatever the folder holds."""
    corners = mesh_pictures.taken_apart(named_meshes.placed(tent()))
    meshes = [
        named_meshes.NamedMesh(name=name, caption=f"a {name}", file=pathlib.Path(f"{name}.glb"), corners=corners)
        for name in ("willow tree", "cup", "apple")
    ]
    words = named_meshes.new_words([one.caption for one in meshes], vocabulary())
    assert words == ("apple", "willow")  # a cup is a mug, a tree is known
    extended = WordTokenizer((*vocabulary(), *words), 24)
    usual = WordTokenizer(vocabulary(), 24)
    for caption in ("a small red box on top of a green torus", "a white snowman with an orange nose"):
        np.testing.assert_array_equal(extended.encode(words_of(caption)), usual.encode(words_of(caption)))
    assert extended.encode(words_of("an apple"))[1] == len(vocabulary())


def test_objects_are_put_in_the_middle_at_their_size(tmp_path):
    """A mesh written far away and a thousand times larger gives the pictures of the one in the world's frame."""
    mesh = tent()
    far = dataclasses.replace(
        mesh, vertices=jnp.asarray(np.asarray(mesh.vertices) * 1000.0 + [3000.0, -50.0, 7.0], jnp.float32)
    )
    write_mesh(tmp_path / "My_House_7.glb", far)
    (tmp_path / "notes.txt").write_text("no mesh")
    (read,) = named_meshes.read_folder(str(tmp_path))
    assert read.caption == "a my house"
    points = read.corners.points
    assert np.ptp(points, axis=0).max() == pytest.approx(0.9, abs=1e-5)
    np.testing.assert_allclose(points.min(axis=0) + points.max(axis=0), 0.0, atol=1e-5)
    azimuths, elevations = np.array([0.0]), np.array([rendering.ELEVATION])
    views = named_meshes.render_meshes([read], azimuths, elevations, size=32)
    assert views.shape == (1, 4, 32, 32, 8) and views.dtype == np.uint8
    here = mesh_pictures.taken_apart(named_meshes.placed(mesh))
    want = rendering.to_bytes(mesh_pictures.render_mesh_ring(here, 0.0, rendering.ELEVATION, size=32))
    # positions were rounded to a tenth of a millimetre on the way: samples on outlines may differ
    assert np.mean(np.abs(views[0].astype(int) - want.astype(int)).max(axis=-1) > 2) < 0.01


def test_files_of_others_are_read():
    crop = named_meshes._read(_FIXTURES / "corn_crop.glb")
    view = np.asarray(mesh_pictures.render_mesh_ring(crop, 0.0, rendering.ELEVATION, size=32))[0]
    assert 0.02 < np.mean(view[..., 7] > 0) < 0.6
    inner = view[view[..., 7] > 0.9]
    assert len(np.unique(np.round(inner[:, :3], 1), axis=0)) >= 2  # its two materials
    np.testing.assert_array_less(inner[:, 5], 0.3)  # normals face the camera


def test_draws_depend_on_seed_and_number_alone():
    got = [named_meshes.drawn(0, index, 0.25, 7) for index in range(1000)]
    assert got == [named_meshes.drawn(0, index, 0.25, 7) for index in range(1000)]
    taken = [one for one in got if one is not None]
    assert len(taken) / 1000 == pytest.approx(0.25, abs=0.05)
    assert set(taken) == set(range(7))
    assert all(named_meshes.drawn(0, index, 0.0, 7) is None for index in range(50))
    assert all(named_meshes.drawn(0, index, 1.0, 7) is not None for index in range(50))


def refused(folder, reason):
    with pytest.raises(InputError, match=reason) as error:
        named_meshes.read_folder(str(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_folders_that_cannot_be_used(tmp_path):
    refused(tmp_path / "missing", "expected a folder of named mesh files")
    refused(tmp_path, "has 0 files of .glb")
    (tmp_path / "chair.glb").write_bytes(b"")
    refused(tmp_path / "chair.glb", "expected a folder of named mesh files")
    refused("\0", "expected a folder of named mesh files")


def test_files_that_cannot_be_used(tmp_path, monkeypatch):
    good = (_FIXTURES / "corn_crop.glb").read_bytes()
    for number, content in enumerate(
        (b"", b"glTF", good[: len(good) // 2], good[:8] + struct.pack("<I", 1 << 31) + good[12:], 100 * b"\xff")
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "corn_crop.glb").write_bytes(content)
        refused(folder, "corn_crop.glb")
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    refused(flat, "point.obj: .*nothing to see")
    (flat / "point.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 nan\nf 1 2 3\n")
    refused(flat, "point.obj")
    (flat / "point.obj").write_text("v 0 0 0\nv 1 0 0\n")
    refused(flat, "point.obj")
    (flat / "point.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    monkeypatch.setattr(mesh_pictures, "MOST_FACES", 0)
    refused(flat, "point.obj: 1 triangles are more than the 0")
    monkeypatch.setattr(named_meshes, "MOST_BYTES", 10)
    refused(flat, "point.obj: .* bytes are more than the 10")
    monkeypatch.setattr(named_meshes, "MOST_FILES", 0)
    refused(flat, "has 1 files")


def test_the_names_of_a_whole_folder():
    folder = shared_path("data", "meshes", "quaternius_glb")
    names = [named_meshes.name_of(file) for file in named_meshes.mesh_files(str(folder))]
    assert len(names) == 90 and {"pine tree", "alpaca", "first aid kit", "trex"} <= set(names)


@pytest.mark.slow
def test_a_whole_folder_is_seen_where_it_projects():
    """At fine sampling each silhouette reaches to within a pixel of where the mesh's outermost corners project."""
    meshes = named_meshes.read_folder(str(shared_path("data", "meshes", "quaternius_glb")))
    assert len(named_meshes.new_words([one.caption for one in meshes], vocabulary())) == 105
    cameras = rendering.ring_cameras(0.0, rendering.ELEVATION, views=4, size=32)
    poses, focal = np.asarray(cameras.camera_from_world), np.asarray(cameras.focal)[0]
    for one in meshes:
        ring = mesh_pictures.render_mesh_ring(one.corners, 0.0, rendering.ELEVATION, size=32, supersampling=8)
        for pose, coverage in zip(poses, np.asarray(ring)[..., 7], strict=True):
            points = one.corners.points @ pose[:3, :3].T + pose[:3, 3]
            pixels = points[:, :2] / points[:, 2:] * focal + 16
            for first, last, seen in zip(
                pixels.min(axis=0), pixels.max(axis=0), np.nonzero(coverage.T > -1), strict=True
            ):
                assert first - 1 <= seen.min() <= first + 1, one.file
                assert last - 1 <= seen.max() + 1 <= last + 1, one.file
