"""The dark rim that undistortion or a lens leaves around photographs, as part of the image formation.

Tools that undistort photographs leave rows and columns at the edge that no light reached: black in every picture,
wherever it was taken. No scene explains them. They are modelled as a field stop, a transmission by row times one by
column, estimated from the training views alone. Training leaves them out; renders are multiplied by the transmission
before they are compared with whole photographs.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

_BAND = 0.05  # of the image's side in which a rim is looked for
_FEWEST_VIEWS = 8  # with fewer, what stands at the edge may well be dark in all of them
_DARK = 0.8  # an edge row is part of the rim if it is darker than this against the first row inside


@dataclasses.dataclass(frozen=True)
class FieldStop:
    """Transmission of each row and column of an image, 1 inside: Float["h"] and Float["w"]."""

    rows: Float[np.ndarray, " h"]
    columns: Float[np.ndarray, " w"]

    @property
    def inside(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(first, one past last) row and column that all light reaches."""
        lit_rows, lit_columns = np.flatnonzero(self.rows == 1), np.flatnonzero(self.columns == 1)
        return (int(lit_rows[0]), int(lit_rows[-1]) + 1), (int(lit_columns[0]), int(lit_columns[-1]) + 1)

    @property
    def is_open(self) -> bool:
        """Whether it lets all light pass."""
        return bool((self.rows == 1).all() and (self.columns == 1).all())


def open_stop(size: tuple[int, int]) -> FieldStop:
    """No rim at all."""
    return FieldStop(np.ones(size[0], np.float32), np.ones(size[1], np.float32))


def estimate(images: Sequence[UInt8[np.ndarray, "h w c"]]) -> FieldStop:
    """The rim that photographs of one size share.

    From each edge inwards, rows belong to the rim while their mean over all pictures stays below 0.8 of that of the
    rows inside; their transmission is that ratio. Columns alike.

    Args:
      images: training photographs; with an alpha channel, or fewer than 8, no rim is assumed.
    """
    size = images[0].shape[:2]
    if len(images) < _FEWEST_VIEWS or images[0].shape[-1] == 4:
        return open_stop(size)
    mean = np.mean([image.mean(-1) for image in images], 0)
    return FieldStop(_transmission(mean.mean(1)), _transmission(mean.mean(0)))


def _transmission(profile: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    gain = np.ones(len(profile), np.float32)
    _mark_rim(profile, gain)
    _mark_rim(profile[::-1], gain[::-1])
    return gain


def _mark_rim(profile, gain):
    band = max(2, round(_BAND * len(profile)))
    inside = np.median(profile[band : 2 * band])
    if inside <= 0:
        return
    bright = np.flatnonzero(profile[:band] >= _DARK * inside)
    rim = bright[0] if len(bright) else 0  # dark all through the band: not a rim but a dark scene
    if rim:
        gain[:rim] = profile[:rim] / profile[rim : rim + 4].mean()


def through_stop(color: Float[np.ndarray, "h w c"], stop: FieldStop) -> Float[np.ndarray, "h w c"]:
    """A render as the camera would have recorded it behind its field stop."""
    return color * stop.rows[:, None, None] * stop.columns[None, :, None]
