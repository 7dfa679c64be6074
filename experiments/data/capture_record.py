"""The Capture record: a whole capture in memory, the same whatever tool described it on disk."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capture:
    """Photographs with poses and cameras, ideal ones unless they were left distorted, sorted by name.

    Attributes:
        names: one a view, unique, sorted; the path as the capture names it without a folder that all share.
        images: display-referred sRGB, RGB or RGBA with straight alpha; sizes may differ between views.
        camera_from_world: rigid, OpenCV axes, in the capture's own world frame and unit.
        focal: fx, fy in pixels of `images`.
        principal: cx, cy in pixels of `images`.
        model: "pinhole", or "fisheye" where undistortion was turned off.
        distortion: lens coefficients of each view in OpenCV's order, zeros behind the last, where undistortion was
            turned off and a lens has any; None: ideal lenses.
        points: triangulated points in the same world, or None.
        point_colors: their sRGB colours, or None.
        test_names: the views that the data set itself keeps for testing; empty if it does not say.
        white_background: the data set is meant to be seen on white (Blender's).
        missing: listed photographs that are not there.
        notes: one-line remarks for the log.
    """

    names: tuple[str, ...]
    images: tuple[UInt8[np.ndarray, "h w c"], ...]
    camera_from_world: Float[np.ndarray, "v 4 4"]
    focal: Float[np.ndarray, "v 2"]
    principal: Float[np.ndarray, "v 2"]
    model: str = "pinhole"
    distortion: Float[np.ndarray, "v k"] | None = None
    points: Float[np.ndarray, "p 3"] | None = None
    point_colors: UInt8[np.ndarray, "p 3"] | None = None
    test_names: tuple[str, ...] = ()
    white_background: bool = False
    missing: int = 0
    notes: tuple[str, ...] = ()
