"""Runs the tool calls of a reply: asks the user for permission first, then calls the function in a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Literal

from edgedistill.runtime.tools.execute import run_call
from edgedistill.runtime.tools.rounds import REFUSED, STOPPED, ToolRounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgedistill.runtime.tools.types import ToolCall

Permission = Literal["once", "always"]
_POLL_S = 0.05


class ToolDesk:
    """The tools of a conversation.

    Args:
        rounds: The tools.
        ask: Asks the user about a call; None is a refusal.
        allowed: Names of tools that run without asking in this conversation; grows.
    """

    def __init__(
        self, rounds: ToolRounds, ask: Callable[[ToolCall], Awaitable[Permission | None]], allowed: set[str]
    ) -> None:
        self.rounds = rounds
        self._ask = ask
        self._allowed = allowed

    async def result(self, call: ToolCall, cancel: threading.Event) -> str:
        """The text for the model about ``call``: its result, that it was refused, or that ``cancel`` ended it.

        A running function cannot be stopped; after ``cancel`` its result is ignored.
        """
        if cancel.is_set():
            return STOPPED
        if not self.rounds.unasked and call.name not in self._allowed:
            permission = await self._ask(call)
            if permission is None:
                return REFUSED
            if permission == "always":
                self._allowed.add(call.name)
        results: list[str] = []
        work = threading.Thread(
            target=lambda: results.append(run_call(self.rounds.tools, call)[0]), daemon=True, name="tool"
        )  # fmt: skip
        work.start()
        while work.is_alive():
            if cancel.is_set():
                return STOPPED
            await asyncio.sleep(_POLL_S)
        return results[0] if results else "Error: the tool ended the thread that it ran in."
