"""What a route makes and what is left of it: asset.glb, a turntable, the report, metrics.json."""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import errors, media, metrics, progress, report
from experiments.generation.settings import TextTo3dConfig
from renderers.cameras.camera import Camera
from renderers.cameras.trajectories import orbit
from renderers.gaussians.formats import write_splats
from renderers.gaussians.gaussians import Gaussians
from renderers.meshes import connectivity
from renderers.meshes.formats import write_mesh
from renderers.meshes.mesh import Mesh, vertex_normals
from renderers.meshes.render import render_mesh

_ELEVATION = math.radians(20.0)
_VIEW_ANGLE = math.radians(34.0)
_DISTANCE = 2.0  # metres; the whole box of objects is seen
_SAMPLES = 2  # along a side of a pixel: edges of faces smaller than a pixel would be dotted
_NEAR = 0.1  # metres before a camera: what comes nearer may be anywhere in the picture
_RIM = 2  # pixels around the mesh that outlines and rounding may touch
_BLOCKS = 8  # to a side of a picture, of which only those with something in them are rendered
_LIGHT, _SHADE = 0.98, 0.80  # of the background, top and bottom


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asset:
    """What a route made.

    Attributes:
      mesh: y-up, front +Z, metres; with texture and material, or with vertex colours.
      splats: in the same frame, if the route has any.
      numbers: what the route measured, for metrics.json; seconds by stage, for instance.
      sections: what the route shows in the report.
      notes: remarks for the report.
    """

    mesh: Mesh
    splats: Gaussians | None = None
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sections: Sequence[report.Section] = ()
    notes: Sequence[str] = ()


def write_asset(
    folder: pathlib.Path, asset: Asset, config: TextTo3dConfig, stop, *, title: str = "Text to 3D", began: float
) -> dict[str, float]:
    """Writes all results and returns the final numbers.

    Args:
      folder: of the run.
      asset: what was made.
      config: the run's.
      stop: polled between parts and frames.
      title: of the report.
      began: `time.monotonic()` when the run began.
    """
    with errors.writing(folder / "asset.glb"):
        write_mesh(folder / "asset.glb", asset.mesh)
    if asset.splats is not None:
        with errors.writing(folder / "asset.ply"):
            write_splats(folder / "asset.ply", asset.splats)
    stop.exit_if_requested()
    started = time.monotonic()
    frames = turntable(asset.mesh, config.turntable_frames, config.turntable_size, stop)
    video = media.write_video(folder / "turntable.mp4", frames, fps=24) if frames else None
    stills = frames[:: max(1, len(frames) // 4)][:4]
    if stills:
        (folder / "previews").mkdir(exist_ok=True)
        media.write_png(folder / "previews" / "asset.png", media.side_by_side(*stills))
    faces = np.asarray(asset.mesh.faces)
    final = {
        **asset.numbers,
        "num_vertices": len(asset.mesh.vertices),
        "num_faces": len(faces),
        "watertight": float(connectivity.is_watertight(faces)),
        "turntable_seconds": time.monotonic() - started,
        "seconds": time.monotonic() - began,
    }
    summary = {"prompt": config.prompt, "route": config.route, **final}
    views = folder / "previews" / "views.png"
    pictures = [report.Picture(image=views, caption="views by agreement, the first is used")] if views.exists() else []
    sections = [
        report.Section(title="Turntable", videos=[] if video is None else [report.Video(path=video)]),
        *([report.Section(title="Views: base colours and normals", pictures=pictures)] if pictures else []),
        *asset.sections,
        *([report.Section(title="Notes", text="\n\n".join(asset.notes))] if asset.notes else []),
    ]
    report.write_report(folder / "report.html", title=title, summary=summary, sections=sections)
    metrics.write_final(folder, summary)
    return final


def turntable(mesh: Mesh, frames: int, size: int, stop) -> list[np.ndarray]:
    """A turn around the mesh under the studio's light, uint8 pictures."""
    if not frames:
        return []
    poses = np.asarray(_poses(frames))
    shade = np.linspace(_LIGHT, _SHADE, size, dtype=np.float32)
    behind = np.broadcast_to(shade[:, None, None], (size, size, 3))
    rows, columns = _window(np.asarray(mesh.vertices), poses, size)
    asked = (_with_room(mesh), jnp.array(behind[rows, columns]))
    focal, middle = np.full(2, _focal(size), np.float32), np.float32(0.5 * size)
    principal = np.array([middle - columns.start, middle - rows.start])
    pictures = []
    with progress.Progress(frames, description="turntable") as bar:
        for done, pose in enumerate(poses, 1):
            stop.exit_if_requested()
            picture = media.as_uint8(behind)
            picture[rows, columns] = media.as_uint8(_lit(*asked, pose, focal, principal))
            pictures.append(picture)
            bar.update(done)
    return pictures


@functools.partial(jax.jit, static_argnames="frames")
def _poses(frames: int):
    return orbit(frames, _DISTANCE, elevation=_ELEVATION)


def _focal(size: int) -> float:
    return 0.5 * size / math.tan(0.5 * _VIEW_ANGLE)


def _window(vertices: np.ndarray, poses: np.ndarray, size: int) -> tuple[slice, slice]:
    """Rows and columns in which the mesh is ever seen; what lies beyond them need not be rendered."""
    seen = np.einsum("vij,nj->vni", poses[:, :3, :3], vertices) + poses[:, None, :3, 3]
    if not len(vertices) or seen[..., 2].min() < _NEAR:
        return slice(0, size), slice(0, size)
    column, row = np.moveaxis(seen[..., :2] / seen[..., 2:] * _focal(size) + 0.5 * size, -1, 0)
    # Widths and heights are few, so that few programs are compiled
    block = max(1, size // _BLOCKS)

    def rounded(low: float, high: float) -> slice:
        first, last = (int(np.clip(edge // block, 0, _last)) for edge in (low - _RIM, high + _RIM))
        return slice(first * block, size if last == _last else (last + 1) * block)

    _last = -(-size // block) - 1
    return rounded(row.min(), row.max()), rounded(column.min(), column.max())


@jax.jit
def _lit(mesh, background, pose, focal, principal):
    camera = Camera(pose, focal, principal, background.shape[:2])
    return render_mesh(mesh, camera, background=background, supersampling=_SAMPLES).color


def _with_room(mesh: Mesh) -> Mesh:
    """The mesh with faces without area added, up to powers of two: one compiled program serves many assets."""
    normals = jax.jit(vertex_normals)(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals

    def rows(array):
        if array is None:
            return None
        array = np.asarray(array)
        count = 1 << max(len(array) - 1, 4095).bit_length()
        more = np.zeros((count - len(array), *array.shape[1:]), array.dtype)
        if array.dtype.kind == "f" and len(array):
            more += array[:1]
        return jnp.array(np.concatenate([array, more]))

    return dataclasses.replace(
        mesh,
        vertices=rows(mesh.vertices),
        faces=rows(mesh.faces),
        uv=rows(mesh.uv),
        uv_faces=rows(mesh.uv_faces),
        vertex_colors=rows(mesh.vertex_colors),
        normals=rows(normals),
    )
