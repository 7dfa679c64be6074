"""COLMAP's `.bin` tables: little-endian, packed, every count checked against what is left of the file."""

import pathlib
import struct

import numpy as np

from experiments.data.colmap_tables import CAMERA_MODELS, MAX_NAME_BYTES, CameraRow, ImageRow
from experiments.errors import InputError

_MAX_BYTES = 1 << 34
_CAMERA = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<I7dI")
_POINT = struct.Struct("<Q3d3BdQ")
_COUNT = struct.Struct("<Q")
_POINT_2D_BYTES = 24
_TRACK_ENTRY_BYTES = 8


def count_images(folder: pathlib.Path) -> int:
    """Number of images that the header of `images.bin` promises."""
    with open(folder / "images.bin", "rb") as file:
        head = file.read(_COUNT.size)
    return _COUNT.unpack(head)[0] if len(head) == _COUNT.size else 0


def read_cameras(folder: pathlib.Path) -> dict[int, CameraRow]:
    """Cameras by id; raises InputError where the table is damaged or a model number is unknown."""
    table = _Table(folder / "cameras.bin", least_row_bytes=_CAMERA.size)
    cameras = {}
    for _ in range(table.count):
        camera_id, model, width, height = table.take(_CAMERA)
        if model not in CAMERA_MODELS:
            raise InputError(
                f"{table.path}: camera {camera_id} has the unknown model number {model}; known are 0 to "
                f"{max(CAMERA_MODELS)}; export with a released version of COLMAP"
            )
        if width >= 2**20 or height >= 2**20:
            raise InputError(f"{table.path}: camera {camera_id} claims an image of {width} x {height} pixels")
        params = table.take(struct.Struct(f"<{CAMERA_MODELS[model].num_params}d"))
        cameras[camera_id] = CameraRow(model, width, height, params)
    table.finish()
    return cameras


def read_images(folder: pathlib.Path) -> list[ImageRow]:
    """Registered images in file order; their 2D features are stepped over."""
    table = _Table(folder / "images.bin", least_row_bytes=_IMAGE.size + 1 + _COUNT.size)
    images = []
    for _ in range(table.count):
        _, *pose, camera_id = table.take(_IMAGE)
        name = table.take_name()
        table.skip(table.take(_COUNT)[0] * _POINT_2D_BYTES)
        images.append(ImageRow(name, camera_id, tuple(pose[:4]), tuple(pose[4:])))
    table.finish()
    return images


def read_points(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions float64 [p 3] and colours uint8 [p 3]; empty where there is no points3D.bin."""
    if not (folder / "points3D.bin").is_file():
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    table = _Table(folder / "points3D.bin", least_row_bytes=_POINT.size)
    points, colors = np.empty((table.count, 3)), np.empty((table.count, 3), np.uint8)
    for row in range(table.count):
        _, x, y, z, red, green, blue, _, track = table.take(_POINT)
        points[row] = x, y, z
        colors[row] = red, green, blue
        table.skip(track * _TRACK_ENTRY_BYTES)
    table.finish()
    return points, colors


class _Table:
    """A cursor over a counted table that never reads past the end."""

    def __init__(self, path: pathlib.Path, least_row_bytes: int):
        self.path = path
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InputError(f"{path}: more than {_MAX_BYTES >> 30} GiB")
            self._content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        self._offset = 0
        (self.count,) = self.take(_COUNT)
        if self.count * least_row_bytes > len(self._content) - self._offset:
            raise InputError(
                f"{path}: {self.count} rows need at least {self.count * least_row_bytes} bytes, the file has "
                f"{len(self._content)}; it is cut short or not a COLMAP table"
            )

    def take(self, layout: struct.Struct) -> tuple:
        start = self._offset
        self.skip(layout.size)
        return layout.unpack_from(self._content, start)

    def skip(self, size: int) -> None:
        if size > len(self._content) - self._offset:
            raise InputError(f"{self.path}: the file ends inside a row (byte {self._offset}); it is cut short")
        self._offset += size

    def take_name(self) -> str:
        end = self._content.find(b"\0", self._offset, self._offset + MAX_NAME_BYTES)
        if end < 0:
            raise InputError(f"{self.path}: an image name at byte {self._offset} does not end; the file is damaged")
        name = self._content[self._offset : end]
        self._offset = end + 1
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{self.path}: the image name {name[:40]!r} is not UTF-8") from None

    def finish(self) -> None:
        if self._offset != len(self._content):
            raise InputError(
                f"{self.path}: {len(self._content) - self._offset} bytes follow the last row; damaged file"
            )
