"""The commands of a chat, ``/save FILE`` and the like: the same in the terminal UI and in ``chat --plain``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edgedistill.errors import UsageError
from edgedistill.runtime.text.thinking import EFFORTS, Effort


@dataclass(frozen=True, slots=True)
class Command:
    """What one command is called, what follows it and what it does."""

    name: str
    argument: str
    about: str

    @property
    def usage(self) -> str:
        """As it is typed: ``/save FILE``."""
        return f"/{self.name} {self.argument}".rstrip()


COMMANDS = (
    Command("help", "", "list the commands"),
    Command("reset", "", "forget the conversation (the system prompt stays)"),
    Command("system", "TEXT", "set the system prompt; without TEXT remove it"),
    Command("persona", "NAME", "take the system prompt kept as NAME; without NAME list them"),
    Command("prompt", "NAME TEXT", "fill TEXT into the prompt kept as NAME; without NAME list them"),
    Command("think", "on|off|auto", "have the model reason or not, or leave it to its template"),
    Command("effort", "none|low|medium|high|auto", "how much the model reasons, or leave it to its template"),
    Command("defaults", "", "the bundle's own settings, and no system prompt"),
    Command("tools", "", "list what the model may call"),
    Command("trajectories", "K|off", "let K trajectories vote on every answer, or answer once"),
    Command("save", "FILE", "save the conversation: .json as JSON, anything else as Markdown"),
    Command("stats", "", "statistics of the last answer"),
    Command("exit", "", "leave (also Ctrl-D, or Ctrl-C at the prompt)"),
)
_OTHER_NAMES = {"quit": "exit", "new": "reset", "clear": "reset"}


def listing() -> str:
    """All commands, one a line."""
    width = max(len(command.usage) for command in COMMANDS) + 2
    lines = [f"{command.usage:{width}}{command.about}" for command in COMMANDS]
    lines.append(f"{'//TEXT':{width}}ask /TEXT: a question that begins with a slash")
    return "\n".join([*lines, f"{'@FILE':{width}}in a question: send what is in FILE along (@@ is an @)"])


def matching(text: str) -> list[Command]:
    """The commands that ``text``, typed so far, may become; none where it is a question."""
    name, space, _ = text.removeprefix("/").partition(" ")
    if not text.startswith("/") or text.startswith("//") or "\n" in text:
        return []
    return [command for command in COMMANDS if (command.name == name if space else command.name.startswith(name))]


def parse(text: str) -> tuple[str, str]:
    """(name, rest) of a command, or ("", question).

    Raises:
        UsageError: There is no such command.
    """
    if not text.startswith("/") or text.startswith("//"):
        return "", text.removeprefix("/")
    given, _, rest = text[1:].partition(" ")
    name = _OTHER_NAMES.get(given, given)
    names = [command.name for command in COMMANDS]
    if name not in names:
        near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
        raise UsageError(f"There is no command /{given}. " + (f"Did you mean /{near[0]}?" if near else "See /help."))
    return name, rest.strip()


def as_typed(question: str) -> str:
    """How a question has to be typed so that it is not taken for a command."""
    return f"/{question}" if question.startswith("/") else question


def wish_for_thinking(text: str) -> bool | None:
    """The argument of ``/think``; raises UsageError."""
    wishes = {"on": True, "off": False, "auto": None}
    if text not in wishes:
        raise UsageError("Use /think on, /think off or /think auto.")
    return wishes[text]


def wish_for_effort(text: str) -> Effort | None:
    """The argument of ``/effort``; raises UsageError."""
    found = next((effort for effort in EFFORTS if effort == text), None)
    if found is None and text != "auto":
        raise UsageError(f"Use /effort with one of {', '.join(EFFORTS)} and auto.")
    return found


def number_of_trajectories(text: str) -> int:
    """The argument of ``/trajectories``, 1 for ``off``; raises UsageError."""
    if text != "off" and not (text.isdecimal() and 0 < int(text[:9]) <= 1024):
        raise UsageError("Use /trajectories 8 or /trajectories off.")
    return 1 if text == "off" else int(text)
