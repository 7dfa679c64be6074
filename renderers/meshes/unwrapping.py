"""Texture coordinates for a surface: charts cut, flattened and packed by xatlas. Runs on the host."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from renderers.meshes.mesh import Mesh

_FIRST_GUESS = 1.3  # how much larger than asked for an atlas usually comes out
_LARGEST_GAP = 1 << 10


def unwrap(mesh: Mesh, *, resolution: int = 1024, padding: int = 4) -> Mesh:
    """The mesh with new `uv` and `uv_faces`; an old texture, which no longer fits, is dropped.

    The same mesh gives the same charts.

    Args:
        mesh: vertices shared by neighbouring faces (`cleanup.merge_vertices`), or every face is its own chart.
        resolution: side in texels of the texture to come.
        padding: texels between charts at that resolution; a texture with n mip levels wants about 2^n.

    Raises:
        ValueError: no face with an area, numbers that are not finite, or a texture too small for the charts.
    """
    uv, uv_faces = chart_coordinates(mesh.vertices, mesh.faces, resolution=resolution, padding=padding)
    return dataclasses.replace(mesh, uv=jnp.asarray(uv), uv_faces=jnp.asarray(uv_faces), texture=None)


def chart_coordinates(
    vertices: Float[np.ndarray | Array, "v 3"],
    faces: Int[np.ndarray | Array, "f 3"],
    *,
    resolution: int = 1024,
    padding: int = 4,
) -> tuple[Float[np.ndarray, "t 2"], Int[np.ndarray, "f 3"]]:
    """Texture coordinates in [0, 1], v up, and the three of each face, counter-clockwise as the face is.

    Charts do not overlap. Faces without area have the coordinates of a single point. Arguments as for `unwrap`.
    """
    points, triangles = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    if not np.isfinite(points).all():
        raise ValueError(f"vertices must be finite, entry {np.argwhere(~np.isfinite(points))[0].tolist()} is not")
    if len(triangles) and not (0 <= triangles.min() and triangles.max() < len(points)):
        raise ValueError(f"faces must index {len(points)} vertices, got {triangles.min()} to {triangles.max()}")
    # xatlas decides by absolute sizes what is degenerate: give it a shape of size 1
    side = max(float(np.ptp(points, axis=0).max()), np.finfo(float).tiny) if len(points) else 1.0
    unit = ((points - points.mean(0)) / side).astype(np.float32)
    a, b, c = (unit[triangles[:, k]] for k in range(3))
    sound = np.linalg.norm(np.cross(b - a, c - a), axis=-1) > 1e-12
    if not sound.any():
        raise ValueError(f"a surface to unwrap needs a face with an area, got none among {len(triangles)}")
    gap = math.ceil(_FIRST_GUESS * padding)
    while True:
        width, height, index, uv = _atlas(unit, triangles[sound].astype(np.uint32), resolution, gap)
        # xatlas packs into about the resolution asked for; what counts is the gap after scaling to it
        needed = math.ceil(padding * max(width, height) / resolution)
        if gap >= needed:
            break
        gap = needed + 1
    uv, sound_faces = np.asarray(uv, np.float32), np.asarray(index, np.int32).reshape(-1, 3)
    uv_faces = np.zeros((len(triangles), 3), np.int32)
    uv_faces[sound] = sound_faces
    uv_faces[~sound] = sound_faces[0, 0]
    return np.clip(uv, 0.0, 1.0), uv_faces


def _atlas(points, triangles, resolution, gap):
    """Width, height, corner indices and coordinates of an atlas whose charts are `gap` of its texels apart."""
    import xatlas

    if gap > _LARGEST_GAP:
        raise ValueError(
            f"the charts do not fit {resolution} x {resolution} texels with that padding; take a larger resolution, "
            "less padding, or merge the vertices of neighbouring faces"
        )
    atlas = xatlas.Atlas()
    atlas.add_mesh(points, triangles)
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.fix_winding = True
    pack.resolution, pack.padding, pack.bilinear, pack.create_image = resolution, gap, True, False
    pack.rotate_charts = False  # it "rotates" by swapping u and v, which turns charts inside out
    atlas.generate(charts, pack)
    if atlas.atlas_count != 1:
        return _atlas(points, triangles, resolution, _LARGEST_GAP + 1)
    _, index, uv = atlas.get_mesh(0)
    return atlas.width, atlas.height, index, uv
