"""`transforms.json` as nerfstudio, instant-ngp and the Blender scenes of NeRF write it.

Poses are world-from-camera with OpenGL camera axes (x right, y up, looking along -z). Intrinsics stand in a frame or,
for all frames, at the top; the frame's win. Distortion follows OpenCV. `applied_transform` is already in the poses and
in the point cloud. Facts from shared/specs/renderers/file_formats.md sections 7 and 8.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any, NoReturn

import numpy as np

from experiments.data.paths import is_file, resolve_inside
from experiments.data.views import Lens, View, rigid_or_refuse
from experiments.errors import InputError

_MAX_BYTES = 256 << 20
_MAX_FRAMES = 1_000_000
_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG")
# OpenCV's k3 to k6 follow the tangential terms.
_BROWN = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")
_PERSPECTIVE_MODELS = {"PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE"}
_FISHEYE_MODELS = {"OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclasses.dataclass(frozen=True)
class TransformsFile:
    """The contents of one transforms file.

    Attributes:
        views: one a frame, in file order; image files need not exist.
        points_path: the point cloud named by the file, in the frame of its poses.
        splits: file names listed as train, val and test, empty where the file has no such list.
        notes: what was found and not used.
    """

    views: tuple[View, ...]
    points_path: pathlib.Path | None
    splits: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]


def read_transforms(path: pathlib.Path, *, allow_external: bool = False) -> TransformsFile:
    """Reads a transforms file; no image is opened.

    Args:
        path: the JSON file; relative paths in it start from its folder.
        allow_external: let paths leave that folder.

    Raises:
        InputError: for JSON that is damaged, too deep or too large, a number that is not finite, a pose that is not
            rigid, a camera model that is not supported, or a path that leads outside.
    """
    document = _load(path)
    frames = document.get("frames")
    if not isinstance(frames, list) or not 0 < len(frames) <= _MAX_FRAMES:
        raise InputError(f"{path}: expected a non-empty list `frames`")
    root = path.parent
    views = [_view(f"{path}: frame {i}", frame, document, root, allow_external) for i, frame in enumerate(frames)]
    notes = []
    if any(isinstance(frame, dict) and "depth_file_path" in frame for frame in frames):
        notes.append("depth images are listed and not used")
    if "applied_transform" in document:
        notes.append("applied_transform is already in the poses; results are written in the frame of the poses")
    points = document.get("ply_file_path")
    points_path = None
    if points is not None:
        where = f"{path}: ply_file_path"
        points_path = resolve_inside(root, _text(where, points), where=where, allow_external=allow_external)
        if not is_file(points_path):
            notes.append(f"the point cloud {points} is missing")
            points_path = None
    splits = {split: _names(path, document, f"{split}_filenames") for split in ("train", "val", "test")}
    return TransformsFile(tuple(views), points_path, splits, tuple(notes))


def _load(path: pathlib.Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: more than {_MAX_BYTES >> 20} MiB of JSON; is this the right file?")
        document = json.loads(path.read_text("utf-8-sig"), parse_constant=_refuse_constant)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path}: the JSON is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not valid JSON ({str(error)[:120]})") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a JSON object with `frames`, got a {type(document).__name__}")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that can be used")


def _view(where: str, frame: Any, document: dict[str, Any], root: pathlib.Path, allow_external: bool) -> View:
    if not isinstance(frame, dict):
        raise InputError(f"{where}: expected an object, got a {type(frame).__name__}")
    written = _text(f"{where}: file_path", frame.get("file_path"))
    path = resolve_inside(root, written, where=f"{where}: file_path", allow_external=allow_external)
    extension = _missing_extension(path)
    path = path.with_name(path.name + extension)
    mask = frame.get("mask_path")
    if mask is not None:
        mask_where = f"{where}: mask_path"
        mask = resolve_inside(root, _text(mask_where, mask), where=mask_where, allow_external=allow_external)
    world_from_camera = rigid_or_refuse(_matrix(f"{where}: transform_matrix", frame.get("transform_matrix")), where)
    # A rigid transform is inverted by its transpose: exact, unlike a general inverse.
    rotation = world_from_camera[:3, :3].T
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3] = rotation
    camera_from_world[:3, 3] = -rotation @ world_from_camera[:3, 3]
    lens, size, angles = _intrinsics(where, frame, document)
    name = str(pathlib.PurePosixPath(written.replace("\\", "/"))) + extension
    return View(name, path, _OPENCV_FROM_OPENGL @ camera_from_world, lens, size, angles, mask)


def _missing_extension(path: pathlib.Path) -> str:
    """What to append to a path to find its image: Blender scenes leave out `.png`."""
    if path.suffix in _EXTENSIONS or is_file(path):
        return ""
    return next((e for e in _EXTENSIONS if is_file(path.with_name(path.name + e))), _EXTENSIONS[0])


def _intrinsics(
    where: str, frame: dict[str, Any], document: dict[str, Any]
) -> tuple[Lens | None, tuple[int, int] | None, tuple[float, float | None] | None]:
    def number(key: str) -> float | None:
        value = frame.get(key, document.get(key))
        return None if value is None else _number(f"{where}: {key}", value)

    model = frame.get("camera_model", document.get("camera_model", "PERSPECTIVE"))
    if not isinstance(model, str) or model not in _PERSPECTIVE_MODELS | _FISHEYE_MODELS:
        known = ", ".join(sorted(_PERSPECTIVE_MODELS | _FISHEYE_MODELS))
        raise InputError(f"{where}: the camera model {str(model)[:40]!r} is not supported; known are {known}")
    is_fisheye = frame.get("is_fisheye", document.get("is_fisheye")) is True or model in _FISHEYE_MODELS
    coefficients = tuple(number(key) or 0.0 for key in (_FISHEYE if is_fisheye else _BROWN))
    width, height = number("w"), number("h")
    size = None
    if width is not None and height is not None:
        if not (1 <= width < 2**20 and 1 <= height < 2**20):
            raise InputError(f"{where}: w and h must be image sizes in pixels, got {width:g} and {height:g}")
        size = (round(height), round(width))
    # What a frame says about its focal length replaces all that the top level says about it.
    source = frame if "fl_x" in frame or "camera_angle_x" in frame else document
    if source.get("fl_x") is not None:
        fx = _number(f"{where}: fl_x", source["fl_x"])
        fy = _number(f"{where}: fl_y", source.get("fl_y", fx))
    elif source.get("camera_angle_x") is not None:
        angle_x = _number(f"{where}: camera_angle_x", source["camera_angle_x"])
        angle_y = source.get("camera_angle_y")
        angle_y = None if angle_y is None else _number(f"{where}: camera_angle_y", angle_y)
        if not all(0 < angle < math.pi for angle in (angle_x, angle_y or angle_x)):
            raise InputError(f"{where}: camera_angle_x and _y must lie between 0 and pi radians")
        centred = number("cx") is None and number("cy") is None
        if size is None and centred and not is_fisheye and not any(coefficients):
            return None, None, (angle_x, angle_y)
        if size is None:
            raise InputError(f"{where}: w and h are needed beside camera_angle_x where cx, cy or distortion are given")
        fx = 0.5 * size[1] / math.tan(0.5 * angle_x)
        fy = fx if angle_y is None else 0.5 * size[0] / math.tan(0.5 * angle_y)
    else:
        raise InputError(f"{where}: no focal length; expected fl_x or camera_angle_x in the frame or at the top level")
    if not (0 < fx < 1e8 and 0 < fy < 1e8):
        raise InputError(f"{where}: focal lengths must be positive pixels, got fl_x {fx:g} and fl_y {fy:g}")
    cx, cy = number("cx"), number("cy")
    if cx is None or cy is None:
        if size is None:
            raise InputError(f"{where}: fl_x is given without the image's centre; add w and h, or cx and cy")
        cx, cy = 0.5 * size[1] if cx is None else cx, 0.5 * size[0] if cy is None else cy
    return Lens("fisheye" if is_fisheye else "pinhole", (fx, fy), (cx, cy), coefficients), size, None


def _matrix(where: str, rows: Any) -> np.ndarray:
    if (
        not isinstance(rows, list)
        or len(rows) not in (3, 4)
        or any(not isinstance(row, list) or len(row) != 4 for row in rows)
    ):
        raise InputError(f"{where}: expected 4 rows of 4 numbers")
    return np.array([[_number(where, value) for value in row] for row in rows])


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: expected a number, got {str(value)[:40]!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where}: the number is not finite")
    return number


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a path, got {str(value)[:40]!r}")
    return value


def _names(path: pathlib.Path, document: dict[str, Any], key: str) -> tuple[str, ...]:
    names = document.get(key, [])
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        raise InputError(f"{path}: {key} must be a list of file names")
    return tuple(name.replace("\\", "/") for name in names)
