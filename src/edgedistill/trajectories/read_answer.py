"""The answer of one reply, for a vote.

Must not know: tokens, other trajectories.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgedistill.answers.extract import AnswerRule, extract

if TYPE_CHECKING:
    from edgedistill.trajectories.options import AnswerForm

_MARKED: tuple[AnswerRule, ...] = ("boxed", "hash", "phrase")
_LIST_MARKER = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


def read_answer(text: str, form: AnswerForm) -> str | None:
    """The canonical answer of a reply without its reasoning; None where it has none.

    ``auto`` takes an answer that is marked as one (boxed, ####, "the answer is") from anywhere, a bare number from the
    last line only, and not the number of a list's entry: what is voted on comes from any user, and a number somewhere
    in a letter or a list is no answer. Suites, which ask for numbers, use the plain rules of ``answers.extract``.
    """
    if form == "free":
        return None
    if form != "auto":
        return extract(text, form)
    for rule in _MARKED:
        found = extract(text, rule)
        if found is not None:
            return found
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or _LIST_MARKER.match(lines[-1]):
        return None
    return extract(lines[-1], "number")
