import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from experiments import errors, media

images = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])), elements=st.integers(0, 255)
)


@given(images)
def test_png_keeps_every_byte(tmp_path_factory, image):
    path = tmp_path_factory.mktemp("p") / "ä b.png"
    media.write_png(path, image)
    np.testing.assert_array_equal(media.read_png(path), image)


def test_floats_are_rounded_and_clipped():
    row = np.array([-1.0, 0.0, 0.5 / 255, 0.51 / 255, 1.0, 7.0, np.nan, np.inf])[None]
    np.testing.assert_array_equal(media.as_uint8(row)[0, :, 0], [0, 0, 0, 1, 255, 255, 0, 255])
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(media.as_uint8(every / np.float32(255)), every)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2, 2)), np.zeros(3), np.zeros((0, 4, 3)), np.zeros((2, 2, 3), int), np.zeros((70000, 1))]
)
def test_what_is_not_an_image_is_refused(bad):
    with pytest.raises(ValueError, match="an image"):
        media.as_uint8(bad)


def test_hostile_pictures_are_refused(tmp_path, monkeypatch):
    good = tmp_path / "good.png"
    media.write_png(good, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    for name, words in {
        "cut": "not a readable picture",
        "text": "not a readable",
        "deep": "8 bits",
        "no": "not exist",
    }.items():
        with pytest.raises(errors.InputError, match=words):
            media.read_png(tmp_path / f"{name}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(errors.InputError, match="bomb"):
        media.read_png(good)


def frames(n, height, width):
    y, x = np.mgrid[0:height, 0:width]
    for i in range(n):
        yield np.stack([x / width, y / height, np.full(x.shape, i / n)], -1)


def test_a_video_has_the_frames_the_rate_and_even_sizes(tmp_path):
    av = pytest.importorskip("av")
    path = media.write_video(tmp_path / "turn table", frames(6, 33, 47), fps=12)
    assert path == tmp_path / "turn table.mp4" and os.listdir(tmp_path) == [path.name]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame.shape for frame in decoded] == [(34, 48, 3)] * 6
    for got, expected in zip(decoded, frames(6, 33, 47), strict=True):
        assert np.abs(got[:33, :47] / 255.0 - expected).mean() < 0.02
    head = path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # It plays before it is loaded.


def test_a_gif_where_there_is_no_video_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = media.write_video(tmp_path / "turntable.mp4", frames(5, 32, 48), fps=10)
    assert path.name == "turntable.gif"
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.size, picture.info["duration"], picture.info["loop"]) == (5, (48, 32), 100, 0)
        for index, expected in enumerate(frames(5, 32, 48)):
            picture.seek(index)
            assert np.abs(np.asarray(picture.convert("RGB")) / 255.0 - expected).mean() < 0.05


@pytest.mark.parametrize(
    ("given_frames", "fps", "words"),
    [
        ([], 24, "at least one frame"),
        ([np.zeros((2, 2)), np.zeros((4, 2))], 24, "frame 1"),
        ([np.zeros((2, 2))], 0, "fps"),
    ],
)
def test_bad_videos_are_refused_and_leave_nothing(tmp_path, given_frames, fps, words):
    with pytest.raises(ValueError, match=words):
        media.write_video(tmp_path / "v.mp4", given_frames, fps)
    assert os.listdir(tmp_path) == []


def test_a_contact_sheet_puts_every_image_in_its_cell():
    cells = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = media.contact_sheet(cells, 2, gap=2)
    assert sheet.shape == (10, 14, 3)
    assert (sheet[:4, :6] == 10).all() and (sheet[:4, 8:] == 20).all() and (sheet[6:, :6] == 30).all()
    assert (sheet[6:, 8:] == 255).all() and (sheet[4:6] == 255).all()
    transparent = media.contact_sheet([np.zeros((2, 2, 4), np.uint8)], 1)
    assert (transparent == 255).all()


def test_labels_stay_under_their_image():
    cells = [np.zeros((8, 40, 3), np.uint8)] * 2
    sheet = media.contact_sheet(cells, 2, ["a very long name that cannot fit, 椅子", ""], gap=4)
    assert (sheet[8:, :40] < 128).any() and (sheet[8:, 40:] == 255).all()
    with pytest.raises(ValueError, match="one label an image"):
        media.contact_sheet(cells, 2, ["one"])


def test_side_by_side_is_one_row():
    row = media.side_by_side(np.zeros((4, 5, 3)), np.ones((4, 5)), gap=0)
    assert row.shape == (4, 10, 3) and (row[:, :5] == 0).all() and (row[:, 5:] == 255).all()


def test_turbo_has_its_published_landmarks():
    # Entries 0, 32, 64, 127 and 255 of the 256-entry table that the polynomials were fitted to.
    table = [
        (0.18995, 0.07176, 0.23217),
        (0.27628, 0.42118, 0.89123),
        (0.15844, 0.73551, 0.92305),
        (0.64362, 0.98999, 0.23356),
        (0.47960, 0.01583, 0.01055),
    ]
    colors = media.turbo(np.array([0, 32, 64, 127, 255]) / 255)
    np.testing.assert_allclose(colors, table, atol=0.13)  # The fit is loosest at its dark ends.
    np.testing.assert_allclose(colors[1:4], table[1:4], atol=0.09)


def test_depth_colors_order_near_and_far_and_mark_nothing():
    depth = np.array([[1.0, 2.0, 3.0, 0.0, np.nan, np.inf, -1.0]])
    colors = media.depth_colors(depth, near=1.0, far=3.0)[0].astype(int)
    near, middle, far = colors[:3]
    assert near[0] > near[2] and far[2] > far[0] and middle[1] > max(middle[0] - 120, 100)
    assert (colors[3:] == 0).all()
    shifted = media.depth_colors(depth * 7.0, near=7.0, far=21.0)
    assert np.abs(shifted[0].astype(int) - colors).max() <= 1  # Only the ratio matters.
    assert (media.depth_colors(np.zeros((2, 2))) == 0).all()
