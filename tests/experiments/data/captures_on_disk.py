"""Small captures written to disk by tests, with known numbers."""

import json
import pathlib

import numpy as np
from PIL import Image


def rotation(seed: int) -> np.ndarray:
    """A random proper rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def world_from_camera(seed: int) -> np.ndarray:
    """A random rigid 4x4 matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(seed)
    matrix[:3, 3] = np.random.default_rng(seed + 100).normal(size=3)
    return matrix


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth random image, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [
        np.sin(2 * np.pi * (rng.uniform(0.5, 2) * x + rng.uniform(0.5, 2) * y + rng.uniform())) for _ in range(channels)
    ]
    return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_transforms(
    folder: pathlib.Path, names=("b.png", "a.png", "c.png"), file: str = "transforms.json", **top
) -> dict:
    """Writes images/NAME and a transforms file with pinhole intrinsics; returns the document."""
    frames = []
    for index, name in enumerate(names):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(12, 16, seed=index)).save(path)
        frames.append({"file_path": f"images/{name}", "transform_matrix": world_from_camera(index).tolist()})
    document = {"fl_x": 20.0, "fl_y": 21.0, "cx": 8.5, "cy": 6.25, "w": 16, "h": 12, "frames": frames} | top
    (folder / file).write_text(json.dumps(document))
    return document


def rewrite(folder: pathlib.Path, document: dict, file: str = "transforms.json") -> None:
    """Writes a changed document."""
    (folder / file).write_text(json.dumps(document))
