"""Four views to a textured mesh: sampled, fused into one smooth surface, painted (after Direct2.5, arXiv 2311.15980).

Direct2.5 carves the outlines and fits a mesh to normals by descent; here the outlines are bounds, and depths and
normals the data, of one linear least-squares problem for a signed distance on a grid (`smooth_distance`): the views are
small, and a second of conjugate gradients needs no compiled program.

What no view sees is closed as smoothly as the data allow. So hollows are as deep as the views prove: cameras at
elevation e see the inner wall of a round hollow of radius r down to 2 r tan(e), 0.54 r at 15 degrees, and the lines of
sight leave r tan(e) of its middle free. A mug of the world shows 55 % of its surface in its four views, of which 98 %
is found within 2 cm (F-score 0.75); its floor is not.
"""

import io
import pathlib
import time
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from experiments import errors, keys, media, progress, workdir
from experiments.data.blocks import rendering
from experiments.generation import coloring, observations
from experiments.generation.guides import Guide
from experiments.generation.results import Asset
from experiments.generation.settings import MeshConfig, TextTo3dConfig
from experiments.generation.views import agreement, ring_of, sample_views, smoothed
from experiments.prior.pictures import contact_sheet
from renderers.cameras.camera import Camera
from renderers.files import FormatError
from renderers.meshes.baking import bake_field
from renderers.meshes.cleanup import keep_large_components
from renderers.meshes.extraction import marching_cubes
from renderers.meshes.formats import read_mesh, write_mesh
from renderers.meshes.mesh import Mesh, plain_material, vertex_normals
from renderers.meshes.simplification import simplify
from renderers.meshes.smooth_distance import smooth_distance
from renderers.meshes.unwrapping import unwrap

HALF_SIDE = 0.52  # of the grid, metres; objects reach 0.475, and two cells more are room for the surface's outside
_SMALLEST_PART = 0.01  # of the largest part's area
_ROUGHNESS = 0.55


def make(guide: Guide, config: TextTo3dConfig, folder: pathlib.Path, stop) -> Asset:
    """The asset that a guide's views show.

    Leaves views.npz and shape.ply, with which a resumed run goes on, and previews/views.png.

    Args:
      guide: what is asked for views.
      config: the run's.
      folder: of the run.
      stop: polled between and within stages.

    Raises:
      InputError: the guide's views show nothing.
    """
    seconds = {}
    with progress.Phases() as shown:

        def told(phase: str, done: int, total: int) -> None:
            stop.exit_if_requested()
            shown.update(phase, done, total)

        began = time.monotonic()
        ring, score = chosen_views(guide, config, folder, told)
        seconds["views_seconds"] = time.monotonic() - began
        began, cameras = time.monotonic(), ring_of(guide)
        shape = _shape(ring, cameras, config, folder, told)
        seconds["shape_seconds"] = time.monotonic() - began
        began = time.monotonic()
        mesh = painted(shape, ring, cameras, config.mesh, told)
        seconds["texture_seconds"] = time.monotonic() - began
    return Asset(mesh=mesh, numbers={"agreement": score, **seconds})


def chosen_views(guide: Guide, config: TextTo3dConfig, folder: pathlib.Path, told) -> tuple[np.ndarray, float]:
    """The ring of the candidates that agrees best with itself, smoothed, and its score; or an earlier attempt's."""
    file = folder / "views.npz"
    if config.resume and (found := _stored_views(file, guide.size)) is not None:
        return found
    told("views", 0, config.candidates)
    rings = np.asarray(
        sample_views(
            keys.key(config.seed, "views"),
            guide,
            count=config.candidates,
            guidance=config.guidance,
            steps=config.steps,
        )
    )
    cameras = ring_of(guide)
    scores = [agreement(ring, cameras) for ring in rings]
    best = int(np.argmax(scores))
    told("views", config.candidates, config.candidates)
    order = np.argsort(scores)[::-1]
    captions = [f"candidate {i}, agreement {scores[i]:.3f}" for i in order]
    (folder / "previews").mkdir(exist_ok=True)
    media.write_png(folder / "previews" / "views.png", contact_sheet(rings[order], captions, columns=1, zoom=4))
    ring = rings[best]
    if config.smoothing:
        key = keys.key(config.seed, "smoothing")
        ring = np.asarray(smoothed(key, guide, jnp.asarray(ring), copies=config.smoothing))
    _store_views(file, ring, scores[best])
    return ring, scores[best]


def _shape(ring, cameras, config: TextTo3dConfig, folder: pathlib.Path, told) -> Mesh:
    """The surface, or that of an earlier attempt; left as shape.ply."""
    file = folder / "shape.ply"
    if config.resume and file.is_file():
        try:
            return read_mesh(file)
        except (OSError, FormatError):
            file.unlink()  # cut off when the run was killed
    shape = surface(ring, cameras, config.mesh, told)
    with errors.writing(file):
        write_mesh(file, shape)
    return shape


def surface(ring: np.ndarray, cameras: Camera, config: MeshConfig, told=lambda *_: None) -> Mesh:
    """A closed surface that depths, normals and outlines of a ring agree on, with normals.

    Args:
      ring: channels of `rendering`, in [-1, 1].
      cameras: of the pictures, stacked.
      config: the route's.
      told: called with phase, parts done, parts.

    Raises:
      InputError: the pictures show nothing.
    """
    seen = observations.surface_points(ring, cameras)
    box = np.array([[-HALF_SIDE] * 3, [HALF_SIDE] * 3])
    if not ((np.abs(seen.points) < HALF_SIDE).all(-1) & (seen.weights > 0)).any():
        raise errors.InputError("the views show nothing: other words or another --seed may help, or better --weights")
    empty = observations.Emptiness(ring, cameras, ground=observations.ground_height(ring, cameras), slack=config.slack)
    distances = smooth_distance(
        seen.points,
        seen.normals,
        seen.weights,
        box,
        config.resolution,
        at_least=empty,
        smoothness=config.smoothness,
        progress=lambda done, total: told("shape", done, total),
    )
    if not (distances < 0).any():
        raise errors.InputError(
            "the views contradict each other everywhere: another --seed may help, or better --weights"
        )
    mesh = marching_cubes(distances, box, level=0.0, inside="below")
    mesh = keep_large_components(mesh, share=_SMALLEST_PART, by="area")
    return simplify(mesh, config.faces)


def painted(shape: Mesh, ring: np.ndarray, cameras: Camera, config: MeshConfig, told=lambda *_: None) -> Mesh:
    """The surface with normals, a texture of what the ring's pictures show, and a material of dull plastic.

    Args: as for `surface`.
    """
    told("texture", 0, 3)
    seen = observations.surface_points(ring, cameras)
    mesh = unwrap(shape, resolution=config.texture)
    told("texture", 1, 3)
    pixel = rendering.DISTANCE / float(np.asarray(cameras.focal).mean())
    field = coloring.color_field(seen, reach=0.5 * pixel)
    texture = bake_field(
        mesh, lambda p, n: field(np.asarray(p), np.asarray(n)), (config.texture, config.texture)
    ).texture
    told("texture", 3, 3)
    return Mesh(
        mesh.vertices,
        mesh.faces,
        uv=mesh.uv,
        uv_faces=mesh.uv_faces,
        texture=jnp.asarray(np.clip(texture, 0, 1), jnp.float32),
        material=plain_material(roughness=_ROUGHNESS),
        normals=_normals(mesh.vertices, mesh.faces),
    )


_normals = jax.jit(vertex_normals)


def _store_views(file: pathlib.Path, ring: np.ndarray, score: float) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, ring=ring.astype(np.float32), score=np.float64(score))
    workdir.write_bytes_atomic(file, buffer.getvalue())


def _stored_views(file: pathlib.Path, size: int) -> tuple[np.ndarray, float] | None:
    """Views of an earlier attempt; None if there are none, or not such as this guide's."""
    shape = (4, size, size, rendering.CHANNELS)
    try:
        if file.stat().st_size > 16 * np.prod(shape):
            return None
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
            ring, score = stored["ring"], float(stored["score"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return (ring, score) if ring.shape == shape and np.isfinite(ring).all() else None
