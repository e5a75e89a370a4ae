"""The reasoning of one reply: folded, with a live count in its title.

Reasoning can run to thousands of lines, so it goes to a line-based log and not to Markdown blocks.

Must not know: models, conversations.
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

    def __init__(self) -> None:
        self._log = RichLog(wrap=True, markup=False, highlight=False, auto_scroll=True)
        self._tail = Static("", markup=False, classes="tail")
        self._lines: list[str] = []
        self._open_line = ""
        self._width = 0
        super().__init__(self._log, self._tail, title="thinking…", collapsed=True)

    def append(self, text: str) -> None:
        """Add text of the reasoning."""
        if not self._lines:
            text = text if self._open_line else text.lstrip()
        *finished, self._open_line = (self._open_line + text).split("\n")
        if len(self._open_line) > _FLUSH_AT and (cut := self._open_line.rfind(" ", 0, _FLUSH_AT)) > 0:
            finished.append(self._open_line[:cut])
            self._open_line = self._open_line[cut + 1 :]
        for line in finished:
            self._write(line)
        self._lines += finished
        self._tail.update(self._open_line)

    def _write(self, line: str) -> None:
        self._log.write(Text(line), expand=True)

    def progress(self, tokens: int, seconds: float) -> None:
        """Title while the model reasons."""
        self.title = f"thinking… {tokens} tok, {seconds:.0f} s"

    def settle(self, tokens: int, seconds: float) -> None:
        """Title once it has finished."""
        self.title = f"thought: {tokens} tok, {seconds:.1f} s"

    @property
    def text(self) -> str:
        """All text shown so far."""
        return "\n".join([*self._lines, self._open_line])

    def on_resize(self, event: Resize) -> None:
        """Wrap again: a log wraps lines once, for the width they were written at."""
        if event.size.width == self._width:
            return
        self._width = event.size.width
        self._log.clear()
        for line in self._lines:
            self._write(line)
