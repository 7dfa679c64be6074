"""What a splat fit leaves behind: splats.ply, held-out pictures, a video, the report."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from experiments import media, metrics, plots, report
from experiments.splats.evaluation import Evaluator
from experiments.splats.scene import Normalisation, camera_centers, to_capture_frame
from experiments.splats.training import State
from experiments.splats.views import Views
from renderers.cameras.camera import Camera
from renderers.cameras.trajectories import interpolate_path
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


def flight(views: Views, frames: int) -> list[Camera]:
    """A closed, smooth path of cameras through the capture: its views in the order of a short round trip."""
    poses = np.stack([camera.camera_from_world for camera in views.cameras])
    order = _round_trip(camera_centers(poses.astype(np.float64)))
    stops = order[:: max(1, len(order) // 16)]
    path = np.asarray(interpolate_path(jax.numpy.asarray(poses[stops]), frames, closed=True))
    like = views.cameras[0]
    return [Camera(pose, like.focal, like.principal, like.size, like.model) for pose in path]


def _round_trip(centers: np.ndarray) -> list[int]:
    """Nearest-neighbour tour from the first view."""
    left, tour = set(range(1, len(centers))), [0]
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
    for camera in flight(views, frames) if frames else []:
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
