"""COLMAP's `.txt` tables: one row a line, two lines an image, `#` comments."""

import pathlib
from collections.abc import Iterator

import numpy as np

from experiments.data.colmap_tables import CAMERA_MODELS, MAX_NAME_BYTES, MODEL_IDS, CameraRow, ImageRow
from experiments.errors import InputError

_MAX_BYTES = 1 << 34


def count_images(folder: pathlib.Path) -> int:
    """Number of registered images."""
    return len(read_images(folder))


def read_cameras(folder: pathlib.Path) -> dict[int, CameraRow]:
    """Cameras by id; raises InputError where a line cannot be understood or a model is unknown."""
    path = folder / "cameras.txt"
    cameras = {}
    for number, line in _lines(path):
        words = line.split()
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(words) < 4:
            raise InputError(f"{where}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS")
        model = MODEL_IDS.get(words[1])
        if model is None:
            raise InputError(f"{where}: unknown camera model {words[1][:40]!r}; known are {', '.join(MODEL_IDS)}")
        params = _floats(where, words[4:])
        if len(params) != CAMERA_MODELS[model].num_params:
            raise InputError(
                f"{where}: {words[1]} takes {CAMERA_MODELS[model].num_params} parameters, got {len(params)}"
            )
        camera_id, width, height = _integers(where, (words[0], words[2], words[3]))
        if not (0 <= width < 2**20 and 0 <= height < 2**20):
            raise InputError(f"{where}: an image of {width} x {height} pixels")
        cameras[camera_id] = CameraRow(model, width, height, params)
    return cameras


def read_images(folder: pathlib.Path) -> list[ImageRow]:
    """Registered images in file order; their 2D features, the second line of each, are not parsed and may be empty."""
    path = folder / "images.txt"
    images = []
    lines = _lines(path)
    for number, line in lines:
        if not line.strip():
            continue
        words = line.split(maxsplit=9)
        where = f"{path}: line {number}"
        if len(words) != 10:
            raise InputError(f"{where}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
        name = words[9].rstrip()
        if len(name.encode("utf-8")) >= MAX_NAME_BYTES:
            raise InputError(f"{where}: the image name is longer than {MAX_NAME_BYTES} bytes")
        pose = _floats(where, words[1:8])
        _, camera_id = _integers(where, (words[0], words[8]))
        qw, qx, qy, qz, tx, ty, tz = pose
        images.append(ImageRow(name, camera_id, (qw, qx, qy, qz), (tx, ty, tz)))
        next(lines, None)
    return images


def read_points(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions float64 [p 3] and colours uint8 [p 3]; empty where there is no points3D.txt."""
    path = folder / "points3D.txt"
    points, colors = [], []
    for number, line in _lines(path) if path.is_file() else ():
        words = line.split(maxsplit=8)
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(words) < 8:
            raise InputError(f"{where}: expected POINT3D_ID X Y Z R G B ERROR TRACK")
        points.append(_floats(where, words[1:4]))
        color = _integers(where, words[4:7])
        if not all(0 <= value <= 255 for value in color):
            raise InputError(f"{where}: colours must be 0 to 255, got {color}")
        colors.append(color)
    return np.array(points, np.float64).reshape(-1, 3), np.array(colors, np.uint8).reshape(-1, 3)


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without the comments; empty lines stay, since they mean something in images.txt."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: more than {_MAX_BYTES >> 30} GiB")
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if not line.startswith("#"):
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _floats(where: str, words: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise InputError(f"{where}: expected numbers, got {' '.join(words)[:60]!r}") from None


def _integers(where: str, words: tuple[str, ...] | list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise InputError(f"{where}: expected whole numbers, got {' '.join(words)[:60]!r}") from None
