"""Decoding and shrinking photographs."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments.data.images import decode_image, image_size, shrink, straight, with_mask
from experiments.errors import InputError
from tests.experiments.data.captures_on_disk import picture


def _png(array, mode=None) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)).save(buffer, "png")
    return buffer.getvalue()


def test_every_mode_becomes_rgb_or_straight_rgba(tmp_path):
    rgba = picture(5, 6, 4)
    np.testing.assert_array_equal(decode_image(_png(rgba), tmp_path), rgba)
    grey = rgba[..., 0]
    np.testing.assert_array_equal(decode_image(_png(grey), tmp_path), np.repeat(grey[..., None], 3, -1))
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_image(_png(deep), tmp_path), np.repeat(grey[..., None], 3, -1))
    assert decode_image(_png(rgba, "LA"), tmp_path).shape == (5, 6, 4)
    assert decode_image(_png(rgba[..., :3], "P"), tmp_path).shape == (5, 6, 3)


def test_transparent_colours_do_not_bleed_when_shrunk():
    """One red opaque pixel among transparent green ones: the block is red, a quarter opaque."""
    image = np.zeros((2, 2, 4), np.uint8)
    image[..., 1] = 255
    image[0, 0] = (200, 10, 0, 255)
    np.testing.assert_array_equal(shrink(image, 2)[0, 0], [200, 10, 0, 64])


def test_shrinking_is_the_mean_of_whole_blocks():
    image = picture(13, 17)
    expected = image[:12, :15].reshape(4, 3, 5, 3, 3).mean(axis=(1, 3))
    # Pillow's fixed-point division may round a tie and its neighbourhood the other way.
    assert np.abs(shrink(image, 3) - expected).max() <= 0.6
    opaque = np.concatenate([image, np.full((13, 17, 1), 255, np.uint8)], axis=-1)
    assert np.abs(shrink(opaque, 3)[..., :3] - expected).max() <= 0.51


def test_straight_undoes_premultiplication_where_there_is_something_to_see():
    values = np.array([[[50.0, 0.0, 100.0, 127.5], [0.0, 0.0, 0.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(straight(values), [[[100, 0, 200, 128], [0, 0, 0, 0]]])


def test_masks_multiply_into_alpha(tmp_path):
    image = picture(4, 5, 4)
    mask = np.full((4, 5), 255, np.uint8)
    mask[1] = 0
    masked = with_mask(image, _png(mask), tmp_path)
    np.testing.assert_array_equal(masked[..., 3], np.where(mask == 255, image[..., 3], 0))
    with pytest.raises(InputError, match="the mask is"):
        with_mask(image, _png(mask[:2]), tmp_path)


def _bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_images_of_absurd_size_are_refused_from_their_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(_bomb(side, side))
    with pytest.raises(InputError, match="pixels; reduce"):
        image_size(path)


def test_a_cut_image_is_refused(tmp_path):
    whole = _png(picture(50, 60))
    with pytest.raises(InputError, match="not an image"):
        decode_image(whole[: len(whole) // 2], tmp_path / "cut.png")
