"""Writes a session to a file: Markdown with front matter, or JSON."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from edgedistill.errors import OutputError
from edgedistill.safe_text import file_name
from edgedistill_tui.data.config import free_name

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill_tui.data.session import Message, Session


def to_markdown(session: Session) -> str:
    """The active path: front matter with bundle, hash, profile, settings and statistics; reasoning folded."""
    path = session.path()
    lines = [
        "---",
        *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front(session).items()),
        "---",
    ]
    lines += ["", f"# {session.title or 'Conversation'}", ""]
    if session.system:
        lines += ["## System", "", session.system, ""]
    for message in path:
        lines += [f"## {'You' if message.role == 'user' else 'Model'}", ""]
        lines += _trajectories(message) + _steps(message)
        if message.reasoning:
            lines += ["<details><summary>reasoning</summary>", "", message.reasoning, "", "</details>", ""]
        if message.content:
            lines += [message.content, ""]
        if message.finish_reason in ("cancelled", "interrupted"):
            lines += ["*(stopped)*", ""]
    return "\n".join(lines)


def to_json(session: Session) -> str:
    """The whole tree: every sibling and fork, with statistics; ``path`` lists the ids that are active."""
    value = {**front(session), "system": session.system, "path": [m.id for m in session.path()]}
    value["messages"] = [_message(m) for m in sorted(session.messages.values(), key=lambda m: m.created)]
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def front(session: Session) -> dict[str, Any]:
    """Facts about the active path: bundle, settings, statistics."""
    path = session.path()
    replies = [m for m in path if m.role == "assistant"]
    last = replies[-1].about if replies else {}
    stats = [m.stats for m in replies if m.stats]
    seconds = sum(float(s.get("decode_s", 0)) for s in stats)
    tokens = sum(int(s.get("new_tokens", 0)) for s in stats)
    return {
        "title": session.title,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(session.created)),
        "bundle": last.get("bundle", ""),
        "bundle_hash": last.get("hash", ""),
        "model": last.get("model", ""),
        "profile": last.get("profile", ""),
        "settings": session.settings,
        "statistics": {
            "replies": len(replies),
            "tokens": tokens,
            "reasoning_tokens": sum(int(s.get("reasoning_tokens", 0)) for s in stats),
            "decode_tps": round(max(0, tokens - len(stats)) / seconds, 1) if seconds else None,
        },
    }


def save(session: Session, directory: Path, suffix: str) -> Path:
    """Write the session to a new file in ``directory``; ``.json`` is JSON, ``.md`` Markdown. Raises OutputError."""
    text = to_json(session) if suffix == ".json" else to_markdown(session)
    return write_new(directory, time.strftime("conversation-%Y%m%d-%H%M%S"), suffix, text)


def save_as(session: Session, path: Path) -> None:
    """Write the session to ``path``, which must not exist; ``.json`` is JSON, else Markdown. Raises OutputError."""
    text = to_json(session) if path.suffix == ".json" else to_markdown(session)
    try:
        with path.open("x", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise OutputError(f"{path} already exists.", hint="Choose another name.") from error
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.", hint="Choose another path.") from error


def write_new(directory: Path, stem: str, suffix: str, text: str) -> Path:
    """Write ``text`` to a file that did not exist; raises OutputError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = free_name(directory, file_name(stem), suffix)
        with path.open("x", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
    except OSError as error:
        raise OutputError(
            f"Cannot write to {directory}: {error.strerror or error}.", hint="Choose another directory in the settings."
        ) from error
    return path


def _trajectories(message: Message) -> list[str]:
    """The texts of the trajectories, each folded."""
    record = message.parallel
    lines: list[str] = []
    if record:
        lines += [f"*{record['summary']}*", ""]
    for one in record.get("trajectories", ()):
        chosen = ", chosen" if one["index"] == record.get("winner") else ""
        title = f"trajectory {one['index'] + 1}: {one['vote'] or one['kind']}, {one['tokens']} tokens{chosen}"
        lines += [f"<details><summary>{title}</summary>", "", one["text"].strip(), "", "</details>", ""]
    return lines


def _steps(message: Message) -> list[str]:
    """Calls of tools and their results."""
    lines: list[str] = []
    for step in message.steps:
        if step["role"] == "tool":
            lines += [f"*result* `{step['content']}`", ""]
        for call in step.get("tool_calls", ()):
            lines += [f"*calls* `{call['function']['name']}({call['function']['arguments']})`", ""]
    return lines


def _message(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"id": message.id, "parent": message.parent, "role": message.role}
    value |= {"content": message.content, "created": message.created}
    if message.role == "assistant":
        value |= {"reasoning": message.reasoning, "finish_reason": message.finish_reason, "stats": message.stats}
        value["bundle"] = message.about
        if message.steps:
            value["steps"] = message.steps
        if message.parallel:
            value["parallel"] = message.parallel
    return value
