"""Space carving: the largest shape that fits into the outlines that several cameras have of it.

The visual hull (Laurentini 1994) holds the object and has its topology wherever the views show a hole; hollows that no
outline shows, such as the inside of a cup, stay filled. What silhouette optimisation starts from when a sphere would
not do.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from renderers.cameras.camera import Camera, project
from renderers.meshes.extraction import grid_points, marching_cubes
from renderers.meshes.mesh import Mesh


def carve(
    points: Float[Array, "*n 3"],
    masks: Sequence[Float[Array | np.ndarray, "h w"]],
    cameras: Sequence[Camera],
    *,
    outside: Literal["carve", "keep"] = "carve",
) -> Float[Array, "*n"]:
    """How far points are inside the outlines of all views: the least mask value at their projections, in [0, 1].

    A mask is read between pixel centres (bilinear), so that a point of the object gets more than 0 wherever one of the
    four pixels around it is covered in part. Binary, antialiased and soft masks serve alike; compiled once for each
    size of image and lens.

    Args:
      points: world frame.
      masks: share of each pixel that the object covers.
      cameras: one for each mask, of its size; any model.
      outside: a point that a view does not show, beyond the image or behind a pinhole camera, is empty ("carve"), or is
        left to the other views ("keep": for views that show a part of the object).

    Raises:
      ValueError: no masks, or masks and cameras that do not fit each other.
    """
    if not len(masks) or len(masks) != len(cameras):
        raise ValueError(f"carving needs one camera for each of its masks, got {len(masks)} and {len(cameras)}")
    inside = jnp.ones(points.shape[:-1], points.dtype)
    for mask, camera in zip(masks, cameras, strict=True):
        if tuple(mask.shape) != tuple(camera.size):
            raise ValueError(f"expected a mask of the camera's size {camera.size}, got {tuple(mask.shape)}")
        inside = _carve_once(inside, points, jnp.asarray(mask, points.dtype), camera, outside == "keep")
    return inside


def visual_hull(
    masks: Sequence[Float[Array | np.ndarray, "h w"]],
    cameras: Sequence[Camera],
    box: Float[np.ndarray | Array, "2 3"],
    *,
    resolution: int | tuple[int, int, int] = 64,
    level: float = 0.5,
    outside: Literal["carve", "keep"] = "carve",
) -> Mesh:
    """The visual hull as a closed mesh: `carve` at the nodes of a grid, then marching cubes. Runs on the host.

    Every node of the grid that lies in the object is enclosed if its masks are above the level there: a level near 0
    never removes a part of an object that the views show, 0.5 puts the surface on the outlines. Parts that are
    thinner than the grid's spacing may fall between its nodes.

    Args:
      masks: share of each pixel that the object covers.
      cameras: one for each mask.
      box: lower and upper corner of the grid, world frame.
      resolution: nodes along the axes of the box.
      level: mask value at the surface, between 0 and 1.
      outside: as for `carve`.

    Raises:
      ValueError: nothing is left: the outlines have no common point on the grid, or the box does not hold it.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    inside = np.asarray(carve(jnp.asarray(grid_points(box, resolution)), masks, cameras, outside=outside))
    if not (inside > level).any():
        raise ValueError(
            f"carving left nothing of {inside.size} grid points: the masks have no point of the box in common; "
            "check that cameras, masks and box belong together, or take a finer grid"
        )
    return marching_cubes(inside, box, level=level, inside="above")


@functools.partial(jax.jit, static_argnames="keep")
def _carve_once(inside, points, mask, camera, keep):
    (height, width), (pixels, depth) = camera.size, project(camera, points)
    u, v = pixels[..., 0], pixels[..., 1]
    shown = (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
    if camera.model == "pinhole":
        shown &= depth > 0
    column, row = jnp.clip(u - 0.5, 0.0, width - 1.0), jnp.clip(v - 0.5, 0.0, height - 1.0)
    left, top = (jnp.clip(jnp.floor(x).astype(jnp.int32), 0, n - 2) for x, n in ((column, width), (row, height)))
    right, down = column - left, row - top
    value = (1 - down) * ((1 - right) * mask[top, left] + right * mask[top, left + 1])
    value += down * ((1 - right) * mask[top + 1, left] + right * mask[top + 1, left + 1])
    return jnp.minimum(inside, jnp.where(shown, value, 1.0 if keep else 0.0))
