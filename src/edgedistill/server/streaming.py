"""Answers as server-sent events, and what to do where the client goes before its answer is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response, StreamingResponse

from edgedistill.server.errors import failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from edgedistill.server.service import Running

IDLE_S = 10.0
"""After so long without news a comment goes out: proxies close connections that say nothing."""

GONE = 499
"""Status (nginx's) of a request whose client has gone; nobody reads it."""

Value = TypeVar("Value")


class EventStream(StreamingResponse):
    """``data: JSON`` for every value, after ``event: TYPE`` if it has a type, then ``data: [DONE]``.

    What computes them ends with the response.
    """

    def __init__(self, values: AsyncIterator[dict[str, Any] | None], running: Running | None = None) -> None:
        """``values``: None for a comment. ``running``: cancelled in the end."""
        super().__init__(
            _lines(values),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them; see ``StreamingResponse``."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._running is not None:
                self._running.cancel()


async def _lines(values: AsyncIterator[dict[str, Any] | None]) -> AsyncIterator[str]:
    try:
        async for value in values:
            yield ": waiting\n\n" if value is None else _line(value)
    except Exception as error:  # the status has been sent: the error is the last event
        yield _line(failure(error).body())
    yield "data: [DONE]\n\n"


def _line(value: dict[str, Any]) -> str:
    name = f"event: {value['type']}\n" if "type" in value else ""
    return f"{name}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def unless_gone(request: Request, work: Awaitable[Value]) -> Value | Response:
    """What ``work`` gives; if the client goes before, it is cancelled, and the response is one that nobody reads."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=GONE)
    finally:
        for one in (task, leaving):
            one.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.gather(task, leaving, return_exceptions=True)


class Trimmer:
    """Text without outer white space, piece by piece: the pieces joined are ``text.strip()``."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certain not to be at either end."""
        text = self._held + text if self._begun else text.lstrip()
        shown = text.rstrip()
        if not shown:
            self._held = text if self._begun else ""
            return ""
        self._begun, self._held = True, text[len(shown) :]
        return shown
