"""Images inside and beside mesh files: decoded with bounds on their size, encoded as PNG."""

import io
import warnings

import numpy as np
from jaxtyping import Float, UInt8

from renderers.ply_header import Damaged

MAX_PIXELS = 1 << 26
"""No image of more than 8192 x 8192 pixels is decoded."""

_ALWAYS_FINE = 1 << 20
# deflate shrinks by 1032 at most, and a JPEG spends a bit on every block of 64 pixels: more pixels a byte are a lie
_PIXELS_A_BYTE = 1100
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA")


def decode_image(content: bytes, name: str) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a PNG, JPEG, WebP, BMP or TGA image to three channels, or four where it has transparency.

    Grey images and palettes are spread to rgb, 16 bits a channel are rounded to 8.

    Args:
        content: the encoded image.
        name: what the image is called, for messages.

    Raises:
        Damaged: if it is none of these formats, is damaged, or is larger than its bytes or `MAX_PIXELS` allow.
    """
    from PIL import Image

    if content[:12] == b"\xabKTX 20\xbb\r\n\x1a\n":
        raise Damaged(
            f"{name} is a KTX2 texture, which is not supported: convert it with `gltf-transform ktxdecompress`"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                limit = MAX_PIXELS
                if image.format != "WEBP":
                    limit = min(limit, max(_ALWAYS_FINE, _PIXELS_A_BYTE * len(content)))
                if image.width * image.height > limit:
                    raise Damaged(
                        f"{name} claims {image.width} x {image.height} pixels, more than its {len(content)} bytes can "
                        f"hold or than {MAX_PIXELS}"
                    )
                if image.mode.startswith("I"):
                    grey = np.asarray(image).astype(np.int64)
                    grey = np.clip((grey + 128) // 257, 0, 255).astype(np.uint8)
                    return np.repeat(grey[:, :, None], 3, axis=2)
                transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
                return np.array(image.convert("RGBA" if transparent else "RGB"))
    except Damaged:
        raise
    # Pillow's decoders raise almost anything on damaged files.
    except Exception as error:
        raise Damaged(f"{name} cannot be decoded ({str(error)[:80]})") from None


def encode_png(pixels: UInt8[np.ndarray, "h w c"]) -> bytes:
    """Encodes 1 (grey), 3 or 4 channels as PNG; the same pixels give the same bytes."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def floats_from_bytes(pixels: UInt8[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """Values in [0, 1]; `bytes_from_floats` restores the bytes exactly."""
    return pixels.astype(np.float32) / np.float32(255)


def bytes_from_floats(values: Float[np.ndarray, "*n c"]) -> UInt8[np.ndarray, "*n c"]:
    """Values in [0, 1], clipped, as the nearest of 256 levels."""
    return np.rint(np.clip(np.asarray(values, np.float32), 0, 1) * 255).astype(np.uint8)
