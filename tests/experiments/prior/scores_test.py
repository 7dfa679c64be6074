"""Measures of rings on exact renders, and on renders with one thing made wrong by a known amount."""

import numpy as np
import pytest

from experiments.data.blocks.descriptions import parse
from experiments.prior import evaluation, evaluation_results, scores
from experiments.prior.classes import ClassRenders, as_channels

_TEXT = "a red box left of a blue sphere"


@pytest.fixture(scope="module")
def renders():
    return ClassRenders(16, None)


@pytest.fixture(scope="module")
def rings(renders):
    return as_channels(renders(parse(_TEXT), 16))


def test_colours_count_by_the_pixels_nearest_to_them(rings):
    front = rings[0][:1]
    for ring in rings[:3]:
        assert scores.named_colors(ring, parse(_TEXT)) == (1.0, pytest.approx(1.0, abs=0.06))
    assert scores.named_colors(front, parse("a red box left of a green sphere"))[0] == 0.5
    red = scores.named_colors(front, parse("a red box left of a red sphere"))[1]
    blue = scores.named_colors(front, parse("a blue box left of a blue sphere"))[1]
    assert red + blue == pytest.approx(1.0, abs=0.05) and min(red, blue) > 0.2
    assert scores.named_colors(front, parse("a box"))[0] is None
    assert scores.named_colors(front, parse("a red box left of a sphere")) == (1.0, None)


def test_the_nearest_render_of_a_render_is_itself_and_errors_are_as_large_as_they_were_made(rings):
    found = scores.nearest_render(rings[3], rings)
    assert found.index == 3 and found.psnr == 100.0 and found.alpha_iou == 1.0
    assert found.normal_degrees < 0.3
    changed = rings[3].copy()
    changed[..., :3] += 0.02  # 0.01 of the range [0, 1]
    turn = np.radians(10.0)
    x, y = changed[..., 3].copy(), changed[..., 4].copy()
    changed[..., 3], changed[..., 4] = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    found = scores.nearest_render(changed, rings)
    assert found.psnr == pytest.approx(40.0, abs=0.01)
    in_plane = np.linalg.norm(rings[3][..., 3:5], axis=-1) / np.linalg.norm(rings[3][..., 3:6] + 1e-9, axis=-1)
    inside = rings[3][..., 7] > 0
    cosine = 1 - in_plane[inside] ** 2 * (1 - np.cos(turn))  # a turn about z moves what lies in its plane
    assert found.normal_degrees == pytest.approx(np.degrees(np.arccos(cosine)).mean(), abs=0.1)
    assert scores.class_distance(rings[3], rings) == 0.0
    shifted = rings[3] + np.array([0, 0, 0, 0, 0, 0, 9.0, 0], np.float32)
    assert scores.class_distance(shifted, rings) == 0.0  # depth is left out


def test_retrieval_hears_each_word(renders):
    """Exact renders win in all respects; those of a changed caption lose in the one that was changed."""
    wrong = {
        "relation": "a red box right of a blue sphere",
        "binding": "a blue box left of a red sphere",
        "shape": "a red box left of a blue cone",
    }
    given = [renders.render(parse(text), 1, "exact") for text in (_TEXT, *wrong.values())]
    rows = evaluation.measure([as_channels(each)[0] for each in given], parse(_TEXT), renders)
    assert all(rows[0][aspect] for aspect in (*wrong, "all"))
    for aspect, row in zip(wrong, rows[1:], strict=True):
        assert row[aspect] is False and row["all"] is False
        assert row["psnr"] < rows[0]["psnr"]


def test_means_are_over_what_applies():
    rows = [{"psnr": 30.0, "relation": True, "reprojection_psnr": 20.0}, {"psnr": 40.0, "relation": None}]
    rows.append({"psnr": float("nan"), "relation": False, "reprojection_psnr": 40.0})
    found = evaluation_results.summary(rows)
    assert found["psnr"] == 35.0 and found["relation"] == 0.5
    assert found["reprojection_psnr"] == 30.0
    table = evaluation_results.text_table({"a": found, "b": {}})
    assert "35.00" in table and "0.500" in table and "named colours present" in table


def test_the_fixed_prompts_are_sentences_of_the_world():
    kinds = [evaluation_results.kind_of(parse(text)) for text in evaluation.FIXED_PROMPTS]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "single": 5, "stack": 3, "beside": 4, "tower": 1, "family": 7
    }  # fmt: skip
