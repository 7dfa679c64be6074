"""How far an asset's surface is from the nearest object of its caption's class.

A caption leaves proportions open: an asset is right if it is some object that the caption means. So `count` exact
objects of the class are drawn, and distances are those to the one that is nearest (best-of-class Chamfer,
shared/specs/generators/components.md, section 3). Metres in the world's frame: nothing is aligned or scaled, as where
front, floor and size are belongs to what was asked for. Definitions of distances: `renderers.meshes.metrics`.
"""

import dataclasses
import functools
import typing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import keys
from experiments.data.blocks import geometry, objects
from experiments.data.blocks.descriptions import COLORS, Description, caption
from experiments.data.blocks.solids import Assembly
from experiments.evaluation.inside import inside
from renderers.meshes.mesh import Mesh
from renderers.meshes.metrics import nearest_distances, occupancy_iou
from renderers.meshes.sampling import sample_surface
from renderers.meshes.textures import srgb_from_linear

THRESHOLDS = (0.01, 0.02, 0.05)  # metres, of the F-scores
_COARSE = 2000  # points by which the nearest object of the class is found
_MARGIN = 0.1  # of the sides of the truth's box, by which that of the volume is larger
_PALETTE = np.array(list(COLORS.values()))


class Samples(typing.NamedTuple):
    """Points of a surface, uniform by area, metres; unit normals; display-referred base colours in [0, 1]."""

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    colors: Float[np.ndarray, "n 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurfaceScores:
    """An asset's surface against one object.

    Attributes:
      chamfer: Chamfer-L1, the mean of the next two, metres.
      accuracy: mean distance from the asset to the object.
      completeness: mean distance from the object to the asset.
      f_scores: at THRESHOLDS.
      normal_consistency: mean |cosine| of nearest points' normals, both ways.
    """

    chamfer: float
    accuracy: float
    completeness: float
    f_scores: tuple[float, ...]
    normal_consistency: float


class ClassObjects:
    """Exact objects of a caption's class, and points on them, made when asked for.

    Args:
      description: of the class.
      count: of objects, drawn as the world draws them.
      seed: of their proportions and of the points.
      points: samples of each for scores.
    """

    def __init__(self, description: Description, *, count: int, seed: int, points: int) -> None:
        self._name, self._seed, self._points = caption(description), seed, points
        self._fine: dict[int, Samples] = {}
        self.objects: Sequence[Assembly] = [
            objects.build(description, keys.host_rng(seed, f"best of class {self._name}", index))
            for index in range(count)
        ]

    def nearest(self, surface: Samples) -> int:
        """Number of the object with the smallest Chamfer distance, by few points of each."""
        few = surface.points[np.linspace(0, len(surface.points) - 1, min(_COARSE, len(surface.points))).astype(int)]
        return int(np.argmin([_chamfer(few, points) for points in self._coarse]))

    @functools.cached_property
    def _coarse(self):
        return [self._sampled(index, _COARSE, "coarse").points for index in range(len(self.objects))]

    def samples(self, index: int) -> Samples:
        """Points of one of them."""
        if index not in self._fine:
            self._fine[index] = self._sampled(index, self._points, "fine")
        return self._fine[index]

    def _sampled(self, index, count, stream):
        rng = keys.host_rng(self._seed, f"{stream} points {self._name}", index)
        return Samples(*geometry.surface_points(self.objects[index], count, rng))


def samples_of_mesh(mesh: Mesh, count: int, seed: int) -> Samples:
    """Independent points of a mesh, uniform by area; normals are those of faces.

    Raises:
      ValueError: a mesh without faces, or with vertices that are not finite.
    """
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    if not len(faces) or not np.isfinite(vertices).all():
        raise ValueError(f"a surface to sample needs faces and finite vertices, got {len(faces)} faces")
    found = _sampled(keys.key(seed, "surface points"), *_filled_up(vertices, faces), count)
    index, weights = np.asarray(found.face_index), np.asarray(found.barycentric)[..., None]
    return Samples(np.asarray(found.points), np.asarray(found.normals), _base_colors(mesh, faces, index, weights))


def compare(a: Samples, b: Samples) -> SurfaceScores:
    """Scores of an asset a against an object b; the noise floor of distances is about 0.5 sqrt(area / points)."""
    (there, to_b), (back, to_a) = nearest_distances(a.points, b.points), nearest_distances(b.points, a.points)
    cosines = (
        np.abs((a.normals * b.normals[to_b]).sum(-1)).mean() + np.abs((b.normals * a.normals[to_a]).sum(-1)).mean()
    )
    return SurfaceScores(
        chamfer=float(0.5 * (there.mean() + back.mean())),
        accuracy=float(there.mean()),
        completeness=float(back.mean()),
        f_scores=tuple(_f_score(there, back, threshold) for threshold in THRESHOLDS),
        normal_consistency=float(0.5 * cosines),
    )


def volume_iou(mesh: Mesh, assembly: Assembly, count: int, seed: int) -> float:
    """IoU of what is within a mesh and within an exact object, by uniform points.

    Points are of the object's box, each side a tenth longer; what of the mesh is outside of it does not count.
    """
    low, high = geometry.bounds(assembly)
    margin = 0.5 * _MARGIN * (high - low)
    points = keys.host_rng(seed, "volume points", 0).uniform(low - margin, high + margin, (count, 3))
    within = inside(points, np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces))
    return occupancy_iou(within, geometry.inside(assembly, points))


def nearest_colors(colors: Float[np.ndarray, "*n 3"]) -> np.ndarray:
    """Numbers, in the order of COLORS, of the named colours that colours in [0, 1] are nearest to."""
    return np.argmin(np.sum((np.asarray(colors)[..., None, :] - _PALETTE) ** 2, axis=-1), axis=-1)


def _chamfer(points, others):
    return nearest_distances(points, others)[0].mean() + nearest_distances(others, points)[0].mean()


def _f_score(there, back, threshold):
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


_sampled = jax.jit(sample_surface, static_argnames="count")


def _filled_up(vertices, faces):
    """With faces without area, and vertices, up to powers of four: few programs are compiled for all meshes."""

    def rows(array):
        count = 4 ** int(np.ceil(np.log(max(len(array), 1024)) / np.log(4)))
        return jnp.asarray(np.concatenate([array, np.zeros((count - len(array), 3), array.dtype)]))

    return rows(vertices), rows(faces)


def _base_colors(mesh, faces, index, weights):
    """Base colours of points by their faces and barycentric weights: factor times vertex colours times texture."""
    color = np.ones((len(index), 3))
    if mesh.material is not None:
        color = color * np.asarray(mesh.material.base_color)[:3]
    if mesh.vertex_colors is not None:
        color = color * np.sum(np.asarray(mesh.vertex_colors)[faces[index]][..., :3] * weights, axis=1)
    color = np.asarray(srgb_from_linear(jnp.asarray(color, jnp.float32)))
    if mesh.uv is None or mesh.texture is None:
        return color
    texture = np.asarray(mesh.texture)
    uv = np.sum(
        np.asarray(mesh.uv)[(faces if mesh.uv_faces is None else np.asarray(mesh.uv_faces))[index]] * weights, 1
    )
    height, width = texture.shape[:2]
    column = np.clip((uv[:, 0] % 1.0) * width, 0, width - 1).astype(int)
    row = np.clip((1.0 - uv[:, 1] % 1.0) * height, 0, height - 1).astype(int)
    seen = texture[row, column, : min(3, texture.shape[2])]
    return color * np.broadcast_to(seen, color.shape)  # routes leave factor 1: no matter in which space they multiply
