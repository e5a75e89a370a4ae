"""Tool calls above an answer: reasoning and text before each call, its arguments, and its result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.widgets import Static

from edgedistill_tui.mathematics import readable
from edgedistill_tui.widgets.answer import Answer
from edgedistill_tui.widgets.reasoning import ReasoningView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.widget import Widget

    from edgedistill_tui.data.session import Step

_LINES, _CHARACTERS = 6, 600
"""Lines and characters of a result that are shown; the session has all of it."""


def called(name: str, arguments: str) -> str:
    """A call as a line: ``weather(city="Rome", days=2)``."""
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        return f"{name}({arguments})"
    if not isinstance(given, dict):
        return f"{name}({arguments})"
    return f"{name}({', '.join(f'{key}={json.dumps(value, ensure_ascii=False)}' for key, value in given.items())})"


class StepsView(Vertical):
    """The messages before an answer; not there while there are none."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__(classes="steps")
        self._first = list(steps)
        self.display = bool(steps)

    def compose(self) -> ComposeResult:
        """Those of a message from the past."""
        for step in self._first:
            yield from _shown(step)

    async def add(self, step: Step) -> None:
        """One more."""
        self.display = True
        await self.mount_all(_shown(step))


def _shown(step: Step) -> list[Widget]:
    if step["role"] == "tool":
        return [Static(_short(step["content"]), markup=False, classes="result")]
    widgets: list[Widget] = []
    if thought := step.get("reasoning_content"):
        reasoning = ReasoningView()
        reasoning.title = "thought before the call"
        reasoning.fill(thought)
        widgets.append(reasoning)
    if step["content"]:
        widgets.append(Answer(readable(step["content"]), classes="said"))
    calls = [called(call["function"]["name"], call["function"]["arguments"]) for call in step.get("tool_calls", ())]
    return widgets + [Static(f"→ {call}", markup=False, classes="call") for call in calls]


def _short(result: str) -> str:
    lines = result[:_CHARACTERS].splitlines()[:_LINES]
    shown = "\n".join(lines)
    return f"← {shown}" if len(shown) >= len(result.rstrip()) else f"← {shown} … ({len(result):,} characters)"
