"""Statistics by their formulas, and that what was scored is what is shown."""

import json
import math

import numpy as np
import pytest

from experiments import media
from experiments.data.blocks.descriptions import parse
from experiments.evaluation import table
from experiments.evaluation.captions import Caption


def test_statistics_are_over_what_applies():
    found = table.statistics([1.0, 2.0, 6.0, None, float("nan")])
    assert found == {"n": 3, "mean": 3.0, "median": 2.0, "standard_error": pytest.approx(math.sqrt(7 / 3))}
    one = table.statistics([4.0])
    assert one is not None and one["mean"] == 4.0 and math.isnan(one["standard_error"])
    assert table.statistics([None]) is None and table.statistics([]) is None


def rows_of(folder):
    captions = [
        Caption(split="fixed", index=i, text=text, description=parse(text))
        for i, text in enumerate(("a red box", "a dog"))
    ]
    rows = []
    for i, caption in enumerate(captions):
        still = folder / f"{i}.png"
        media.write_png(still, np.full((16, 32, 3), 100 + i, np.uint8))
        rows.append(
            table.Row(
                route="exact",
                caption=caption,
                scores={"chamfer": 0.001 * (i + 1), "attributes": 1.0},
                failure="",
                still=still,
            )
        )
        rows.append(
            table.Row(
                route="mesh",
                caption=caption,
                scores={"chamfer": 0.004, "attributes": 0.5, "seconds": 10.0 + i} if i == 0 else {"attributes": 0.0},
                failure="" if i == 0 else "the views show nothing",
                still=still if i == 0 else folder / "none.png",
            )
        )
    return rows


def test_the_table_says_what_was_scored(tmp_path, capsys):
    views = {
        "prior": [{"reprojection_psnr": 30.0}, {"reprojection_psnr": 20.0}],
        "one by one": [{"reprojection_psnr": 25.0}, {"reprojection_psnr": 18.0}],
    }
    table.write(tmp_path, rows_of(tmp_path), views, about={"seed": 3}, notes=["a note"], seconds=1.0)
    document = json.loads((tmp_path / "scores.json").read_text())
    assert (
        document["routes"]["mesh"]["chamfer"]["n"] == 1 and document["routes"]["exact"]["chamfer"]["median"] == 0.0015
    )
    assert document["routes"]["mesh"]["attributes"]["mean"] == 0.25  # what could not be made has no attribute right
    assert document["gains"] == {"prior over one by one": 3.5}
    assert [each["failure"] for each in document["assets"]] == ["", "", "", "the views show nothing"]
    assert json.loads((tmp_path / "metrics.json").read_text())["mesh_chamfer"] == 0.004
    shown = capsys.readouterr().out
    assert "prior over one by one: +3.50 dB" in shown and "a note" in shown
    assert "mesh: 1 of 2 assets, 10.0 s an asset (median), chamfer mm 4.0" in shown
    page = (tmp_path / "report.html").read_text()
    assert "a red box (fixed)" in page and "the views show nothing" in page and page.count("<img") == 4
    assert media.read_png(tmp_path / "sheet.png").shape[1] == 2 * 32 + 4
