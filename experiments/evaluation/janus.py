"""Whether what an object has once, on one side, is seen once: a second face is a Janus face.

Families with such a part in a colour of its own are counted (`parts.front_marker`): the snowman's nose, the dog's head,
the house's door, the mug's handle. The chair's back, in the seat's colour, cannot be told from it and is left out.
"""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from experiments.data.blocks import parts, rendering, solids
from experiments.data.blocks.descriptions import COLORS, Description
from experiments.data.blocks.solids import Assembly
from experiments.evaluation.geometry_scores import nearest_colors

VIEWS, SIZE = 8, 64  # of the ring that markers are counted on
_HIDDEN = ("chair",)  # families whose marker is part of something of its colour
_MOST_SOLIDS = 8
_SMALLEST = 0.001  # of a picture, that a region must have: 4 pixels of 64 x 64
_SQUARE = np.ones((3, 3), bool)  # regions may hang together by corners


class Janus(typing.NamedTuple):
    """How often a marker is seen.

    Attributes:
      count: regions in the marker's colour on all views over those of one marker: 1 is right, 2 a second face.
      found: regions on all views that the marker, or more of them, makes.
      expected: those of an exact object.
    """

    count: float
    found: int
    expected: int


def janus(ring: Float[np.ndarray, "v h w 8"], description: Description, exact: Assembly) -> Janus | None:
    """Counts the markers of an object that should be of a description's class.

    Connected regions of the marker's colour are counted in every view, of the object, of an exact one, and of that
    without its marker, as the rest of it may have the colour, too.

    Args:
      ring: of VIEWS cameras, azimuth 0 and the canonical elevation, SIZE pixels, channels in [-1, 1].
      description: of the class.
      exact: an object of the class, as like the one in question as there is: proportions decide how often the marker
        is hidden.

    Returns:
      None where the class has no marker, or its colour is not said, or is that of all.
    """
    marker = parts.front_marker(description)
    if marker is None or description.parts[0].shape in _HIDDEN or marker.part >= len(description.parts):
        return None
    color = description.parts[marker.part].color
    if not color or all(part.color in ("", color) for part in description.parts):
        return None
    kept = [k for k in range(len(exact.centers)) if k not in marker.solids]
    bare = jax.tree.map(lambda rows: np.asarray(rows)[kept], exact)
    others = regions(exact_ring(bare), color)
    expected = regions(exact_ring(exact), color) - others
    if expected < 1:
        return None
    found = max(regions(ring, color) - others, 0)
    return Janus(found / expected, found, expected)


def regions(ring: Float[np.ndarray, "v h w 8"], color: str) -> int:
    """Connected regions, over all views, of pixels whose base colour is nearest to a named one."""
    coverage = 0.5 * (ring[..., 7:] + 1.0)
    colors = 0.5 * (ring[..., :3] / np.maximum(coverage, 1e-3) + 1.0)
    shown = (nearest_colors(colors) == list(COLORS).index(color)) & (coverage[..., 0] > 0.5)
    count = 0
    for view in shown:
        labels = np.zeros(view.shape, np.int32)
        ndimage.label(view, _SQUARE, output=labels)
        count += int(np.count_nonzero(np.bincount(labels.ravel())[1:] >= _SMALLEST * view.size))
    return count


def exact_ring(assembly: Assembly, *, views: int = VIEWS, size: int = SIZE) -> Float[np.ndarray, "v h w 8"]:
    """Channels of an exact object on a ring of cameras; one compiled program for objects of all kinds."""
    return np.asarray(_rendered(solids.padded(assembly, _MOST_SOLIDS), views, size))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _rendered(assembly, views, size):
    cameras = rendering.ring_cameras(jnp.float32(0.0), jnp.float32(rendering.ELEVATION), views=views, size=size)

    def one(camera):
        return rendering.to_channels(rendering.render(assembly, camera), camera)

    return jax.lax.map(one, cameras)
