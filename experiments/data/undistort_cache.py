"""Undistorted images kept on disk between runs, keyed by all that they depend on.

An entry is the SHA-256 of a PNG followed by the PNG. Entries are written under another name and renamed, so that a run
never sees half of one; a damaged entry is made again; where the folder cannot be written, nothing is kept.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import tempfile

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from experiments.data.undistort import PinholeTarget
from experiments.data.views import Lens

# Part of every key: a change to the resampling must change it.
_VERSION = "1"
_DIGEST_BYTES = 32


def default_folder() -> pathlib.Path:
    """`$XDG_CACHE_HOME/galatea3d/undistorted`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base) / "galatea3d" / "undistorted"


def entry_key(content: bytes, mask: bytes | None, lens: Lens, target: PinholeTarget, downscale: int) -> str:
    """Name of the entry for a photograph file, its mask file, its lens, and what it is turned into."""
    parts = (_VERSION, dataclasses.astuple(lens), dataclasses.astuple(target), downscale, mask is not None)
    digest = hashlib.sha256(repr(parts).encode())
    for part in (content, mask or b""):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def load(folder: pathlib.Path, key: str, size: tuple[int, int]) -> UInt8[np.ndarray, "h w c"] | None:
    """The image kept under `key`, or None if there is none that is whole and of `size`."""
    try:
        entry = (folder / f"{key}.img").read_bytes()
        payload = entry[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != entry[:_DIGEST_BYTES]:
            return None
        with Image.open(io.BytesIO(payload)) as image:
            pixels = np.array(image)
    except (OSError, ValueError):
        return None
    return pixels if pixels.shape[:2] == size and pixels.ndim == 3 else None


def store(folder: pathlib.Path, key: str, image: UInt8[np.ndarray, "h w c"]) -> None:
    """Keeps an image under `key`; where the folder cannot be written nothing is kept, since it can be made again."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    payload = buffer.getvalue()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(suffix=".tmp", dir=folder)
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(payload).digest() + payload)
        os.replace(temporary, folder / f"{key}.img")
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
