"""transforms.json: intrinsics by their precedence, and documents that must be refused."""

import copy
import json
import math
import time

import numpy as np
import pytest

from experiments.data.transforms_json import read_transforms
from experiments.data.views import lens_in_pixels
from experiments.errors import InputError
from tests.experiments.data.captures_on_disk import rewrite, write_transforms


def _views(folder, document):
    rewrite(folder, document)
    return read_transforms(folder / "transforms.json").views


def test_a_frames_own_intrinsics_win(tmp_path):
    document = write_transforms(tmp_path, k1=0.1)
    document["frames"][1] |= {"fl_x": 30.0, "fl_y": 31.0, "cx": 7.0, "k1": -0.2, "p2": 0.01}
    first, second, _ = _views(tmp_path, document)
    assert (first.lens.focal, first.lens.principal, first.lens.coefficients[0]) == ((20, 21), (8.5, 6.25), 0.1)
    assert (second.lens.focal, second.lens.principal) == ((30, 31), (7, 6.25))
    assert second.lens.coefficients == (-0.2, 0, 0, 0.01, 0, 0, 0, 0)


def test_a_frames_angle_replaces_the_common_focal_length(tmp_path):
    document = write_transforms(tmp_path)
    document["frames"][0]["camera_angle_x"] = 1.0
    first, second, _ = _views(tmp_path, document)
    assert first.lens.focal[0] == pytest.approx(8 / math.tan(0.5)) and second.lens.focal == (20, 21)


def test_opencv_order_puts_k3_behind_the_tangential_terms(tmp_path):
    coefficients = {"k1": 1e-2, "k2": 2e-2, "k3": 3e-2, "k4": 4e-2, "p1": 5e-3, "p2": 6e-3}
    document = write_transforms(tmp_path, camera_model="OPENCV", **coefficients)
    assert _views(tmp_path, document)[0].lens.coefficients == (1e-2, 2e-2, 5e-3, 6e-3, 3e-2, 4e-2, 0, 0)
    lens = _views(tmp_path, document | {"camera_model": "OPENCV_FISHEYE"})[0].lens
    assert lens.model == "fisheye" and lens.coefficients == (1e-2, 2e-2, 3e-2, 4e-2)


@pytest.mark.parametrize("with_size", [True, False])
def test_an_angle_alone_takes_its_size_from_the_image(tmp_path, with_size):
    document = write_transforms(tmp_path)
    for key in ("fl_x", "fl_y", "cx", "cy", *(() if with_size else ("w", "h"))):
        del document[key]
    view = _views(tmp_path, document | {"camera_angle_x": 0.9})[0]
    lens = lens_in_pixels(view, (12, 16))
    assert lens.focal == pytest.approx((8 / math.tan(0.45),) * 2) and lens.principal == (8, 6)


def test_a_resized_copy_rescales_the_lens_and_another_shape_is_refused(tmp_path):
    view = _views(tmp_path, write_transforms(tmp_path))[0]
    lens = lens_in_pixels(view, (24, 32))
    assert lens.focal == (40, 42) and lens.principal == (17, 12.5)
    with pytest.raises(InputError, match="12 x 16, but its camera was described for 16 x 12"):
        lens_in_pixels(view, (16, 12))


def test_names_have_forward_slashes_and_the_suffix_that_exists(tmp_path):
    document = write_transforms(tmp_path)
    document["frames"][0]["file_path"] = ".\\images\\b"
    document["frames"][1]["file_path"] = "./images/a.png"
    names = [view.name for view in _views(tmp_path, document)]
    assert names == ["images/b.png", "images/a.png", "images/c.png"]


def test_rotations_stored_with_few_digits_become_rotations(tmp_path):
    document = write_transforms(tmp_path)
    matrix = np.round(np.array(document["frames"][0]["transform_matrix"]), 3)
    document["frames"][0]["transform_matrix"] = matrix.tolist()
    rotation = _views(tmp_path, document)[0].camera_from_world[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(np.diag([1, -1, -1]) @ rotation, matrix[:3, :3].T, atol=2e-3)


def _frame(**changes):
    return lambda document: document["frames"][1].update(changes)


def _matrix(change):
    def apply(document):
        matrix = np.array(document["frames"][1]["transform_matrix"])
        document["frames"][1]["transform_matrix"] = change(matrix).tolist()

    return apply


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda document: document.update(frames=[]), "non-empty list"),
        (lambda document: document.update(frames={"a": 1}), "non-empty list"),
        (lambda document: document["frames"].append(3), "frame 3: expected an object"),
        (_frame(file_path=None), "frame 1: file_path: expected a path"),
        (_frame(file_path=["a"]), "frame 1: file_path: expected a path"),
        (_frame(transform_matrix=None), "expected 4 rows"),
        (_frame(transform_matrix=[[1, 0, 0, 0]] * 2), "expected 4 rows"),
        (_frame(transform_matrix=[[1, 0, 0, "x"]] * 4), "expected a number, got 'x'"),
        (_frame(transform_matrix=[[True] * 4] * 4), "expected a number"),
        (_matrix(lambda m: m * [[2], [2], [2], [1]]), "not a rotation"),
        (_matrix(lambda m: m * [1, 1, -1, 1]), "not a rotation"),
        (_matrix(lambda m: m * 0), "not a rotation"),
        (_matrix(lambda m: m * 1e300), "not a rotation"),
        (_frame(fl_x=0), "must be positive"),
        (_frame(fl_x=-3), "must be positive"),
        (_frame(fl_x=10**400), "not finite"),
        (_frame(k1="big"), "expected a number, got 'big'"),
        (_frame(w=0), "image sizes in pixels"),
        (_frame(camera_angle_x=4, fl_x=None), "between 0 and pi"),
        (_frame(camera_model="EQUIRECTANGULAR"), "'EQUIRECTANGULAR' is not supported"),
        (_frame(camera_model=[1]), "is not supported"),
        (lambda document: [document.pop("fl_x"), document.pop("fl_y")], "no focal length"),
        (lambda document: [document.pop(key) for key in ("cx", "w", "h")], "without the image's centre"),
        (lambda document: document.update(test_filenames="a.png"), "must be a list"),
    ],
)
def test_documents_that_make_no_sense_are_refused_with_the_place(tmp_path, damage, reason):
    document = write_transforms(tmp_path)
    damage(document)
    with pytest.raises(InputError, match=reason) as caught:
        _views(tmp_path, document)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 200_000 + "]" * 200_000, "nested too deeply|not valid JSON"),
        ("[1, 2]", "expected a JSON object"),
        ("", "not valid JSON"),
        ("\x00", "not valid JSON"),
        ('{"frames": NaN}', "NaN is not a number"),
        ('{"fl_x": -Infinity}', "Infinity is not a number"),
        ("1" * 10_000, "not valid JSON|expected a JSON object"),
    ],
    ids=lambda value: value[:12],
)
def test_json_that_is_hostile_is_refused_quickly(tmp_path, text, reason):
    path = tmp_path / "transforms.json"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(InputError, match=reason):
        read_transforms(path)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("value", ["NaN", "1e999", "-1e999", "Infinity"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    document = write_transforms(tmp_path)
    for place in (("fl_x",), ("frames", 0, "transform_matrix", 1, 3), ("k2",)):
        changed = copy.deepcopy(document)
        node = changed
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = "HERE"
        (tmp_path / "transforms.json").write_text(json.dumps(changed).replace('"HERE"', value))
        with pytest.raises(InputError, match="not finite|not a number that can be used"):
            read_transforms(tmp_path / "transforms.json")
