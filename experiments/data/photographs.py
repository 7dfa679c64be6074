"""From described views to pixels: sizes first, then decoding, undistortion and shrinking on all cores."""

import concurrent.futures
import os
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import UInt8

from experiments.data import undistort_cache
from experiments.data.images import decode_image, image_size, shrink, with_mask
from experiments.data.undistort import PinholeTarget, pinhole_target, resample, resampling_operator
from experiments.data.views import Lens, View, lens_in_pixels
from experiments.errors import InputError

# Automatic downscale: the longest side that 3D Gaussian splatting's own code trains on without being told.
_AUTO_LONGEST = 1600
_MAX_FILE_BYTES = 1 << 30
_WORKERS = max(1, min(8, os.cpu_count() or 1))


class Photograph(NamedTuple):
    """Pixels of one view with the ideal camera that they belong to."""

    image: UInt8[np.ndarray, "h w c"]
    focal: tuple[float, float]
    principal: tuple[float, float]


def load_photographs(
    views: Sequence[View],
    *,
    downscale: int | None,
    undistort: bool,
    cache: pathlib.Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Photograph], int]:
    """Reads the photographs of all views.

    Args:
        views: image files must exist.
        downscale: photograph pixels to one pixel of the result; None: the least power of two that brings the longest
            side to 1600 pixels.
        undistort: turn photographs into those of an ideal pinhole camera; else distortion stays in them.
        cache: folder for undistorted images.
        progress: called as (done, all) from this thread.

    Returns:
        One photograph a view in order, and the downscale that was used.

    Raises:
        InputError: for files that are no images, images that do not fit their lens, or more pixels than memory.
    """
    sizes = [image_size(view.path) for view in views]
    if downscale is None:
        downscale = 1
        while max(map(max, sizes)) > _AUTO_LONGEST * downscale:
            downscale *= 2
    if downscale < 1 or any(min(size) < downscale for size in sizes):
        smallest = min(map(min, sizes))
        raise InputError(f"--downscale={downscale} must lie between 1 and {smallest}, the smallest image side")
    _check_memory(sizes, downscale)
    lenses = [lens_in_pixels(view, size) for view, size in zip(views, sizes, strict=True)]
    operators = _Operators(downscale)

    def load(index: int) -> Photograph:
        view, lens, size = views[index], lenses[index], sizes[index]
        if undistort and not lens.is_ideal_pinhole:
            return _undistorted(view, lens, size, downscale, cache, operators)
        image = shrink(_decode(view, size), downscale)
        return Photograph(
            image, (lens.focal[0] / downscale, lens.focal[1] / downscale),
            (lens.principal[0] / downscale, lens.principal[1] / downscale),
        )  # fmt: skip

    photographs = []
    with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
        futures = [pool.submit(load, index) for index in range(len(views))]
        try:
            for future in futures:
                photographs.append(future.result())
                if progress is not None:
                    progress(len(photographs), len(views))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return photographs, downscale


class _Operators:
    """Targets and operators by lens; only the last operator is kept, since views of one lens come in a row."""

    def __init__(self, downscale: int):
        self._downscale = downscale
        self._lock = threading.Lock()
        self._targets: dict[tuple[Lens, tuple[int, int]], PinholeTarget] = {}
        self._last: tuple[tuple[Lens, tuple[int, int]], scipy.sparse.csr_matrix] | None = None

    def target(self, lens: Lens, size: tuple[int, int]) -> PinholeTarget:
        with self._lock:
            if (lens, size) not in self._targets:
                self._targets[lens, size] = pinhole_target(lens, size, self._downscale)
            return self._targets[lens, size]

    def operator(self, lens: Lens, size: tuple[int, int]) -> scipy.sparse.csr_matrix:
        target = self.target(lens, size)
        with self._lock:
            if self._last is None or self._last[0] != (lens, size):
                self._last = None  # frees the old one before the new one is made
                self._last = ((lens, size), resampling_operator(lens, size, target, self._downscale))
            return self._last[1]


def _undistorted(
    view: View, lens: Lens, size: tuple[int, int], downscale: int, cache: pathlib.Path, operators: _Operators
) -> Photograph:
    target = operators.target(lens, size)
    content = _file(view.path)
    mask = None if view.mask_path is None else _file(view.mask_path)
    key = undistort_cache.entry_key(content, mask, lens, target, downscale)
    image = undistort_cache.load(cache, key, target.size)
    if image is None:
        pixels = _decoded(view, content, mask, size)
        image = resample(operators.operator(lens, size), pixels, target.size)
        undistort_cache.store(cache, key, image)
    return Photograph(image, target.focal, target.principal)


def _decode(view: View, size: tuple[int, int]) -> UInt8[np.ndarray, "h w c"]:
    return _decoded(view, _file(view.path), None if view.mask_path is None else _file(view.mask_path), size)


def _decoded(view: View, content: bytes, mask: bytes | None, size: tuple[int, int]) -> UInt8[np.ndarray, "h w c"]:
    image = decode_image(content, view.path)
    if image.shape[:2] != size:
        raise InputError(f"{view.path}: the image changed while it was read")
    return image if mask is None or view.mask_path is None else with_mask(image, mask, view.mask_path)


def _file(path: pathlib.Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(f"{path}: an image file of more than {_MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _check_memory(sizes: Sequence[tuple[int, int]], downscale: int) -> None:
    needed = sum(4 * height * width for height, width in sizes) / downscale**2
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return
    if needed > 0.7 * physical:
        raise InputError(
            f"the images need {needed / 2**30:.1f} GiB of {physical / 2**30:.1f} GiB of memory; "
            f"try --downscale={2 * downscale}"
        )
