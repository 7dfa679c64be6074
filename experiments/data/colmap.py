"""COLMAP sparse models: posed photographs, their cameras, and the triangulated points.

Poses are camera-from-world with OpenCV axes; the first pixel's centre is (0.5, 0.5). Ids have gaps; models come as
`.bin` or `.txt`; newer versions add `rigs` and `frames`, which repeat what `images` says. Facts from
shared/specs/renderers/file_formats.md section 6; ids above 10 as printed by pycolmap 4.2.1.
"""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float, UInt8

from experiments.data import colmap_binary, colmap_text
from experiments.data.colmap_tables import CAMERA_MODELS, CameraRow, ImageRow
from experiments.data.paths import is_file, resolve_inside
from experiments.data.views import Lens, View, rigid_or_refuse
from experiments.errors import InputError

# Where reconstructions are found, relative to the capture's folder.
_PLACES = ("sparse", ".", "colmap/sparse", "colmap")
_FISHEYE = {"OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE", "FISHEYE"}
_PINHOLE = {"SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"}


@dataclasses.dataclass(frozen=True)
class SparseModel:
    """A reconstruction: one view a registered image (files need not exist), and coloured points in the same world."""

    folder: pathlib.Path
    views: tuple[View, ...]
    points: Float[np.ndarray, "p 3"]
    point_colors: UInt8[np.ndarray, "p 3"]


def find_models(root: pathlib.Path) -> list[pathlib.Path]:
    """Folders under a capture that hold a sparse model, in the places where tools put them; empty if there is none."""
    found = []
    for place in _PLACES:
        folder = root / place
        try:
            numbered = sorted(child for child in folder.iterdir() if child.name.isdigit()) if folder.is_dir() else []
        except OSError:
            numbered = []
        found += [candidate for candidate in (*numbered, folder) if _suffix(candidate)]
    return found


def read_largest(root: pathlib.Path, *, allow_external: bool = False) -> SparseModel:
    """Reads the sub-model with most images: mapping may end in several, and number 0 need not be the largest.

    Args:
        root: the capture's folder; photographs are in its `images` folder, or in `root` itself.
        allow_external: let image names lead outside.

    Raises:
        InputError: if there is no model, or the largest cannot be used.
    """
    folders = find_models(root)
    if not folders:
        raise InputError(f"{root}: no COLMAP model; expected cameras and images (.bin or .txt) in sparse/0")
    largest = max(folders, key=lambda folder: _tables(folder).count_images(folder)) if folders[1:] else folders[0]
    return read_model(largest, root, allow_external=allow_external)


def read_model(folder: pathlib.Path, root: pathlib.Path, *, allow_external: bool = False) -> SparseModel:
    """Reads one sparse model, binary if both forms are there.

    Args:
        folder: holds cameras, images, and perhaps points3D.
        root: the capture's folder, see `read_largest`.
        allow_external: let image names lead outside.

    Raises:
        InputError: for files that are damaged or lie about their length, an unknown or unsupported camera model, an
            image whose camera is missing, or numbers that are not finite.
    """
    tables = _tables(folder)
    cameras = tables.read_cameras(folder)
    lenses = {camera_id: _lens(folder, camera) for camera_id, camera in cameras.items()}
    images = tables.read_images(folder)
    if not images:
        raise InputError(f"{folder}: the model has no registered images")
    base = root / "images" if (root / "images").is_dir() else root
    views = []
    for image in images:
        if image.camera_id not in lenses:
            raise InputError(
                f"{folder}: image {image.name[:80]!r} refers to camera {image.camera_id}, which is missing"
            )
        camera = cameras[image.camera_id]
        path = resolve_inside(base, image.name, where=f"{folder}: images", allow_external=allow_external)
        lens = lenses[image.camera_id]
        views.append(View(image.name, path, _pose(folder, image), lens, (camera.height, camera.width)))
    points, colors = tables.read_points(folder)
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise InputError(f"{folder}: point {int(np.argmax(bad))} is not finite ({int(bad.sum())} such)")
    return SparseModel(folder, tuple(views), points, colors)


def _suffix(folder: pathlib.Path) -> str | None:
    suffixes = (".bin", ".txt")
    return next((s for s in suffixes if is_file(folder / f"cameras{s}") and is_file(folder / f"images{s}")), None)


def _tables(folder: pathlib.Path):
    suffix = _suffix(folder)
    if suffix is None:
        raise InputError(f"{folder}: expected cameras and images as .bin or .txt")
    return colmap_binary if suffix == ".bin" else colmap_text


def _lens(folder: pathlib.Path, camera: CameraRow) -> Lens:
    model = CAMERA_MODELS[camera.model].name
    if model not in _FISHEYE | _PINHOLE:
        raise InputError(f"{folder}: the camera model {model} is not supported; run `colmap image_undistorter` first")
    values = [float(value) for value in camera.params]
    if not (np.isfinite(values).all() and camera.width > 0 and camera.height > 0):
        raise InputError(f"{folder}: a camera has a number that is not finite or an empty image")
    if CAMERA_MODELS[camera.model].focals == 1:
        values = [values[0], *values]
    fx, fy, cx, cy, *coefficients = values
    if not (0 < fx < 1e8 and 0 < fy < 1e8):
        raise InputError(f"{folder}: a camera has focal lengths {fx:g}, {fy:g}; expected positive pixels")
    return Lens("fisheye" if model in _FISHEYE else "pinhole", (fx, fy), (cx, cy), tuple(coefficients))


def _pose(folder: pathlib.Path, image: ImageRow) -> Float[np.ndarray, "4 4"]:
    where = f"{folder}: image {image.name[:80]!r}"
    w, x, y, z = image.quaternion
    norm = float(np.sqrt(w * w + x * x + y * y + z * z))
    if not 1e-6 < norm < 1e6:
        raise InputError(f"{where}: the rotation quaternion has length {norm:g}")
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = image.translation
    return rigid_or_refuse(matrix, where)
