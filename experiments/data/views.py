"""What a capture's description says about one photograph, before its pixels are read: file, pose, lens."""

import dataclasses
import pathlib
from typing import Literal

import numpy as np
from jaxtyping import Float

from experiments.errors import InputError

LensModel = Literal["pinhole", "fisheye"]


@dataclasses.dataclass(frozen=True)
class Lens:
    """Intrinsics of a photograph, in its pixels.

    Attributes:
        model: "pinhole" (coefficients: Brown-Conrady k1 k2 p1 p2 k3 k4 k5 k6, any prefix) or "fisheye" (k1 to k4).
        focal: fx, fy in pixels.
        principal: cx, cy in pixels.
        coefficients: OpenCV's order; all zero or empty for an ideal lens.
    """

    model: LensModel
    focal: tuple[float, float]
    principal: tuple[float, float]
    coefficients: tuple[float, ...] = ()

    @property
    def is_ideal_pinhole(self) -> bool:
        """Whether the photograph needs no undistortion."""
        return self.model == "pinhole" and not any(self.coefficients)


@dataclasses.dataclass(frozen=True)
class View:
    """One photograph of a capture as described on disk.

    Attributes:
        name: path as the capture names it, forward slashes.
        path: the image file; it need not exist.
        camera_from_world: Float["4 4"], rigid, OpenCV axes, in the capture's own world.
        lens: in pixels of `lens_size`; None if the description gives none that holds without the image's size.
        lens_size: (height, width) that the lens refers to; None: that of the image.
        field_of_view: horizontal and vertical angle in radians (vertical None: square pixels) where `lens` is None.
        mask_path: a grey image, black where the photograph is to be ignored.
    """

    name: str
    path: pathlib.Path
    camera_from_world: Float[np.ndarray, "4 4"]
    lens: Lens | None
    lens_size: tuple[int, int] | None
    field_of_view: tuple[float, float | None] | None = None
    mask_path: pathlib.Path | None = None


def lens_in_pixels(view: View, size: tuple[int, int]) -> Lens:
    """The view's lens for an image of `size`, rescaled where the description was made for a resized copy.

    Raises:
        InputError: if the image's proportions are not those of the description, or the result is no camera.
    """
    height, width = size
    lens = view.lens
    if lens is None:
        assert view.field_of_view is not None
        angle_x, angle_y = view.field_of_view
        fx = 0.5 * width / np.tan(0.5 * angle_x)
        fy = fx if angle_y is None else 0.5 * height / np.tan(0.5 * angle_y)
        return Lens("pinhole", (float(fx), float(fy)), (0.5 * width, 0.5 * height))
    if view.lens_size is None or view.lens_size == size:
        return lens
    sy, sx = height / view.lens_size[0], width / view.lens_size[1]
    # Halving an odd length moves the ratio by up to one pixel in the shorter side.
    if abs(sx / sy - 1) > 0.005 + 1.5 / min(size):
        raise InputError(
            f"{view.path}: the image is {width} x {height}, but its camera was described for {view.lens_size[1]} x "
            f"{view.lens_size[0]} (width x height); fix w and h in the capture's description"
        )
    return dataclasses.replace(
        lens,
        focal=(lens.focal[0] * sx, lens.focal[1] * sy),
        principal=(lens.principal[0] * sx, lens.principal[1] * sy),
    )


def rigid_or_refuse(matrix: np.ndarray, where: str, tolerance: float = 1e-2) -> Float[np.ndarray, "4 4"]:
    """The rigid transform nearest to a 3x4 or 4x4 matrix that ought to be one.

    Rotations are stored with few digits, so they are made orthonormal again: what follows takes the transpose for the
    inverse.

    Raises:
        InputError: if the matrix is not finite, mirrors, scales or shears by more than `tolerance`.
    """
    rotation = matrix[:3, :3]
    largest = float(np.abs(matrix).max()) if np.isfinite(matrix).all() else np.inf
    defect = np.abs(rotation.T @ rotation - np.eye(3)).max() if largest < 1e150 else np.inf
    bottom = matrix[3] if matrix.shape[0] == 4 else np.array([0.0, 0.0, 0.0, 1.0])
    if not defect <= tolerance or np.abs(bottom - [0, 0, 0, 1]).max() > 1e-6 or np.linalg.det(rotation) < 0:
        raise InputError(
            f"{where}: the pose is not a rotation with a translation (off by {defect:.3g} from orthonormal); scale, "
            "shear and mirroring must be taken out of the capture"
        )
    left, _, right = np.linalg.svd(rotation)
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = left @ right, matrix[:3, 3]
    return rigid
