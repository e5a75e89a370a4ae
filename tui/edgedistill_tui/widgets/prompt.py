"""The text area of the prompt: Enter sends; Ctrl+J, Alt+Enter, or Shift+Enter if the terminal reports it, break the
line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.events import Key, Paste


LARGEST_PASTE = 100_000
"""Characters that a text area still lays out while one types; a line of ten times as many takes a second a key."""


class Prompt(TextArea):
    """A small text area that posts ``Submitted``, and ``TooLong`` for a paste that it would be slow with."""

    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        # Without priority: the application would handle it before letters that are still queued for this widget.
        Binding("enter", "submit", "Send", id="prompt.send"),
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "New line", show=False, id="prompt.newline"),
        # As in a shell; the text area's own actions for these keys have other keys, too.
        Binding("ctrl+c", "app.interrupt", "Stop, or leave", show=False),
        Binding("ctrl+d", "end_of_file", "Leave", show=False),
        Binding("ctrl+z", "app.suspend_process", "Suspend", show=False),
        Binding("ctrl+underscore", "undo", "Undo", show=False, id="prompt.undo"),
    ]

    class Submitted(Message):
        """The user pressed Enter on ``text``."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class TooLong(Message):
        """The user pasted ``text``, which is not inserted."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(id="prompt", show_line_numbers=False, compact=True, placeholder="Ask something")
        self.recall: Callable[[], list[str]] = list
        """Earlier questions, the newest first."""
        self._earlier: list[str] = []
        self._place = 0
        self._draft = ""

    async def _on_key(self, event: Key) -> None:
        """Enter is a key of the text area itself and would break the line; ours come first, in the order typed."""
        if event.key in ("enter", "ctrl+j", "shift+enter", "alt+enter"):
            event.stop()
            event.prevent_default()
            if event.key == "enter":
                self.action_submit()
            else:
                self.action_newline()
            return
        await super()._on_key(event)

    async def _on_paste(self, event: Paste) -> None:
        """Textual calls the method of every class: ours has to stop the text area's."""
        if len(event.text) > LARGEST_PASTE:
            event.stop()
            event.prevent_default()
            self.post_message(self.TooLong(event.text))

    def action_submit(self) -> None:
        """Send what is written, if anything."""
        if text := self.text.strip():
            self.post_message(self.Submitted(text))

    def take(self, sent: str) -> None:
        """Remove the text that was sent; keys pressed since then stay."""
        text = self.text.lstrip()
        rest = text[len(sent) :] if text.startswith(sent) else text
        self._place = 0
        self.clear()
        if rest.strip():
            self.insert(rest)

    def action_cursor_up(self, select: bool = False) -> None:
        """Up; in the first line, to the question before."""
        if select or not self.cursor_at_first_line:
            super().action_cursor_up(select)
            return
        if not self._place:
            self._earlier, self._draft = self.recall(), self.text
        self._show_earlier(self._place + 1)

    def action_cursor_down(self, select: bool = False) -> None:
        """Down; in the last line of an earlier question, to the one after it, and at last to the draft."""
        if select or not self._place or not self.cursor_at_last_line:
            super().action_cursor_down(select)
        else:
            self._show_earlier(self._place - 1)

    def _show_earlier(self, place: int) -> None:
        if place <= len(self._earlier):
            self.put(self._earlier[place - 1] if place else self._draft)
            self._place = place

    def put(self, text: str) -> None:
        """Have ``text`` there, and nothing else."""
        self._place = 0
        self.clear()
        self.insert(text)

    async def action_end_of_file(self) -> None:
        """Leave at an empty prompt; in a text, delete the next character."""
        if self.text:
            self.action_delete_right()
        else:
            await self.run_action("app.quit")

    def action_newline(self) -> None:
        """Break the line."""
        self.insert("\n")
