"""The letter that a reply to a multiple-choice question chooses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgedistill.answers.anchors import last_anchor
from edgedistill.answers.plain import plain
from edgedistill.answers.typed import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

_LETTER_AT_START = re.compile(
    r"^[\s*_(\[]*([A-Z])(?:[)\].:*_]+(?:\s|$)|\s*[-–—]\s)|^[\s*_]*[(\[]([A-Za-z])[)\]]|^[\s*_]*([a-z])[).]\s"
)
_LETTER_ALONE = re.compile(r"^[\s*_(\[$]*([A-Za-z])[\s*_)\].:$]*$")
_LETTER_NAMED = re.compile(
    r"\b(?:option|choice|answer|opción|option|antwort|вариант|选项|選項|选|選)\s*(?:is\s*)?[\s:*_(\[]*([A-Za-z])(?![\w'])(?!(?<=[aAI]) +(?!(?:is|are|was|and|or|because|since|as|not|but)\b)[a-z])|(?<=[选選])\s*([A-Z])(?![\w'])",
    re.IGNORECASE,
)
_LETTER = re.compile(r"(?<![\w'])[(\[]?([A-HJ-Z])[)\]]?(?![\w'])|[(\[]([A-Za-z])[)\]]|(?<![\w'])(I)(?=[.)\]]*$)")


def chosen_letter(marked: Sequence[str], text: str) -> Answer | None:
    """The letter of a choice: marked, announced, at the head of the reply or of its last line, the last one named.

    Args:
        marked: What the reply has boxed or put behind ``####``; comes before anything else.
        text: The reply.
    """
    for candidate in marked:
        if letter := _letter(candidate):
            return Answer("letter", letter, candidate)
    anchor = last_anchor(text)
    if anchor is not None and (letter := _letter(text[anchor.end :].strip().partition("\n")[0])):
        return Answer("letter", letter, letter)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    alone = _LETTER_ALONE.match(lines[-1])
    if alone is not None:
        return Answer("letter", alone[1].upper(), lines[-1])
    if (named := list(_LETTER_NAMED.finditer(text))) and (letter := next(g for g in named[-1].groups() if g)):
        return Answer("letter", letter.upper(), letter)
    for line in (lines[0], lines[-1]):
        if (found := _LETTER_AT_START.match(line)) is not None:
            letter = next(group for group in found.groups() if group)
            return Answer("letter", letter.upper(), line)
    for line in reversed(lines):
        letters = [next(group for group in groups if group) for groups in _LETTER.findall(line[-4096:]) if any(groups)]
        if "A" in letters and re.search(r"\bA\s+[a-z]", line):  # an article
            letters = [letter for letter in letters if letter != "A"]
        if letters:
            return Answer("letter", letters[-1].upper(), line)
    return None


def _letter(span: str) -> str | None:
    """The letter that a span begins with; a lower-case one only where it cannot be a word."""
    text = plain(span).strip(" *_$.:\"'")
    text = re.sub(r"^(?:option|choice|letter|the|opción|вариант|选项)\s+", "", text, flags=re.IGNORECASE).lstrip(" *_")
    found = re.match(
        r"[(\[]?\s*([A-Za-z])\s*(?:[)\].:,;*_]|$|(?=\s+(?:because|since|as|is|[-–—(])|[^\w\s']))|([A-Z])(?![\w'])(?!\s+[a-z])",
        text,
    )
    if found is None:
        return None
    return (found[1] or found[2]).upper()
