"""A comparison as one HTML file with plots, and as a PNG: both open without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.comparison.result import dominated, file_size, front, memory
from edgedistill.extras import missing
from edgedistill.safe_text import escape
from edgedistill.svg_plots import Axes, Series, chart
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgedistill.comparison.result import Comparison, Row

_STYLE = """\
:root { --bg: #fdfdfc; --fg: #1f2328; --soft: #667; --grid: #e4e4e0; --bundle: #1769aa; --other: #b45f06;
  --card: #fff; }
@media (prefers-color-scheme: dark) { :root { --bg: #15181c; --fg: #e3e6ea; --soft: #9aa3ad; --grid: #2b3036;
  --bundle: #5fb0ee; --other: #f0a352; --card: #1b1f24; } }
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 0; } .soft { color: var(--soft);
  font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 12px 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; font-size: 13px; }
.plots { display: flex; flex-wrap: wrap; gap: 18px; } figure { margin: 0; background: var(--card); padding: 12px;
  border: 1px solid var(--grid); border-radius: 8px; max-width: 100%; } figure svg { max-width: 100%; height: auto; }
svg text { fill: var(--fg); font: 12px system-ui, sans-serif; } svg .tick { fill: var(--soft); font-size: 11px; }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; } svg .grid { stroke: var(--grid); }
svg .axis { stroke: var(--soft); } svg .line { fill: none; stroke-width: 2; }
  svg .line.bundle { stroke: var(--bundle); }
svg .line.other { stroke: var(--other); } svg .dot.bundle { fill: var(--bundle); }
  svg .dot.other { fill: var(--other); }
svg .fill.bundle { fill: var(--bundle); } svg .fill.other { fill: var(--other); }
"""


@dataclass(frozen=True, slots=True)
class _Plot:
    """``x`` and ``y`` of a row; ``best``: the cost whose front is drawn as a line."""

    title: str
    x_label: str
    y_label: str
    x: Callable[[Row], float | None]
    y: Callable[[Row], float]
    best: Callable[[Row], float] | None = None


_PLOTS = (
    _Plot(
        "Size and divergence", "file, MB", "mean KL, nats", lambda r: r.file_bytes / 1e6, lambda r: r.scoring.kl,
        best=file_size,
    ),
    _Plot(
        "Memory and divergence", "private memory, MB", "mean KL, nats", lambda r: r.private / 1e6,
        lambda r: r.scoring.kl, best=memory,
    ),
    _Plot(
        "Size and the worst of a hundred tokens", "file, MB", "99th percentile of KL, nats",
        lambda r: r.file_bytes / 1e6, lambda r: r.scoring.kl_quantiles["p99"],
    ),
    _Plot(
        "Bits and divergence of deployed decoding", "bits per weight", "mean KL of one-token steps, nats",
        lambda r: r.bits_per_weight, lambda r: r.decode.kl,
    ),
    _Plot(
        "Speed and divergence", "decode, tokens per second", "mean KL, nats",
        lambda r: None if r.decode_tps is None else r.decode_tps.median, lambda r: r.scoring.kl,
    ),
)  # fmt: skip

HEADERS = (
    "format", "bits/weight", "file", "private memory", "KL mean", "KL p99", "top-1", "perplexity", "KL mean, steps",
    "KL p99, steps", "decode tok/s", "prefill tok/s", "peak memory", "best by",
)  # fmt: skip


def cells(result: Comparison) -> list[list[str]]:
    """The table: rows of text under ``HEADERS``, smallest file first, the reference at the end."""
    small, light = front(result.rows, file_size), front(result.rows, memory)
    ordered = sorted(result.rows, key=lambda row: (row.reference, row.file_bytes, row.name))
    return [_cells(row, _rank(row.name in small, row.name in light)) for row in ordered]


def _rank(small: bool, light: bool) -> str:
    if light:
        return "file, memory" if small else "memory"
    return "file; dominated" if small else "dominated"


def _cells(row: Row, rank: str) -> list[str]:
    rates = [
        "" if spread is None else f"{spread.median:,.0f} ({min(spread.values):,.0f}-{max(spread.values):,.0f})"
        for spread in (row.decode_tps, row.prefill_tps)
    ]
    return [
        row.name,
        f"{row.bits_per_weight:.2f}",
        format_bytes(row.file_bytes),
        ("~" if row.private_bytes is None else "") + format_bytes(round(row.private)),
        _nats(row.scoring.kl),
        _nats(row.scoring.kl_quantiles["p99"]),
        f"{100 * row.scoring.top1:.1f} %",
        f"x{row.scoring.perplexity_ratio:.3f}",
        _nats(row.decode.kl),
        _nats(row.decode.kl_quantiles["p99"]),
        *rates,
        "" if row.rss_bytes is None else format_bytes(row.rss_bytes.median),
        "reference" if row.reference else rank,
    ]


def _nats(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}" if value < 1e-4 else f"{value:.{3 if value >= 1 else 4}f}"


def explained(result: Comparison) -> list[str]:
    """What the numbers are, in sentences."""
    settings = result.settings
    positions, machine = settings["positions"], settings["machine"]
    lines = [
        f"KL(fp32 || format) in nats, exact, over {positions['scoring']} tokens ({settings['tokens']['origin']}); "
        f"steps: the first {positions['decode']} of them one token at a time, as deployed decoding computes them.",
        "top-1: the likeliest token is the same. perplexity: of these tokens, relative to fp32. best by: no other "
        "format is both as close and as small in file or memory.",
        _private(result),
    ]
    lines += [
        f"{name} is dominated: {', '.join(others)} {'are' if len(others) > 1 else 'is'} as close in no more memory."
        for name, others in dominated(result.rows, memory).items()
    ]
    if settings["rounds"]:
        lines.append(
            f"Speed and peak memory: {settings['rounds']} round(s) in turn, each in a process of its own, median "
            f"(min-max); prompt {settings['prompt_tokens']}, {settings['new_tokens']} new tokens; {machine['cpu']}, "
            f"{machine['threads']} threads, onnxruntime {machine['onnxruntime']}."
        )
    return lines + [f"{name} was left out: {reason}" for name, reason in result.left_out]


def _private(result: Comparison) -> str:
    what = "private memory: what opening takes beyond mapped pages of the file; the tokenizer, equal for all, aside"
    if all(row.private_bytes is None for row in result.rows):
        return f"{what}. ~: not measured but predicted, of the weights alone, by the formula of plan."
    return f"{what}; median of the rounds."


def html(result: Comparison) -> str:
    """A whole page; every text is escaped."""
    title = f"edgedistill compare: {result.model}"
    figures = "".join(
        f"<figure><h2>{escape(plot.title)}</h2>{svg}</figure>" for plot in _PLOTS if (svg := _svg(plot, result))
    )
    head = "".join(f"<th>{escape(header)}</th>" for header in HEADERS)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in cells(result))
    notes = "".join(f'<p class="soft">{escape(line)}</p>' for line in explained(result))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n"
        f'<div class="plots">{figures}</div>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>\n{notes}\n</body></html>\n"
    )


def png(result: Comparison, path: Path) -> None:
    """Write the same plots as a picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("The plots as a PNG need matplotlib, which is not installed.", "report") from error
    shown = [plot for plot in _PLOTS if _points(plot, result)]
    figure = Figure(figsize=(12, 4.4 * -(-len(shown) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{result.model}: formats against fp32")
    for index, plot in enumerate(shown, 1):
        axes: Any = figure.add_subplot(-(-len(shown) // 2), 2, index)
        points = _points(plot, result)
        axes.scatter([x for _, x, _ in points], [y for _, _, y in points], s=22)
        for row, x, y in points:
            axes.annotate(row.name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        line = _front(plot, result)
        if len(line) > 1:
            axes.plot([x for x, _ in line], [y for _, y in line], linewidth=1)
        axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label, yscale="log")
        axes.margins(x=0.15)
        axes.grid(visible=True, which="both", alpha=0.25)
    figure.savefig(path, dpi=130, format="png")


def _points(plot: _Plot, result: Comparison) -> list[tuple[Row, float, float]]:
    """Rows with both numbers; the reference has no distance to itself, which a logarithmic scale could not show."""
    found = []
    for row in result.rows:
        x, y = plot.x(row), plot.y(row)
        if x is not None and y > 0 and not row.reference:
            found.append((row, x, y))
    return sorted(found, key=lambda point: point[1])


def _front(plot: _Plot, result: Comparison) -> list[tuple[float, float]]:
    if plot.best is None:
        return []
    best = front(result.rows, plot.best)
    return [(x, y) for row, x, y in _points(plot, result) if row.name in best]


def _svg(plot: _Plot, result: Comparison) -> str:
    points = _points(plot, result)
    titles = [f"{row.name}: {x:,.4g} {plot.x_label}, {y:.4g}" for row, x, y in points]
    series: list[Series] = []
    line: Sequence[tuple[float, float]] = _front(plot, result)
    if len(line) > 1:
        series.append(Series("best", "other", line))
    labels = [row.name for row, _, _ in points]
    series.append(Series("formats", "bundle", [(x, y) for _, x, y in points], "dots", titles=titles, labels=labels))
    return chart(series, Axes(plot.x_label, plot.y_label, log_y=True))
