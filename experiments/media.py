"""Pictures and videos: PNG in and out, MP4 or GIF, contact sheets, colours for depth.

Images are (height, width, channels) with channels 1, 3 or 4, or (height, width); floats in [0, 1] (clipped, display-
referred) or uint8.
"""

import fractions
import io
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from experiments import errors, workdir

_LARGEST_SIDE = 65500  # zlib and viewers give up not far above this; a wrong axis order is caught here.


def as_uint8(image: Any) -> np.ndarray:
    """An image as uint8 with a channel axis: floats in [0, 1] are clipped and rounded, NaN becomes 0.

    Raises:
        ValueError: not an image, or numbers of a kind that does not say its range.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or min(pixels.shape) == 0:
        raise ValueError(f"an image has shape (height, width) or (height, width, 1, 3 or 4), got {pixels.shape}")
    if max(pixels.shape[:2]) > _LARGEST_SIDE:
        raise ValueError(f"an image has at most {_LARGEST_SIDE} pixels a side, got {pixels.shape[:2]}")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if not np.issubdtype(pixels.dtype, np.floating) and pixels.dtype.name != "bfloat16":
        raise ValueError(f"an image holds floats in [0, 1] or uint8, got {pixels.dtype}")
    scaled = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)


def encode(image: Any, *, format: str = "PNG", quality: int = 90) -> bytes:
    """An image as the bytes of a PNG, or of a JPEG (alpha is laid over white)."""
    picture = _to_pillow(as_uint8(image))
    if format == "JPEG" and picture.mode not in ("L", "RGB"):
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **({"quality": quality} if format == "JPEG" else {"compress_level": 4}))
    return buffer.getvalue()


def write_png(path: str | os.PathLike[str], image: Any) -> None:
    """Writes an image as PNG, atomically; the folder must exist.

    Raises:
        ValueError: not an image.
        NoRoomError, InputError: the place cannot be written.
    """
    workdir.write_bytes_atomic(path, encode(image))


def read_png(path: str | os.PathLike[str]) -> np.ndarray:
    """A picture file (PNG, JPEG or whatever pillow reads) as uint8, (height, width, 1, 3 or 4).

    Raises:
        InputError: missing, not a picture, truncated, or beyond pillow's limit against decompression bombs.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode in ("1", "I", "I;16", "F"):
                raise errors.InputError(f"{path} holds {picture.mode} pixels; save it with 8 bits a channel")
            if picture.mode not in ("L", "RGB", "RGBA"):
                picture = picture.convert("RGBA" if "transparency" in picture.info or "A" in picture.mode else "RGB")
            pixels = np.asarray(picture)
    except errors.InputError:
        raise
    except FileNotFoundError:
        raise errors.InputError(f"{path} does not exist") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise errors.InputError(f"{path} is not a readable picture: {error}") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def write_video(path: str | os.PathLike[str], frames: Iterable[Any], fps: float = 24.0) -> pathlib.Path:
    """Writes frames as H.264 MP4 where `av` is installed, else as a GIF; both play anywhere.

    Frames of odd height or width are extended by their last row or column, as 4:2:0 chroma asks for even sizes.

    Args:
        path: target with or without a suffix; the suffix of what was written replaces it.
        frames: images of one size; an iterator is consumed one frame at a time.
        fps: frames per second.

    Returns:
        The file written, with suffix `.mp4` or `.gif`.

    Raises:
        ValueError: no frames, frames of different sizes, or fps not positive.
        NoRoomError, InputError: the place cannot be written.
    """
    if not 0 < fps <= 1000:
        raise ValueError(f"fps must be above 0 and at most 1000, got {fps}")
    path = pathlib.Path(path)
    stem = path.with_suffix("") if path.suffix.lower() in (".mp4", ".gif") else path
    # Deferred and optional: without the video library an animated GIF does the job.
    try:
        import av
    except ImportError:
        target = stem.with_name(stem.name + ".gif")
        workdir.write_bytes_atomic(target, _encode_gif(_same_size(frames), fps))
        return target
    target = stem.with_name(stem.name + ".mp4")
    with errors.writing(target), tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as folder:
        # A real file: moving the index to the front, so that playing starts at once, reads it again.
        finished = os.path.join(folder, "video.mp4")
        _encode_mp4(av, finished, _same_size(frames), fps)
        os.replace(finished, target)
    return target


def contact_sheet(
    images: Sequence[Any], columns: int, labels: Sequence[str] | None = None, *, gap: int = 4
) -> np.ndarray:
    """Images in a grid on white, row by row, each with an optional caption under it.

    Args:
        images: at least one image; smaller ones are centred in the cell of the largest.
        columns: images a row.
        labels: one caption an image.
        gap: white pixels between cells.

    Returns:
        uint8 array (height, width, 3).
    """
    if not images or columns < 1:
        raise ValueError(f"a contact sheet needs images and columns >= 1, got {len(images)} images, {columns} columns")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"one label an image: got {len(labels)} labels for {len(images)} images")
    cells = [_to_pillow(as_uint8(image)).convert("RGBA") for image in images]
    width, height = max(c.width for c in cells), max(c.height for c in cells)
    caption = 0 if labels is None else 14
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new(
        "RGBA", (columns * (width + gap) - gap, rows * (height + caption + gap) - gap), (255, 255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for index, cell in enumerate(cells):
        left, top = (index % columns) * (width + gap), (index // columns) * (height + caption + gap)
        sheet.alpha_composite(cell, (left + (width - cell.width) // 2, top + (height - cell.height) // 2))
        if labels is not None:
            draw.text((left + width / 2, top + height + 1), _fit(draw, labels[index], width), fill="black", anchor="ma")
    return np.asarray(sheet.convert("RGB"))


def side_by_side(*images: Any, gap: int = 4) -> np.ndarray:
    """Images in one row on white, for example a photograph and its rendering: uint8 (height, width, 3)."""
    return contact_sheet(images, len(images), gap=gap)


def depth_colors(depth: Any, *, near: float | None = None, far: float | None = None) -> np.ndarray:
    """Depth as colours: near is warm, far is cold, nothing (zero, negative or not finite) is black.

    The map is Turbo (Mikhailov, "Turbo, an improved rainbow colormap for visualization", Google AI blog, 2019), by the
    fifth-degree polynomials published with it (Du), without the two dark ends, which could be taken for nothing.

    Args:
        depth: (height, width) array, camera z or distance.
        near: depth of the warmest colour; by default the 1% quantile of what is seen.
        far: depth of the coldest colour; by default the 99% quantile.

    Returns:
        uint8 array (height, width, 3).
    """
    values = np.asarray(depth, np.float32)
    if values.ndim != 2:
        raise ValueError(f"depth has shape (height, width), got {values.shape}")
    seen = np.isfinite(values) & (values > 0)
    if not seen.any():
        return np.zeros((*values.shape, 3), np.uint8)
    near = float(np.quantile(values[seen], 0.01)) if near is None else near
    far = float(np.quantile(values[seen], 0.99)) if far is None else far
    nearness = np.clip((far - np.where(seen, values, far)) / max(far - near, 1e-12), 0.0, 1.0)
    return as_uint8(turbo(0.08 + 0.88 * nearness) * seen[..., None])


# Rows: coefficients of 1, x, ..., x^5; columns: red, green, blue. From the publication named in `depth_colors`.
_TURBO = np.array(
    [
        (0.13572138, 0.09140261, 0.10667330),
        (4.61539260, 2.19418839, 12.64194608),
        (-42.66032258, 4.84296658, -60.58204836),
        (132.13108234, -14.18503333, 110.36276771),
        (-152.94239396, 4.27729857, -89.90310912),
        (59.28637943, 2.82956604, 27.34824973),
    ],
    np.float32,
)


def turbo(values: np.ndarray) -> np.ndarray:
    """Turbo colours in [0, 1] of numbers in [0, 1]: any shape -> shape + (3,). Source: see `depth_colors`."""
    powers = np.clip(values, 0.0, 1.0)[..., None] ** np.arange(6, dtype=np.float32)
    return np.clip(powers @ _TURBO, 0.0, 1.0)


def _to_pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis, so that it is at most `width` pixels wide."""
    text = text.encode("latin-1", errors="replace").decode("latin-1")  # What pillow's built-in font can show.
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(text + "..") > width:
        text = text[:-1]
    return text + ".."


def _same_size(frames: Iterable[Any]) -> Iterable[np.ndarray]:
    size = None
    for index, frame in enumerate(frames):
        pixels = np.asarray(_to_pillow(as_uint8(frame)).convert("RGB"))
        if size is not None and pixels.shape != size:
            raise ValueError(f"frames of a video have one size: frame {index} is {pixels.shape[:2]}, not {size[:2]}")
        size = pixels.shape
        yield pixels
    if size is None:
        raise ValueError("a video needs at least one frame")


def _encode_mp4(av: Any, path: str, frames: Iterable[np.ndarray], fps: float) -> None:
    with av.open(path, mode="w", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for pixels in frames:
            height, width = pixels.shape[:2]
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=fractions.Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "18", "preset": "medium"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _encode_gif(frames: Iterable[np.ndarray], fps: float) -> bytes:
    pictures = [Image.fromarray(pixels).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for pixels in frames]
    buffer = io.BytesIO()
    # GIF counts in hundredths of a second, and viewers slow anything below two of them down.
    duration = max(round(100.0 / fps), 2) * 10
    pictures[0].save(
        buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0, optimize=False
    )
    return buffer.getvalue()
