"""What a training of the tri-plane transformer leaves: weights, errors on unseen objects, pictures, report, numbers."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from experiments import media, metrics, plots, report, train_loop, weights_files, workdir
from experiments.single_pass.weights import PROGRAM, SinglePass, save_single_pass


def write(
    folder: pathlib.Path,
    trained: SinglePass,
    found: Mapping[str, float],
    sheet: np.ndarray,
    finished: train_loop.Finished,
    *,
    objects: int,
) -> None:
    """Writes single_pass.safetensors, single_pass.json, rebuilt.png, report.html and metrics.json.

    Args:
      folder: the run's, with its config.json.
      trained: averaged weights.
      found: measures on unseen objects by split and name.
      sheet: pictures of rebuilt objects.
      finished: how training ended.
      objects: that the steps were trained on, counted as often as they were shown.
    """
    about = {
        **weights_files.origin(folder, PROGRAM, finished.step, finished.seconds),
        "objects": objects,
        **{name: round(value, 4) for name, value in found.items()},
    }
    save_single_pass(folder / "single_pass.safetensors", dataclasses.replace(trained, about=about))
    size = (folder / "single_pass.safetensors").stat().st_size
    workdir.write_json_atomic(
        folder / "single_pass.json", {**about, "bytes": size, "model": dataclasses.asdict(trained.settings)}
    )
    media.write_png(folder / "rebuilt.png", sheet)
    final = {**found, "weights_bytes": size, "seconds": finished.seconds, "steps": finished.step}
    records = metrics.read_metrics(folder)
    curves = [
        plots.plot_metrics(records, ["loss", "distance", "color"], title="training loss", log_y=True, smooth=15),
        plots.plot_metrics(records, ["views_f_score", "image_f_score"], title="F-score at 0.02 m of unseen objects"),
        plots.plot_metrics(records, ["views_iou", "image_iou"], title="volume IoU of unseen objects"),
        plots.plot_metrics(records, ["views_psnr", "image_psnr"], title="PSNR on eight unseen views"),
        plots.plot_metrics(records, ["gradient_norm"], title="norm of the gradient", log_y=True, smooth=15),
    ]
    names = ("f_score", "chamfer", "iou", "psnr")
    rows = [
        (
            f"{split}, {'four views' if way == 'views' else 'one photograph'}",
            *(f"{found[f'{split}_{way}_{n}']:.4g}" for n in names),
        )
        for split in dict.fromkeys(name.split("_")[0] for name in found)
        for way in ("views", "image")
    ]
    table = report.Table(header=("objects of no training", "F-score@0.02", "Chamfer-L1 (m)", "IoU", "PSNR"), rows=rows)
    sections = [
        report.Section(title="Rebuilt objects", pictures=[report.Picture(image=sheet)]),
        report.Section(title="Errors", tables=[table]),
        report.Section(title="Curves", plots=curves),
    ]
    report.write_report(folder / "report.html", title="Views to a surface", summary=final, sections=sections)
    metrics.write_final(folder, final)
    print(f"{folder}: " + ", ".join(f"{name} {value:.4g}" for name, value in final.items()), flush=True)
