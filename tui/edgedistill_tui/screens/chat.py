"""The chat screen: takes a question, lets a thread answer it, draws what has arrived some 15 times a second.

The thread never waits for the screen and the screen never waits for the thread: they meet in a buffer.

Must not know: the runtime; it talks to an ``Engine``.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Static

from edgedistill.conversation import Conversation, Turn
from edgedistill.errors import EdgedistillError
from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.widgets.prompt import Prompt
from edgedistill_tui.widgets.status import StatusBar
from edgedistill_tui.widgets.transcript import ReplyView, Transcript

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from textual.app import ComposeResult
    from textual.timer import Timer

    from edgedistill_tui.buffer import Drained
    from edgedistill_tui.engine import Engine, Reply

FRAMES_PER_S = 15
_ENDINGS = {"cancelled": "stopped", "length": "cut at the token limit", "context": "the context is full"}


class ChatScreen(Screen[None]):
    """One conversation with one engine.

    Args:
        load: Makes the engine; called once in a thread.
        system: System prompt.
    """

    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        Binding("escape", "stop", "Stop"),
        Binding("ctrl+t", "toggle_reasoning", "Reasoning", priority=True),
        Binding("ctrl+n", "new", "New", priority=True),
        Binding("ctrl+s", "save", "Save", priority=True),
        Binding("ctrl+q", "app.quit", "Quit", priority=True),
    ]

    def __init__(self, load: Callable[[], Engine], *, system: str | None = None) -> None:
        super().__init__()
        self.conversation = Conversation(system=system)
        self._title = Static("edgedistill", markup=False, id="title")
        self._transcript = Transcript(id="transcript")
        self._prompt = Prompt()
        self._status = StatusBar()
        self._load = load
        self._engine: Engine | None = None
        self._cancel = threading.Event()
        self._buffer: ReplyBuffer | None = None
        self._view: ReplyView | None = None
        self._timer: Timer | None = None
        self._drawing = False
        self._reasoning_s: float | None = None

    def compose(self) -> ComposeResult:
        """Title, conversation, prompt, status, keys."""
        yield self._title
        yield self._transcript
        yield self._prompt
        yield self._status
        yield Static("Enter send · Esc stop · ^T reasoning · ^N new · ^S save · ^Q quit", markup=False, id="keys")

    def on_mount(self) -> None:
        """Load the model in the background; the prompt can be written in meanwhile."""
        self._status.say("loading the model…")
        self._prompt.focus()
        self._load_engine()

    def on_unmount(self) -> None:
        """Let a running reply end, or the process would wait for it."""
        self._cancel.set()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._engine is not None

    @property
    def busy(self) -> bool:
        """Whether a reply is being written."""
        return self._buffer is not None

    @work(thread=True, exit_on_error=True)
    def _load_engine(self) -> None:
        try:
            engine = self._load()
        except EdgedistillError as error:
            self.app.call_from_thread(self.app.exit, return_code=error.exit_code, message=f"error: {error}")
            return
        self.app.call_from_thread(self._ready, engine)

    def _ready(self, engine: Engine) -> None:
        self._engine = engine
        about = engine.about
        self._title.update(" · ".join(str(v) for v in about.values()))
        self._status.say("ready")

    async def on_prompt_submitted(self, message: Prompt.Submitted) -> None:
        """Ask, unless there is no model yet or it is still answering."""
        if self._engine is None or self.busy:
            self._status.say("still loading…" if self._engine is None else "still answering · Esc stops")
            return
        self._prompt.clear()
        self.conversation.ask(message.text)
        await self._transcript.add_question(message.text)
        self._view = await self._transcript.add_reply()
        self._cancel = threading.Event()
        self._buffer = ReplyBuffer()
        self._reasoning_s = None
        self._generate(self._engine, self._buffer, self._cancel, self.conversation.messages())
        self._timer = self.set_interval(1 / FRAMES_PER_S, self._draw)

    @work(thread=True)
    def _generate(
        self, engine: Engine, buffer: ReplyBuffer, cancel: threading.Event, messages: list[dict[str, Any]]
    ) -> None:
        try:
            buffer.finish(engine.reply(messages, cancel=cancel, on_chunk=buffer.append))
        except Exception as error:
            buffer.fail(error)

    async def _draw(self) -> None:
        if self._buffer is None or self._view is None or self._drawing:
            return
        self._drawing = True
        try:
            await self._draw_new(self._buffer.drain(), self._view)
        finally:
            self._drawing = False

    async def _draw_new(self, new: Drained, view: ReplyView) -> None:
        view.add_reasoning(new.reasoning)
        if new.reasoning_tokens and self._reasoning_s is None:
            if new.answer or new.reply:
                self._reasoning_s = new.seconds
                view.reasoning.settle(new.reasoning_tokens, new.seconds)
            else:
                view.reasoning.progress(new.reasoning_tokens, new.seconds)
        await view.add_answer(new.answer)
        self._status.live(new.tokens, new.tokens_per_s, new.seconds)
        if new.error is None and new.reply is None:
            return
        try:
            if new.reply is not None:
                await self._finished(new.reply, view)
            elif new.error is not None:
                await self._failed(new.error, view)
        finally:
            self._end_drawing()

    async def _finished(self, reply: Reply, view: ReplyView) -> None:
        self.conversation.answer(Turn("assistant", reply.answer, reply.reasoning, reply.finish_reason, reply.stats))
        self._status.final(reply.stats)
        await view.finish(reply.answer, _ENDINGS.get(reply.finish_reason, ""))

    async def _failed(self, error: BaseException, view: ReplyView) -> None:
        if not isinstance(error, EdgedistillError):
            raise error
        self.conversation.withdraw()
        await view.remove()
        await self._transcript.add_notice(f"error: {error}")
        self._status.say("ready")

    def _end_drawing(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._buffer = self._view = self._timer = None

    def action_stop(self) -> None:
        """Stop the reply and keep what there is."""
        if self.busy:
            self._cancel.set()
            self._status.say("stopping…")

    def action_toggle_reasoning(self) -> None:
        """Fold or unfold the reasoning of all replies, after the last one's state."""
        views = list(self.query(ReplyView))
        if views:
            folded = not views[-1].reasoning.collapsed
            for view in views:
                view.reasoning.collapsed = folded

    async def action_new(self) -> None:
        """Start over; not while a reply is written."""
        if self.busy:
            self._status.say("still answering · Esc stops")
            return
        self.conversation.reset()
        await self._transcript.clear()
        self._status.say("new conversation")

    async def action_save(self) -> None:
        """Save the conversation as Markdown in the current directory."""
        if self._engine is None or not self.conversation.turns:
            self._status.say("nothing to save yet")
            return
        path = Path(time.strftime("conversation-%Y%m%d-%H%M%S.md"))
        try:
            self.conversation.save(path, self._engine.about)
        except EdgedistillError as error:
            self._status.say(f"error: {error}")
        else:
            self._status.say(f"saved to {path}")
