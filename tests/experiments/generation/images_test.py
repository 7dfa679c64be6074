"""Pictures to framed views: laws of framing, backgrounds with a known truth, files that are refused."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from experiments.errors import InputError
from experiments.generation import images

DISC = np.hypot(*np.meshgrid(np.arange(80) - 44.5, np.arange(60) - 30.5)) < 18  # [60, 80], middle (31, 45)


def _before(background, color=(40, 90, 200)):
    return np.where(DISC[..., None], np.array(color), background).astype(np.uint8)


@pytest.mark.parametrize("slope", [0, 60])
def test_an_even_background_is_removed(slope):
    rng = np.random.default_rng(0)
    shade = 180 + slope * np.linspace(-0.5, 0.5, 80)[None, :, None] + rng.normal(0, 1.5, (60, 80, 1))
    cut = images.cut_out(_before(shade + np.array([0, 5, 10])))
    np.testing.assert_array_equal(cut[..., 3] > 0.5, DISC)
    np.testing.assert_allclose(cut[31, 45, :3], np.array([40, 90, 200]) / 255, atol=0.01)
    assert cut[~DISC].max() < 0.3 and np.mean(cut[~DISC][:, 3]) < 0.01


def test_what_the_object_encloses_belongs_to_it():
    picture = _before(np.full(3, 230))
    picture[28:34, 42:48] = 230
    np.testing.assert_array_equal(images.cut_out(picture)[..., 3] > 0.5, DISC)


def test_the_picture_s_own_transparency_goes_first():
    rng = np.random.default_rng(1)
    alpha = np.where(DISC, 255, 0)[..., None]
    cut = images.cut_out(np.concatenate([rng.integers(0, 256, (60, 80, 3)), alpha], -1).astype(np.uint8))
    np.testing.assert_array_equal(cut[..., 3], DISC)
    assert np.abs(cut[~DISC]).max() == 0


def test_a_background_that_is_not_plain_or_no_object_is_refused():
    noise = np.random.default_rng(2).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    with pytest.raises(InputError, match="not plain"):
        images.cut_out(noise)
    with pytest.raises(InputError, match="no object"):
        images.cut_out(np.full((60, 80, 3), 99, np.uint8))
    with pytest.raises(InputError, match="fills"):
        images.cut_out(np.full((60, 80, 4), 249, np.uint8))


def test_framing_puts_the_object_where_canonical_cameras_see_it():
    cut = images.cut_out(_before(np.full(3, 230)))
    small = images.framed(cut, 32)
    side = 36 / images.FILL  # pixels of the picture along the frame
    assert small[..., 3].sum() == pytest.approx(cut[..., 3].sum() * (32 / side) ** 2, rel=1e-4)  # areas are kept
    rows, columns = np.mgrid[:32, :32] + 0.5
    weight = small[..., 3] / small[..., 3].sum()
    assert (weight * columns).sum() == pytest.approx(16, abs=0.05)
    assert (weight * rows).sum() == pytest.approx(16 + 32 * 0.027, abs=0.05)
    widest = (small[..., 3] > 0.5).any(0).sum()
    assert widest == pytest.approx(32 * images.FILL, abs=1.1)
    np.testing.assert_allclose(small[17, 16, :3], np.array([40, 90, 200]) / 255, atol=0.01)


def test_a_picture_that_keeps_its_frame_is_averaged_over_its_pixels():
    cut = np.random.default_rng(3).random((64, 64, 4)).astype(np.float32)
    wanted = cut.reshape(32, 2, 32, 2, 4).mean((1, 3))
    np.testing.assert_allclose(images.framed(cut, 32, fill=None), wanted, atol=1e-6)
    wide = images.framed(np.ones((32, 64, 4), np.float32), 32, fill=None)
    np.testing.assert_allclose(wide[:8], 0)
    np.testing.assert_allclose(wide[8:24], 1, atol=1e-6)


def test_channels_say_colour_and_coverage():
    channels = images.as_channels(np.array([[[0.2, 0.4, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]], np.float32))
    np.testing.assert_allclose(channels[0, 0], [-0.1, 0.3, -0.5, 0, 0, 0, 0, 0.0], atol=1e-7)
    np.testing.assert_allclose(channels[0, 1], [0, 0, 0, 0, 0, 0, 0, -1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_pillow_turns_them(tmp_path, orientation):
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (20, 30, 3)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "p.png", exif=exif)
    with Image.open(tmp_path / "p.png") as stored:
        wanted = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(images.read_picture(str(tmp_path / "p.png")), wanted)


def _png(size):
    out = io.BytesIO()
    Image.new("1", size).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.png", None, "no such file"),
        ("text.png", b"hello", "not an image"),
        ("cut.png", _png((64, 64))[:45], "not an image"),
        ("tiny.png", _png((8, 8)), "at least 16"),
        ("huge.png", _png((9000, 7000)), "up to 50,000,000"),
        ("moving.gif", None, "GIF; expected png"),
    ],
)
def test_files_that_are_no_pictures_of_use_are_refused_in_one_line(tmp_path, name, content, says):
    path = tmp_path / name
    if name == "moving.gif":
        Image.new("L", (32, 32)).save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        images.read_picture(str(path))
    assert "\n" not in str(caught.value)


def test_large_pictures_are_read_smaller(tmp_path):
    Image.new("RGB", (2500, 1800), "red").save(tmp_path / "p.jpg")
    assert images.read_picture(str(tmp_path / "p.jpg")).shape == (600, 833, 3)
