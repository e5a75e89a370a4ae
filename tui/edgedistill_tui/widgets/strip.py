"""The two lines that are always there: speed on the first, memory on the second, predictions beside measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
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
    """Draws ``Gauges`` and a short state; what does not fit a narrow terminal is abbreviated, not cut."""

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
        """Choose the words that fit."""
        self.draw()

    def draw(self) -> None:
        """Put the numbers into words."""
        self.update(self._text(self.size.width or 80))

    def _text(self, width: int) -> Table:
        g, facts, wide = self.gauges, self.facts, width >= 76
        predicted = facts.predicted if facts else {}
        speed = [
            ("decode", _rate(g.decode_tps) + (" tok/s" if wide else " t/s")),
            ("pred" if not wide else "predicted", _rate(predicted.get("decode_tps"))),
            ("prefill", _rate(g.prefill_tps)),
            ("TTFT", _time(g.ttft_s)),
            ("p50/p95", f"{_time(g.p50_s, bare=True)}/{_time(g.p95_s)}"),
        ]
        if not wide:
            speed = [(name, value) for name, value in speed if name != "prefill" or width >= 70]
        budget = facts.kv_budget if facts else 0
        context = facts.context_length if facts else 0
        memory = [
            ("KV", f"{g.kv_tokens}/{context or DASH}" + (" tok" if wide else "")),
            ("", f"{_size(g.kv_bytes)}/{_size(budget)}"),
            ("RSS", f"{_size(g.rss)}/{_size(facts.ram_budget if facts else 0)}"),
        ]
        if wide:
            memory.append(("predicted", _size(predicted.get("ram_bytes"))))
        if not wide and width < 70:
            memory.append(("pf", _rate(g.prefill_tps)))
        table = Table.grid(expand=True, padding=0)
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right")
        table.add_row(_line(speed, "bold"), "")
        table.add_row(_line(memory), Text(f" {self.state}", "italic"))
        return table


def _line(pairs: list[tuple[str, str]], style: str = "") -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, (name, value) in enumerate(pairs):
        text.append("  " if number else "")
        if name:
            text.append(f"{name} ", "dim")
        text.append(value, style if number == 0 else "")
    return text


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
