"""COLMAP models: parity with pycolmap, text against binary, the largest of several, damaged tables."""

import pathlib
import shutil
import struct

import numpy as np
import pytest

from experiments.data.colmap import read_largest, read_model
from experiments.errors import InputError
from tests.helpers.shared import shared_path

FIXTURE = pathlib.Path(__file__).parents[2] / "fixtures" / "colmap"


@pytest.mark.parametrize("form", ["binary", "text"])
def test_poses_points_and_lenses_are_those_that_pycolmap_wrote(form):
    expected = np.load(FIXTURE / "expected.npz")
    model = read_model(FIXTURE / form, FIXTURE)
    by_name = {view.name: view for view in model.views}
    assert set(by_name) == set(expected["names"])
    for name, pose in zip(expected["names"], expected["camera_from_world"], strict=True):
        np.testing.assert_allclose(by_name[name].camera_from_world, pose, atol=1e-12)
        assert by_name[name].path == FIXTURE / name and by_name[name].lens_size == (48, 64)
    order = np.lexsort(model.points.T)
    np.testing.assert_array_equal(model.points[order], expected["points"][np.lexsort(expected["points"].T)])
    colors = expected["colors"][np.lexsort(expected["points"].T)]
    np.testing.assert_array_equal(model.point_colors[order], colors)
    assert by_name["d/later.jpg"].lens.focal == (50.5, 50.5)
    assert by_name["e.jpg"].lens.model == "fisheye" and by_name["e.jpg"].lens.coefficients == (0.01,)
    assert by_name["b.jpg"].lens.coefficients == (0.01, -0.002, 0.001, -0.0005)


def _assert_same(first, second):
    for a, b in zip(
        sorted(first.views, key=lambda view: view.name), sorted(second.views, key=lambda v: v.name), strict=True
    ):
        assert (a.name, a.path, a.lens, a.lens_size) == (b.name, b.path, b.lens, b.lens_size)
        np.testing.assert_array_equal(a.camera_from_world, b.camera_from_world)
    for name in ("points", "point_colors"):
        a, b = getattr(first, name), getattr(second, name)
        np.testing.assert_array_equal(a[np.lexsort(first.points.T)], b[np.lexsort(second.points.T)])


def test_text_and_binary_of_one_model_are_equal_to_the_bit():
    _assert_same(read_model(FIXTURE / "binary", FIXTURE), read_model(FIXTURE / "text", FIXTURE))


def test_the_fox_model_has_its_published_counts():
    model = read_largest(shared_path("data/captures/fox"))
    assert len(model.views) == 50 and model.points.shape == (10518, 3)
    # Data README: our own SfM found focal 1376.9 / 1377.7 and k1 .0581.
    lens = model.views[0].lens
    np.testing.assert_allclose([*lens.focal, lens.coefficients[0]], [1376.9, 1377.7, 0.0581], rtol=1e-3)
    # Nearly all points lie in front of the cameras and project into the picture of some.
    inside = np.zeros(len(model.points), bool)
    for view in model.views:
        x, y, z = (model.points @ view.camera_from_world[:3, :3].T + view.camera_from_world[:3, 3]).T
        u, v = lens.focal[0] * x / z + lens.principal[0], lens.focal[1] * y / z + lens.principal[1]
        inside |= (z > 0) & (u > 0) & (u < 1080) & (v > 0) & (v < 1920)
    assert inside.mean() > 0.999


def test_the_largest_of_several_models_is_taken(tmp_path):
    small, large = tmp_path / "sparse" / "0", tmp_path / "sparse" / "1"
    small.mkdir(parents=True)
    shutil.copytree(FIXTURE / "binary", large)
    lines = (FIXTURE / "text" / "images.txt").read_text().splitlines(keepends=True)
    (small / "images.txt").write_text("".join(lines[:6]))
    shutil.copy(FIXTURE / "text" / "cameras.txt", small)
    assert read_largest(tmp_path).folder == large
    assert len(read_model(small, tmp_path).views) == 1 and read_model(small, tmp_path).points.shape == (0, 3)


def _damage(tmp_path, name, change):
    folder = tmp_path / "sparse" / "0"
    shutil.copytree(FIXTURE / ("text" if name.endswith(".txt") else "binary"), folder)
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("cameras.bin", lambda b: struct.pack("<Q", 2**60) + b[8:], "rows need at least"),
        ("images.bin", lambda b: struct.pack("<Q", 2**63) + b[8:], "rows need at least"),
        ("points3D.bin", lambda b: struct.pack("<Q", 10**12) + b[8:], "rows need at least"),
        ("cameras.bin", lambda b: b[:12] + struct.pack("<i", 99) + b[16:], "unknown model number 99"),
        ("cameras.bin", lambda b: b[:-1], "cut short"),
        ("cameras.bin", lambda b: b + b"x", "follow the last row"),
        ("cameras.bin", lambda b: b"", "ends inside a row"),
        ("images.bin", lambda b: b.replace(b"later.jpg\0", b"later.jpgx"), "does not end|cut short|UTF-8|rows"),
        ("images.bin", lambda b: b.replace(b"d/later.jpg", b"\xff\xfe/a.jpg\0\0\0"), "not UTF-8"),
        ("images.bin", lambda b: b.replace(b"d/later.jpg", b"../ater.jpg"), "leads outside"),
        ("images.bin", lambda b: b[:12] + struct.pack("<4d", 0, 0, 0, 0) + b[44:], "quaternion has length 0"),
        ("images.bin", lambda b: b[:12] + struct.pack("<d", float("nan")) + b[20:], "quaternion has length nan"),
        ("images.bin", lambda b: b[:44] + struct.pack("<d", float("inf")) + b[52:], "not a rotation"),
        ("points3D.bin", lambda b: b[:16] + struct.pack("<d", float("nan")) + b[24:], "point 0 is not finite"),
        ("cameras.txt", lambda b: b.replace(b"FULL_OPENCV", b"FULL_OPENCW"), "unknown camera model 'FULL_OPENCW'"),
        ("cameras.txt", lambda b: b.replace(b"OPENCV_FISHEYE", b"FOV"), "FOV takes 5 parameters, got 8"),
        ("cameras.txt", lambda b: b.replace(b"64 48", b"64.5 48"), "whole numbers"),
        ("images.txt", lambda b: b.replace(b" d/later.jpg", b""), "expected IMAGE_ID"),
        ("images.txt", lambda b: b.replace(b" 3 d/later.jpg", b" 99 d/later.jpg"), "camera 99, which is missing"),
        ("points3D.txt", lambda b: b.replace(b" 33 186 248 ", b" 33 186 256 "), "0 to 255"),
    ],
)
def test_damaged_tables_are_refused_with_the_reason(tmp_path, name, change, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read_largest(_damage(tmp_path, name, change))
    assert "\n" not in str(caught.value)


def test_models_that_have_no_ideal_form_here_name_the_remedy(tmp_path):
    root = _damage(
        tmp_path, "cameras.txt", lambda b: b.replace(b"SIMPLE_PINHOLE 64 48 50.5", b"FOV 64 48 50 50 32 24 0.5")
    )
    folder = root / "sparse" / "0" / "cameras.txt"
    folder.write_text(folder.read_text().replace("0.5 32 24\n", "0.5\n"))
    with pytest.raises(InputError, match="FOV is not supported; run `colmap image_undistorter`"):
        read_largest(root)
