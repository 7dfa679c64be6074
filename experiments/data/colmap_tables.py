"""Rows of COLMAP's tables as they are stored, and the list of its camera models."""

from typing import NamedTuple

MAX_NAME_BYTES = 4096


class CameraModel(NamedTuple):
    """A camera model: how many parameters it stores, and how many of them are focal lengths (1: f, 2: fx fy)."""

    name: str
    num_params: int
    focals: int


CAMERA_MODELS = {
    0: CameraModel("SIMPLE_PINHOLE", 3, 1),
    1: CameraModel("PINHOLE", 4, 2),
    2: CameraModel("SIMPLE_RADIAL", 4, 1),
    3: CameraModel("RADIAL", 5, 1),
    4: CameraModel("OPENCV", 8, 2),
    5: CameraModel("OPENCV_FISHEYE", 8, 2),
    6: CameraModel("FULL_OPENCV", 12, 2),
    7: CameraModel("FOV", 5, 2),
    8: CameraModel("SIMPLE_RADIAL_FISHEYE", 4, 1),
    9: CameraModel("RADIAL_FISHEYE", 5, 1),
    10: CameraModel("THIN_PRISM_FISHEYE", 12, 2),
    11: CameraModel("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2),
    12: CameraModel("SIMPLE_DIVISION", 4, 1),
    13: CameraModel("DIVISION", 5, 2),
    14: CameraModel("SIMPLE_FISHEYE", 3, 1),
    15: CameraModel("FISHEYE", 4, 2),
    16: CameraModel("EUCM", 6, 2),
    17: CameraModel("EQUIRECTANGULAR", 2, 0),
}
"""By the number that binary files store."""

MODEL_IDS = {model.name: number for number, model in CAMERA_MODELS.items()}


class CameraRow(NamedTuple):
    """A camera: model number, size in pixels, parameters in COLMAP's order."""

    model: int
    width: int
    height: int
    params: tuple[float, ...]


class ImageRow(NamedTuple):
    """A registered image: camera-from-world rotation (wxyz) and translation, its camera, its file."""

    name: str
    camera_id: int
    quaternion: tuple[float, float, float, float]
    translation: tuple[float, float, float]
