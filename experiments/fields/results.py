"""What a field fit leaves behind: held-out pictures, a video, the report."""

import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from experiments import media, metrics, plots, report
from experiments.fields.evaluation import Evaluator
from experiments.fields.training import State
from experiments.fields.views import Views
from experiments.splats.results import flight

_MOST_PICTURES = 12


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


class HeldOut:
    """Renders of the held-out views (of four training views where there are none) and their quality."""

    def __init__(self, folder: pathlib.Path, views: Views) -> None:
        self._folder, self._views = folder / "renders", views
        self.shown = views.test or views.train[:4]
        self.pictures: list[report.Picture] = []
        self.rows: list[tuple[str, float, float]] = []
        self.colors: dict[int, np.ndarray] = {}
        self.mesh_pictures: list[report.Picture] = []

    def write(self, state: State, evaluator: Evaluator, stopped: Callable[[], bool]) -> dict[str, float] | None:
        """Write `renders/NAME.png`; means of the test views' quality, None if a stop was asked for."""
        self._folder.mkdir(exist_ok=True)
        numbers = []
        for view in self.shown:
            if stopped():
                return None
            picture, quality, self.colors[view] = evaluator.picture(state, view)
            name = self._views.names[view]
            media.write_png(self._folder / f"{pathlib.PurePosixPath(name).stem}.png", picture)
            numbers.append(quality)
            self.rows.append((name, quality["psnr"], quality["ssim"]))
            if len(self.pictures) < _MOST_PICTURES:
                caption = f"{name}, {quality['psnr']:.2f} dB: photograph, render, error x 4, depth"
                self.pictures.append(report.Picture(image=picture, caption=caption))
        if not self._views.test:
            return {}
        return {key: float(np.mean([row[key] for row in numbers])) for key in numbers[0]}


def write_report(
    folder: pathlib.Path,
    views: Views,
    held_out: HeldOut,
    summary: Mapping[str, object],
    video: pathlib.Path | None,
) -> None:
    """Write report.html."""
    records = metrics.read_metrics(folder)
    curves = [
        plots.plot_metrics(records, ["loss"], title="training loss", log_y=True, smooth=15),
        plots.plot_metrics(records, ["psnr"], title="held-out PSNR (dB) against seconds", x="seconds"),
        plots.plot_metrics(records, ["psnr"], title="held-out PSNR (dB) against steps"),
        plots.plot_metrics(records, ["rays"], title="rays a step"),
        plots.plot_metrics(records, ["samples"], title="samples a step"),
    ]
    kind = "Held-out views" if views.test else "Training views (none was held out)"
    table = report.Table(header=("view", "PSNR (dB)", "SSIM"), rows=held_out.rows)
    sections = [
        report.Section(title="Flight through the scene", videos=[] if video is None else [report.Video(path=video)]),
        report.Section(title=kind, pictures=held_out.pictures, tables=[table]),
        *(
            [report.Section(title="The mesh against the field", pictures=held_out.mesh_pictures)]
            if held_out.mesh_pictures
            else []
        ),
        report.Section(title="Curves", plots=curves),
    ]
    title = "A radiance field from photographs"
    report.write_report(folder / "report.html", title=title, summary=dict(summary), sections=sections)
