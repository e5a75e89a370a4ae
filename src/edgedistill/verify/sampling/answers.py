"""Reads the answer from a reply and scores it.

Reasoning is removed before the answer is searched (``answers.extract``); a reply that never closes its reasoning has no
answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from edgedistill.answers.extract import read
from edgedistill.answers.fit import fit
from edgedistill.answers.typed import read_span
from edgedistill.runtime.text.reasoning import DEFAULT_GRAMMAR, split
from edgedistill.verify.suites.checks import follows
from edgedistill.verify.suites.code import run_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.answers.extract import AnswerRule
    from edgedistill.answers.typed import Answer
    from edgedistill.runtime.text.reasoning import ReasoningGrammar, TagPair
    from edgedistill.verify.types import AnswerKind, Prompt


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read from a reply, with the fields of ``types.Sample``."""

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
    grammar: ReasoningGrammar = DEFAULT_GRAMMAR,
) -> Reading:
    """Classify a reply and score it.

    Args:
        prompt: Its extraction rule, gold answer and checks apply.
        text: Everything the model wrote, reasoning included.
        truncated: The reply ended at a limit. It then has the kind "truncated" even if an answer could be read, since
            the model had not finished.
        opened: The tag pair that the prompt has already opened, if any.
        grammar: The tags of the model's reasoning.
    """
    parts = split(text, grammar, opened=opened)
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
    answer = answer_of(prompt, parts.answer)
    if answer is None:
        return Reading("unparsed", None, parts.answer, False, False if scored else None, None)
    correct = None if prompt.answer is None else answer == prompt.answer
    return Reading("parsed", answer, parts.answer, False, correct, None)


def answer_of(prompt: Prompt, text: str) -> str | None:
    """The key of the answer in a reply without its reasoning; None if no answer can be read.

    If the prompt has a right answer, its type is the type that is searched for, and its form (a unit, a name) is the
    form of the key (``answers.fit``): a key that equals the right answer is right.
    """
    if prompt.extract in ("checks", "likelihood"):
        return None
    if prompt.extract == "code":
        return run_reply(text, prompt)
    gold = read_span(prompt.answer) if prompt.answer is not None else None
    answer = read(text, cast("AnswerRule", prompt.extract), None if gold is None else gold.type)
    if prompt.choices:
        return _chosen(prompt.choices, answer, text)
    if answer is None or prompt.extract == "text" or not prompt.golds:
        return None if answer is None else answer.key
    return fit(answer, prompt.golds, prompt.tolerance)


def _chosen(choices: Sequence[str], answer: Answer | None, text: str) -> str | None:
    """The letter of a choice, also if the reply has the choice's text; None for a letter without a choice."""
    if answer is not None and answer.type == "letter" and ord(answer.key) - ord("A") < len(choices):
        return answer.key
    stated = read(text, "auto", "text")
    texts = [read_span(choice) for choice in choices]
    found = [at for at, one in enumerate(texts) if stated is not None and one is not None and one.key == stated.key]
    return chr(ord("A") + found[0]) if len(found) == 1 else None
