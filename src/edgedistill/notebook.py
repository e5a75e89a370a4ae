"""HTML of results for notebooks; every text is escaped, since models and files wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.safe_text import escape

if TYPE_CHECKING:
    from collections.abc import Sequence


def text(content: str) -> str:
    """A paragraph that keeps its line ends."""
    return f'<div style="white-space: pre-wrap">{escape(content)}</div>'


def folded(title: str, content: str) -> str:
    """A text behind its title; nothing for an empty one."""
    return f"<details><summary>{escape(title)}</summary>{text(content)}</details>" if content else ""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; no header line for no headers."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headers)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if headers else ''}<tbody>{body}</tbody></table>"
