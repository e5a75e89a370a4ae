"""Plots as SVG text: lines or bars with axes, several on a page. Plain numbers in, a picture for any browser out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 460, 260, 60, 36, 40, 16
_COLOURS = ("#2f7fb5", "#d9822b", "#3a9a6b", "#8a5fbf")


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line; ``name`` is shown where there are several."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot; ``bars``: the points are the left edges and heights of bars."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    bars: bool = False


def page(title: str, plots: Sequence[Plot], columns: int = 2) -> str:
    """Plots in rows under a title."""
    rows = math.ceil(len(plots) / columns)
    width, height = columns * _WIDTH, rows * _HEIGHT + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for number, plot in enumerate(plots):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT + 40
        parts += [f'<g transform="translate({x} {y})">', *_plot(plot), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values from ``low`` to ``high``, about ``wanted`` of them."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _plot(plot: Plot) -> list[str]:
    points = [p for series in plot.series for p in series.points if all(map(math.isfinite, p))]
    out = [f'<text x="{_LEFT}" y="20" font-weight="600">{escape(plot.title)}</text>']
    if not points:
        return [*out, f'<text x="{_LEFT}" y="{_HEIGHT // 2}">not measured</text>']
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    y_high = max(p[1] for p in points) * 1.05 or 1.0
    x_span = (x_high - x_low) or 1.0
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    base = _TOP + inner_h

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x - x_low) / x_span * inner_w, base - y / y_high * inner_h

    for value in ticks(0.0, y_high):
        y = at(x_low, value)[1]
        out.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>')
    for value in ticks(x_low, x_high):
        x = at(value, 0)[0]
        out.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{value:,.6g}</text>')
    out.append(f'<text x="{_LEFT + inner_w}" y="{base + 32}" text-anchor="end" fill="#777">{escape(plot.x)}</text>')
    out.append(f'<text x="{_WIDTH - _RIGHT}" y="20" text-anchor="end" fill="#777">{escape(plot.y)}</text>')
    for number, series in enumerate(plot.series):
        colour = _COLOURS[number % len(_COLOURS)]
        if plot.bars:
            width = inner_w / max(1, len(series.points))
            for i, (_, value) in enumerate(series.points):
                top = at(x_low, value)[1]
                out.append(
                    f'<rect x="{_LEFT + i * width:.1f}" y="{top:.1f}" width="{max(1.0, width - 1):.1f}" '
                    f'height="{base - top:.1f}" fill="{colour}"/>'
                )
            continue
        line = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in series.points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if series.name:
            out.append(
                f'<text x="{_LEFT + 6 + 90 * number}" y="{_TOP + 6}" fill="{colour}">{escape(series.name)}</text>'
            )
    return out
