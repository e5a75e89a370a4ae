"""Texts that a user keeps for chats: personas (system prompts) and prompt templates, a Markdown file each.

They lie in the user's configuration directory, as ``personas/NAME.md`` and ``prompts/NAME.md``. A template has
``{text}`` where what is typed behind its name goes; without it that comes last.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

from edgedistill.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["personas", "prompts"]
_LARGEST = 1 << 18


def directory(kind: Kind) -> Path:
    """Where the texts of a kind lie; it need not exist."""
    import platformdirs

    return platformdirs.user_config_path("edgedistill", appauthor=False) / kind


def names(kind: Kind) -> list[str]:
    """The texts that there are, by name."""
    try:
        return sorted(path.stem for path in directory(kind).glob("*.md"))
    except OSError:
        return []


def listing(kind: Kind) -> str:
    """One line with all names, or how to make the first."""
    found = names(kind)
    where = directory(kind)
    what = "a system prompt" if kind == "personas" else "a prompt, with {text} where the rest goes,"
    return ", ".join(found) if found else f"There are no {kind} yet: put {what} into {where / 'NAME.md'}."


def read(kind: Kind, name: str) -> str:
    """The text ``name``.

    Raises:
        UsageError: There is none of that name, or it is not text.
    """
    found = names(kind)
    path = directory(kind) / f"{name}.md"
    if not re.fullmatch(r"[\w.-]+", name) or name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Put it into {directory(kind) / 'NAME.md'}."
        raise UsageError(f"There is no {kind.removesuffix('s')} {name}.", hint=hint)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text ({error}).") from error
    if len(text) > _LARGEST:
        raise UsageError(f"{path} has {len(text)} characters; expected at most {_LARGEST}.")
    return text.strip()


def filled(name: str, text: str) -> str:
    """The prompt template ``name`` with ``text`` in its place; raises UsageError as ``read``."""
    template = read("prompts", name)
    return template.replace("{text}", text) if "{text}" in template else f"{template}\n\n{text}".strip()
