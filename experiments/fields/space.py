"""The space of a field: which part of the capture's world it covers, and what the silhouettes carve away from it.

Training works in a frame in which an object's box is [-1, 1]^3. Without bounds the cameras lie in that box and all that
is beyond it is contracted. The change of frame is a uniform scale and a shift, so that colours keep their direction.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Bool

from experiments.data.capture_record import Capture
from experiments.splats.scene import Normalisation, cameras, focus_point
from renderers.cameras.camera import project

_MARGIN = 1.08  # room round an object's hull
_COARSE = 64  # cells along a side of the box in which a hull is first looked for
_SMALLEST_PART = 0.02  # of the largest part of a hull; smaller ones are where few silhouettes meet
_OPAQUE = 8  # alpha above which a pixel may show the object


@dataclasses.dataclass(frozen=True)
class Space:
    """The normalised frame in the capture's world, and whether there is something outside [-1, 1]^3 of it."""

    frame: Normalisation
    unbounded: bool


def is_object(capture: Capture) -> bool:
    """Whether a capture shows one object: images with an alpha channel, or made for a white background."""
    return capture.white_background or has_alpha(capture)


def has_alpha(capture: Capture) -> bool:
    """Whether all images have an alpha channel that says something."""
    return all(image.shape[-1] == 4 for image in capture.images) and any(
        int(image[..., 3].min()) < 255 for image in capture.images
    )


def find_space(capture: Capture, train: Sequence[int], *, unbounded: bool) -> Space:
    """The box of an object, or the box that holds the cameras of a place without bounds.

    It is centred on the point that the cameras look at. An object's box is what the median camera sees of the plane
    through that point, tightened to the training silhouettes' hull where images have an alpha channel.
    """
    views = cameras(capture, Normalisation(np.zeros(3), 1.0))
    centers, focus = focus_point(views)
    distances = np.linalg.norm(centers - focus, axis=1)
    if unbounded:
        return Space(Normalisation(focus, float(distances.max()) or 1.0), True)
    tangents = [0.5 * max(view.size) / float(np.max(view.focal)) for view in views]
    reach = max(float(np.median(distances * np.minimum(tangents, 2.0))), 1e-6)
    wide = Space(Normalisation(focus, reach), False)
    if not has_alpha(capture):
        return wide
    # what few cameras see are corners of the box, which their silhouettes cannot tell from the object
    left = carve(capture, train, wide, _COARSE, least_views=-(-len(train) // 2))
    if not left.any():
        return wide
    labels = np.zeros(left.shape, np.int32)
    scipy.ndimage.label(left, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    inside = np.argwhere((sizes >= _SMALLEST_PART * sizes.max())[labels] & left)
    low, high = -1 + 2 * inside.min(0) / _COARSE, -1 + 2 * (inside.max(0) + 1) / _COARSE
    half = 0.5 * float((high - low).max()) * _MARGIN
    return Space(Normalisation(focus + reach * 0.5 * (low + high), reach * half), False)


def carve(
    capture: Capture, train: Sequence[int], space: Space, resolution: int, *, least_views: int = 1
) -> Bool[np.ndarray, "r r r"]:
    """Cells of the box that no training silhouette shows to be empty; a cell stays if any part of it may be full.

    Indices are (x, y, z). Cells that fewer than `least_views` of these cameras see are empty.
    """
    along = (np.arange(resolution) + 0.5) * (2 / resolution) - 1
    cells = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    radius = 3**0.5 / resolution
    kept, times_seen = np.ones(len(cells), bool), np.zeros(len(cells), np.int32)
    views = cameras(capture, space.frame)
    for view in train:
        height, width = views[view].size
        pixels, depth = (np.asarray(part) for part in _project(jax.tree.map(jnp.asarray, views[view]), cells))
        nearest = max(float(np.median(depth)) - 3**0.5, radius)
        spread = int(np.ceil(radius * float(np.max(views[view].focal)) / nearest))
        mask = scipy.ndimage.maximum_filter(capture.images[view][..., 3] > _OPAQUE, size=2 * spread + 1)
        column, row = np.floor(np.clip(pixels, -1.0, 1e6)).astype(np.int64).T
        seen = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        kept[seen] &= mask[row[seen], column[seen]]
        times_seen += seen
    return (kept & (times_seen >= least_views)).reshape(resolution, resolution, resolution)


_project = jax.jit(project)
