"""A conversation as a tree: every regeneration is a sibling, every edit a fork, and nothing is ever overwritten.

The path from the root to the active leaf is what the screen shows and the model gets.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

from edgedistill.schema import limits

TITLE_LENGTH = 60
MAX_TIME = 1e11
"""Largest time in seconds since 1970 that can be shown as a date."""
Amount = Annotated[float, limits(low=0)]
Count = Annotated[int, limits(low=0)]


class _Ended(TypedDict):
    index: Count
    kind: str
    vote: str | None
    tokens: Count
    text: str


class _Lane(_Ended, total=False):
    confidence: float | None


class _Parallel(TypedDict):
    trajectories: list[_Lane]
    tallies: list[tuple[str, float]]
    winner: int | None
    decided_by: str
    passes: dict[str, str]
    summary: str


class _Function(TypedDict):
    name: str
    arguments: str


class _Call(TypedDict):
    id: str
    type: str
    function: _Function


class _Said(TypedDict):
    role: Literal["assistant", "tool"]
    content: str


class Step(_Said, total=False):
    """A message before an answer: calls of tools, or the result of one."""

    reasoning_content: str
    tool_calls: list[_Call]
    tool_call_id: str
    name: str


class _Stats(TypedDict, total=False):
    new_tokens: Count
    prompt_tokens: Count
    reasoning_tokens: Count
    kv_tokens: Count
    decode_s: Amount
    prefill_s: Amount
    ttft_s: Amount | None
    thought_s: Amount | None
    wall_s: Amount
    decode_tps: Amount | None
    prefill_tps: Amount | None
    parallel: _Parallel


class _About(TypedDict, total=False):
    bundle: str
    hash: str
    model: str
    profile: str


def new_id() -> int:
    """A random id: two programs that write into one database do not collide."""
    return secrets.randbits(62)


@dataclass(slots=True)
class Message:
    """One question or reply.

    Attributes:
        parent: Id of the message before it; None at the root.
        content: The question, or the answer without its reasoning.
        reasoning: The model's reasoning before the answer.
        raw: Everything the model wrote, tags included; ``continue`` continues this text.
        finish_reason: The runtime's; ``interrupted`` for a reply during which the program ended.
        stats: The runtime's GenerationStats as a dict.
        steps: Messages before the answer: calls of tools with what was thought and said before them, and their results.
        about: Bundle, hash and profile that wrote it.
        dirty: Not written to disk yet.
    """

    role: Literal["user", "assistant"]
    content: str
    parent: int | None
    reasoning: str = ""
    raw: str = ""
    finish_reason: str = ""
    stats: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Stats))
    about: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_About))
    steps: list[Step] = field(default_factory=list)
    created: float = field(default_factory=time.time, metadata=limits(low=0, high=MAX_TIME))
    id: int = field(default_factory=new_id)
    dirty: bool = True

    @property
    def can_continue(self) -> bool:
        """Whether the reply ended before the model was done; a reply from several trajectories cannot be continued."""
        ended_early = self.finish_reason in ("cancelled", "interrupted", "length")
        return self.role == "assistant" and ended_early and not self.parallel

    @property
    def parallel(self) -> dict[str, Any]:
        """The trajectories that the reply was chosen from (``lanes.Lanes.record``); empty for a plain reply."""
        found: dict[str, Any] = self.stats.get("parallel", {})
        return found


@dataclass(slots=True)
class Session:
    """A conversation with its own system prompt and sampling settings.

    Attributes:
        settings: ``Sampling.to_dict`` of this session; empty for the bundle's defaults.
        bundle: Path of the bundle that answered last.
        leaf: The last message of the active path.
        withdrawn: Ids of messages that were taken back and may still be on disk.
    """

    title: str = ""
    system: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    bundle: str = ""
    created: float = field(default_factory=time.time, metadata=limits(low=0, high=MAX_TIME))
    updated: float = field(default_factory=time.time, metadata=limits(low=0, high=MAX_TIME))
    leaf: int | None = None
    id: int = field(default_factory=new_id)
    messages: dict[int, Message] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)

    # ---- reading ---------------------------------------------------------------------------------------------

    def path(self) -> list[Message]:
        """The active messages from the first to the leaf."""
        found: dict[int, Message] = {}
        at = self.leaf
        while at is not None and at not in found and (message := self.messages.get(at)) is not None:
            found[at] = message
            at = message.parent
        return list(found.values())[::-1]

    @property
    def kept_from(self) -> Message | None:
        """The first message that the model still gets, if earlier ones were dropped to make room; else None."""
        first = self.messages.get(self.settings.get("kept_from", -1))
        return first if first in self.path() else None

    def sent(self) -> list[Message]:
        """The part of the active path that the model gets."""
        path, first = self.path(), self.kept_from
        return path if first is None else path[path.index(first) :]

    def drop_oldest(self, summary: str = "") -> int:
        """Send only the newer half of the questions to the model from now on; returns the number of dropped ones.

        Nothing is deleted: ``keep_all`` undoes it. ``summary`` of what is dropped is added to the system prompt.
        """
        asked = [message for message in self.sent() if message.role == "user"]
        if len(asked) < 2:
            return 0
        self.settings["kept_from"] = asked[len(asked) // 2].id
        if summary:
            self.settings["summary"] = summary
        return len(asked) // 2

    def keep_all(self) -> bool:
        """Send the whole conversation to the model again; returns whether that changes anything."""
        changed = self.kept_from is not None
        self.settings.pop("kept_from", None)
        self.settings.pop("summary", None)
        return changed

    def siblings(self, message: Message) -> list[Message]:
        """``message`` and its alternatives at this place, oldest first."""
        same = (m for m in self.messages.values() if m.parent == message.parent and m.role == message.role)
        return sorted(same, key=lambda m: (m.created, m.id))

    def template_messages(self, until: Message | None = None) -> list[dict[str, Any]]:
        """The active path in the form chat templates take, up to and with ``until``.

        Earlier reasoning is included as ``reasoning_content``; the template decides whether the model sees it.
        """
        summary = str(self.settings.get("summary", "")) if self.kept_from is not None else ""
        earlier = f"What was said before, in short:\n{summary}" if summary else ""
        system = "\n\n".join(part for part in (self.system, earlier) if part)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        for message in self.sent():
            messages += map(dict, message.steps)
            entry: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.reasoning:
                entry["reasoning_content"] = message.reasoning
            messages.append(entry)
            if message is until:
                break
        return messages

    # ---- growing ---------------------------------------------------------------------------------------------

    def ask(self, content: str) -> Message:
        """Add a question after the leaf; the first one names the session."""
        if not self.title:
            line = " ".join(content.split())
            self.title = line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1] + "…"
        return self._add(Message("user", content, self.leaf))

    def begin_reply(self, question: Message, about: dict[str, Any]) -> Message:
        """Add a reply to ``question``, empty so far; a sibling if there are replies already."""
        return self._add(Message("assistant", "", question.id, finish_reason="interrupted", about=about))

    def edit(self, message: Message, content: str) -> Message:
        """Add another question at the place of ``message`` (a fork); what followed the old question stays with it."""
        return self._add(Message("user", content, message.parent))

    def withdraw(self, message: Message) -> None:
        """Remove a failed message without successors; the previous alternative becomes active again."""
        if any(m.parent == message.id for m in self.messages.values()):
            return
        others = [m for m in self.siblings(message) if m is not message]
        if self.messages.pop(message.id, None) is not None:
            self.withdrawn.add(message.id)
        if self.leaf == message.id:
            self.leaf = self.newest_leaf(others[-1]).id if others else message.parent
        if not self.messages:
            self.title = ""

    def show_sibling(self, message: Message, step: int) -> Message:
        """Make the next (or previous) alternative of ``message`` active, with the newest path below it."""
        same = self.siblings(message)
        chosen = same[(same.index(message) + step) % len(same)]
        self.leaf = self.newest_leaf(chosen).id
        return chosen

    def newest_leaf(self, message: Message) -> Message:
        """The end of the path that was last written below ``message``."""
        seen: set[int] = set()
        while message.id not in seen:
            seen.add(message.id)
            below = [m for m in self.messages.values() if m.parent == message.id]
            message = max(below, key=lambda m: (m.created, m.id), default=message)
        return message

    def break_circles(self) -> None:
        """Make a message a root if a damaged file has it among its own ancestors."""
        whole: set[int] = set()
        for message in self.messages.values():
            trail: list[Message] = []
            at: Message | None = message
            while at is not None and at.id not in whole:
                whole.add(at.id)
                trail.append(at)
                at = None if at.parent is None else self.messages.get(at.parent)
            if at is not None and at in trail:
                trail[-1].parent = None

    def fork(self, until: Message) -> Session:
        """A new session with a copy of the active path up to ``until``."""
        made = Session(f"{self.title} (fork)", self.system, dict(self.settings), self.bundle)
        parent: int | None = None
        for message in self.path():
            copy = Message(
                message.role, message.content, parent, message.reasoning, message.raw, message.finish_reason,
                dict(message.stats), dict(message.about), list(message.steps), message.created,
            )  # fmt: skip
            made.messages[copy.id] = copy
            if message is self.kept_from:
                made.settings["kept_from"] = copy.id
            made.leaf = parent = copy.id
            if message is until:
                break
        return made

    def _add(self, message: Message) -> Message:
        # Siblings are ordered by time; two in one tick of the clock would change places at random.
        latest = max((m.created for m in self.messages.values()), default=0.0)
        message.created = max(message.created, latest + 1e-6)
        self.messages[message.id] = message
        self.leaf = message.id
        return message
