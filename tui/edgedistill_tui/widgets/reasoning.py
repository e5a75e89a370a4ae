"""The folded reasoning of one reply, with a live count in its title.

Reasoning can have thousands of lines, so it is drawn as a line-based log and not as Markdown. While it is folded, it is
not laid out at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import Collapsible, RichLog, Static

if TYPE_CHECKING:
    from textual.events import Resize

_FLUSH_AT = 400
"""Characters after which a line without end moves into the log, at a word boundary."""


class ReasoningView(Collapsible):
    """A fold with finished lines in a log and the line being written below it."""

    def __init__(self, *, folded: bool = True) -> None:
        self._log = RichLog(wrap=True, markup=False, highlight=False, auto_scroll=True, min_width=20)
        self._tail = Static("", markup=False, classes="tail")
        self._lines: list[str] = []
        self._open_line = ""
        self._written = 0
        self._width = 0
        super().__init__(self._log, self._tail, title="thinking…", collapsed=folded)

    def append(self, text: str) -> None:
        """Add text of the reasoning."""
        if not self._lines:
            text = text if self._open_line else text.lstrip()
        *finished, self._open_line = (self._open_line + text).split("\n")
        if len(self._open_line) > _FLUSH_AT and (cut := self._open_line.rfind(" ", 0, _FLUSH_AT)) > 0:
            finished.append(self._open_line[:cut])
            self._open_line = self._open_line[cut + 1 :]
        self._lines += finished
        self._show()

    def fill(self, text: str) -> None:
        """Show a finished reasoning."""
        self._lines, self._open_line = text.split("\n"), ""
        self._show()

    def reset(self) -> None:
        """Clear and hide the view until there is reasoning."""
        self._lines, self._open_line, self._written = [], "", 0
        self._log.clear()
        self._tail.update("")
        self.title = "thinking…"
        self.display = False

    def _show(self) -> None:
        """Write what is not in the log yet, if anybody can see it."""
        if self.collapsed:
            return
        for line in self._lines[self._written :]:
            self._log.write(Text(line), expand=True)
        self._written = len(self._lines)
        self._tail.update(self._open_line)
        self._tail.display = bool(self._open_line)

    def _watch_collapsed(self, collapsed: bool) -> None:
        super()._watch_collapsed(collapsed)
        self._show()

    def progress(self, tokens: int, seconds: float, budget: int = 0) -> None:
        """Title while the model reasons."""
        of = f" of {budget}" if budget else ""
        self.title = f"thinking… {tokens}{of} tok, {seconds:.0f} s"

    def settle(self, tokens: int, seconds: float | None = None, budget: int = 0) -> None:
        """Title once it has finished."""
        time = f", {seconds:.1f} s" if seconds is not None else ""
        cut = ", budget used up" if budget and tokens >= budget else ""
        self.title = f"thought: {tokens} tok{time}{cut}"

    @property
    def text(self) -> str:
        """All text so far."""
        return "\n".join([*self._lines, self._open_line] if self._open_line else self._lines)

    def on_resize(self, event: Resize) -> None:
        """Wrap again: a log wraps lines once, for the width they were written at."""
        if event.size.width == self._width:
            return
        self._width = event.size.width
        self._log.clear()
        self._written = 0
        self._show()
