"""The line at the bottom: speed and memory, always in sight.

Must not know: where the numbers come from.
"""

from __future__ import annotations

from typing import Any

from textual.widgets import Static

from edgedistill.units import format_bytes, format_seconds


class StatusBar(Static):
    """One line; what does not fit is cut at the right, so the most wanted numbers come first."""

    def __init__(self) -> None:
        super().__init__("", markup=False, id="status")

    def say(self, text: str) -> None:
        """Any text."""
        self.update(text)

    def live(self, tokens: int, tokens_per_s: float, seconds: float) -> None:
        """While a reply is written."""
        speed = f"{tokens_per_s:.1f} tok/s" if tokens_per_s else "prefill"
        self.update(f"{speed} · {tokens} tok · {seconds:.0f} s · Esc stops")

    def final(self, stats: dict[str, Any]) -> None:
        """The runtime's own numbers of a finished reply."""
        if not stats:
            return
        self.update(
            f"decode {stats['decode_tps']:.1f} tok/s · TTFT {format_seconds(stats['ttft_s'])}"
            f" · KV {format_bytes(stats['kv_bytes'])} · RSS {format_bytes(stats['rss_bytes'])}"
            f" · prefill {stats['prefill_tps']:.0f} tok/s"
        )
