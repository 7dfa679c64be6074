"""Photographs from disk as straight-alpha uint8 arrays, and shrinking them without aliasing."""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from experiments.errors import InputError


def image_size(path: pathlib.Path) -> tuple[int, int]:
    """(height, width) from the file's header, as stored: EXIF rotation is not applied, as in COLMAP and nerfstudio.

    Raises:
        InputError: if this is no image that can be read, or one of more pixels than Pillow's bomb guard allows.
    """
    # Only here, in one thread: catch_warnings changes the whole process. Decoding sees only what passed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with _guarded(path), Image.open(path) as image:
            return image.height, image.width


def decode_image(content: bytes, path: pathlib.Path) -> UInt8[np.ndarray, "h w c"]:
    """Decodes an image file to RGB or, where it has transparency, to RGBA with straight alpha (c = 3 or 4).

    Grey images are spread over three channels; 16-bit ones keep their high byte.

    Args:
        content: the file.
        path: its name, for messages.

    Raises:
        InputError: see `image_size`.
    """
    with _guarded(path), Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I"):
            values = np.asarray(image).astype(np.int64)
            grey = np.clip(values >> 8 if values.max(initial=0) > 255 else values, 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        return np.array(image.convert("RGBA" if has_alpha else "RGB"))


def with_mask(image: UInt8[np.ndarray, "h w c"], mask_content: bytes, path: pathlib.Path) -> UInt8[np.ndarray, "h w 4"]:
    """The image with a grey mask multiplied into its alpha: black is transparent.

    Raises:
        InputError: if the mask is no image or has another size.
    """
    mask = decode_image(mask_content, path)[..., 0]
    if mask.shape != image.shape[:2]:
        raise InputError(f"{path}: the mask is {mask.shape[::-1]}, its image {image.shape[1::-1]} (width, height)")
    alpha = mask if image.shape[-1] == 3 else (mask.astype(np.uint16) * image[..., 3] // 255).astype(np.uint8)
    return np.concatenate([image[..., :3], alpha[..., None]], axis=-1)


def shrink(image: UInt8[np.ndarray, "h w c"], factor: int) -> UInt8[np.ndarray, "h/factor w/factor c"]:
    """Averages blocks of `factor` x `factor` pixels; a remainder at the right and bottom edge is dropped.

    Colours are weighted by alpha, so that what is transparent does not bleed in. With whole blocks the intrinsics of
    the result are those of the image divided by the factor, exactly.
    """
    if factor == 1:
        return image
    height, width = (max(1, length // factor) for length in image.shape[:2])
    if image.shape[-1] == 3:
        box = (0, 0, min(width * factor, image.shape[1]), min(height * factor, image.shape[0]))
        return np.asarray(Image.fromarray(image).reduce(factor, box))
    blocks = premultiplied(image)[: height * factor, : width * factor]
    blocks = blocks.reshape(height, blocks.shape[0] // height, width, blocks.shape[1] // width, 4)
    return straight(blocks.mean(axis=(1, 3)))


def premultiplied(image: UInt8[np.ndarray, "h w 4"]) -> Float[np.ndarray, "h w 4"]:
    """float32 colours times alpha, 0 to 255, with alpha 0 to 255 behind them: what may be averaged."""
    values = image.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    return values


def straight(values: Float[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 4"]:
    """Inverse of `premultiplied`, rounded; fully transparent pixels become black."""
    alpha = values[..., 3:]
    colors = values[..., :3] * (255 / np.maximum(alpha, 1e-6))
    return np.clip(np.round(np.concatenate([colors, alpha], axis=-1)), 0, 255).astype(np.uint8)


@contextlib.contextmanager
def _guarded(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; reduce the image first") from None
    except InputError:
        raise
    # Pillow's decoders raise almost anything on damaged files.
    except Exception as error:
        raise InputError(f"{path}: not an image that can be read ({str(error)[:100]})") from error
