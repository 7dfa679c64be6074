"""The front door: what of a folder ends up in the Capture record."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from experiments.data.captures import _describe, load_capture
from experiments.errors import InputError
from renderers.ply import write_ply
from tests.experiments.data.captures_on_disk import picture, rewrite, world_from_camera, write_transforms
from tests.helpers.shared import shared_path

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def _write_points(path, count=4):
    rows = np.zeros(count, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    rows["x"], rows["red"] = np.arange(count), 10 * np.arange(count)
    write_ply(path, {"vertex": rows})


def test_views_are_sorted_and_keep_their_pose_pixels_and_lens(tmp_path):
    write_transforms(tmp_path)
    capture = load_capture(tmp_path)
    assert capture.names == ("a.png", "b.png", "c.png")
    for view, seed in enumerate((1, 0, 2)):
        np.testing.assert_array_equal(capture.images[view], picture(12, 16, seed=seed))
        expected = OPENCV_FROM_OPENGL @ np.linalg.inv(world_from_camera(seed))
        np.testing.assert_allclose(capture.camera_from_world[view], expected, atol=1e-12)
    np.testing.assert_array_equal(capture.focal, [[20, 21]] * 3)
    np.testing.assert_array_equal(capture.principal, [[8.5, 6.25]] * 3)
    assert capture.points is None and not capture.white_background and capture.model == "pinhole"


def test_a_point_in_front_of_an_opengl_camera_lands_where_the_picture_says(tmp_path):
    """World point one unit ahead, half a unit right and a quarter up of the camera: right and above the centre."""
    write_transforms(tmp_path)
    capture = load_capture(tmp_path)
    point = world_from_camera(1) @ [0.5, 0.25, -1.0, 1.0]
    x, y, z, _ = capture.camera_from_world[0] @ point
    pixel = capture.focal[0] * [x / z, y / z] + capture.principal[0]
    np.testing.assert_allclose(pixel, [8.5 + 20 * 0.5, 6.25 - 21 * 0.25], atol=1e-9)


def test_downscale_averages_blocks_and_divides_the_intrinsics(tmp_path):
    write_transforms(tmp_path)
    capture = load_capture(tmp_path, downscale=4)
    blocks = picture(12, 16, seed=1).reshape(3, 4, 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(capture.images[0] - blocks).max() <= 0.51
    np.testing.assert_array_equal(capture.focal[0], [5, 5.25])
    np.testing.assert_array_equal(capture.principal[0], [2.125, 1.5625])


def test_missing_images_are_counted_and_skipped_and_all_missing_is_an_error(tmp_path):
    write_transforms(tmp_path)
    (tmp_path / "images" / "a.png").unlink()
    capture = load_capture(tmp_path)
    assert capture.names == ("b.png", "c.png") and capture.missing == 1
    assert any("1 of 3 listed images are missing" in note for note in capture.notes)
    for name in ("b.png", "c.png"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(InputError, match="none of the 3 listed images"):
        load_capture(tmp_path)


def test_split_lists_of_nerfstudio_pick_the_test_views(tmp_path):
    lists = {
        "train_filenames": ["images/a.png"],
        "val_filenames": ["images/b.png"],
        "test_filenames": ["./images/c.png"],
    }
    document = write_transforms(tmp_path, **lists)
    capture = load_capture(tmp_path)
    assert capture.names == ("a.png", "c.png") and capture.test_names == ("c.png",)
    assert load_capture(tmp_path, keep_val=True).names == ("a.png", "b.png", "c.png")
    del document["test_filenames"]
    rewrite(tmp_path, document)
    assert load_capture(tmp_path).test_names == ("b.png",)


def test_blender_scenes_keep_their_split_alpha_and_white(tmp_path):
    for split, seed in (("train", 0), ("val", 5), ("test", 9)):
        (tmp_path / split).mkdir()
        Image.fromarray(picture(10, 10, 4, seed)).save(tmp_path / split / "r_0.png")
        # What evaluation scripts leave beside the photographs must not become a view.
        Image.fromarray(picture(10, 10, 1, seed)[..., 0]).save(tmp_path / split / "r_0_depth_0001.png")
        frame = {"file_path": f"./{split}/r_0", "rotation": 0.1, "transform_matrix": world_from_camera(seed).tolist()}
        rewrite(tmp_path, {"camera_angle_x": 0.8, "frames": [frame]}, f"transforms_{split}.json")
    capture = load_capture(tmp_path)
    assert capture.names == ("test/r_0.png", "train/r_0.png") and capture.test_names == ("test/r_0.png",)
    assert capture.white_background
    np.testing.assert_array_equal(capture.images[1], picture(10, 10, 4, 0))
    np.testing.assert_allclose(capture.focal, 5 / np.tan(0.4))
    np.testing.assert_array_equal(capture.principal, [[5, 5]] * 2)


def test_the_point_cloud_beside_the_poses_is_read_in_their_frame(tmp_path):
    write_transforms(tmp_path, ply_file_path="cloud.ply", applied_transform=[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]])
    _write_points(tmp_path / "cloud.ply")
    capture = load_capture(tmp_path)
    np.testing.assert_array_equal(capture.points[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(capture.point_colors[:, 0], [0, 10, 20, 30])
    assert any("applied_transform" in note for note in capture.notes)
    (tmp_path / "cloud.ply").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a PLY"):
        load_capture(tmp_path)


def test_masks_become_alpha_and_missing_ones_are_noted(tmp_path):
    document = write_transforms(tmp_path)
    mask = np.zeros((12, 16), np.uint8)
    mask[:, 4:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    document["frames"][1]["mask_path"] = "mask.png"
    document["frames"][0]["mask_path"] = "none.png"
    rewrite(tmp_path, document)
    capture = load_capture(tmp_path)
    np.testing.assert_array_equal(capture.images[0][..., 3], mask)
    assert capture.images[1].shape[-1] == 3 and any("1 listed masks are missing" in note for note in capture.notes)


@pytest.mark.parametrize("key", ["file_path", "mask_path", "ply_file_path"])
def test_paths_that_leave_the_capture_are_refused_unless_trusted(tmp_path, key):
    root = tmp_path / "capture"
    root.mkdir()
    document = write_transforms(root)
    Image.fromarray(picture(12, 16, seed=7)).save(tmp_path / "outside.png")
    _write_points(tmp_path / "outside.ply")
    outside = "../outside.ply" if key == "ply_file_path" else "../outside.png"
    (document if key == "ply_file_path" else document["frames"][0])[key] = outside
    rewrite(root, document)
    with pytest.raises(InputError, match="--allow_external_paths"):
        load_capture(root)
    assert len(load_capture(root, allow_external_paths=True).names) == 3


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: root / "none", "no such folder"),
        (lambda root: root, "neither transforms.json"),
        (lambda root: (root / "bad.json").write_text("{") and root / "bad.json", "not valid JSON"),
    ],
)
def test_what_is_no_capture_says_what_was_expected(tmp_path, make, reason):
    with pytest.raises(InputError, match=reason):
        load_capture(make(tmp_path))


def test_an_image_that_is_none_or_too_small_for_the_downscale_is_refused(tmp_path):
    write_transforms(tmp_path)
    with pytest.raises(InputError, match="downscale=13 must lie between 1 and 12"):
        load_capture(tmp_path, downscale=13)
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b\.png: not an image"):
        load_capture(tmp_path)


def test_the_fox_photographs_agree_with_another_programs_undistortion(tmp_path):
    """Our undistorted, 4 times reduced photograph against the one that others made of it, warped onto each other."""
    folder = shared_path("data/captures/fox")
    theirs = load_capture(shared_path("data/captures/fox_small"))
    document = json.loads((folder / "transforms.json").read_text())
    (tmp_path / "images").symlink_to(folder / "images")
    document["frames"] = [
        frame for frame in document["frames"] if frame["file_path"] in ("images/0001.jpg", "images/0042.jpg")
    ]
    rewrite(tmp_path, document)
    ours = load_capture(tmp_path, downscale=4, cache_dir=tmp_path / "cache", allow_external_paths=True)
    assert ours.names == ("0001.jpg", "0042.jpg")
    for view, name in enumerate(ours.names):
        other = theirs.names.index(name)
        np.testing.assert_allclose(ours.camera_from_world[view], theirs.camera_from_world[other], atol=1e-9)
        height, width = ours.images[view].shape[:2]
        v, u = np.mgrid[2 : height - 2, 2 : width - 2] + 0.5
        u = (u - ours.principal[view, 0]) / ours.focal[view, 0] * theirs.focal[other, 0] + theirs.principal[other, 0]
        v = (v - ours.principal[view, 1]) / ours.focal[view, 1] * theirs.focal[other, 1] + theirs.principal[other, 1]
        inside = (u > 1) & (v > 1) & (u < 269) & (v < 479)
        assert inside.mean() > 0.95
        image = theirs.images[other].astype(float)
        warped = [map_coordinates(image[..., c], [v - 0.5, u - 0.5], order=3, mode="nearest") for c in range(3)]
        error = (np.stack(warped, axis=-1) - ours.images[view][2:-2, 2:-2])[inside]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 38


def test_fox_has_both_kinds_of_poses_and_colmap_has_the_points():
    folder = shared_path("data/captures/fox")
    auto = _describe(folder, "auto", False, False)
    assert auto.points.shape == (10518, 3) and any("COLMAP" in note for note in auto.notes)
    transforms = _describe(folder, "transforms", False, False)
    assert transforms.points is None and len(transforms.views) == 67
    # The two worlds differ by a similarity: distances between cameras agree up to one factor.
    names = [view.path.name for view in auto.views][::24]
    assert len(names) == 3
    centers = []
    for description in (auto, transforms):
        poses = {view.path.name: view.camera_from_world for view in description.views}
        centers.append(np.array([-poses[n][:3, :3].T @ poses[n][:3, 3] for n in names]))
    distances = [np.linalg.norm(c - np.roll(c, 1, axis=0), axis=1) for c in centers]
    ratio = distances[0] / distances[1]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.01)
    assert abs(ratio.mean() - 1) > 0.02


def test_the_chair_has_its_official_test_views_and_straight_alpha():
    capture = load_capture(shared_path("data/captures/nerf_synthetic_chair"), downscale=4)
    assert len(capture.names) == 125 and len(capture.test_names) == 25 and capture.white_background
    np.testing.assert_allclose(capture.focal, 0.5 * 100 / np.tan(0.5 * 0.6911112070083618), rtol=1e-12)
    centers = np.array([-pose[:3, :3].T @ pose[:3, 3] for pose in capture.camera_from_world])
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 4.0311, atol=1e-3)
