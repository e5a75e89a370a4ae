"""Small pieces of Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """Text that may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; empty text if it has no rows. Cells are taken as they are."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, ""]) if lines else ""


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: code in double backticks becomes code, sections such as ``Args:`` are left out."""
    text = re.split(r"\n\s*(?:Args|Attributes|Returns|Raises):\n", docstring or "")[0]
    return re.sub(r"``(.+?)``", r"`\1`", text).strip()
