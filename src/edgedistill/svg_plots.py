"""Plots as SVG text: lines, dots, bars, with axes and a legend, for a styled page or as a file of their own.

Colours are classes of the style sheet; ``sheet`` brings one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgedistill.safe_text import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

Point = tuple[float, float]
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 26, 44
_BAR, _GAP = 13, 9
_LABEL = 130
_STYLE = (
    ".paper{fill:#fff}text{fill:#333;font:12px system-ui,sans-serif}.title{font-weight:600}"
    ".tick{fill:#777;font-size:11px}.middle{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#e4e4e4}.axis{stroke:#777}"
    ".line{fill:none;stroke-width:1.8}.line.bundle{stroke:#2f7fb5}.line.other{stroke:#d9822b}"
    ".fill.bundle{fill:#2f7fb5}.fill.other{fill:#d9822b}"
)


@dataclass(frozen=True, slots=True)
class Series:
    """One line or cloud of dots.

    Attributes:
        name: In the legend. ``style``: class of the style sheet: reference, bundle, other or limit.
        points: (x, y), ascending in x for lines; points that are not finite break a line.
        kind: line, step (the value holds until the next x), dots, or columns (x: their left ends, evenly spaced).
        low, high: Of a band (lines) or of error bars (dots); empty for none.
        titles: A text per point, shown on hovering.
        labels: A text per point, written beside dots.
    """

    name: str
    style: Literal["reference", "bundle", "other", "limit"]
    points: Sequence[Point]
    kind: Literal["line", "step", "dots", "columns"] = "line"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    titles: Sequence[str] = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Axes:
    """Scales: limits in x and y (None: from the data, y from 0), labels, logarithmic y, vertical lines with names."""

    x_label: str
    y_label: str
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    log_y: bool = False
    marks: tuple[tuple[float, str], ...] = ()


def chart(series: Sequence[Series], axes: Axes, *, width: int = 520, height: int = 280) -> str:
    """Lines and dots in one frame; empty text if there is no finite point."""
    scale = _Scale.fit(series, axes, width, height)
    if scale is None:
        return ""
    parts = [_frame(scale, axes)]
    for x, name in axes.marks:
        at = scale.x(x)
        if _LEFT <= at <= width - _RIGHT:
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
            parts.append(f'<text class="tick" x="{at + 4:.1f}" y="{_TOP + 10}">{escape(name)}</text>')
    parts += [_series(one, scale) for one in series]
    parts.append(_legend(series, width))
    label = f"{axes.y_label} by {axes.x_label}: {', '.join(one.name for one in series)}"
    return _svg("".join(parts), width, height, label)


def sheet(title: str, plots: Sequence[tuple[str, Sequence[Series], Axes]], *, columns: int = 2) -> str:
    """Titled plots in rows under a title: an SVG file that needs no page."""
    width, height, head = 480, 270, 40
    parts = [
        f"<style>{_STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
    ]
    for number, (name, series, axes) in enumerate(plots):
        x, y = number % columns * width, head + number // columns * (height + head // 2)
        parts.append(f'<text class="title" x="{x + _LEFT}" y="{y + 14}">{escape(name)}</text>')
        plot = chart(series, axes, width=width, height=height)
        parts.append(
            plot.replace("<svg ", f'<svg x="{x}" y="{y + head // 2}" ', 1)
            or f'<text class="tick" x="{x + _LEFT}" y="{y + height // 2}">not measured</text>'
        )
    rows = -(-len(plots) // columns)
    return _svg("".join(parts), columns * width, head + rows * (height + head // 2), title) + "\n"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: ``style`` as in ``Series``, ``text`` at its end; ``low`` and ``high``: of an error bar, NaN for none."""

    style: str
    value: float
    text: str
    low: float = math.nan
    high: float = math.nan


def bars(rows: Sequence[tuple[str, Sequence[Bar]]], *, top: float, width: int = 520, label: str = "") -> str:
    """Horizontal bars: rows of a name and its bars, values from 0 to ``top``."""
    if not rows:
        return ""
    left = min(220, 16 + max(7 * len(_short(name)) for name, _ in rows))
    room = width - left - 70
    parts, y = [], 4
    for name, values in rows:
        middle = y + _BAR * len(values) / 2 + 4
        parts.append(f'<text class="name" x="{left - 6}" y="{middle:.1f}">{escape(_short(name))}</text>')
        for bar in values:
            length, low, high = (_length(v, top, room) for v in (bar.value, bar.low, bar.high))
            parts.append(
                f'<rect class="fill {bar.style}" x="{left}" y="{y}" width="{max(length, 0.5):.1f}" height="{_BAR - 2}">'
                f"<title>{escape(name)}: {escape(bar.text)}</title></rect>"
            )
            end = length
            if math.isfinite(bar.low):
                end, at = max(length, high), y + (_BAR - 2) / 2
                parts.append(
                    f'<line class="error" x1="{left + low:.1f}" x2="{left + high:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
                )
            parts.append(f'<text class="tick" x="{left + end + 4:.1f}" y="{y + _BAR - 4}">{escape(bar.text)}</text>')
            y += _BAR
        y += _GAP
    return _svg("".join(parts), width, y, label)


def _length(value: float, top: float, room: float) -> float:
    """Pixels; an infinite value reaches the end, NaN has none."""
    return max(0.0, min(1.0, value / top)) * room if top > 0 and not math.isnan(value) else 0.0


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about ``count`` of them."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / count
    base = 10.0 ** math.floor(math.log10(raw))
    step = min((m * base for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Data to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log_y: bool
    width: int
    height: int

    @classmethod
    def fit(cls, series: Sequence[Series], axes: Axes, width: int, height: int) -> _Scale | None:
        points = [p for one in series for p in one.points if math.isfinite(p[0]) and math.isfinite(p[1])]
        if axes.log_y:
            points = [p for p in points if p[1] > 0]
        if not points:
            return None
        ends = [v for one in series for v in (*one.low, *one.high) if math.isfinite(v)] if not axes.log_y else []
        xs, ys = [x for x, _ in points], [y for _, y in points] + ends
        x_low, x_high = axes.x_limits or (min(xs), max(xs))
        if axes.log_y:
            y_low, y_high = 10.0 ** math.floor(math.log10(min(ys))), 10.0 ** math.ceil(math.log10(max(ys)))
        else:
            y_low, y_high = axes.y_limits or (min(0.0, *ys), max(ys) * 1.05 or 1.0)
        x_high = x_high if x_high > x_low else x_low + 1
        y_high = y_high if y_high > y_low else (y_low * 10 if axes.log_y else y_low + 1)
        return cls(x_low, x_high, y_low, y_high, axes.log_y, width, height)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_low, self.y_high
        if self.log_y:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)

    def y_ticks(self) -> list[float]:
        if not self.log_y:
            return ticks(self.y_low, self.y_high)
        return [10.0**e for e in range(round(math.log10(self.y_low)), round(math.log10(self.y_high)) + 1)]


def _frame(scale: _Scale, axes: Axes) -> str:
    bottom, right = scale.height - _BOTTOM, scale.width - _RIGHT
    parts = []
    for value in scale.y_ticks():
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{y + 4:.1f}">{_tick(value)}</text>')
    for value in ticks(scale.x_low, scale.x_high):
        parts.append(f'<text class="tick middle" x="{scale.x(value):.1f}" y="{bottom + 16}">{value:.4g}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="label middle" x="{middle:.0f}" y="{scale.height - 8}">{escape(axes.x_label)}</text>')
    parts.append(
        f'<text class="label middle" transform="translate(13 {(_TOP + bottom) / 2:.0f}) rotate(-90)">'
        f"{escape(axes.y_label)}</text>"
    )
    return "".join(parts)


def _tick(value: float) -> str:
    """Short enough to leave room for the name of the axis."""
    return f"{value:.4g}" if not 0 < abs(value) < 0.001 else f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")


def _series(one: Series, scale: _Scale) -> str:
    finite = [(x, y) for x, y in one.points if math.isfinite(x) and math.isfinite(y)]
    if one.kind == "dots":
        return _dots(one, scale)
    if one.kind == "columns":
        width, bottom = (scale.width - _LEFT - _RIGHT) / max(1, len(finite)), scale.height - _BOTTOM
        return "".join(
            f'<rect class="fill {one.style}" x="{_LEFT + i * width:.1f}" y="{scale.y(y):.1f}" '
            f'width="{max(1.0, width - 1):.1f}" height="{bottom - scale.y(y):.1f}"/>'
            for i, (_, y) in enumerate(finite)
        )
    band = ""
    if one.low and len(finite) == len(one.points):
        upper = _path(list(zip((x for x, _ in finite), one.high, strict=True)), scale, one.kind == "step")
        lower = _path(list(zip((x for x, _ in finite), one.low, strict=True)), scale, one.kind == "step")
        band = f'<polygon class="band {one.style}" points="{" ".join([*upper, *reversed(lower)])}"/>'
    line = " ".join(_path(finite, scale, one.kind == "step"))
    return f'{band}<polyline class="line {one.style}" points="{line}"><title>{escape(one.name)}</title></polyline>'


def _path(points: Sequence[Point], scale: _Scale, step: bool) -> list[str]:
    path: list[str] = []
    before = None
    for x, y in points:
        if step and before is not None:
            path.append(f"{scale.x(x):.1f},{scale.y(before):.1f}")
        path.append(f"{scale.x(x):.1f},{scale.y(y):.1f}")
        before = y
    return path


def _dots(one: Series, scale: _Scale) -> str:
    parts = []
    for i, (x, y) in enumerate(one.points):
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        at = scale.x(x)
        if one.low and math.isfinite(one.low[i]):
            low, high = scale.y(one.low[i]), scale.y(min(one.high[i], scale.y_high))
            parts.append(f'<line class="line {one.style}" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        title = f"<title>{escape(one.titles[i])}</title>" if one.titles else ""
        parts.append(f'<circle class="dot {one.style}" cx="{at:.1f}" cy="{scale.y(y):.1f}" r="3.5">{title}</circle>')
        if one.labels:
            y_text, side = scale.y(y) - 6, "end" if at > scale.width - _LABEL else "start"
            parts.append(f'<text class="tick {side}" x="{at:.1f}" y="{y_text:.1f}">{escape(one.labels[i])}</text>')
    return "".join(parts)


def _legend(series: Sequence[Series], width: int) -> str:
    parts, x = [], _LEFT
    for one in series:
        parts.append(f'<rect class="fill {one.style}" x="{x}" y="7" width="11" height="11"/>')
        parts.append(f'<text class="tick" x="{x + 15}" y="16">{escape(one.name)}</text>')
        x += 28 + 7 * len(one.name)
    return "".join(parts) if len(series) > 1 and x < width + 60 else ""


def _svg(content: str, width: int, height: int, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg">{content}</svg>'
    )
