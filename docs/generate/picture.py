"""Draws docs/pictures/quality.svg from the table on the page of benchmarks: python docs/generate/picture.py

Two plots side by side: mean KL to the original against the size of the file, and against memory. A test compares the
file with what this makes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgedistill.svg_plots import Axes, Series, chart

DOCS = Path(__file__).parents[1]
PICTURE = DOCS / "pictures/quality.svg"
_STYLE = """
text{font:11px sans-serif;fill:#555}.label{font-size:12px}.middle{text-anchor:middle}.end{text-anchor:end}
.grid{stroke:#ddd}.axis{stroke:#888}.line{fill:none;stroke-width:1.5;opacity:.45}
.dot.bundle,.fill.bundle{fill:#0a7d6c}.line.bundle{stroke:#0a7d6c}
.dot.other,.fill.other{fill:#7aa5d8}.line.other{stroke:#7aa5d8}
.dot.reference,.fill.reference{fill:#c4622d}.line.reference{stroke:#c4622d}
"""
_WIDTH, _HEIGHT = 560, 380


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the table: sizes in MB, KL in nats with its interval."""

    engine: str
    format: str
    file_mb: float
    memory_mb: float
    kl: float
    low: float
    high: float

    @property
    def group(self) -> str:
        """Which series the point belongs to."""
        if self.engine == "llama.cpp":
            return "llama.cpp"
        thorough = "gptq" in self.format or self.format.endswith(", `--calibrate`")
        return "edgedistill, --calibrate" if thorough else "edgedistill"

    @property
    def label(self) -> str:
        """The format without what all points share."""
        return re.sub(r"-(a?sym|gptq|search|s8)\b|--quality |, `--calibrate`|[*`]", "", self.format)


def points(page: str) -> list[Point]:
    """The rows of the table of SmolLM2-135M."""
    section = page.partition("### SmolLM2-135M, dithered\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (edgedistill|llama\.cpp) \| ([^|]+?) \| (\d.+ to .+)\|$", section, re.MULTILINE)
    found = []
    for engine, name, rest in rows:
        size, _, kl, *_, memory = (text.strip() for text in rest.split("|"))
        mean, low, high = (float(number) for number in re.findall(r"\d+\.\d+", kl))
        found.append(Point(engine, name, float(size.split()[0]), float(memory), mean, low, high))
    return found


def picture(rows: list[Point]) -> str:
    """The SVG."""
    plots = [
        _plot(rows, "file, MB", [row.file_mb for row in rows]),
        _plot(rows, "private memory once loaded, MB", [row.memory_mb for row in rows]),
    ]
    placed = [plot.replace("<svg ", f'<svg x="{_WIDTH * i}" ', 1) for i, plot in enumerate(plots)]
    return (
        f'<svg viewBox="0 0 {2 * _WIDTH} {_HEIGHT}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="Mean KL against size and memory"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n'
    )


def _plot(rows: list[Point], label: str, sizes: list[float]) -> str:
    styles = {"edgedistill, --calibrate": "bundle", "edgedistill": "other", "llama.cpp": "reference"}
    series = []
    for name, style in styles.items():
        chosen = [(x, row) for x, row in zip(sizes, rows, strict=True) if row.group == name]
        series.append(
            Series(
                name,
                style,  # type: ignore[arg-type]
                [(x, row.kl) for x, row in chosen],
                "dots",
                [row.low for _, row in chosen],
                [row.high for _, row in chosen],
                labels=[row.label for _, row in chosen],
            )
        )
    margin = (max(sizes) - min(sizes)) * 0.06
    limits = (min(sizes) - margin, max(sizes) + margin)
    axes = Axes(label, "mean KL to the original, nats", x_limits=limits, log_y=True)
    return chart(series, axes, width=_WIDTH, height=_HEIGHT)


if __name__ == "__main__":
    PICTURE.write_text(picture(points((DOCS / "benchmarks.md").read_text(encoding="utf-8"))), encoding="utf-8")
