"""Plots as terminal text: lines in braille dots, bars in blocks, with axes. Readable without colour."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.text import Text

from edgedistill.svg_plots import ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLOCKS = " ▁▂▃▄▅▆▇█"


def number(value: float) -> str:
    """A short number for an axis: ``12.5K``."""
    for suffix, factor in (("M", 1e6), ("K", 1e4)):
        if abs(value) >= factor:
            return f"{value / (1e3 if suffix == 'K' else factor):.3g}{suffix}"
    return f"{value:.4g}"


def line_plot(
    series: Sequence[tuple[Sequence[tuple[float, float]], str]],
    width: int,
    height: int,
    *,
    title: str,
    unit: str,
    x_unit: str,
    label: Callable[[float], str] = number,
) -> Text:
    """Lines over a common pair of axes; y begins at 0.

    Args:
        series: (points, style) per line.
        width, height: Of the whole plot, in columns and rows.
        title, unit, x_unit: What is shown.
        label: Numbers of the y axis as text.
    """
    text = _heading(title, unit)
    points = [p for line, _ in series for p in line]
    if not points:
        return text.append("  measuring…\n" * 1, "dim")
    left = 8
    columns, rows = max(8, width - left - 1), max(2, height - 3)
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    top = max(p[1] for p in points) * 1.05 or 1.0
    cells: list[list[int]] = [[0] * columns for _ in range(rows)]
    styles: list[list[str]] = [[""] * columns for _ in range(rows)]
    for line, style in series:
        for x, y in _walk(line, low, high, top, columns * 2, rows * 4):
            row, column = rows - 1 - y // 4, x // 2
            cells[row][column] |= _DOTS[x % 2][3 - y % 4]
            styles[row][column] = style
    for row in range(rows):
        value = top * (rows - 1 - row + 0.5) / rows
        shown = label(value) if row in (0, rows - 1, rows // 2) else ""
        text.append(f"{shown:>{left - 1}} ", "dim")
        text.append("│", "dim")
        for column in range(columns):
            text.append(chr(0x2800 + cells[row][column]) if cells[row][column] else " ", styles[row][column])
        text.append("\n")
    return text.append(_x_axis(low, high, left, columns, x_unit), "dim")


def bar_plot(
    bars: Sequence[float], low: float, high: float, width: int, height: int, *, title: str, unit: str, x_unit: str
) -> Text:
    """A histogram over the interval from ``low`` to ``high``."""
    text = _heading(title, unit)
    if not bars:
        return text.append("  measuring…\n", "dim")
    left = 8
    columns, rows = max(8, width - left - 1), max(2, height - 3)
    each = max(1, columns // len(bars))
    top = max(bars) or 1.0
    for row in range(rows):
        shown = number(top) if row == 0 else ""
        text.append(f"{shown:>{left - 1}} │", "dim")
        for value in bars:
            eighths = round(value / top * rows * 8) - (rows - 1 - row) * 8
            if value and row == rows - 1:
                eighths = max(1, eighths)
            text.append(_BLOCKS[min(8, max(0, eighths))] * each, "cyan")
        text.append("\n")
    return text.append(_x_axis(low, high, left, each * len(bars), x_unit), "dim")


def bar(share: float, width: int) -> str:
    """A horizontal bar of ``share`` (0 to 1) of ``width`` columns, in eighths."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def _heading(title: str, unit: str) -> Text:
    return Text.assemble((title, "bold"), (f"  {unit}\n", "dim"))


def _walk(
    line: Sequence[tuple[float, float]], low: float, high: float, top: float, width: int, height: int
) -> list[tuple[int, int]]:
    """The dots of a line: its points, and what is between them."""
    span = (high - low) or 1.0
    dots = [
        (min(width - 1, int((x - low) / span * (width - 1))), min(height - 1, max(0, int(y / top * height))))
        for x, y in line
        if math.isfinite(x) and math.isfinite(y)
    ]
    out = dots[:1]
    for (x0, y0), (x1, y1) in pairwise(dots):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        out += [(x0 + (x1 - x0) * i // steps, y0 + (y1 - y0) * i // steps) for i in range(1, steps + 1)]
    return out


def _x_axis(low: float, high: float, left: int, columns: int, unit: str) -> str:
    rule = " " * left + "└" + "─" * columns + "\n"
    marks = [" "] * (columns + 1)
    span = (high - low) or 1.0
    for value in ticks(low, high, max(2, columns // 14)):
        shown = number(value)
        at = min(int((value - low) / span * columns), columns + 1 - len(shown))
        if all(c == " " for c in marks[max(0, at - 1) : at + len(shown)]):
            marks[at : at + len(shown)] = list(shown)
    line = "".join(marks).rstrip()
    return f"{rule}{' ' * left}{line} {unit}\n" if len(line) + len(unit) < columns else f"{rule}{' ' * left}{line}\n"
