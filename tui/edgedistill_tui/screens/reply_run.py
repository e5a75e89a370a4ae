"""Runs one reply: a thread generates it into a buffer, and ``follow`` draws the buffer and updates the message.

Thread and screen never wait for each other. The message is in the session from the start and is written to disk every
few seconds, so that a killed program loses little.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.tools.execute import result_message
from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.frames import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill_tui.buffer import Drained
    from edgedistill_tui.data.session import Message, Step
    from edgedistill_tui.engine import Engine, Reply, Request
    from edgedistill_tui.tool_desk import ToolDesk
    from edgedistill_tui.widgets.strip import MetricsStrip
    from edgedistill_tui.widgets.transcript import ReplyView

SAVE_S = 2.0


class ReplyRun:
    """Runs one reply into ``message`` and ``view``.

    Args:
        engine, request: The model, and what it is to answer.
        message: Filled as the reply grows; its text so far is what is continued.
        view, strip: Where it is shown.
        save: Writes the session.
        fps: Frames per second at most.
        desk: Runs the calls of tools, whose results the model is then given; None: nothing may be called.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        message: Message,
        view: ReplyView,
        strip: MetricsStrip,
        *,
        save: Callable[[], bool],
        fps: float,
        desk: ToolDesk | None = None,
    ) -> None:
        self.message = message
        self.view = view
        self.error: BaseException | None = None
        self.note = ""
        self._engine, self._request, self._strip, self._save = engine, request, strip, save
        self._fps = fps
        self._cancel = threading.Event()
        self._buffer = ReplyBuffer()
        self._before = (message.reasoning, message.content, message.raw)
        self._settled = bool(message.content)
        self._goes_on = bool(message.raw or message.steps)
        self._desk = desk
        self._rounds = 0
        if desk is not None:
            self._request = replace(request, tools=desk.rounds.tools, tool_choice=desk.rounds.choice_of(0))
        self._saved = time.monotonic()
        view.budget = request.sampling.think_budget

    def start(self) -> None:
        """Begin, in a thread that does not keep the program alive."""
        threading.Thread(target=self._generate, daemon=True, name="reply").start()

    def stop(self) -> None:
        """End the reply and keep what there is."""
        self._cancel.set()

    def _generate(self) -> None:
        try:
            self._buffer.finish(
                self._engine.reply(self._request, cancel=self._cancel, on_chunk=self._buffer.append)
            )  # fmt: skip
        except BaseException as error:
            self._buffer.fail(error)

    async def follow(self) -> None:
        """Draw until the reply has ended; then ``message`` is complete. An error is left in ``error``."""
        try:
            while True:
                new = await self._follow()
                self.error = new.error
                if new.error is not None and not isinstance(new.error, EdgedistillError):
                    self.keep()
                    raise new.error
                self._complete(new)
                if not await self._called(new.reply):
                    break
        except asyncio.CancelledError:  # the program ends in another way than by a key or a signal
            self.cut()
            raise
        await self.view.finish()
        self._save()

    async def _called(self, reply: Reply | None) -> bool:
        """Have the calls of ``reply`` run; whether the model goes on with their results."""
        if self._desk is None or reply is None or not reply.calls or self._cancel.is_set():
            return False
        message, view = self.message, self.view
        asked: Step = {"role": "assistant", "content": message.content}
        if message.reasoning:
            asked["reasoning_content"] = message.reasoning
        asked["tool_calls"] = [
            {"id": call.id, "type": call.type, "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.calls
        ]
        await view.next_round()
        await view.steps.add(asked)
        steps = [asked]
        for call in reply.calls:
            self._strip.say(f"calling {call.name}…")
            steps.append(cast("Step", result_message(call, await self._desk.result(call, self._cancel))))
            await view.steps.add(steps[-1])
        message.steps = [*message.steps, *steps]
        message.reasoning = message.content = message.raw = ""
        message.finish_reason = "cancelled" if self._cancel.is_set() else "interrupted"
        message.dirty = True
        if self._cancel.is_set():
            return False
        self._before, self._settled, self._goes_on = ("", "", ""), False, True
        self._rounds += 1
        self._request = replace(
            self._request, messages=[*self._request.messages, *map(dict, steps)], continuing="",
            tool_choice=self._desk.rounds.choice_of(self._rounds),
        )  # fmt: skip
        self._buffer = ReplyBuffer()
        self.start()
        return True

    async def _follow(self) -> Drained:
        pace = Pace(self._fps)
        while True:
            new = self._buffer.drain()
            await self._draw(new)
            if new.reply is not None or new.error is not None:
                return new
            if time.monotonic() - self._saved > SAVE_S:
                self.keep()
            await asyncio.sleep(pace.wait())

    async def _draw(self, new: Drained) -> None:
        view = self.view
        view.add_reasoning(new.reasoning)
        if new.reasoning_tokens and not self._settled:
            if new.answer.strip() or new.reply:
                self._settled = True
                view.reasoning.settle(new.reasoning_tokens, new.reasoning_s, view.budget)
            else:
                view.reasoning.progress(new.reasoning_tokens, new.reasoning_s, view.budget)
        await view.add_answer(new.answer)
        if new.reply is None:
            self._strip.live(new, self._engine.memory())

    def _complete(self, new: Drained) -> None:
        message, reply = self.message, new.reply
        self.take_text()
        if reply is None:
            message.finish_reason = "cancelled"
            return
        message.finish_reason = reply.finish_reason
        message.stats = _joined(message.stats, reply.stats) if self._goes_on else dict(reply.stats)
        if new.reasoning_tokens:
            message.stats["thought_s"] = new.reasoning_s
        self.note = reply.note

    def cut(self) -> None:
        """End it with what there is, on disk."""
        self.stop()
        self.message.finish_reason = "cancelled"
        self.keep()

    def keep(self) -> None:
        """Put what was written so far on disk."""
        self.take_text()
        self._saved = time.monotonic()
        self._save()

    def take_text(self) -> None:
        """Put what was written so far into the message."""
        reasoning, content, raw = self._before
        message = self.message
        message.reasoning = (reasoning + self._buffer.text("reasoning")).strip()
        message.content = (content + self._buffer.text("answer")).strip()
        message.raw = raw + self._buffer.text()
        message.dirty = True


def _joined(first: dict[str, object], second: dict[str, object]) -> dict[str, object]:
    """Statistics of a reply and its continuation: counts add up, rates are those of the latter."""
    joined = dict(second)
    for name in ("new_tokens", "reasoning_tokens", "decode_s", "wall_s"):
        if name in second:
            joined[name] = float(first.get(name, 0)) + float(second[name])  # type: ignore[arg-type]
            if name.endswith("tokens"):
                joined[name] = int(joined[name])  # type: ignore[call-overload]
    return joined
