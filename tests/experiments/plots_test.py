import math
import re
import xml.etree.ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments import plots

finite = st.floats(-1e12, 1e12)


def points(svg, kind="curve"):
    """The pixel coordinates of each drawn curve."""
    paths = re.findall(rf'class="{kind}"[^>]* d="([^"]*)"', svg)
    return [[tuple(map(float, p)) for p in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)] for path in paths]


def plot(*curves, **options):
    series = [plots.Series(name=f"s{i}", x=list(range(len(c))), y=c) for i, c in enumerate(curves)]
    return plots.Plot(title="t", series=series, **options)


@given(finite, finite)
def test_ticks_are_round_few_and_inside(low, high):
    assume(high - low > 1e-9 * max(abs(low), abs(high), 1e-300) and high - low > 1e-250)
    marks = plots.ticks(low, high)
    assert 1 <= len(marks) <= 6
    slack = 1e-6 * (high - low)
    assert all(low - slack <= m <= high + slack for m in marks)
    if len(marks) > 1:
        distance = marks[1] - marks[0]
        mantissa = distance / 10.0 ** math.floor(math.log10(distance) + 1e-9)
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (14, 21.6, [14, 16, 18, 20]), (3, 3, [3])],
)
def test_ticks_by_hand(low, high, expected):
    assert plots.ticks(low, high) == pytest.approx(expected)


def test_curves_are_affine_images_of_their_data():
    (curve,) = points(plots.svg(plot([0.0, 1.0, 4.0, 9.0])))
    assert len(curve) == 4
    (x0, y0), (x1, y1), (_, y2), (x3, y3) = curve
    assert x1 - x0 == pytest.approx((x3 - x0) / 3, abs=0.11) and y0 > y1 > y2 > y3  # SVG's y grows downwards.
    assert (y0 - y2) / (y0 - y3) == pytest.approx(4 / 9, abs=2e-3)


def test_a_logarithmic_axis_spaces_decades_evenly_and_skips_what_has_no_logarithm():
    svg = plots.svg(plot([1.0, 10.0, 100.0, 0.0, -1.0, 1000.0], log_y=True))
    ys = [y for _, y in points(svg)[0]]
    assert len(ys) == 4 and ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.11)
    assert all(label in svg for label in (">1<", ">10<", ">100<", ">1,000<"))


def test_gaps_break_the_line():
    svg = plots.svg(plot([1.0, 2.0, math.nan, 3.0, math.inf, 4.0]))
    path = re.search(r'class="curve"[^>]* d="([^"]*)"', svg).group(1)
    assert path.count("M") == 3 and path.count("L") == 1


def test_long_curves_are_thinned_but_keep_every_peak():
    values = [math.sin(i / 500) for i in range(20000)]
    values[7777], values[15001] = 50.0, -50.0
    (curve,) = points(plots.svg(plot(values)))
    assert len(curve) <= 600
    ys = [y for _, y in curve]
    (full,) = points(plots.svg(plot([50.0, -50.0])))
    assert min(ys) == full[0][1] and max(ys) == full[1][1]


def test_smoothing_averages_and_keeps_the_raw_curve():
    values = [0.0, 1.0] * 50
    svg = plots.svg(plot(values, smooth=10))
    (raw,), (smooth,) = points(svg, "raw"), points(svg)
    assert len({y for _, y in raw}) == 2
    middle = (raw[0][1] + raw[1][1]) / 2
    assert all(abs(y - middle) < 0.15 * abs(raw[0][1] - raw[1][1]) for _, y in smooth)
    assert plots._moving_average([(0, 1.0), (1, None), (2, 3.0)], 3) == [(0, 1.0), (1, None), (2, 3.0)]


@pytest.mark.parametrize("values", [[], [math.nan], [5.0], [5.0, 5.0], [1e-300, 1e300], [1e9, 1e9 + 1]])
def test_odd_data_still_gives_a_picture(values):
    for log_y in (False, True):
        svg = plots.svg(plot(values, log_y=log_y))
        xml.etree.ElementTree.fromstring(svg)
        assert "nan" not in svg and "inf" not in svg


def test_names_are_escaped():
    bad = plots.Plot(title='<a "b">', series=[plots.Series(name="<script>", x=[0], y=[1.0])], x_label="<x>")
    xml.etree.ElementTree.fromstring(plots.svg(bad))
    assert "<script>" not in plots.svg(bad) + plots.legend(bad)


def test_metrics_become_series():
    records = [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5, "psnr": 20.0}, {"step": 2, "word": "x"}]
    drawn = plots.plot_metrics(records, ["loss", "psnr", "absent", "word"])
    assert [(s.name, list(s.x), list(s.y)) for s in drawn.series] == [
        ("loss", [0, 1], [1.0, 0.5]),
        ("psnr", [1], [20.0]),
    ]
    with pytest.raises(ValueError):
        plots.svg(plots.Plot(title="", series=[plots.Series(name="a", x=[0, 1], y=[0.0])]))


@pytest.mark.parametrize(
    ("value", "text"), [(0.73124, "0.7312"), (123456, "123,456"), (2000.0, "2,000"), (181.22, "181.2"), (1e-7, "1e-07")]
)
def test_numbers_for_human_eyes(value, text):
    assert plots.number(value) == text
