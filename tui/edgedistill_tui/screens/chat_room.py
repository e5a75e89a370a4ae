"""Handles a context that becomes full: warns the user, and offers ways to make room, all of which can be undone."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual import work

from edgedistill.errors import EdgedistillError
from edgedistill_tui.engine import Request
from edgedistill_tui.screens.chat_commands import ChatCommands
from edgedistill_tui.screens.dialogs import Choose

if TYPE_CHECKING:
    from edgedistill_tui.engine import Reply

NEARLY_FULL = 0.85
"""Share of the context at which the user is warned."""
_SUMMARISE = "Summarise our conversation so far in at most 150 words. Keep facts, numbers and decisions."
_SUMMARY_TOKENS = 400


class ChatRoom(ChatCommands):
    """Drops or summarises old messages, or starts a fork."""

    _told_full: int = 0
    _summarising: threading.Event | None = None

    def tell_room(self, tokens: int) -> None:
        """Warn, once a session, when the context is nearly full."""
        length = self.tui.engine.facts.context_length if self.tui.engine is not None else 0
        if length and tokens >= NEARLY_FULL * length and self._told_full != self.session.id:
            self._told_full = self.session.id
            self.notify(
                f"The context is {100 * tokens // length} % full: F10 drops or summarises the oldest turns, or goes on "
                "in a new session.", severity="warning", timeout=12,
            )  # fmt: skip

    @work
    async def action_room(self) -> None:
        """Make room in the context, or take that back."""
        if not self._idle() or not self._may_answer():
            return
        count = sum(message.role == "user" for message in self.session.sent()) // 2
        choices: list[tuple[str, Any]] = []
        if count:
            what = (
                "the oldest question and its reply" if count == 1 else f"the {count} oldest questions and their replies"
            )
            choices = [
                (f"Leave out {what}", self._drop),
                (f"Summarise {what}", self._summarise),
                ("Go on in a new session with the rest", self._go_on),
            ]
        if self.session.kept_from is not None:
            choices.append(("Give the model everything again", self._undo))
        if not choices:
            self.notify("There is one question only: a shorter one, or a bundle with a longer context, makes room.")
            return
        chosen = await self.app.push_screen_wait(Choose("The context", [text for text, _ in choices]))
        if chosen is not None:
            await choices[chosen][1]()
            self.prompt.focus()

    async def _drop(self, summary: str = "") -> None:
        self.session.drop_oldest(summary)
        await self._redraw()

    async def _undo(self) -> None:
        self.session.keep_all()
        await self._redraw()

    async def _go_on(self) -> None:
        old, made = self.session, self.session.fork(self.session.path()[-1])
        made.keep_all()
        made.drop_oldest()
        rest, parent = made.sent(), None
        for message in rest:
            message.parent, parent = parent, message.id
        made.messages = {message.id: message for message in rest}
        made.keep_all()
        made.title = f"{old.title} (continued)"
        await self.tui.show_session(made)
        self.tui.save()

    async def _redraw(self) -> None:
        self._told_full = 0
        await self.show_path()
        self.tui.save()

    async def _summarise(self) -> None:
        """Have the model summarise what is dropped; if it cannot, nothing changes."""
        engine, session = self.tui.engine, self.session
        if engine is None:
            return
        asked = [message for message in session.sent() if message.role == "user"]
        dropped = session.sent()[: session.sent().index(asked[len(asked) // 2])]
        messages = [*session.template_messages(until=dropped[-1]), {"role": "user", "content": _SUMMARISE}]
        generation = self.tui.sampling.generation.replace(max_new_tokens=_SUMMARY_TOKENS)
        sampling = replace(self.tui.sampling, generation=generation, thinking=False, trajectories=1, parallel={})
        cancel = self._summarising = threading.Event()
        self.strip.say("summarising… Esc stops")
        try:
            reply: Reply = await asyncio.to_thread(
                engine.reply, Request(messages, sampling), cancel=cancel, on_chunk=lambda _: None
            )
        except EdgedistillError as error:
            self.notify(f"No summary: {error}", severity="warning", timeout=8)
        else:
            if reply.answer and not cancel.is_set() and session is self.session:
                await self._drop(reply.answer)
            elif not cancel.is_set():
                self.notify("The model wrote no summary; nothing was left out.", severity="warning")
        finally:
            self._summarising = None
            self.strip.say("ready")
