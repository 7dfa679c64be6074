"""What a mesh fit leaves behind: asset.glb, pictures, a turntable, the report."""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments import media, metrics, plots, progress, report, train_loop
from experiments.surfaces.evaluation import Evaluator
from experiments.surfaces.program import final_shape
from experiments.surfaces.settings import MeshFitConfig
from experiments.surfaces.targets import Targets, one_camera
from experiments.surfaces.texture import fit_texture
from renderers.cameras.camera import Camera
from renderers.cameras.trajectories import orbit
from renderers.meshes.formats import write_mesh
from renderers.meshes.mesh import Mesh
from renderers.meshes.render import render_mesh

_ELEVATION = np.radians(15.0)
_DISTANCE = 2.6  # of the turntable, in longest sides of the object's box
_VIEW_ANGLE = np.radians(35.0)


def export(
    folder: pathlib.Path, finished: train_loop.Finished, targets: Targets, config: MeshFitConfig, stop
) -> dict[str, float]:
    """Textures the shape, writes all results, and returns the final numbers.

    `asset.glb` is in the frame of the data; errors are in units of the object's box. `stop` is polled between parts:
    a stopped run does all of this again when it is resumed.
    """
    began = time.monotonic()
    mesh = textured(final_shape(finished.state, config), targets, config, stop)
    stop.exit_if_requested()
    _write_asset(folder / "asset.glb", mesh, targets)
    evaluator = Evaluator(targets, config)
    numbers = evaluator.numbers(mesh)
    stop.exit_if_requested()
    video = _write_turntable(folder, mesh, targets, config, lambda: stop.requested)
    stop.exit_if_requested()
    texture_seconds = time.monotonic() - began
    final = {
        **numbers,
        "num_vertices": len(mesh.vertices),
        "num_faces": len(mesh.faces),
        "seconds": finished.seconds + texture_seconds,
        "shape_seconds": finished.seconds,
        "steps": finished.step,
    }
    with metrics.MetricWriter(folder, restored_step=finished.step) as writer:
        writer.write(finished.step, {**numbers, "seconds": final["seconds"]})
    _write_report(folder, mesh, evaluator, {"data": config.data, **final}, video)
    metrics.write_final(folder, final)
    print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in final.items()), flush=True)
    return final


def textured(mesh: Mesh, targets: Targets, config: MeshFitConfig, stop) -> Mesh:
    """The shape with a texture if the views have colours and one is asked for, instead of colours of vertices."""
    if not (targets.has_colors and config.texture.size):
        return mesh
    with progress.Progress(config.texture.sweeps, description="texture") as bar:

        def swept(sweep: int, error: float) -> None:
            stop.exit_if_requested()
            bar.update(sweep, {"error": error})

        plain = dataclasses.replace(mesh, vertex_colors=None)
        return fit_texture(plain, targets.train, size=config.texture.size, sweeps=config.texture.sweeps, progress=swept)


def _write_asset(path: pathlib.Path, mesh: Mesh, targets: Targets) -> None:
    frame = targets.frame
    vertices = np.asarray(mesh.vertices, np.float64) * frame.scale + frame.center
    write_mesh(path, dataclasses.replace(mesh, vertices=jnp.asarray(vertices, jnp.float32)))


def _write_turntable(
    folder: pathlib.Path, mesh: Mesh, targets: Targets, config: MeshFitConfig, stopped: Callable[[], bool]
) -> pathlib.Path | None:
    """A turn around the object as its cameras have their tops, lit; None without frames or if a stop was asked for."""
    if not config.turntable_frames:
        return None
    up = -np.asarray(targets.train.cameras.camera_from_world)[:, 1, :3].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 0.05 else np.array([0.0, 1.0, 0.0])
    poses = orbit(
        config.turntable_frames, _DISTANCE, elevation=_ELEVATION, target=jnp.zeros(3), up=jnp.asarray(up, jnp.float32)
    )
    size = min(config.resolution, 512)
    focal = jnp.full(2, size / (2 * np.tan(_VIEW_ANGLE / 2)), jnp.float32)
    frames = []
    for pose in poses:
        if stopped():
            return None
        camera = Camera(pose, focal, jnp.full(2, size / 2, jnp.float32), (size, size))
        frames.append(np.asarray(_lit(mesh, camera)))
    return media.write_video(folder / "turntable.mp4", frames, fps=24)


@jax.jit
def _lit(mesh: Mesh, camera: Camera):
    return render_mesh(mesh, camera, background=jnp.ones(3, jnp.float32)).color


def _write_report(
    folder: pathlib.Path, mesh: Mesh, evaluator: Evaluator, summary: dict[str, object], video: pathlib.Path | None
) -> None:
    """Writes the views' pictures to `renders/` and report.html."""
    pictures = []
    (folder / "renders").mkdir(exist_ok=True)
    for view, name in enumerate(evaluator.names):
        picture = evaluator.picture(mesh, view)
        media.write_png(folder / "renders" / f"{pathlib.PurePosixPath(name).stem}.png", picture)
        if len(pictures) < 12:
            pictures.append(report.Picture(image=picture, caption=f"{name}: target and fit"))
    lit = [np.asarray(_lit(mesh, one_camera(evaluator.views, view))) for view in range(min(4, len(evaluator.names)))]
    records = metrics.read_metrics(folder)
    names = {name for record in records for name in record}
    curves = [plots.plot_metrics(records, ["loss"], title="loss", log_y=True, smooth=5)]
    for chosen, title in (
        (["mask", "normal", "color", "consistency"], "terms of the loss"),
        (["chamfer_l1"], "Chamfer-L1, in longest sides of the box"),
        (["f_score_0.01", "normal_consistency", "mask_iou"], "F-score at 1%, normals, masks on test views"),
        (["faces"], "faces"),
    ):
        present = [name for name in chosen if name in names]
        if present:
            curves.append(plots.plot_metrics(records, present, title=title))
    sections = [
        report.Section(title="Turntable", videos=[] if video is None else [report.Video(path=video)]),
        report.Section(title="Lit", pictures=[report.Picture(image=image) for image in lit]),
        report.Section(title="Views: target and fit", pictures=pictures),
        report.Section(title="Curves", plots=curves),
    ]
    report.write_report(folder / "report.html", title="Mesh from images", summary=summary, sections=sections)
