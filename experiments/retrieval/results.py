"""What a training of the two towers leaves: weights with their description, mistakes, report and numbers."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from experiments import metrics, plots, report, train_loop, workdir
from experiments.retrieval.galleries import Mistake
from experiments.retrieval.weights import Towers, save_towers


def write(
    folder: pathlib.Path,
    towers: Towers,
    scores: Mapping[str, float],
    missed: Mapping[str, Sequence[Mistake]],
    finished: train_loop.Finished,
) -> None:
    """Writes towers.safetensors, towers.json, report.html and metrics.json.

    Args:
      folder: the run's.
      towers: the weights.
      scores: R-precision by the name of the split's metric.
      missed: objects by split whose caption was not found.
      finished: how training ended.
    """
    save_towers(folder / "towers.safetensors", towers)
    size = (folder / "towers.safetensors").stat().st_size
    described = {**towers.about, "bytes": size, "tower": dataclasses.asdict(towers.settings)}
    workdir.write_json_atomic(folder / "towers.json", described)
    with metrics.MetricWriter(folder, restored_step=finished.step) as writer:
        writer.write(finished.step, {**scores, "seconds": finished.seconds})
    final = {**scores, "weights_bytes": size, "seconds": finished.seconds, "steps": finished.step}
    records = metrics.read_metrics(folder)
    curves = [
        plots.plot_metrics(records, list(scores), title="R-precision of unseen objects"),
        plots.plot_metrics(records, ["right"], title="captions found in the batch", smooth=15),
        plots.plot_metrics(records, ["loss"], title="training loss", log_y=True, smooth=15),
        plots.plot_metrics(records, ["gradient_norm"], title="norm of the gradient", log_y=True, smooth=15),
        plots.plot_metrics(records, ["rate"], title="learning rate"),
    ]
    about = [(name, str(value)) for name, value in towers.about.items() if name not in scores]
    source = report.Table(header=("what", "value"), rows=about)
    sections = [
        report.Section(title="Curves", plots=curves),
        *(_mistakes(split, some) for split, some in missed.items()),
        report.Section(title="Where the weights come from", tables=[source]),
    ]
    report.write_report(folder / "report.html", title="Pictures and captions", summary=final, sections=sections)
    metrics.write_final(folder, final)
    print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in final.items()), flush=True)


def _mistakes(split: str, missed: Sequence[Mistake]) -> report.Section:
    pictures = [report.Picture(image=one.picture, caption=f"{one.own} - found: {one.found}") for one in missed]
    text = "" if pictures else "Every object's own caption is the nearest."
    return report.Section(title=f"Taken for another, {split} split", text=text, pictures=pictures, pixelated=True)
