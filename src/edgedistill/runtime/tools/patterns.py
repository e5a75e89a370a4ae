"""Patterns such as ``<function={name}>``, matched against text that may still grow; white space counts for nothing."""

from __future__ import annotations

import functools
import re

_PIECE = re.compile(r"\{(?:name|id|key)\}|[^\s{]+|\{")
_RUN = re.compile(r"[^\s<>{}\[\]()\"'`,=]*")
_SPACE = re.compile(r"\s*")

MAYBE, NO = -1, -2
"""Instead of a position: more text decides; it does not match whatever follows."""


@functools.cache
def _pieces(pattern: str) -> tuple[str, ...]:
    return tuple(_PIECE.findall(pattern))


def skip_space(text: str, at: int) -> int:
    """Where the next character stands that is no white space."""
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def match(pattern: str, text: str, at: int = 0) -> tuple[int, dict[str, str]]:
    """Where ``pattern`` ends that begins at ``text[at]``, or ``MAYBE``, or ``NO``; and what stands in its places."""
    found: dict[str, str] = {}
    for piece in _pieces(pattern):
        at = skip_space(text, at)
        if at >= len(text):
            return MAYBE, found
        if piece in ("{name}", "{id}", "{key}"):
            run = _RUN.match(text, at)
            end = at if run is None else run.end()
            if end == at:
                return NO, found
            if end == len(text):
                return MAYBE, found
            found[piece[1:-1]] = text[at:end]
            at = end
        elif text.startswith(piece, at):
            at += len(piece)
        else:
            return MAYBE if piece.startswith(text[at:]) else NO, found
    return at, found
