"""What an evaluation leaves behind: scores.json, a printed table, sheets of pictures, report.html, metrics.json."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import media, metrics, report, workdir
from experiments.data.blocks.descriptions import Description, caption, is_compositional
from experiments.prior.evaluation_settings import EvaluatePriorConfig
from experiments.prior.pictures import contact_sheet
from experiments.prior.weights import Prior

_COLUMNS = {
    "colors_present": "named colours present",
    "color_share": "foreground in a named colour",
    "psnr": "PSNR to the nearest of 48, dB",
    "alpha_iou": "alpha IoU to it",
    "normal_degrees": "normal error to it, degrees",
    "hull_iou": "silhouettes and their hull, IoU",
    "depth_agreement": "depth points not contradicted",
    "reprojection_psnr": "reprojection PSNR, dB",
    "relation": "right relation",
    "binding": "right colour binding",
    "shape": "right shape",
    "all": "right in all",
}
_MOST_SHOWN = 48


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of measures over captions, each over those that it applies to."""
    named: dict[str, float] = {}
    for name in _COLUMNS:
        values = [float(row[name]) for row in rows if row.get(name) is not None and math.isfinite(row[name])]
        if values:
            named[name] = float(np.mean(values))
    return named


def kind_of(description: Description) -> str:
    """The kind of a description with pairs told apart: stacked or beside each other."""
    if description.kind != "pair":
        return description.kind
    return "stack" if description.relation in ("on top of", "under") else "beside"


def write(
    folder: pathlib.Path,
    scored: Sequence[Any],
    prior: Prior,
    config: EvaluatePriorConfig,
    *,
    seconds_per_sample: float,
    seconds: float,
) -> None:
    """Writes everything and prints the table.

    Args:
      folder: the run's.
      scored: sets of captions, see `evaluation.Scored`.
      prior: what was evaluated.
      config: the run's.
      seconds_per_sample: of one ring.
      seconds: of the whole evaluation.
    """
    rows = {}
    for each in scored:
        rows[f"{each.name} ({len(each.prompts)}), prior"] = summary(each.model)
        rows[f"{each.name}, exact renders"] = summary(each.exact)
        rows[f"{each.name}, views of four samples"] = summary(each.apart)
    kinds = {each.name: _by_kind(each) for each in scored}
    speed = {"seconds_per_sample": seconds_per_sample, "steps": config.steps, "guidance": config.guidance}
    document = {
        "prior": {"about": prior.about, "settings": vars(prior.settings), "diffusion": vars(prior.diffusion)},
        **speed,
        "seed": config.seed,
        "sets": {each.name: _set_summaries(each) for each in scored},
        "kinds": kinds,
        "captions": {each.name: [*map(_caption_row, each.prompts, each.model)] for each in scored},
    }
    workdir.write_json_atomic(folder / "scores.json", document)
    sheets = {each.name: _sheet(each) for each in scored if len(each.prompts)}
    for name, sheet in sheets.items():
        media.write_png(folder / f"sheet_{name}.png", sheet)
    final = {f"{each.name}_{name}": value for each in scored for name, value in summary(each.model).items()}
    final |= {"seconds_per_sample": seconds_per_sample, "captions": config.captions, "seconds": seconds}
    _write_report(folder, rows, kinds, sheets, {**speed, **prior.about})
    metrics.write_final(folder, final)
    print(text_table(rows), flush=True)
    print(f"{folder}: {seconds_per_sample:.3f} s a sample of {config.steps} steps, {seconds:.0f} s in all", flush=True)


def text_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The table as text: a line for each measure, a column for each row."""
    names = list(rows)
    width = max(len(label) for label in _COLUMNS.values())
    lines = [f"[{number}] {name}" for number, name in enumerate(names, 1)]
    lines.append(" " * width + "".join(f"{f'[{number}]':>9}" for number in range(1, len(names) + 1)))
    for column, label in _COLUMNS.items():
        lines.append(f"{label:<{width}}" + "".join(f"{_cell(rows[name].get(column)):>9}" for name in names))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 5 else f"{value:.2f}"


def _set_summaries(scored) -> dict[str, Any]:
    named = {"model": scored.model, "exact": scored.exact, "one_by_one": scored.apart}
    return {"captions": len(scored.prompts), **{name: summary(rows) for name, rows in named.items()}}


def _by_kind(scored) -> dict[str, dict[str, float]]:
    kinds = [kind_of(prompt.description) for prompt in scored.prompts]
    return {
        f"{kind} ({kinds.count(kind)})": summary([row for row, k in zip(scored.model, kinds, strict=True) if k == kind])
        for kind in sorted(set(kinds))
    }


def _caption_row(prompt, row: Mapping[str, Any]) -> dict[str, Any]:
    unseen = is_compositional(prompt.description)
    return {"caption": prompt.text, "class": caption(prompt.description), "compositional": unseen, **row}


def _sheet(scored) -> np.ndarray:
    """Samples with their captions; those that lose against another class are marked by the respect."""
    captions = []
    for prompt, row in zip(scored.prompts, scored.model, strict=True):
        wrong = [aspect for aspect in ("relation", "binding", "shape") if row[aspect] is False]
        captions.append(prompt.text + (f"  [wrong: {', '.join(wrong)}]" if wrong else ""))
    return contact_sheet(scored.sampled[:_MOST_SHOWN], captions[:_MOST_SHOWN])


def _write_report(folder, rows, kinds, sheets, about) -> None:
    header = ("measure", *rows)
    whole = report.Table(
        header=header,
        rows=[(label, *(found.get(column) for found in rows.values())) for column, label in _COLUMNS.items()],
    )
    by_kind = [
        report.Table(
            header=("measure", *found),
            rows=[(label, *(each.get(column) for each in found.values())) for column, label in _COLUMNS.items()],
            caption=name,
        )
        for name, found in kinds.items()
    ]
    sections = [
        report.Section(title="Scores", tables=[whole]),
        report.Section(title="By kind", tables=by_kind),
        *(
            report.Section(title=f"Samples: {name}", pictures=[report.Picture(image=sheet)], pixelated=True)
            for name, sheet in sheets.items()
        ),
    ]
    shown = {name: value for name, value in about.items() if isinstance(value, (int, float, str))}
    report.write_report(folder / "report.html", title="The embedded multi-view prior", summary=shown, sections=sections)
