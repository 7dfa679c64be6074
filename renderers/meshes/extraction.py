"""Fields to triangle meshes: values on a grid, marching cubes, and the density of Gaussian splats. Runs on the host.

A grid of `resolution = (nx, ny, nz)` nodes fills a `box` (lower corner, upper corner) with nodes on its faces: node
(i, j, k) lies at `low + (i, j, k) / (resolution - 1) * (high - low)`.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from renderers.meshes.mesh import Mesh

Progress = Callable[[int, int], None]
_BLOCK = 8  # nodes a side of the blocks that splats are binned to
_PAIRS = 1 << 11  # splat-block pairs in work at a time, 512 nodes each


def grid_points(
    box: Float[np.ndarray | Array, "2 3"], resolution: int | tuple[int, int, int]
) -> Float[np.ndarray, "x y z 3"]:
    """World positions of the nodes of a grid, float32."""
    low, high = _corners(box)
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, _nodes(resolution), strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def sample_grid(
    function: Callable[[Float[Array, "n 3"]], Float[Array | np.ndarray, "n ..."]],
    box: Float[np.ndarray | Array, "2 3"],
    resolution: int | tuple[int, int, int],
    *,
    chunk: int = 1 << 16,
    progress: Progress | None = None,
) -> Float[np.ndarray, "x y z *c"]:
    """A field's values at the nodes of a grid, evaluated chunk by chunk.

    Args:
        function: values of the field at world points; jit it. It is always called with `chunk` points (fewer only if
            the grid has fewer), so that it compiles once.
        box: lower and upper corner.
        resolution: nodes a side, at least 2.
        chunk: points a call, which bounds the memory.
        progress: called with the numbers of nodes done and in all.
    """
    low, high = _corners(box)
    nodes = _nodes(resolution)
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, nodes, strict=True)]
    total = int(np.prod(nodes))
    chunk = min(chunk, total)
    parts = []
    for start in range(0, total, chunk):
        # the last chunk repeats the last node rather than changing the shape
        index = np.unravel_index(np.minimum(np.arange(start, start + chunk), total - 1), nodes)
        points = np.stack([axis[i] for axis, i in zip(axes, index, strict=True)], axis=-1).astype(np.float32)
        parts.append(np.asarray(function(jnp.asarray(points)))[: total - start])
        if progress is not None:
            progress(min(start + chunk, total), total)
    values = np.concatenate(parts)
    return values.reshape(*nodes, *values.shape[1:])


def marching_cubes(
    values: Float[np.ndarray | Array, "x y z"],
    box: Float[np.ndarray | Array, "2 3"],
    *,
    level: float,
    inside: Literal["above", "below"],
    close_at_border: bool = True,
) -> Mesh:
    """The surface where a field takes a value, by marching cubes (Lewiner's, of scikit-image), normals outward.

    Args:
        values: field at the nodes of a grid.
        box: lower and upper corner of the grid.
        level: value of the surface.
        inside: "above" for a density (inside is high), "below" for a signed distance (inside is negative).
        close_at_border: True covers the holes where the inside runs out of the box, so that the mesh is watertight;
            False leaves it open there.

    Raises:
        ValueError: the field lies on one side of the level everywhere, or is not finite.
    """
    from skimage import measure

    volume = np.asarray(values, np.float32)
    if min(volume.shape) < 2:
        raise ValueError(f"marching cubes needs at least 2 x 2 x 2 nodes, got {volume.shape}")
    if not np.isfinite(volume).all():
        raise ValueError(f"the field must be finite, node {np.argwhere(~np.isfinite(volume))[0].tolist()} is not")
    smallest, largest = float(volume.min()), float(volume.max())
    filled = (volume > level) if inside == "above" else (volume < level)
    if not filled.any() or (filled.all() and not close_at_border):
        raise ValueError(
            f"no surface at level {level:g}: the field is in [{smallest:g}, {largest:g}] and all of the grid is "
            f"{'inside' if filled.any() else 'outside'}; choose another level or box"
        )
    # a node exactly on the surface would make triangles without area
    room = max(largest - smallest, abs(level), 1e-30) * 1e-6
    volume = np.where(np.abs(volume - level) < room, level + np.where(volume < level, -room, room), volume)
    if close_at_border:
        outside = level - (largest - smallest + room) * (1.0 if inside == "above" else -1.0)
        volume = np.pad(volume, 1, constant_values=np.float32(outside))
    direction = "ascent" if inside == "above" else "descent"  # what makes scikit-image turn normals out
    vertices, faces, _, _ = measure.marching_cubes(volume, level, gradient_direction=direction)
    low, high = _corners(box)
    places = np.clip(vertices - close_at_border, 0, np.array(np.shape(values)) - 1.0)
    vertices = low + places / (np.array(np.shape(values)) - 1.0) * (high - low)
    return Mesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32))


def splat_box(means: Float[np.ndarray | Array, "n 3"], *, fill: float = 0.9) -> Float[np.ndarray, "2 3"]:
    """A cube around splats whose centres fill at most `fill` of its sides (DreamGaussian: [-0.9, 0.9] of [-1, 1])."""
    means = np.asarray(means, np.float64)
    low, high = means.min(0), means.max(0)
    half = max(float((high - low).max()), 1e-6) / (2 * fill)
    return np.stack([(low + high) / 2 - half, (low + high) / 2 + half])


def splat_density(
    means: Float[np.ndarray | Array, "n 3"],
    quaternions: Float[np.ndarray | Array, "n 4"],
    scales: Float[np.ndarray | Array, "n 3"],
    opacities: Float[np.ndarray | Array, " n"],
    box: Float[np.ndarray | Array, "2 3"],
    resolution: int | tuple[int, int, int] = 128,
    *,
    smallest_opacity: float = 0.005,
    reach: float = 3.0,
    progress: Progress | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Local density of splats, d(x) = sum_i o_i exp(-(x - m_i)^T S_i^-1 (x - m_i) / 2), at the nodes of a grid.

    DreamGaussian's (arXiv 2309.16653, section 3.2), whose surface is at d = 1; in blocks of 8^3 nodes, each summing the
    splats whose `reach` standard deviations touch it (theirs: whose centres are within 1.5 blocks).

    Args:
        means: centres, world units.
        quaternions: wxyz, any length.
        scales: standard deviations along the axes.
        opacities: in [0, 1]; those up to `smallest_opacity` are left out.
        box: lower and upper corner of the grid, for example `splat_box(means)`.
        resolution: nodes a side.
        smallest_opacity: see `opacities`.
        reach: standard deviations beyond which a splat counts as zero.
        progress: called with the numbers of splat-block pairs done and in all.
    """
    kept = np.asarray(opacities) > smallest_opacity
    means, scales = np.asarray(means, np.float64)[kept], np.asarray(scales, np.float64)[kept]
    rotations = _rotations(np.asarray(quaternions, np.float64)[kept])
    opacities = np.asarray(opacities, np.float32)[kept]
    (low, high), nodes = _corners(box), np.array(_nodes(resolution))
    spacing = (high - low) / (nodes - 1)
    extent = reach * np.sqrt((rotations**2 * scales[:, None, :] ** 2).sum(-1))
    blocks = -(-nodes // _BLOCK)
    first = np.floor((means - extent - low) / spacing / _BLOCK).clip(0, blocks).astype(np.int64)
    last = np.floor((means + extent - low) / spacing / _BLOCK).clip(-1, blocks - 1).astype(np.int64)
    counts = np.maximum(last - first + 1, 0)
    ends = np.cumsum(counts.prod(1))
    total = int(ends[-1]) if len(ends) else 0
    # x -> S^-1/2 x, so that the exponent is a square
    whiten = np.swapaxes(rotations, 1, 2) / np.maximum(scales, 1e-12)[:, :, None]
    density = jnp.zeros((int(blocks.prod()), _BLOCK**3), jnp.float32)
    for start in range(0, total, _PAIRS):
        pair = np.arange(start, start + _PAIRS)
        splat = np.minimum(np.searchsorted(ends, pair, side="right"), len(ends) - 1)
        place = pair - (ends - counts.prod(1))[splat]
        size = counts[splat]
        offset = np.stack(
            [place // (size[:, 1] * size[:, 2]), place // size[:, 2] % size[:, 1], place % size[:, 2]], -1
        )
        block = first[splat] + offset
        index = np.where(pair < total, np.ravel_multi_index(tuple(block.T), tuple(blocks), mode="clip"), -1)
        corner = (low + block * _BLOCK * spacing - means[splat]).astype(np.float32)
        density = _add_splats(
            density,
            index,
            corner,
            whiten[splat].astype(np.float32),
            opacities[splat],
            spacing.astype(np.float32),
            reach,
        )
        if progress is not None:
            progress(min(start + _PAIRS, total), total)
    grid = np.asarray(density).reshape(*blocks, _BLOCK, _BLOCK, _BLOCK).transpose(0, 3, 1, 4, 2, 5)
    return grid.reshape(*(blocks * _BLOCK))[: nodes[0], : nodes[1], : nodes[2]]


@jax.jit
def _add_splats(density, index, corner, whiten, opacity, spacing, reach):
    """Adds each pair's splat to the 8^3 nodes of its block; `index` -1 marks filler."""
    steps = jnp.stack(jnp.meshgrid(*3 * (jnp.arange(_BLOCK),), indexing="ij"), -1).reshape(-1, 3) * spacing[None]
    offsets = corner[:, None, :] + steps[None]
    white = jnp.einsum("pij,pnj->pni", whiten, offsets, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.sum(white * white, -1)
    value = jnp.where(squared < reach * reach, opacity[:, None] * jnp.exp(-0.5 * squared), 0.0)
    return density.at[index].add(jnp.where(index[:, None] >= 0, value, 0.0))


def _rotations(quaternions):
    length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    w, x, y, z = (quaternions / np.where(length > 0, length, 1.0)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _nodes(resolution):
    nodes = (resolution,) * 3 if isinstance(resolution, int) else tuple(resolution)
    if min(nodes) < 2:
        raise ValueError(f"a grid needs at least 2 nodes a side, got {nodes}")
    return nodes


def _corners(box):
    low, high = np.asarray(box, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        raise ValueError(f"a box is its lower and its upper corner, got {low.tolist()} and {high.tolist()}")
    return low, high
