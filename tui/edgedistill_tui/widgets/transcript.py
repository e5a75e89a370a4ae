"""The scrolling conversation: questions, replies that grow, notices.

Must not know: models, threads, where the text comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical, VerticalScroll
from textual.widgets import Markdown, Static

from edgedistill_tui.widgets.reasoning import ReasoningView

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widgets.markdown import MarkdownStream


class Transcript(VerticalScroll):
    """Messages from top to bottom; follows the end unless the reader scrolled up."""

    can_focus = True

    def on_mount(self) -> None:
        """Stick to the end while text arrives."""
        self.anchor()

    async def add_question(self, text: str) -> None:
        """Show what the user asked."""
        await self.mount(Static(text, markup=False, classes="question"))

    async def add_reply(self) -> ReplyView:
        """Show an empty reply to fill."""
        view = ReplyView()
        await self.mount(view)
        return view

    async def add_notice(self, text: str) -> None:
        """Show a line that is nobody's message."""
        await self.mount(Static(text, markup=False, classes="notice"))

    async def clear(self) -> None:
        """Remove all messages."""
        await self.remove_children()


class ReplyView(Vertical):
    """One reply: folded reasoning above the answer in Markdown, and a tag if it did not end by itself."""

    def __init__(self) -> None:
        super().__init__(classes="reply")
        self.reasoning = ReasoningView()
        self._markdown = Markdown("", classes="answer")
        self._tag = Static("", markup=False, classes="tag")
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        """Reasoning, answer, tag."""
        self.reasoning.display = False
        self._tag.display = False
        yield self.reasoning
        yield self._markdown
        yield self._tag

    def add_reasoning(self, text: str) -> None:
        """More reasoning; the fold appears with the first."""
        if text:
            self.reasoning.display = True
            self.reasoning.append(text)

    async def add_answer(self, text: str) -> None:
        """More of the answer."""
        if not text:
            return
        if self._stream is None:
            self._stream = Markdown.get_stream(self._markdown)
        await self._stream.write(text)

    async def finish(self, answer: str, tag: str = "") -> None:
        """The reply is complete: lay the answer out once more as a whole, and show how it ended if not by itself."""
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None
        await self._markdown.update(answer)
        self._tag.update(tag)
        self._tag.display = bool(tag)
