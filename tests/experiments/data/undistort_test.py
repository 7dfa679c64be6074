"""Undistortion: the lens equations against pycolmap, the geometry of the operator, the cache."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import photographs, undistort_cache
from experiments.data.captures import load_capture
from experiments.data.colmap import read_model
from experiments.data.undistort import _photographed, pinhole_target, resample, resampling_operator
from experiments.data.views import Lens
from experiments.errors import InputError
from renderers.cameras.distortion import undistort_brown
from tests.experiments.data.captures_on_disk import picture, write_transforms

FIXTURE = pathlib.Path(__file__).parents[2] / "fixtures" / "colmap"
SIZE = (48, 64)
BARREL = Lens("pinhole", (50.0, 51.0), (31.0, 25.0), (-0.15, 0.02, 1e-3, -5e-4))
PINCUSHION = Lens("pinhole", (50.0, 51.0), (31.0, 25.0), (0.12, -0.02, 1e-3, -5e-4))
FISHEYE = Lens("fisheye", (60.0, 60.0), (32.0, 24.0), (0.02, -0.005, 0.0, 0.0))


def test_lenses_image_points_where_pycolmap_says():
    expected = np.load(FIXTURE / "expected.npz")
    lenses = {view.name: view.lens for view in read_model(FIXTURE / "binary", FIXTURE).views}
    for name, pixels in zip(expected["names"], expected["pixels"], strict=True):
        ours = _photographed(lenses[name], expected["ideal"])
        np.testing.assert_allclose(ours, pixels, atol=2e-5, err_msg=str(name))


@pytest.mark.parametrize("lens", [BARREL, PINCUSHION, FISHEYE], ids=["barrel", "pincushion", "fisheye"])
@pytest.mark.parametrize("downscale", [1, 3])
def test_every_output_pixel_was_photographed_and_the_rectangle_is_the_largest(lens, downscale):
    target = pinhole_target(lens, SIZE, downscale)
    height, width = target.size
    np.testing.assert_allclose(target.focal, np.array(lens.focal) / downscale)
    edge = np.linspace(0, 1, 50)
    corners = {
        "left": (0 * edge, edge),
        "right": (0 * edge + 1, edge),
        "top": (edge, 0 * edge),
        "bottom": (edge, 1 + 0 * edge),
    }
    for side, (x, y) in corners.items():
        for grown, inside in ((0.0, True), (1.6, False)):
            outward = {"left": (-grown, 0), "right": (grown, 0), "top": (0, -grown), "bottom": (0, grown)}[side]
            pixels = np.stack([x * width, y * height], -1) + outward
            source = _photographed(lens, (pixels - target.principal) / target.focal)
            within = ((source >= -2e-3) & (source <= np.array([64, 48]) + 2e-3)).all(axis=-1)
            assert within.all() == inside, side


def test_the_operator_keeps_constants_and_straight_lines_become_straight():
    """Photograph of the plane x -> brightness, made analytically through the lens, comes back linear in x."""
    target = pinhole_target(BARREL, SIZE)
    operator = resampling_operator(BARREL, SIZE, target)
    np.testing.assert_allclose(operator @ np.ones(48 * 64), 1, atol=1e-6)
    v, u = np.mgrid[:48, :64] + 0.5
    distorted = (np.stack([u, v], -1) - BARREL.principal) / BARREL.focal
    ideal, valid = undistort_brown(jnp.float32(BARREL.coefficients), jnp.asarray(distorted, jnp.float32))
    assert valid.all()
    x = np.asarray(ideal[..., 0], np.float64)
    out = (operator @ x.ravel()).reshape(target.size)
    columns = (np.arange(target.size[1]) + 0.5 - target.principal[0]) / target.focal[0]
    error = np.abs(out - columns)[1:-1, 1:-1]
    # Bilinear interpolation of a function with curvature 0.15 * 6x / f^2 a pixel: below 1e-4 in x.
    assert error.max() < 2e-4


@pytest.mark.parametrize("channels", [3, 4])
def test_an_ideal_lens_changes_nothing_but_the_scale(channels):
    lens = Lens("pinhole", (50.0, 50.0), (32.0, 24.0), (0.0,))
    image = picture(48, 64, channels)
    if channels == 4:
        image[..., 3] = np.maximum(image[..., 3], 40)
    target = pinhole_target(lens, SIZE)
    assert target.size == SIZE and np.allclose(target.principal, (32, 24), atol=1e-3)
    same = resample(resampling_operator(lens, SIZE, target), image, target.size)
    assert np.abs(same.astype(int) - image).max() <= 1
    halved = pinhole_target(lens, SIZE, 2)
    small = resample(resampling_operator(lens, SIZE, halved, 2), image, halved.size)
    if channels == 3:
        blocks = image.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
        assert np.abs(small - blocks).max() <= 0.6


def test_transparent_pixels_do_not_bleed_through_the_operator():
    image = np.zeros((48, 64, 4), np.uint8)
    image[..., 1] = 255
    image[10:30, 20:40] = (200, 0, 50, 255)
    target = pinhole_target(BARREL, SIZE, 2)
    out = resample(resampling_operator(BARREL, SIZE, target, 2), image, target.size)
    visible = out[..., 3] > 8
    assert visible.sum() > 50
    assert np.abs(out[visible][:, :3].astype(int) - (200, 0, 50)).max() <= 1


def test_a_wide_fisheye_is_cut_at_sixty_degrees_and_a_folded_lens_is_refused():
    wide = Lens("fisheye", (20.0, 20.0), (32.0, 24.0), (0.0,) * 4)
    target = pinhole_target(wide, SIZE)
    corner = np.array([target.size[1], target.size[0]]) / 2 / target.focal
    assert np.arctan(np.linalg.norm(corner)) < np.radians(60.5)
    with pytest.raises(InputError, match="lens|field of view"):
        pinhole_target(Lens("pinhole", (1e-3, 1e-3), (0.0, 0.0), (-50.0,)), SIZE)


def _distorted_capture(folder):
    folder.mkdir(exist_ok=True)
    write_transforms(folder, k1=-0.1, p1=0.001)


def test_the_cache_is_used_keyed_and_rebuilt_when_damaged(tmp_path, monkeypatch):
    root, cache = tmp_path / "capture", tmp_path / "cache"
    _distorted_capture(root)
    calls = []
    real = photographs.resample
    monkeypatch.setattr(photographs, "resample", lambda *a: calls.append(1) or real(*a))
    seen = []
    first = load_capture(root, cache_dir=cache, progress=lambda done, total: seen.append((done, total)))
    assert len(calls) == 3 and seen == [(1, 3), (2, 3), (3, 3)]
    second = load_capture(root, cache_dir=cache)
    assert len(calls) == 3
    load_capture(root, cache_dir=cache, downscale=2)
    assert len(calls) == 6
    entries = sorted(cache.iterdir())
    assert len(entries) == 6 and all(entry.suffix == ".img" for entry in entries)
    for number, entry in enumerate(entries):
        content = bytearray(entry.read_bytes())
        content[-1 - number * 7] ^= 1
        entry.write_bytes(content if number % 2 else content[: number * 9])
    third = load_capture(root, cache_dir=cache)
    assert len(calls) == 9
    for a, b, c in zip(first.images, second.images, third.images, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_without_a_place_for_the_cache_loading_works_all_the_same(tmp_path):
    root = tmp_path / "capture"
    _distorted_capture(root)
    (tmp_path / "file").write_text("in the way")
    capture = load_capture(root, cache_dir=tmp_path / "file" / "cache")
    assert len(capture.images) == 3 and capture.model == "pinhole"


def test_distortion_can_be_left_in(tmp_path):
    root = tmp_path / "capture"
    _distorted_capture(root)
    capture = load_capture(root, undistort=False, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(capture.images[0], picture(12, 16, seed=1))
    np.testing.assert_array_equal(capture.focal[0], [20, 21])
    coefficients = np.trim_zeros(capture.distortion[0], "b")
    np.testing.assert_array_equal(coefficients, [-0.1, 0.0, 0.001])
    assert load_capture(root, cache_dir=tmp_path / "other").distortion is None
    assert any("distortion is left" in note for note in capture.notes) and not (tmp_path / "cache").exists()


def test_the_default_cache_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert undistort_cache.default_folder() == tmp_path / "galatea3d" / "undistorted"
