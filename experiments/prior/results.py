"""What a training of the prior leaves behind: weights with their description, the last samples, report and numbers."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from experiments import media, metrics, plots, report, train_loop, workdir
from experiments.prior.weights import Prior, save_prior


def write(
    folder: pathlib.Path,
    prior: Prior,
    errors: Mapping[str, float],
    grid: np.ndarray,
    finished: train_loop.Finished,
) -> None:
    """Writes prior.safetensors, prior.json, samples.png, report.html and metrics.json.

    Args:
      folder: the run's.
      prior: the averaged weights.
      errors: of them on unseen objects by name, "error" their mean over noise levels.
      grid: the last sample grid.
      finished: how training ended.
    """
    save_prior(folder / "prior.safetensors", prior)
    size = (folder / "prior.safetensors").stat().st_size
    settings = {"model": dataclasses.asdict(prior.settings), "diffusion": dataclasses.asdict(prior.diffusion)}
    workdir.write_json_atomic(folder / "prior.json", {**prior.about, "bytes": size, **settings})
    media.write_png(folder / "samples.png", grid)
    with metrics.MetricWriter(folder, restored_step=finished.step) as writer:
        writer.write(finished.step, {**errors, "seconds": finished.seconds})
    final = {**errors, "weights_bytes": size, "seconds": finished.seconds, "steps": finished.step}
    records = metrics.read_metrics(folder)
    noises = [name for name in errors if name.startswith("error_")]
    curves = [
        plots.plot_metrics(records, ["loss"], title="training loss", log_y=True, smooth=15),
        plots.plot_metrics(records, ["error"], title="mean error of unseen objects against seconds", x="seconds"),
        plots.plot_metrics(records, noises, title="their error by time of the process, 1 is noise alone", log_y=True),
        plots.plot_metrics(records, ["gradient_norm"], title="norm of the gradient", log_y=True, smooth=15),
        plots.plot_metrics(records, ["rate"], title="learning rate"),
    ]
    about = [(name, str(value)) for name, value in prior.about.items() if name not in errors]
    source = report.Table(header=("what", "value"), rows=about)
    sections = [
        report.Section(title="Samples of the averaged weights", pictures=[report.Picture(image=grid)], pixelated=True),
        report.Section(title="Curves", plots=curves),
        report.Section(title="Where the weights come from", tables=[source]),
    ]
    report.write_report(folder / "report.html", title="Text to four views", summary=final, sections=sections)
    metrics.write_final(folder, final)
    print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in final.items()), flush=True)
