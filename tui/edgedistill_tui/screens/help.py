"""The help page: what the pages are for, and all keys as they are bound now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widgets import Static

from edgedistill_tui.screens.bindings import all_bindings
from edgedistill_tui.screens.page import Page
from edgedistill_tui.widgets.nav import PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.widget import Widget

_ABOUT = {
    "help": "this page",
    "chat": "talk to the loaded bundle; /help lists commands; the line below shows state, speed, context, memory",
    "sessions": "earlier conversations: search, open, export",
    "bundles": "the models on this machine: inspect, check, open, delete",
    "profiler": "how fast and how large: speed over time, latencies, prefill, memory; earlier runs beside it",
    "ab": "one prompt and seed on two bundles, and where they differ",
    "consistency": "many samples of one prompt: how often the model agrees with itself",
    "settings": "colours, exports, keys",
}


class HelpScreen(Page):
    """One scrolling text."""

    PAGE = "help"

    def body(self) -> Iterator[Widget]:
        """The text."""
        with VerticalScroll(classes="page"):
            yield Static(id="help-text")

    def on_screen_resume(self) -> None:
        """Draw the keys as they are now."""
        self.query_one("#help-text", Static).update(self._text())

    def _text(self) -> Table:
        keys = self.tui.services.config.keys
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True, min_width=12)
        table.add_column(ratio=1)
        bindings = all_bindings()
        for page, page_key, title, _ in PAGES:
            shown = keys.get(f"go.{page}", page_key).upper()
            table.add_row(Text(shown, "bold cyan"), Text.assemble((title, "bold"), f"  {_ABOUT[page]}"))
            for name, (binding, where) in bindings.items():
                if where == page:
                    table.add_row(Text(f"  {_pretty(keys.get(name, binding.key))}"), Text(binding.description, "dim"))
            table.add_row("", "")
        table.add_row(Text("everywhere", "bold cyan"), "")
        for shown, text in (
            ("^P", "the palette: every command by name"),
            (_pretty(keys.get("app.quit", "ctrl+q")), "save and leave"),
            ("^C", "stop what runs; at an empty prompt leave, as ^D does · ^Z suspends"),
            ("Enter", "send · ^J, Alt+Enter or Shift+Enter breaks the line · ^_ undoes"),
            ("Up", "the previous question · ^R finds one by a part of it"),
            ("Tab", "from part to part; the mouse works as well"),
        ):
            table.add_row(Text(f"  {shown}"), Text(text, "dim"))
        return table


def _pretty(keys: str) -> str:
    return " ".join(key.replace("ctrl+", "^").replace("slash", "/") for key in keys.split(","))
