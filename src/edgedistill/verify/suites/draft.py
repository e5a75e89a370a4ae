"""Turns a record of a suite file into a prompt: gold answers in canonical spelling, choices, template, few-shot
examples.

The readers in ``own`` and ``published`` make a ``Draft`` of each record; ``Draft.prompt`` makes the prompt.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from edgedistill.answers.extract import extract
from edgedistill.answers.typed import canonical
from edgedistill.errors import SuiteError
from edgedistill.verify.suites.values import kind, scalar_text
from edgedistill.verify.types import Message, Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.answers.extract import AnswerRule
    from edgedistill.verify.types import Check, Extraction, Variant

MAX_CHOICES = 26
CHOICES = "{prompt}\n\n{choices}\n\nAnswer with the letter of the right choice."
"""Template of a question with choices, unless another one is given."""
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w. -]*)\}")


@dataclass(frozen=True, slots=True)
class Draft:
    """A record as the reader of its format understands it.

    Attributes:
        messages: The conversation; its last message is the question, before a template is applied.
        golds: Right answers as written, the main one first; with ``choices`` one letter.
        solution: A good reply, for few-shot examples.
        wording: The format's own template; None: the question unchanged.
        columns: Further values that a template may use.
        unanswered: The record says that there is no right answer.
    """

    where: str
    id: str
    messages: tuple[Message, ...]
    golds: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    extract: Extraction = "auto"
    solution: str = ""
    wording: str | None = None
    tags: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    tests: str = ""
    tolerance: float | None = None
    variant: Variant | None = None
    variant_of: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    unanswered: bool = False

    def prompt(
        self, template: str | None = None, shots: Sequence[Draft] = (), tolerance: float | None = None
    ) -> Prompt:
        """The prompt, with examples as turns before it. Raises SuiteError for a gold answer that cannot be read."""
        before: list[Message] = []
        for shot in shots:
            before += [*shot.worded(template), Message("assistant", shot.shown())]
        messages = self.worded(template)
        lead = 1 if messages[0].role == "system" else 0
        golds = tuple(dict.fromkeys(self._gold(gold) for gold in self.golds))
        return Prompt(
            id=self.id,
            messages=(*messages[:lead], *before, *messages[lead:]),
            answer=golds[0] if golds else None,
            extract=self.extract,
            tags=self.tags,
            checks=self.checks,
            variant_of=self.variant_of,
            variant=self.variant,
            answers=golds[1:],
            tolerance=self.tolerance if self.tolerance is not None else tolerance,
            choices=self.choices,
            tests=self.tests,
        )

    def worded(self, template: str | None) -> tuple[Message, ...]:
        """The messages, with the template applied to the question. Raises SuiteError for an unknown placeholder."""
        wording = template if template is not None else self.wording
        if wording is None or self.variant == "empty":
            return self.messages
        question = self.messages[-1].content
        values = {**self.columns, "prompt": question, "choices": lettered(self.choices)}

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name not in values:
                raise SuiteError(
                    f"{self.where}: the template names {{{name}}}, and the record has {', '.join(values)}.",
                    hint="Braces hold `prompt`, `choices` or a key of the record.",
                )
            return _shown(values[name])

        return (*self.messages[:-1], Message(self.messages[-1].role, _PLACEHOLDER.sub(value, wording)))

    def shown(self) -> str:
        """The reply in a few-shot example. Raises SuiteError if the record has none."""
        reply = self.solution or (self.golds[0] if self.golds else "")
        if not reply or self.extract == "checks":
            raise SuiteError(f"{self.where}: an example of few-shot prompting needs a right answer; found none.")
        return reply

    def _gold(self, gold: str) -> str:
        if self.extract in ("code", "likelihood") or self.choices:
            return gold
        rule = cast("AnswerRule", self.extract)
        key = extract(gold, rule) if rule in ("text", "choice") else canonical(gold)
        if key is None:
            raise SuiteError(
                f"{self.where}: `answer` is {gold[:40]!r}; expected a final answer that is not empty or an essay."
            )
        return key


def lettered(choices: Sequence[str]) -> str:
    """The choices, one per line, with their letters."""
    return "\n".join(f"{chr(ord('A') + at)}. {choice}" for at, choice in enumerate(choices))


def golds_of(value: Any, key: str, where: str) -> tuple[str, ...]:
    """The right answers in ``value``: one, a list of several, or none for null. Raises SuiteError."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        if not value:
            raise SuiteError(f"{where}: `{key}` is an empty list; expected right answers.")
        return tuple(scalar_text(one, f"{key}[{at}]", where) for at, one in enumerate(value))
    return (scalar_text(value, key, where),)


def chosen(value: Any, choices: Sequence[str], key: str, where: str, *, index: bool = True) -> str:
    """The letter of the right choice: ``value`` is a letter, the text of one choice, or (``index``) its number from 0.

    Raises:
        SuiteError: It is none of these, or the text of several choices; there are more choices than letters.
    """
    if not 2 <= len(choices) <= MAX_CHOICES:
        raise SuiteError(f"{where}: found {len(choices)} choices; expected 2 to {MAX_CHOICES}.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = scalar_text(value, key, where).strip()
    numbered = index and (
        isinstance(value, int) or (text.isdecimal() and len(text) < 4 and text not in map(str.strip, choices))
    )
    if numbered and 0 <= int(text) < len(choices):
        return chr(ord("A") + int(text))
    same = [at for at, choice in enumerate(choices) if choice.strip() == text]
    folded = same or [at for at, choice in enumerate(choices) if canonical(choice) == canonical(text) is not None]
    if len(folded) == 1 and not numbered:
        return chr(ord("A") + folded[0])
    letter = text.strip("().").upper()
    if len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(choices) and not same:
        return letter
    raise SuiteError(
        f"{where}: `{key}` is {text[:40]!r}; expected a letter from A to {chr(ord('A') + len(choices) - 1)}, the text "
        f"of one of the {len(choices)} choices{', or its number from 0' if index else ''}."
    )


def tolerance_of(value: Any, where: str) -> float | None:
    """The value of the key ``tolerance``, which is a text in tables. Raises SuiteError."""
    if value is None:
        return None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        found = repr(value) if isinstance(value, int | float) else kind(value)
        raise SuiteError(f"{where}: `tolerance` is {found}; expected a number from 0.")
    return float(value)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
