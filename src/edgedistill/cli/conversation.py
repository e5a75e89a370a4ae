"""A conversation as data: turns, the messages a chat template gets, and saving to Markdown or JSON.

The reasoning of earlier answers goes along in each message as ``reasoning_content``; whether the model sees it again
is the chat template's decision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. What follows ``reasoning`` belongs to answers; ``finish_reason`` "cancelled": the user stopped it.

    ``trajectories``: those behind an answer that several gave, each with ``index``, ``kind``, ``vote``, ``tokens`` (a
    number), ``text`` and ``confidence``. ``steps``: the messages before an answer, calls of tools and their results.
    """

    role: Literal["user", "assistant"]
    content: str
    reasoning: str = ""
    finish_reason: str = ""
    stats: dict[str, Any] = field(default_factory=dict)
    trajectories: tuple[dict[str, Any], ...] = ()
    steps: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Conversation:
    """Turns in order under an optional system prompt."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def ask(self, content: str) -> None:
        """Add a question."""
        self.turns.append(Turn("user", content))

    def answer(self, turn: Turn) -> None:
        """Add an answer, complete or stopped."""
        self.turns.append(turn)

    def withdraw(self) -> None:
        """Take back a question that got no answer."""
        if self.turns and self.turns[-1].role == "user":
            self.turns.pop()

    def reset(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()

    def messages(self) -> list[dict[str, Any]]:
        """Messages in the form chat templates take: role, content and, for answers, reasoning_content.

        A question whose answer is empty (no trajectory came to one) is left out together with it.
        """
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for turn in self.turns:
            if turn.role == "assistant" and not (turn.content or turn.reasoning or turn.steps):
                messages.pop()
                continue
            messages += turn.steps
            message: dict[str, Any] = {"role": turn.role, "content": turn.content}
            if turn.reasoning:
                message["reasoning_content"] = turn.reasoning
            messages.append(message)
        return messages

    def to_json(self, about: dict[str, Any]) -> str:
        """The conversation with statistics as JSON; ``about`` describes the bundle."""
        turns = [
            {
                "role": t.role,
                "content": t.content,
                **({"reasoning": t.reasoning} if t.reasoning else {}),
                **({"finish_reason": t.finish_reason, "stats": t.stats} if t.role == "assistant" else {}),
                **({"trajectories": list(t.trajectories)} if t.trajectories else {}),
                **({"steps": list(t.steps)} if t.steps else {}),
            }
            for t in self.turns
        ]
        return json.dumps({**about, "system": self.system, "turns": turns}, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self, about: dict[str, Any]) -> str:
        """The conversation as Markdown with ``about`` as front matter and the reasoning folded."""
        parts = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in about.items()), "---", ""]
        if self.system:
            parts += ["## System", "", self.system, ""]
        for turn in self.turns:
            parts += [f"## {'You' if turn.role == 'user' else 'Model'}", ""]
            for step in turn.steps:
                for call in step.get("tool_calls", ()):
                    parts += [f"*calls* `{call['function']['name']}({call['function']['arguments']})`", ""]
                if step["role"] == "tool":
                    parts += [f"*result* `{step['content']}`", ""]
            if turn.reasoning:
                parts += ["<details><summary>reasoning</summary>", "", turn.reasoning, "", "</details>", ""]
            parts += [turn.content, ""]
            for one in turn.trajectories:
                title = f"trajectory {one['index'] + 1}: {one['vote'] or one['kind']}, {one['tokens']} tokens"
                parts += [f"<details><summary>{title}</summary>", "", one["text"].strip(), "", "</details>", ""]
            if turn.finish_reason == "cancelled":
                parts += ["*(stopped)*", ""]
        return "\n".join(parts)

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write JSON if ``path`` ends in .json, Markdown otherwise; raises OutputError if it exists or cannot be."""
        text = self.to_json(about) if path.suffix == ".json" else self.to_markdown(about)
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except FileExistsError as error:
            raise OutputError(f"{path} already exists.", hint="Choose another name.") from error
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror}.", hint="Choose another path.") from error
