"""A photograph as a model wants it: the object cut out of its background, centred, in the canonical size."""

import io
import pathlib

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from experiments.data.images import decode_image, image_size, shrink
from experiments.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP")
FILL = 0.6  # share of a side that the longer side of an object's outline takes in canonical views (world: .47 to .72)
_BELOW = 0.027  # of a side: the outline's middle below the picture's, as cameras that look down see it (world's mean)
_MOST_BYTES, _MOST_PIXELS, _FEWEST = 64 * 2**20, 50_000_000, 16
_WORKING = 1024  # pixels along the longer side, at most
_ORIENTATION = 0x0112  # EXIF
_LEAST, _MOST = 0.002, 0.95  # share of the picture that an object takes
_PLAIN = 0.75  # share of the border that must fit the background's colours
_NEAR, _FAR = 0.035, 0.09  # distances in colour, of [0, 1]^3, at which pixels are background and object for certain


def read_picture(path: str) -> UInt8[np.ndarray, "h w c"]:
    """Pixels of a file, c = 3 or 4 (straight alpha), upright, at most 1024 along a side.

    Sizes are checked before anything is decoded.

    Raises:
      InputError: no file, no image, of another format, too large or too small; one line.
    """
    file = pathlib.Path(path)
    try:
        length = file.stat().st_size if path and file.is_file() else None
    except (OSError, ValueError):
        length = None
    if length is None:
        raise InputError(f"--image={path[:200]!r}: expected a picture (png, jpg, webp); there is no such file")
    if length > _MOST_BYTES:
        raise InputError(f"{file}: {length:,} bytes; pictures of up to {_MOST_BYTES:,} are read: reduce it first")
    height, width = image_size(file)
    if height * width > _MOST_PIXELS:
        raise InputError(f"{file}: {width} x {height} pixels; up to {_MOST_PIXELS:,} are read: reduce it first")
    if min(height, width) < _FEWEST:
        raise InputError(f"{file}: {width} x {height} pixels; at least {_FEWEST} a side are needed to see an object")
    content = file.read_bytes()
    pixels = _upright(decode_image(content, file), _orientation(content, file))
    return shrink(pixels, -(-max(height, width) // _WORKING))


def cut_out(picture: UInt8[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w 4"]:
    """Colours in [0, 1] times coverage, and coverage: by the picture's own alpha, else by its plain background.

    Raises:
      InputError: no object, nothing but object, or a background that is not plain.
    """
    values = picture.astype(np.float32) / 255
    if picture.shape[2] == 4 and (picture[..., 3] < 250).any():
        alpha = values[..., 3]
    else:
        alpha = _against_border(values[..., :3])
    share = float(alpha.mean())
    if share < _LEAST:
        raise InputError("the picture shows no object: it is all transparent, or of its border's colour")
    if share > _MOST:
        raise InputError("the object fills the whole picture; leave a border around it, or cut it out (transparency)")
    return np.concatenate([values[..., :3] * alpha[..., None], alpha[..., None]], axis=-1)


def framed(
    cut: Float[np.ndarray, "h w 4"], size: int, *, fill: float | None = FILL
) -> Float[np.ndarray, "size size 4"]:
    """The object in the middle of a small square picture, pixels averaged over what they cover.

    Args:
      cut: colours times coverage, and coverage.
      size: pixels along a side.
      fill: share of it that the longer side of the object's outline takes; None keeps the picture's own frame, made
        square about its middle.
    """
    height, width = cut.shape[:2]
    center, side = np.array([height, width]) / 2, float(max(height, width))
    if fill is not None:
        rows, columns = np.nonzero(cut[..., 3] > 0.5) if (cut[..., 3] > 0.5).any() else np.nonzero(cut[..., 3] > 0)
        low = np.array([rows.min(), columns.min()])
        high = np.array([rows.max(), columns.max()]) + 1
        side = float((high - low).max()) / fill
        center = (low + high) / 2 - np.array([_BELOW * side, 0.0])
    rows, columns = (
        _overlaps(float(middle) - side / 2, side / size, size, count)
        for middle, count in zip(center, (height, width), strict=True)
    )
    return np.einsum("ih,hwc,jw->ijc", rows, cut, columns, optimize=True).astype(np.float32)


def as_channels(picture: Float[np.ndarray, "h w 4"]) -> Float[np.ndarray, "h w 8"]:
    """A framed picture as a view with colour and coverage only, see `experiments.data.blocks.rendering`."""
    color, coverage = picture[..., :3], picture[..., 3:]
    unknown = np.zeros((*picture.shape[:2], 4), np.float32)
    return np.concatenate([2 * color - coverage, unknown, 2 * coverage - 1], axis=-1)


def _against_border(colors):
    """Coverage of what differs from the border's colours, and of what they do not reach."""
    height, width = colors.shape[:2]
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in (height, width))
    terms = np.stack(np.broadcast_arrays(np.float32(1), rows[:, None], columns[None]), axis=-1)
    band = max(1, round(0.02 * min(height, width)))
    border = np.ones((height, width), bool)
    border[band:-band, band:-band] = False
    inputs, wanted = terms[border], colors[border]
    kept = np.linalg.norm(wanted - np.median(wanted, axis=0), axis=-1) < 0.25
    plane = np.zeros((3, 3), np.float32)
    for _ in range(4):  # colours may change evenly from side to side; an object that touches the border is left out
        if kept.sum() < 8:
            break
        plane = np.linalg.lstsq(inputs[kept], wanted[kept], rcond=None)[0]
        kept = np.linalg.norm(wanted - inputs @ plane, axis=-1) < _FAR
    if kept.mean() < _PLAIN:
        raise InputError(
            f"the background is not plain: {100 * (1 - kept.mean()):.0f} % of the border differ from the rest; cut the "
            "object out (png or webp with transparency), or photograph it before one colour"
        )
    distance = np.linalg.norm(colors - terms @ plane, axis=-1)
    regions = np.zeros((height, width), np.int32)
    ndimage.label(distance < _FAR, output=regions)
    outside = np.isin(regions, np.setdiff1d(np.unique(regions[border]), [0]))
    coverage = np.clip((distance - _NEAR) / (_FAR - _NEAR), 0, 1)
    # what has the background's colours but is enclosed by the object belongs to it
    return np.where(outside, coverage * ndimage.binary_dilation(~outside), 1.0).astype(np.float32)


def _overlaps(start: float, step: float, cells: int, count: int) -> np.ndarray:
    """Shares of cells, from `start` on and `step` long, that pixels 0 .. count cover: [cells, count]."""
    edges = start + step * np.arange(cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(count)[None]
    return np.maximum(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0.0).astype(np.float32) / np.float32(step)


def _orientation(content: bytes, file: pathlib.Path) -> int:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format not in FORMATS:
                raise InputError(f"{file}: a picture of format {image.format}; expected png, jpg or webp")
            return int(image.getexif().get(_ORIENTATION, 1))
    except InputError:
        raise
    except Exception:  # damaged EXIF blocks raise almost anything; the pixels are what counts
        return 1


def _upright(pixels, orientation: int):
    """EXIF's eight orientations undone."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
