"""From a reply to an answer: what counts as one, where it is looked for, and what is done when there is none.

Reasoning is removed before anything is searched (``answers.extract``); a reply that never closes its reasoning has no
answer.

Must not know: tokens, models, statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.answers.extract import extract
from edgedistill.runtime.text.reasoning import DEFAULT_TAGS, split
from edgedistill.verify.suites.checks import follows

if TYPE_CHECKING:
    from edgedistill.runtime.text.reasoning import TagPair
    from edgedistill.verify.types import AnswerKind, Prompt


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply comes to; the fields are those of ``types.Sample``."""

    kind: AnswerKind
    answer: str | None
    text: str
    unclosed: bool
    correct: bool | None
    loose: bool | None


def read_reply(
    prompt: Prompt,
    text: str,
    *,
    truncated: bool,
    opened: TagPair | None = None,
    tags: tuple[TagPair, ...] = DEFAULT_TAGS,
) -> Reading:
    """Classify a reply and score it.

    Args:
        prompt: Whose extraction rule, gold answer and checks apply.
        text: Everything the model wrote, reasoning included.
        truncated: The reply ended at a limit instead of by itself. It is then of the class "truncated" even if an
            answer
            could be read: an answer that was not finished is not the model's answer.
        opened: The tag pair that the prompt had opened already, if any.
        tags: The tag pairs that mark reasoning.
    """
    parts = split(text, tags, opened=opened)
    scored = prompt.scored
    if truncated or not parts.closed:
        kind: AnswerKind = "truncated" if truncated else "unparsed"
        wrong = False if scored else None
        return Reading(kind, None, parts.answer, not parts.closed, wrong, False if prompt.checks else None)
    if prompt.extract == "checks":
        if not parts.answer:
            return Reading("unparsed", None, "", False, False, False)
        strict, loose = follows(prompt.checks, parts.answer)
        return Reading("parsed", "follows" if strict else "violates", parts.answer, False, strict, loose)
    answer = extract(parts.answer, prompt.extract)
    if answer is None:
        return Reading("unparsed", None, parts.answer, False, False if scored else None, None)
    correct = None if prompt.answer is None else answer == prompt.answer
    return Reading("parsed", answer, parts.answer, False, correct, None)
