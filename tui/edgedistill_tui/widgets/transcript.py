"""The scrolling conversation: questions, replies while they are written, notices. Messages can have the focus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Markdown, Static

from edgedistill_tui.mathematics import readable
from edgedistill_tui.widgets.answer import Answer
from edgedistill_tui.widgets.reasoning import ReasoningView
from edgedistill_tui.widgets.steps import StepsView
from edgedistill_tui.widgets.trajectories import TrajectoriesView

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widgets.markdown import MarkdownStream

    from edgedistill_tui.data.session import Message

SHOWN = 20_000
"""Characters of a question that are laid out, which has to be done anew at every width."""
PAGE = 20
"""Number of messages that are laid out at first; earlier ones on request."""

ENDINGS = {
    "cancelled": "stopped",
    "interrupted": "interrupted",
    "length": "cut at the token limit",
    "context": "the context is full",
}


class Transcript(VerticalScroll):
    """Messages from top to bottom; follows the end unless the reader scrolled up."""

    can_focus = True
    BINDINGS = [Binding("home", "screen.earlier", "Earlier messages", show=False)]  # noqa: RUF012

    def on_mount(self) -> None:
        """Stick to the end while text arrives."""
        self.anchor()

    async def add_notice(self, text: str, *, kind: str = "") -> None:
        """Show a line that is nobody's message."""
        await self.mount(Static(text, markup=False, classes=f"notice {kind}"))

    async def clear(self) -> None:
        """Remove all messages."""
        await self.remove_children()
        self.anchor()


class MessageView(Vertical):
    """A message that can have the focus."""

    can_focus = True

    def __init__(self, message: Message, place: tuple[int, int], *, classes: str) -> None:
        """``place``: its number among its alternatives and how many there are."""
        super().__init__(classes=f"message {classes}")
        self.message = message
        self.place = place

    @property
    def alternatives(self) -> str:
        """``‹ 2/3 ›``, or nothing where there is no choice."""
        number, count = self.place
        return f"‹ {number}/{count} ›" if count > 1 else ""


class QuestionView(MessageView):
    """What the user asked."""

    def __init__(self, message: Message, place: tuple[int, int]) -> None:
        super().__init__(message, place, classes="question")

    def compose(self) -> ComposeResult:
        """The text, and which of its edits this is."""
        text = self.message.content
        if (left := len(text) - SHOWN) > 0:
            text = f"{text[:SHOWN]}…\n({left:,} more characters, which the model has been given)"
        yield Static(text, markup=False, classes="text")
        if self.alternatives:
            yield Static(self.alternatives, markup=False, classes="tag")


class ReplyView(MessageView):
    """One reply: folded reasoning above the answer in Markdown, and a line on how it ended and what it took."""

    def __init__(self, message: Message, place: tuple[int, int], *, folded: bool = True) -> None:
        super().__init__(message, place, classes="reply")
        self.steps = StepsView(message.steps)
        self.reasoning = ReasoningView(folded=folded)
        self._markdown = Answer(readable(message.content), classes="answer")
        self._tag = Static("", markup=False, classes="tag")
        self._stream: MarkdownStream | None = None
        self.budget = 0
        self.live = False
        self.trajectories = TrajectoriesView(message.parallel) if message.parallel else None

    def compose(self) -> ComposeResult:
        """Trajectories where there were any, calls of tools, reasoning, answer, tag."""
        if self.trajectories is not None:
            yield self.trajectories
        yield self.steps
        self.reasoning.display = bool(self.message.reasoning)
        yield self.reasoning
        yield self._markdown
        yield self._tag

    def on_mount(self) -> None:
        """Show a message from the past as it ended."""
        if self.message.reasoning:
            self.reasoning.fill(self.message.reasoning)
            self.reasoning.settle(
                int(self.message.stats.get("reasoning_tokens", 0)), self.message.stats.get("thought_s")
            )
        self._say(self.message)

    def begin(self) -> None:
        """Text is coming from now on: how an earlier part ended says nothing any more."""
        self.live = True
        if self.is_mounted:
            self._say(self.message)

    async def show_trajectories(self, record: dict[str, Any], *, live: bool) -> None:
        """Draw the trajectories as they are now, above the answer."""
        if self.trajectories is None:
            self.trajectories = TrajectoriesView(record, live=live)
            await self.mount(self.trajectories, before=0)
        else:
            self.trajectories.show(record, live=live)

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
            text = text.lstrip() if not self._markdown.source else text
            if not text:
                return
            self._stream = Markdown.get_stream(self._markdown)
        await self._stream.write(text)

    async def finish(self) -> None:
        """The message is complete: lay the answer out once more as a whole, and show how it ended."""
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None
        await self._markdown.update(readable(self.message.content))
        self.live = False
        self._say(self.message)

    async def next_round(self) -> None:
        """What was thought and said is among the steps now; the model goes on."""
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None
        await self._markdown.update("")
        self.reasoning.reset()

    def _say(self, message: Message) -> None:
        ending = ENDINGS.get(message.finish_reason, "")
        if ending and message.can_continue:
            ending += " · ^G continues"
        parts = [self.alternatives] if self.live else [self.alternatives, ending, _cost(message.stats)]
        self._tag.update(" · ".join(part for part in parts if part))
        self._tag.display = any(parts)


def _cost(stats: dict[str, Any]) -> str:
    if not stats.get("new_tokens"):
        return ""
    seed = stats.get("seed")
    return f"{stats['new_tokens']} tok at {stats.get('decode_tps', 0):,.0f} tok/s" + (f" · seed {seed}" if seed else "")
