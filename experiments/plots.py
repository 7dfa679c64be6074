"""Curves as inline SVG: axes with round ticks, grid, legend, light and dark; no script, no font, no network."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 12, 44
_MOST_POINTS = 600
NUM_COLORS = 6
"""Series beyond this many reuse the colours, dashed."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: a name and its points; a value that is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One set of axes.

    Attributes:
        title: what is shown, with its unit.
        series: the curves.
        x_label: meaning of the horizontal axis.
        log_y: logarithmic vertical axis; values not above zero leave gaps.
        smooth: width of a moving average in points; the raw curve stays visible, faint. 0 for none.
    """

    title: str
    series: Sequence[Series]
    x_label: str = "step"
    log_y: bool = False
    smooth: int = 0


def plot_metrics(
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    title: str = "",
    x: str = "step",
    log_y: bool = False,
    smooth: int = 0,
) -> Plot:
    """A plot of named numbers out of `metrics.read_metrics`; names that never occur are left out.

    Args:
        records: lines of `metrics.jsonl`.
        names: the metrics to draw together.
        title: by default the names.
        x: the metric on the horizontal axis, for example "step" or "seconds".
        log_y: see `Plot`.
        smooth: see `Plot`.
    """
    series = []
    for name in names:
        points = [(r[x], r[name]) for r in records if _is_number(r.get(x)) and _is_number(r.get(name))]
        if points:
            series.append(Series(name=name, x=[p[0] for p in points], y=[p[1] for p in points]))
    return Plot(title=title or ", ".join(names), series=series, x_label=x, log_y=log_y, smooth=smooth)


def svg(plot: Plot) -> str:
    """The plot as an `<svg>` element; its colours are the CSS variables --ink, --grid and --c0 .. --c5 of the page.

    Raises:
        ValueError: a series whose x and y differ in length.
    """
    curves = [_clean(series, plot.log_y) for series in plot.series]
    finite_x = [x for curve in curves for x, y in curve if y is not None]
    finite_y = [y for curve in curves for _, y in curve if y is not None]
    label = html.escape(plot.title, quote=True)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    if not finite_y:
        parts.append(f'<text class="axis" x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">no data</text></svg>')
        return "".join(parts)
    x_axis = _Axis(min(finite_x), max(finite_x), _LEFT, _WIDTH - _RIGHT, margin=0.0)
    y_axis = _Axis(min(finite_y), max(finite_y), _HEIGHT - _BOTTOM, _TOP, margin=0.05)
    parts += _grid(x_axis, y_axis, plot)
    for index, curve in enumerate(curves):
        style = f'stroke="var(--c{index % NUM_COLORS})"' + (' stroke-dasharray="5 3"' if index >= NUM_COLORS else "")
        smoothed = _moving_average(curve, plot.smooth) if plot.smooth > 1 else None
        if smoothed is not None:
            parts.append(f'<path class="raw" {style} d="{_path(_thin(curve), x_axis, y_axis)}"/>')
        drawn = curve if smoothed is None else smoothed
        parts.append(f'<path class="curve" {style} d="{_path(_thin(drawn), x_axis, y_axis)}"/>')
        parts += _lone_points(drawn, x_axis, y_axis, index)
    return "".join([*parts, "</svg>"])


def legend(plot: Plot) -> str:
    """The names of the curves with their colours and last values, as HTML."""
    entries = []
    for index, series in enumerate(plot.series):
        last = next((y for y in reversed(series.y) if math.isfinite(y)), None)
        value = "" if last is None else f" <b>{number(last)}</b>"
        swatch = f'<i style="background:var(--c{index % NUM_COLORS})"></i>'
        entries.append(f"<span>{swatch}{html.escape(series.name)}{value}</span>")
    return f'<div class="legend">{"".join(entries)}</div>'


def number(value: float) -> str:
    """A number for human eyes: four significant digits, thousands separated, no needless zeros."""
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and 1e3 <= abs(value) < 1e15):
        return f"{int(value):,}"
    if math.isfinite(value) and 1e4 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, at most `most` of them."""
    span = high - low
    if not span > 0:
        return [low]
    for exponent in range(math.floor(math.log10(span)) - 2, math.floor(math.log10(span)) + 2):
        for factor in (1, 2, 5):
            distance = factor * 10.0**exponent
            first, last = math.ceil(low / distance - 1e-9), math.floor(high / distance + 1e-9)
            if last - first + 1 <= most:
                # Powers of ten below one are inexact: divide by their exact inverse.
                scale = 10 ** max(-exponent, 0)
                return [i * factor / scale if exponent < 0 else i * distance for i in range(first, last + 1)]
    raise AssertionError("unreachable: a distance of ten spans always leaves few ticks")


class _Axis:
    """Maps data from [low, high] to pixels from `start` to `end`."""

    def __init__(self, low: float, high: float, start: float, end: float, margin: float) -> None:
        if high <= low:
            half = abs(low) * 0.05 or 0.5
            low, high = low - half, high + half
        room = (high - low) * margin
        self.low, self.high, self.start, self.end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _clean(series: Series, log_y: bool) -> list[tuple[float, float | None]]:
    points = []
    for x, y in zip(series.x, series.y, strict=True):
        usable = math.isfinite(y) and (y > 0 or not log_y)
        if math.isfinite(x):
            points.append((float(x), (math.log10(y) if log_y else float(y)) if usable else None))
    return points


def _grid(x_axis: _Axis, y_axis: _Axis, plot: Plot) -> list[str]:
    parts = []
    for tick in _log_ticks(y_axis) if plot.log_y else ticks(y_axis.low, y_axis.high):
        y = y_axis(tick)
        text = number(10.0**tick) if plot.log_y else _tick_label(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    base = _HEIGHT - _BOTTOM
    for tick in ticks(x_axis.low, x_axis.high, 8):
        x = x_axis(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{base}"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{base + 17}" text-anchor="middle">{_tick_label(tick)}</text>')
    parts.append(f'<path class="frame" d="M{_LEFT} {_TOP}V{base}H{_WIDTH - _RIGHT}"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(plot.x_label)}</text>'
    )
    return parts


def _log_ticks(axis: _Axis) -> list[float]:
    """Logarithms of round numbers: whole decades if there are several, else 1, 2, 5 within them."""
    decades = range(math.floor(axis.low), math.ceil(axis.high) + 1)
    whole = [float(d) for d in decades if axis.low <= d <= axis.high]
    if len(whole) >= 3:
        return whole[:: -(-len(whole) // 6)]
    finer = [d + math.log10(f) for d in decades for f in (1, 2, 5) if axis.low <= d + math.log10(f) <= axis.high]
    return finer if len(finer) >= 2 else [math.log10(t) for t in ticks(10**axis.low, 10**axis.high) if t > 0]


def _tick_label(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}"
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _path(curve: Sequence[tuple[float, float | None]], x_axis: _Axis, y_axis: _Axis) -> str:
    commands, pen_down = [], False
    for x, y in curve:
        if y is None:
            pen_down = False
            continue
        commands.append(f"{'L' if pen_down else 'M'}{x_axis(x):.1f} {y_axis(y):.1f}")
        pen_down = True
    return "".join(commands)


def _lone_points(curve: Sequence[tuple[float, float | None]], x_axis: _Axis, y_axis: _Axis, index: int) -> list[str]:
    """Dots where a curve has few points, which a line alone would hide."""
    points = [(x, y) for x, y in curve if y is not None]
    if len(points) > 12:
        return []
    fill = f'fill="var(--c{index % NUM_COLORS})"'
    return [f'<circle {fill} cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="2.5"/>' for x, y in points]


def _thin(curve: list[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most `_MOST_POINTS` points that keep every peak: the lowest and highest of each stretch, in order."""
    if len(curve) <= _MOST_POINTS:
        return curve
    stretch = -(-len(curve) // (_MOST_POINTS // 2))
    kept = []
    for start in range(0, len(curve), stretch):
        part = range(start, min(start + stretch, len(curve)))
        known = [i for i in part if curve[i][1] is not None]
        if known:
            value = lambda i: curve[i][1]  # noqa: E731
            kept += [curve[i] for i in sorted({min(known, key=value), max(known, key=value)})]
        else:
            kept.append(curve[start])
    return kept


def _moving_average(curve: list[tuple[float, float | None]], width: int) -> list[tuple[float, float | None]]:
    """Mean over a centred window, cut off at the ends; gaps stay gaps and do not count."""
    sums, counts = [0.0], [0]
    for _, y in curve:
        sums.append(sums[-1] + (y or 0.0))
        counts.append(counts[-1] + (y is not None))
    smoothed: list[tuple[float, float | None]] = []
    for i, (x, y) in enumerate(curve):
        low, high = max(i - width // 2, 0), min(i + width // 2 + 1, len(curve))
        smoothed.append((x, None if y is None else (sums[high] - sums[low]) / (counts[high] - counts[low])))
    return smoothed


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
