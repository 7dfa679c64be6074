"""Depth maps of many views to one surface: truncated signed distances averaged on a grid.

Curless and Levoy, "A volumetric method for building complex models from range images", 1996: each view says how far a
node lies in front of (+) or behind (-) the surface along the camera's z; nodes far behind it are hidden and learn
nothing. The better route from splats or radiance fields to a mesh: it needs depth only where surfaces are seen.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from renderers.cameras.camera import Camera, project
from renderers.meshes.extraction import marching_cubes
from renderers.meshes.mesh import Mesh
from renderers.meshes.textures import linear_from_srgb

Progress = Callable[[int, int], None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class DistanceVolume:
    """Truncated signed distances at the nodes of a grid (see `extraction`).

    Attributes:
        distance: mean over views in units of the truncation, in [-1, 1], positive in front of surfaces.
        weight: sum of the views' weights; 0 where no view saw the node in front of or just behind a surface.
        hidden: number of views in which the node lay far behind a surface.
        color: mean colour of the views that saw a surface here, as given; None without colours.
        color_weight: sum of the weights of those views.
        box: lower and upper corner.
        num_views: static number of views.
    """

    distance: Float[Array, "x y z"]
    weight: Float[Array, "x y z"]
    hidden: Float[Array, "x y z"]
    color: Float[Array, "x y z 3"] | None
    color_weight: Float[Array, "x y z"]
    box: Float[Array, "2 3"]
    num_views: int = dataclasses.field(metadata=dict(static=True))


def fuse_depths(
    depths: Sequence[Float[Array | np.ndarray, "h w"]],
    cameras: Sequence[Camera],
    box: Float[np.ndarray | Array, "2 3"],
    resolution: int | tuple[int, int, int],
    *,
    colors: Sequence[Float[Array | np.ndarray, "h w 3"]] | None = None,
    weights: Sequence[Float[Array | np.ndarray, "h w"]] | None = None,
    truncation: float | None = None,
    empty_is_free: bool = True,
    progress: Progress | None = None,
) -> DistanceVolume:
    """Averages depth maps into a volume of truncated signed distances, weighted by how squarely surfaces are seen.

    Args:
        depths: camera z in world units, 0 or less where a view sees nothing. Divide a splat's accumulated depth by its
            alpha, and set it to 0 where alpha is low.
        cameras: one a depth map, of its size; any lens.
        box: lower and upper corner of the grid.
        resolution: nodes a side.
        colors: images, any encoding; None for shape alone.
        weights: confidence of each pixel, 0 for none.
        truncation: distance in world units beyond which nodes behind a surface are hidden; None is 4 nodes' spacing.
        empty_is_free: whether a pixel that sees nothing says that its ray is free (masked objects), or nothing at all.
        progress: called with the numbers of views done and in all.
    """
    nodes = (resolution,) * 3 if isinstance(resolution, int) else tuple(resolution)
    if len(depths) == 0 or len(depths) != len(cameras):
        raise ValueError(f"fuse_depths needs as many cameras as depth maps, got {len(cameras)} and {len(depths)}")
    corners = jnp.asarray(box, jnp.float32)
    if truncation is None:
        truncation = 4.0 * float(np.max((np.asarray(box)[1] - np.asarray(box)[0]) / (np.array(nodes) - 1)))
    zeros = jnp.zeros(nodes, jnp.float32)
    color = None if colors is None else jnp.zeros((*nodes, 3), jnp.float32)
    sums = (zeros, zeros, zeros, color, zeros)
    for index, (depth, camera) in enumerate(zip(depths, cameras, strict=True)):
        depth = jnp.asarray(depth, jnp.float32)
        if depth.shape != tuple(camera.size):
            raise ValueError(
                f"depth map {index} is {depth.shape}, its camera {tuple(camera.size)}; render or resize it"
            )
        image = None if colors is None else jnp.asarray(colors[index], jnp.float32)
        confidence = jnp.ones_like(depth) if weights is None else jnp.asarray(weights[index], jnp.float32)
        sums = _integrate(sums, depth, image, confidence, camera, corners, truncation, empty_is_free)
        if progress is not None:
            progress(index + 1, len(depths))
    distance, weight, hidden, color, color_weight = sums
    return DistanceVolume(
        distance=distance / jnp.where(weight > 0, weight, 1.0),
        weight=weight,
        hidden=hidden,
        color=None if color is None else color / jnp.where(color_weight > 0, color_weight, 1.0)[..., None],
        color_weight=color_weight,
        box=corners,
        num_views=len(depths),
    )


@functools.partial(jax.jit, static_argnames="empty_is_free")
def _integrate(sums, depth, image, confidence, camera, box, truncation, empty_is_free):
    """Sums after one view. Slab by slab along x, which keeps the memory at that of the sums."""
    _, ny, nz = sums[0].shape
    confidence = confidence * _squareness(depth, camera)
    low, step = box[0], (box[1] - box[0]) / (jnp.asarray(sums[0].shape, jnp.float32) - 1)
    y, z = jnp.meshgrid(low[1] + step[1] * jnp.arange(ny), low[2] + step[2] * jnp.arange(nz), indexing="ij")

    def slab(inputs):
        i, (distance, weight, hidden, color, color_weight) = inputs
        points = jnp.stack([jnp.full_like(y, low[0] + step[0] * i), y, z], -1)
        pixels, node_depth = project(camera, points)
        found, trust, seen, empty = _look_up(depth, confidence, pixels, truncation)
        seen = seen & (node_depth > 0)
        gap = found - node_depth
        hit = seen & (found > 0)
        free = seen & empty & empty_is_free
        known = (hit & (gap >= -truncation)) | free
        share = jnp.where(known, trust, 0.0)
        distance = distance + share * jnp.where(free, 1.0, jnp.clip(gap / truncation, -1.0, 1.0))
        hidden = hidden + (hit & (gap < -truncation))
        near = jnp.where(hit & (jnp.abs(gap) <= truncation), trust, 0.0)
        if color is not None:
            color = color + near[..., None] * _bilinear(image, pixels)
        return distance, weight + share, hidden, color, color_weight + near

    return jax.lax.map(slab, (jnp.arange(sums[0].shape[0], dtype=jnp.float32), sums))


def _squareness(depth, camera):
    """Squared cosine between ray and surface, from the depth map's slope: slanted ones say little about distance."""
    scale = (
        camera.focal
        if camera.model == "orthographic"
        else camera.focal[None, None] / jnp.maximum(depth, 1e-6)[..., None]
    )
    slopes = []
    for axis, k in ((1, 0), (0, 1)):
        ahead = jnp.abs(jnp.roll(depth, -1, axis) - depth)
        smaller = jnp.minimum(ahead, jnp.roll(ahead, 1, axis))  # of both sides: one of them may cross an outline
        slopes.append(smaller * (scale[k] if scale.ndim == 1 else scale[..., k]))
    return jnp.where(depth > 0, 1.0 / (1.0 + slopes[0] ** 2 + slopes[1] ** 2), 1.0)


def _look_up(depth, confidence, pixels, truncation):
    """Depth and confidence at pixels: between four centres where they are one surface, else of the nearest pixel."""
    height, width = depth.shape
    column, row = (jnp.floor(pixels[..., k]).astype(jnp.int32) for k in (0, 1))
    seen = (pixels[..., 0] >= 0) & (pixels[..., 0] < width) & (pixels[..., 1] >= 0) & (pixels[..., 1] < height)
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    nearest = depth[row, column]
    corners = jnp.stack([depth[r, c] for r, c, _ in _neighbours(depth.shape, pixels)])
    empty = jnp.all(corners <= 0, 0)  # between pixels that see something and others that do not nothing is known
    smooth = jnp.all(corners > 0, 0) & (jnp.max(corners, 0) - jnp.min(corners, 0) < truncation)
    return jnp.where(smooth, _bilinear(depth[..., None], pixels)[..., 0], nearest), confidence[row, column], seen, empty


def _neighbours(size, pixels):
    """Rows, columns and weights of the four pixel centres around each place."""
    height, width = size
    x, y = (jnp.clip(pixels[..., k] - 0.5, 0.0, n - 1.0) for k, n in ((0, width), (1, height)))
    left, top = jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32)
    right, below = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
    s, t = x - left, y - top
    places = ((top, left, (1 - s) * (1 - t)), (top, right, s * (1 - t)))
    return (*places, (below, left, (1 - s) * t), (below, right, s * t))


def _bilinear(image, pixels):
    neighbours = _neighbours(image.shape[:2], pixels)
    return functools.reduce(jnp.add, [image[r, c] * w[..., None] for r, c, w in neighbours])


def volume_mesh(
    volume: DistanceVolume,
    *,
    unseen: Literal["inside", "outside"] = "inside",
    srgb: bool = True,
) -> Mesh:
    """The zero surface of a fused volume, with vertex colours if it has colours. Runs on the host.

    Args:
        volume: from `fuse_depths`.
        unseen: what nodes are that are hidden in more than half of the views and seen in none: "inside" closes the
            surface where nobody looked and is right for solid things; "outside" leaves sheets, as thick as the
            truncation, where only fronts were seen. Other nodes that no view knows are always outside.
        srgb: whether the colours are display-referred; vertex colours are linear.

    Raises:
        ValueError: no surface in the volume.
    """
    distance, weight = np.asarray(volume.distance), np.asarray(volume.weight)
    hidden = 2 * np.asarray(volume.hidden) > volume.num_views
    filled = np.where(weight > 0, distance, np.where(hidden & (unseen == "inside"), -1.0, 1.0)).astype(np.float32)
    mesh = marching_cubes(filled, volume.box, level=0.0, inside="below")
    if volume.color is None:
        return mesh
    colors = _colors_at(mesh.vertices, volume)
    if srgb:
        colors = np.asarray(linear_from_srgb(jnp.asarray(colors, jnp.float32)))
    return dataclasses.replace(mesh, vertex_colors=jnp.asarray(np.clip(colors, 0, 1), jnp.float32))


def _colors_at(vertices, volume):
    """Colours between nodes; nodes that no view coloured take part with the colour of the nearest that was."""
    color, known = np.asarray(volume.color), np.asarray(volume.color_weight) > 0
    if known.any() and not known.all():
        nearest = np.asarray(ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True))
        color = color[tuple(nearest)]
    low, high = np.asarray(volume.box, np.float64)
    places = (np.asarray(vertices, np.float64) - low) / (high - low) * (np.array(known.shape) - 1.0)
    return np.stack([ndimage.map_coordinates(color[..., k], places.T, order=1, mode="nearest") for k in range(3)], -1)
