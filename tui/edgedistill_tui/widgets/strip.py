"""The status line: the current state and as many figures as fit beside it; two lines in a tall window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual.widgets import Static

from edgedistill.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from edgedistill_tui.buffer import Drained
    from edgedistill_tui.engine import Facts

DASH = "–"


@dataclass(slots=True)
class Gauges:
    """The numbers on the strip; None or 0 shows a dash. Rates in tokens per second, times in s, sizes in bytes."""

    ttft_s: float = 0.0
    prefill_tps: float = 0.0
    decode_tps: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    kv_tokens: int = 0
    kv_bytes: int = 0
    rss: int = 0


class MetricsStrip(Static):
    """Draws a short state and ``Gauges``; the figures for which there is no room are left out, the state never."""

    def __init__(self) -> None:
        super().__init__("", id="strip", markup=False)
        self.gauges = Gauges()
        self.facts: Facts | None = None
        self.state = "loading the model…"

    def say(self, state: str) -> None:
        """Change the state, such as "ready"."""
        self.state = state
        self.draw()

    def live(self, new: Drained, memory: int) -> None:
        """Numbers of a reply that is being written."""
        g, facts = self.gauges, self.facts
        g.ttft_s, g.p50_s, g.p95_s, g.rss = new.ttft_s, new.p50_s, new.p95_s, memory
        g.decode_tps = new.tokens_per_s
        if new.prompt:
            g.kv_tokens = new.prefilled + new.tokens
            g.kv_bytes = g.kv_tokens * facts.kv_bytes_per_token if facts else 0
        if new.ttft_s and new.prompt and not new.tokens_per_s:
            g.prefill_tps = new.prompt / new.ttft_s
        if new.tokens:
            self.state = f"{new.tokens} tok, {new.seconds:.0f} s"
        elif new.prompt and new.prefilled < new.prompt:
            self.state = f"prefill {new.prefilled}/{new.prompt}"
        else:
            self.state = "prefill…"
        self.draw()

    def final(self, stats: dict[str, Any], state: str) -> None:
        """The runtime's own numbers of a finished reply."""
        g = self.gauges
        for name, key in (("decode_tps", ""), ("prefill_tps", ""), ("ttft_s", ""), ("kv_tokens", ""), ("kv_bytes", "")):
            setattr(g, name, stats.get(key or name, 0) or 0)
        g.p50_s, g.p95_s = stats.get("step_p50_s", 0.0), stats.get("step_p95_s", 0.0)
        g.rss = stats.get("rss_bytes", 0)
        self.state = state
        self.draw()

    def on_resize(self) -> None:
        """Choose what fits."""
        self.draw()

    def draw(self) -> None:
        """Put the numbers into words."""
        self.update(self._text(self.size.width or 80, self.size.height or 1))

    def _text(self, width: int, height: int) -> Text:
        """The state, and beside it (where there is a second line, below it as well) the figures that fit."""
        left = self._figures()
        lines = []
        for number in range(height):
            first = self.state if not number else ""
            room = width - len(first) - (2 if first else 0)
            chosen = _that_fit(left, room)
            left = [figure for figure in left if figure not in chosen]
            line = Text(first, "bold" if first else "")
            for name, value in chosen:
                line.append("  " if line else "").append(f"{name} " if name else "", "dim").append(value)
            line.truncate(width, overflow="ellipsis")
            lines.append(line)
        return Text("\n").join(lines)

    def _figures(self) -> list[tuple[str, str]]:
        """(name, value), the most telling first."""
        g, facts = self.gauges, self.facts
        predicted = facts.predicted if facts else {}
        context = facts.context_length if facts else 0
        used = f" {100 * g.kv_tokens // context}%" if context and g.kv_tokens else ""
        return [
            ("", f"{_rate(g.decode_tps)} tok/s"),
            ("context", f"{g.kv_tokens}/{context or DASH}{used}"),
            ("TTFT", _time(g.ttft_s)),
            ("RSS", f"{_size(g.rss)}/{_size(facts.ram_budget if facts else 0)}"),
            ("p50/p95", f"{_time(g.p50_s, bare=True)}/{_time(g.p95_s)}"),
            ("prefill", f"{_rate(g.prefill_tps)} tok/s"),
            ("KV", f"{_size(g.kv_bytes)}/{_size(facts.kv_budget if facts else 0)}"),
            ("predicted", f"{_rate(predicted.get('decode_tps'))} tok/s {_size(predicted.get('ram_bytes'))}"),
        ]


def _that_fit(figures: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """The first figures, as far as there is room for them in a line."""
    chosen: list[tuple[str, str]] = []
    for name, value in figures:
        width -= len(name) + bool(name) + len(value) + 2
        if width < -2:
            break
        chosen.append((name, value))
    return chosen


def _rate(value: float | None) -> str:
    if not value:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _time(seconds: float, *, bare: bool = False) -> str:
    if not seconds:
        return DASH
    if bare and seconds < 1:
        return f"{1000 * seconds:.3g}"
    return format_seconds(seconds).replace(" ms", "ms").replace(" s", "s")


def _size(count: float | None) -> str:
    return format_bytes(count).replace("iB", "").replace(" ", "") if count else DASH
