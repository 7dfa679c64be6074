"""The table of an evaluation: statistics over captions, as JSON, as text, and as a page with pictures."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import media, metrics, report, workdir
from experiments.evaluation.captions import Caption

# name in scores.json -> (label, factor of what is shown)
COLUMNS = {
    "seconds": ("seconds an asset", 1.0),
    "chamfer": ("Chamfer to the nearest of the class, mm", 1000.0),
    "accuracy": ("  from the asset, mm", 1000.0),
    "completeness": ("  from the object, mm", 1000.0),
    "f_0.01": ("F-score at 0.01 m", 1.0),
    "f_0.02": ("F-score at 0.02 m", 1.0),
    "f_0.05": ("F-score at 0.05 m", 1.0),
    "normal_consistency": ("normal consistency", 1.0),
    "volume_iou": ("volume IoU", 1.0),
    "attributes": ("attributes right", 1.0),
    "relation": ("  relation", 1.0),
    "binding": ("  binding of colours", 1.0),
    "shape": ("  shapes", 1.0),
    "size": ("  sizes", 1.0),
    "color": ("  colours of parts", 1.0),
    "all_right": ("all attributes right", 1.0),
    "retrieved": ("proc-R-precision", 1.0),
    "janus": ("Janus: front markers seen / due", 1.0),
    "reprojection_psnr": ("asset's reprojection PSNR, dB", 1.0),
    "views_reprojection_psnr": ("its views' reprojection PSNR, dB", 1.0),
    "views_psnr": ("PSNR of the asset to its views, dB", 1.0),
}
VIEW_COLUMNS = {
    "reprojection_psnr": ("reprojection PSNR, dB", 1.0),
    "hull_iou": ("silhouettes and their hull, IoU", 1.0),
    "depth_agreement": ("depth points not contradicted", 1.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One asset, scored.

    Attributes:
      route: by which it was made; "exact" for an object of the world.
      caption: of what.
      scores: by name, None where one does not apply; seconds among them.
      failure: why there is no asset; empty where there is one.
      still: its picture.
    """

    route: str
    caption: Caption
    scores: Mapping[str, float | None]
    failure: str
    still: pathlib.Path


def statistics(values: Sequence[float | None]) -> dict[str, float] | None:
    """n, mean, median and the standard error of the mean, of what applies and is finite; None of nothing.

    The error is that over captions, sqrt(variance / n) with n - 1 degrees of freedom; NaN of a single value.
    """
    found = np.array([value for value in values if value is not None and math.isfinite(value)], np.float64)
    if not len(found):
        return None
    error = float(np.std(found, ddof=1) / math.sqrt(len(found))) if len(found) > 1 else float("nan")
    return {"n": len(found), "mean": float(found.mean()), "median": float(np.median(found)), "standard_error": error}


def summary(rows: Sequence[Mapping[str, float | None]], columns=COLUMNS) -> dict[str, dict[str, float]]:
    """Statistics of each score that some row has."""
    found = {name: statistics([row.get(name) for row in rows]) for name in columns}
    return {name: value for name, value in found.items() if value is not None}


def text_table(summaries: Mapping[str, Mapping[str, Mapping[str, float]]], columns=COLUMNS) -> str:
    """A line for each score, a column for each route, mean and standard error."""
    shown = {name: label for name, label in columns.items() if any(name in found for found in summaries.values())}
    width = max(map(len, (label for label, _ in shown.values())), default=0)
    lines = [" " * width + "".join(f"{route:>18}" for route in summaries)]
    for name, (label, factor) in shown.items():
        cells = [_cell(found.get(name), factor) for found in summaries.values()]
        lines.append(f"{label:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def route_line(route: str, rows: Sequence[Row]) -> str:
    """What a route reached, in one line."""
    found = summary([row.scores for row in rows])
    named = {"chamfer": "chamfer mm", "f_0.02": "F@0.02", "volume_iou": "IoU", "attributes": "attributes"}
    named |= {"reprojection_psnr": "reprojection dB", "janus": "janus", "retrieved": "R-precision"}
    parts = [f"{label} {_cell(found[name], COLUMNS[name][1])}" for name, label in named.items() if name in found]
    seconds = [f"{found['seconds']['median']:.1f} s an asset (median)"] if "seconds" in found else []
    failures = sum(bool(row.failure) for row in rows)
    made = f"{len(rows) - failures} of {len(rows)} assets"
    return f"{route}: " + ", ".join([made, *seconds, *parts])


def write(
    folder: pathlib.Path,
    rows: Sequence[Row],
    views: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    about: Mapping[str, Any],
    notes: Sequence[str],
    seconds: float,
) -> None:
    """Writes scores.json, metrics.json, sheet.png and report.html, and prints table and a line for each route.

    Args:
      folder: of the run.
      rows: all assets.
      views: by name, scores of rings of one caption each, those of one name in the same order as the others'.
      about: protocol, weights, settings.
      notes: what was left out.
      seconds: of the evaluation.
    """
    routes = {route: [row for row in rows if row.route == route] for route in dict.fromkeys(row.route for row in rows)}
    found = {route: summary([row.scores for row in some]) for route, some in routes.items()}
    of_views = {name: summary(some, VIEW_COLUMNS) for name, some in views.items()}
    gains = _gains(views)
    captions = [
        {
            "prompt": row.caption.text,
            "split": row.caption.split,
            "route": row.route,
            "failure": row.failure,
            **row.scores,
        }
        for row in rows
    ]
    document = {"about": about, "routes": found, "views": of_views, "gains": gains, "notes": notes, "assets": captions}
    workdir.write_json_atomic(folder / "scores.json", document)
    names = list(dict.fromkeys((row.caption.split, row.caption.text) for row in rows))
    sheet = _sheet(rows, names, list(routes))
    media.write_png(folder / "sheet.png", sheet)
    _write_page(folder, rows, names, found, of_views, gains, about, notes, sheet)
    flat = {f"{route}_{name}": some["mean"] for route, each in found.items() for name, some in each.items()}
    metrics.write_final(folder, {**flat, **gains, "assets": len(rows), "evaluation_seconds": seconds})
    print(text_table(found), flush=True)
    if of_views:
        print(text_table(of_views, VIEW_COLUMNS), flush=True)
    for name, gain in gains.items():
        print(f"{name}: {gain:+.2f} dB", flush=True)
    for note in notes:
        print(note, flush=True)
    for route, some in routes.items():
        print(route_line(route, some), flush=True)


def _gains(views) -> dict[str, float]:
    """By how much the first set of rings is more consistent than the second, caption by caption."""
    names = [name for name in views if name != "exact"]
    if len(names) < 2:
        return {}
    pairs = zip(views[names[0]], views[names[1]], strict=True)
    differences = statistics([a["reprojection_psnr"] - b["reprojection_psnr"] for a, b in pairs])
    return {} if differences is None else {f"{names[0]} over {names[1]}": differences["mean"]}


def _cell(found: Mapping[str, float] | None, factor: float) -> str:
    if found is None:
        return "-"
    mean, error = factor * found["mean"], factor * found["standard_error"]
    digits = 3 if abs(mean) < 2 else 1 if abs(mean) < 100 else 0
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if math.isfinite(error) else "")


def _sheet(rows, names, routes) -> np.ndarray:
    """Stills in a grid: a row for each caption, a column for each route."""
    by_place = {((row.caption.split, row.caption.text), row.route): row for row in rows}
    first = next((row for row in rows if row.still.is_file()), None)
    blank = np.full((64, 128, 3), 255, np.uint8) if first is None else np.full_like(media.read_png(first.still), 255)
    pictures, labels = [], []
    for name in names:
        for route in routes:
            row = by_place.get((name, route))
            pictures.append(media.read_png(row.still) if row is not None and row.still.is_file() else blank)
            labels.append(f"{route}: {name[1]}" if row is None or not row.failure else f"{route}: none")
    return media.contact_sheet(pictures, len(routes), labels)


def _write_page(folder, rows, names, found, of_views, gains, about, notes, sheet) -> None:
    def table(summaries, columns, caption=""):
        cells = [
            (label.strip(), *(_cell(some.get(name), factor) for some in summaries.values()))
            for name, (label, factor) in columns.items()
            if any(name in some for some in summaries.values())
        ]
        return report.Table(header=("mean ± standard error", *summaries), rows=cells, caption=caption)

    medians = [
        (label.strip(), *(factor * some[name]["median"] if name in some else None for some in found.values()))
        for name, (label, factor) in COLUMNS.items()
    ]
    counts = [
        (COLUMNS[name][0], *(some[name]["n"] if name in some else 0 for some in found.values()))
        for name in ("f_0.02", "chamfer", "attributes", "janus")
    ]
    sections = [
        report.Section(title="Routes", tables=[table(found, COLUMNS)]),
        report.Section(
            title="Medians, and over how many captions",
            tables=[
                report.Table(header=("median", *found), rows=medians),
                report.Table(header=("captions", *found), rows=counts),
            ],
        ),
        *([report.Section(title="Views of the prior", tables=[table(of_views, VIEW_COLUMNS)])] if of_views else []),
        report.Section(title="Protocol", tables=[report.Table(header=("what", "value"), rows=_flat(about))]),
        *([report.Section(title="Notes", text="\n\n".join(notes))] if notes else []),
        report.Section(title="All assets, front and back", pictures=[report.Picture(image=sheet)]),
        *(
            _caption_section(name, [row for row in rows if (row.caption.split, row.caption.text) == name])
            for name in names
        ),
    ]
    tiles = {"captions": len(names), "routes": len(found), **{name: f"{gain:+.1f} dB" for name, gain in gains.items()}}
    report.write_report(folder / "report.html", title="Text to 3D, evaluated", summary=tiles, sections=sections)


def _caption_section(name, rows: Sequence[Row]) -> report.Section:
    shown = [column for column in COLUMNS if any(row.scores.get(column) is not None for row in rows)]
    cells = []
    for column in shown:
        label, factor = COLUMNS[column]
        values = [row.scores.get(column) for row in rows]
        cells.append((label.strip(), *(None if value is None else factor * value for value in values)))
    pictures = [report.Picture(image=row.still, caption=row.route) for row in rows if row.still.is_file()]
    failures = [f"{row.route}: {row.failure}" for row in rows if row.failure]
    table = report.Table(header=("score", *(row.route for row in rows)), rows=cells)
    return report.Section(title=f"{name[1]} ({name[0]})", text="\n\n".join(failures), pictures=pictures, tables=[table])


def _flat(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(name).replace("_", " "), str(value)) for name, value in about.items() if not isinstance(value, Mapping)
    ]
