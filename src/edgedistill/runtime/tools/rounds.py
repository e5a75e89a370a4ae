"""What replies may call, round by round, and what the model is told of calls that do not run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgedistill.runtime.tools.types import Tool

REFUSED = "The user did not allow this call."
STOPPED = "The user stopped this call."


@dataclass(frozen=True, slots=True)
class ToolRounds:
    """Tools, and how they are used.

    Attributes:
        tools: What may be called.
        choice: ``auto`` (as None), ``required``, or the name of the tool that the first reply has to call.
        most: Replies with calls, after which the model has to answer.
        unasked: Every call runs without asking the user.
    """

    tools: tuple[Tool, ...] = ()
    choice: str | None = None
    most: int = 8
    unasked: bool = False

    def choice_of(self, number: int) -> str | dict[str, Any]:
        """``tool_choice`` of the reply after ``number`` replies with calls."""
        if number >= self.most:
            return "none"
        if number or self.choice in (None, "auto"):
            return "auto"
        return "required" if self.choice == "required" else {"type": "function", "function": {"name": self.choice}}

    def listing(self) -> str:
        """The tools, one a line."""
        if not self.tools:
            return "There are no tools. Start with --tools FILE.py or --mcp COMMAND."
        width = max(len(tool.name) for tool in self.tools) + 2
        return "\n".join(f"{tool.name:{width}}{tool.description.partition(chr(10))[0]}".rstrip() for tool in self.tools)
