"""Colours into textures: from a field, from photographs, or from another mesh. Runs on the host.

A texture of `h` rows and `w` columns has the centre of texel (row, column) at u = (column + 0.5) / w and
v = 1 - (row + 0.5) / h. A bilinear look-up inside a triangle reads texels whose centres lie up to one texel outside it,
so these are baked as well, at the point of the triangle's plane that they stand for; farther ones are filled with the
nearest known colour, for mip levels and for filters.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import ndimage

from renderers.cameras.camera import Camera, camera_center, project, viewing_directions
from renderers.meshes.distances import closest_barycentrics, closest_points
from renderers.meshes.mesh import Mesh, face_normals, vertex_normals
from renderers.meshes.rasterize import rasterize_mesh
from renderers.meshes.textures import sample_texture, srgb_from_linear

Progress = Callable[[int, int], None]
ColorField = Callable[[Float[Array, "n 3"], Float[Array, "n 3"]], Float[Array | np.ndarray, "n c"]]
_PAIRS = 1 << 20  # texel-triangle pairs in work at a time
_REACH = 1.0  # texels beyond a triangle that bilinear look-ups inside it read
# compiled as a whole: operation by operation every shape would cost dozens of small compilations
_sample = jax.jit(sample_texture, static_argnames=("wrap",))
_vertex_normals, _face_normals = jax.jit(vertex_normals), jax.jit(face_normals)
_EXTRAPOLATION = 1.0  # largest weight outside [0, 1]; slivers would throw their texels far away


@dataclasses.dataclass(frozen=True, kw_only=True)
class TexelMap:
    """Which point of the surface each texel stands for. Host arrays.

    Attributes:
        face_index: -1 where no triangle is within reach.
        barycentric: weights of that face's corners, a little outside [0, 1] for texels beside the triangle.
        inside: texels whose centre lies in a triangle.
    """

    face_index: Int[np.ndarray, "h w"]
    barycentric: Float[np.ndarray, "h w 3"]
    inside: Bool[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baked:
    """A texture, and which of its texels were measured rather than filled in."""

    texture: Float[np.ndarray, "h w c"]
    known: Bool[np.ndarray, "h w"]


def map_texels(
    uv: Float[np.ndarray | Array, "t 2"], uv_faces: Int[np.ndarray | Array, "f 3"], size: tuple[int, int]
) -> TexelMap:
    """The triangle of each texel, `size = (height, width)`: the one it lies in, else the nearest within a texel."""
    height, width = size
    places = np.asarray(uv, np.float64) * [width, -height] + [0, height]
    corners = np.pad(places, ((0, 0), (0, 1)))[np.asarray(uv_faces)]
    first = np.floor(corners.min(1)[:, :2] - _REACH - 0.5).clip(0, [width, height]).astype(np.int64)
    last = np.ceil(corners.max(1)[:, :2] + _REACH - 0.5).clip(-1, [width - 1, height - 1]).astype(np.int64)
    counts = np.maximum(last - first + 1, 0)
    ends = np.cumsum(counts.prod(1))
    total = int(ends[-1]) if len(ends) else 0
    face_index, weights = np.full(height * width, -1), np.zeros((height * width, 3))
    nearest = np.full(height * width, np.inf)
    for start in range(0, total, _PAIRS):
        pair = np.arange(start, min(start + _PAIRS, total))
        face = np.searchsorted(ends, pair, side="right")
        rank = pair - (ends - counts.prod(1))[face]
        column, row = first[face, 0] + rank % counts[face, 0], first[face, 1] + rank // counts[face, 0]
        center = np.stack([column + 0.5, row + 0.5, np.zeros(len(pair))], -1)
        pair = np.flatnonzero(_within_reach(center, corners[face]))
        center, face, texel = center[pair], face[pair], (row * width + column)[pair]
        foot = np.einsum("nk,nkd->nd", closest_barycentrics(center, corners[face]), corners[face])
        squared = ((foot - center) ** 2).sum(-1)
        near = squared < nearest[texel]
        order = np.lexsort((face[near], squared[near], texel[near]))
        chosen = np.flatnonzero(near)[order[np.r_[True, np.diff(texel[near][order]) > 0]]] if near.any() else order
        nearest[texel[chosen]], face_index[texel[chosen]] = squared[chosen], face[chosen]
        weights[texel[chosen]] = _plane_weights(center[chosen], corners[face[chosen]])
    return TexelMap(
        face_index=face_index.reshape(size),
        barycentric=weights.reshape(*size, 3),
        inside=(nearest < 1e-18).reshape(size),  # 0, but for rounding
    )


def _within_reach(centers, corners):
    """Whether triangles meet the open squares of half side `_REACH` around centres; by separating axes."""
    relative = corners[:, :, :2] - centers[:, None, :2]
    meets = ((relative.min(1) < _REACH) & (relative.max(1) > -_REACH)).all(-1)
    edges = np.roll(relative, -1, axis=1) - relative
    cross = relative[..., 0] * edges[..., 1] - relative[..., 1] * edges[..., 0]  # twice the areas seen from the centre
    side = np.sign(cross.sum(1))[:, None]
    return meets & (side * cross > -_REACH * np.abs(edges).sum(-1)).all(-1)


def _plane_weights(points, corners):
    """Barycentric weights in the plane, not clamped to the triangle except where they would run away."""
    a, b, c = (corners[:, k, :2] for k in range(3))
    p = points[:, :2]

    def area(u, v, w):
        return (v - u)[:, 0] * (w - u)[:, 1] - (v - u)[:, 1] * (w - u)[:, 0]

    whole = area(a, b, c)
    safe = np.where(whole != 0, whole, 1.0)
    weights = np.stack([area(p, b, c), area(a, p, c), area(a, b, p)], -1) / safe[:, None]
    wild = (np.abs(weights - 0.5).max(-1) > 0.5 + _EXTRAPOLATION) | (whole == 0)
    return np.where(wild[:, None], closest_barycentrics(points, corners), weights)


def bake_field(
    mesh: Mesh,
    field: ColorField,
    size: tuple[int, int] = (1024, 1024),
    *,
    chunk: int = 1 << 16,
    padding: int = 16,
    progress: Progress | None = None,
) -> Baked:
    """A texture from a field that knows the colour at a point of the surface with a given normal.

    Args:
        mesh: with `uv`.
        field: colours from world points and outward unit normals (a radiance field looks along -normal); jit it. It is
            always called with `chunk` points.
        size: (height, width) of the texture.
        chunk: points a call, which bounds the memory.
        padding: texels around the charts that are filled with the nearest colour.
        progress: called with the numbers of texels done and in all.
    """
    texels = map_texels(*_uv_of(mesh), size)
    row, column = np.nonzero(texels.face_index >= 0)
    points, normals = _on_surface(mesh, texels, row, column)
    parts = []
    for start in range(0, len(row), chunk):
        index = np.minimum(np.arange(start, start + chunk), len(row) - 1)
        colors = np.asarray(field(jnp.asarray(points[index]), jnp.asarray(normals[index])))
        parts.append(colors[: len(row) - start])
        if progress is not None:
            progress(min(start + chunk, len(row)), len(row))
    colors = np.concatenate(parts)
    return _filled(row, column, colors, np.ones(len(row), bool), size, padding)


def bake_views(
    mesh: Mesh,
    images: Sequence[Float[Array | np.ndarray, "h w c"]],
    cameras: Sequence[Camera],
    size: tuple[int, int] = (1024, 1024),
    *,
    masks: Sequence[Float[Array | np.ndarray, "h w"]] | None = None,
    depths: Sequence[Float[Array | np.ndarray, "h w"]] | None = None,
    sharpness: float = 4.0,
    smallest_cosine: float = 0.1,
    tolerance: float = 0.01,
    padding: int = 16,
    progress: Progress | None = None,
) -> Baked:
    """A texture from posed images: the mean over the views that see a texel, weighted by how squarely they see it.

    Args:
        mesh: with `uv`.
        images: one a camera.
        cameras: any lens that `rasterize_mesh` takes.
        size: (height, width) of the texture.
        masks: weights in [0, 1] of the images' pixels, None for ones.
        depths: camera z of the mesh in each view, 0 where empty, by which hidden texels are told; None renders them.
        sharpness: views weigh cosine**sharpness; 0 blends all alike, high values take the best view's colour.
        smallest_cosine: views that see a texel more slantingly than this do not count.
        tolerance: how far behind the rendered surface a texel may lie and still be seen, as a share of its depth.
        padding: texels around the known ones that are filled with the nearest colour; also what no view sees.
        progress: called with the numbers of views done and in all.

    Returns:
        `known` is False where no view sees the surface: holes, filled with the nearest known colour.
    """
    if len(images) != len(cameras) or not images:
        raise ValueError(f"bake_views needs as many cameras as images, got {len(cameras)} and {len(images)}")
    texels = map_texels(*_uv_of(mesh), size)
    row, column = np.nonzero(texels.face_index >= 0)
    points, normals = (jnp.asarray(x) for x in _on_surface(mesh, texels, row, column))
    channels = np.shape(images[0])[-1]
    colors, weights = np.zeros((len(row), channels)), np.zeros(len(row))
    for index, (image, camera) in enumerate(zip(images, cameras, strict=True)):
        image = jnp.asarray(image, jnp.float32)
        depth = _depth_of(mesh, camera) if depths is None else jnp.asarray(depths[index], jnp.float32)
        share, places = _seen(depth, camera, points, normals, sharpness, smallest_cosine, tolerance)
        if masks is not None:
            share = share * _sample(jnp.asarray(masks[index], jnp.float32)[..., None], places, wrap="clamp")[:, 0]
        colors += np.asarray(share[:, None] * _sample(image, places, wrap="clamp"), np.float64)
        weights += np.asarray(share, np.float64)
        if progress is not None:
            progress(index + 1, len(images))
    known = weights > 0
    colors = colors / np.where(known, weights, 1.0)[:, None]
    return _filled(row, column, colors, known, size, padding)


def _depth_of(mesh, camera):
    return rasterize_mesh(mesh.vertices, mesh.faces, camera, antialias=False).depth


@jax.jit
def _seen(rendered, camera, points, normals, sharpness, smallest_cosine, tolerance):
    """Weights of points in a view of a given depth map, and where in the image they are, as texture coordinates."""
    height, width = camera.size
    pixels, depth = project(camera, points)
    if camera.model == "orthographic":
        forward, _ = viewing_directions(camera, pixels)
        toward = -jnp.einsum("ji,nj->ni", camera.camera_from_world[:3, :3], forward)
    else:
        toward = camera_center(camera)[None] - points
        toward = toward / jnp.maximum(jnp.linalg.norm(toward, axis=-1, keepdims=True), 1e-12)
    cosine = jnp.sum(toward * normals, axis=-1)
    column, row = (jnp.floor(pixels[:, k]).astype(jnp.int32) for k in (0, 1))
    within = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = jnp.clip(column, 0, width - 1), jnp.clip(row, 0, height - 1)
    # the nearest surface may lie behind the texel's own pixel centre on slanted faces: any neighbour will do
    rows, columns = row[:, None] + jnp.array([[0, 0, 0, 1, -1]]), column[:, None] + jnp.array([[0, 1, -1, 0, 0]])
    around = rendered[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
    in_front = jnp.any((around > 0) & (depth[:, None] <= around * (1 + tolerance)), axis=1)
    covered = rendered[row, column] > 0
    seen = within & covered & in_front & (cosine >= smallest_cosine)
    weight = jnp.where(seen, jnp.maximum(cosine, 1e-6) ** sharpness, 0.0)
    return weight, jnp.stack([pixels[:, 0] / width, 1.0 - pixels[:, 1] / height], -1)


def transfer_texture(source: Mesh, target: Mesh, size: tuple[int, int] = (1024, 1024), *, padding: int = 16) -> Baked:
    """The base colour of one mesh as a texture of another, from the nearest points of the source's surface.

    Args:
        source: with texture and `uv`, or with vertex colours (linear; they become the texture's sRGB values).
        target: with `uv`.
        size: (height, width) of the texture.
        padding: texels around the charts that are filled with the nearest colour.

    Raises:
        ValueError: a source without colours.
    """
    textured = source.texture is not None and source.uv is not None
    if not textured and source.vertex_colors is None:
        raise ValueError("transfer_texture needs a source with a texture and uv, or with vertex colours")
    texels = map_texels(*_uv_of(target), size)
    row, column = np.nonzero(texels.face_index >= 0)
    found = closest_points(_on_surface(target, texels, row, column)[0], source.vertices, source.faces)
    if textured:
        uv, uv_faces = (np.asarray(x) for x in _uv_of(source))
        places = np.einsum("nk,nkd->nd", found.barycentric, uv[uv_faces[found.face_index]])
        colors = np.asarray(_sample(source.texture, jnp.asarray(places, jnp.float32)))
    else:
        corners = np.asarray(source.vertex_colors)[np.asarray(source.faces)[found.face_index]]
        linear = np.einsum("nk,nkc->nc", found.barycentric, corners)
        colors = np.asarray(srgb_from_linear(jnp.asarray(linear, jnp.float32)))
    return _filled(row, column, colors, np.ones(len(row), bool), size, padding)


def dilate(
    texture: Float[np.ndarray | Array, "h w c"], known: Bool[np.ndarray | Array, "h w"], padding: int | None
) -> Float[np.ndarray, "h w c"]:
    """Unknown texels within `padding` of a known one take the colour of the nearest; None fills all of them."""
    texture, known = np.asarray(texture), np.asarray(known)
    if known.all() or not known.any():
        return texture
    nearest = np.asarray(ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True))
    filled = texture[tuple(nearest)]
    squared = ((nearest - np.indices(known.shape)) ** 2).sum(0)
    return filled if padding is None else np.where((squared <= padding**2)[..., None], filled, texture)


def _filled(row, column, colors, known, size, padding):
    texture = np.zeros((*size, colors.shape[-1]), np.float32)
    texture[row, column] = colors
    mask, touched = np.zeros(size, bool), np.zeros(size, bool)
    mask[row, column], touched[row, column] = known, True
    if not mask.any():
        return Baked(texture=texture, known=mask)
    # holes in the charts are filled however wide they are, the space between charts only as far as asked for
    texture = np.where((touched & ~mask)[..., None], dilate(texture, mask, None), texture)
    return Baked(texture=dilate(texture, touched, padding), known=mask)


def _uv_of(mesh):
    if mesh.uv is None:
        raise ValueError("baking needs a mesh with texture coordinates; unwrapping.unwrap makes them")
    return mesh.uv, mesh.faces if mesh.uv_faces is None else mesh.uv_faces


def _on_surface(mesh, texels, row, column):
    """World points and unit normals of texels."""
    face, weights = texels.face_index[row, column], texels.barycentric[row, column]
    corner = np.asarray(mesh.faces)[face]
    points = np.einsum("nk,nkd->nd", weights, np.asarray(mesh.vertices, np.float64)[corner])
    smooth = np.asarray(mesh.normals if mesh.normals is not None else _vertex_normals(mesh.vertices, mesh.faces))
    normals = np.einsum("nk,nkd->nd", weights, smooth[corner])
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    flat = np.asarray(_face_normals(mesh.vertices, mesh.faces))[face]
    normals = np.where(length > 1e-6, normals / np.where(length > 0, length, 1.0), flat)
    return points.astype(np.float32), normals.astype(np.float32)
