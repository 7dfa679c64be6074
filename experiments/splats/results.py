"""What a splat fit leaves behind: splats.ply, held-out pictures, a video, the report."""

import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import media, metrics, plots, report
from experiments.splats.evaluation import Evaluator
from experiments.splats.scene import Normalisation, focus_point, to_capture_frame
from experiments.splats.training import State
from experiments.splats.views import Views
from renderers.cameras.camera import Camera
from renderers.cameras.trajectories import interpolate_path, orbit
from renderers.gaussians.formats import write_splats
from renderers.gaussians.gaussians import Gaussians


def living(state: State) -> Gaussians:
    """The Gaussians without dead slots and without those too faint to be seen."""
    opacity = 1 / (1 + np.exp(-np.asarray(state.gaussians.opacity_logits, np.float64)))
    keep = np.asarray(state.alive) & (opacity >= 1 / 255)
    return jax.tree.map(lambda rows: rows[keep], state.gaussians)


def write_scene(folder: pathlib.Path, state: State, frame: Normalisation) -> int:
    """Write splats.ply in the capture's frame; returns the number of Gaussians in it."""
    gaussians = to_capture_frame(living(state), frame)
    write_splats(folder / "splats.ply", gaussians)
    return gaussians.means.shape[0]


def flight(cameras: Sequence[Camera], frames: int) -> list[Camera]:
    """Cameras of the video: round the scene where the capture surrounds it, else there and back along its views.

    A capture surrounds its scene if, seen from the point that its cameras look at, they leave no gap of 120 degrees.
    """
    like = cameras[0]
    centers, focus = focus_point(cameras)
    poses = np.stack([camera.camera_from_world for camera in cameras])
    up = -poses[:, 1, :3].mean(0)
    up /= max(float(np.linalg.norm(up)), 1e-9)
    offsets = centers - focus
    heights = offsets @ up
    level = offsets - heights[:, None] * up
    radii = np.linalg.norm(level, axis=1)
    side = level[int(np.argmax(radii))] / max(float(radii.max()), 1e-9)
    azimuths = np.sort(np.arctan2(level @ np.cross(up, side), level @ side))
    gaps = np.diff(azimuths, append=azimuths[0] + 2 * np.pi)
    if gaps.max() < 2 * np.pi / 3:
        elevation = float(np.arctan2(np.median(heights), np.median(radii)))
        distance = float(np.median(np.linalg.norm(offsets, axis=1)))
        target, axis = jnp.asarray(focus, jnp.float32), jnp.asarray(up, jnp.float32)
        path = orbit(frames, distance, elevation=elevation, target=target, up=axis)
    else:
        order = _tour(centers)
        stops = order[:: max(1, len(order) // 12)]
        there = interpolate_path(jnp.asarray(poses[stops]), frames // 2 + 1)
        path = np.concatenate([there, there[-2:0:-1]])[:frames]
    return [Camera(pose, like.focal, like.principal, like.size, like.model) for pose in np.asarray(path)]


def _tour(centers: np.ndarray) -> list[int]:
    """Nearest-neighbour tour from the view that is farthest from the others."""
    start = int(np.argmax(np.linalg.norm(centers - centers.mean(0), axis=1)))
    left, tour = set(range(len(centers))) - {start}, [start]
    while left:
        nearest = min(left, key=lambda i: float(np.linalg.norm(centers[i] - centers[tour[-1]])))
        tour.append(nearest)
        left.remove(nearest)
    return tour


def write_video(
    folder: pathlib.Path, state: State, views: Views, evaluator: Evaluator, frames: int, stopped: Callable[[], bool]
) -> pathlib.Path | None:
    """Write turntable.mp4 (or .gif); None without frames or if a stop was asked for."""
    images = []
    for camera in flight(views.cameras, frames) if frames else []:
        if stopped():
            return None
        images.append(evaluator.render(state, camera)[0])
    return media.write_video(folder / "turntable.mp4", images, fps=24) if images else None


def write_report(
    folder: pathlib.Path,
    state: State,
    views: Views,
    evaluator: Evaluator,
    summary: dict[str, object],
    video: pathlib.Path | None,
) -> None:
    """Write the held-out pictures to `renders/` and report.html."""
    pictures, rows = [], []
    shown = views.test or views.train[:4]
    (folder / "renders").mkdir(exist_ok=True)
    for view in shown:
        picture, quality = evaluator.picture(state, view)
        name = pathlib.PurePosixPath(views.names[view]).stem
        media.write_png(folder / "renders" / f"{name}.png", picture)
        rows.append((views.names[view], quality))
        if len(pictures) < 12:
            caption = f"{views.names[view]}, {quality:.2f} dB: photograph, render, error x 4, depth"
            pictures.append(report.Picture(image=picture, caption=caption))
    records = metrics.read_metrics(folder)
    curves = [
        plots.plot_metrics(records, ["loss"], title="training loss", log_y=True, smooth=15),
        plots.plot_metrics(records, ["psnr"], title="held-out PSNR (dB) against seconds", x="seconds"),
        plots.plot_metrics(records, ["psnr"], title="held-out PSNR (dB) against steps"),
        plots.plot_metrics(records, ["gaussians"], title="Gaussians"),
    ]
    kind = "Held-out views" if views.test else "Training views (none was held out)"
    sections = [
        report.Section(title="Flight through the scene", videos=[] if video is None else [report.Video(path=video)]),
        report.Section(title=kind, pictures=pictures, tables=[report.Table(header=("view", "PSNR (dB)"), rows=rows)]),
        report.Section(title="Curves", plots=curves),
    ]
    report.write_report(folder / "report.html", title="Gaussians from photographs", summary=summary, sections=sections)
