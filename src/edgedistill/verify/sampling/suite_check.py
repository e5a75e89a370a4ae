"""Checks a suite before anything is sampled: its format, gold answers and their types, and answers that cannot be read.

A gold answer is *unread* if a reply that states it plainly ("The answer is x", a box around x) would not be scored as
right: then no model could be right on that prompt.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.answers.typed import read_span
from edgedistill.json_codec import encode
from edgedistill.verify.sampling.answers import read_reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgedistill.verify.suites.files import ReadFile
    from edgedistill.verify.types import Prompt

LONG_WORDS = 6
"""Number of words beyond which few replies will state a gold answer word for word."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Unread:
    """A prompt whose right answer would not be recognized, and why."""

    id: str
    gold: str
    reason: str


@dataclass(frozen=True, slots=True)
class SuiteCheck:
    """Result of ``suite check``.

    Attributes:
        records: Of the file.
        prompts, variants: Number of prompts, and of their variants.
        scored: Prompts with a right answer or checks.
        golds: Number of right answers, several of one prompt each counted.
        rules: Number of prompts by the rule by which replies are read. ``types``: of gold answers by their type.
        tags: Number of different tags.
        left_out, unread, long_texts: Prompts that are left out, whose gold answers are unread, or are long texts.
        example: The first prompt, as the model's template gets it.
    """

    name: str
    format: str
    records: int
    prompts: int
    variants: int
    scored: int
    golds: int
    rules: dict[str, int]
    types: dict[str, int]
    tags: int
    left_out: tuple[str, ...]
    unread: tuple[Unread, ...]
    long_texts: tuple[str, ...]
    sha256: str
    example: Prompt

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the example with its messages, gold answers and rule."""
        found: dict[str, Any] = encode(self)
        names = ("id", "messages", "golds", "extract")
        return found | {"example": {name: encode(getattr(self.example, name)) for name in names}}


def check_suite(read: ReadFile) -> SuiteCheck:
    """Check a suite from ``registry.open_suite``."""
    suite = read.suite
    unread = [found for prompt in suite.prompts for found in _unread(prompt)]
    types: Counter[str] = Counter()
    long_texts = []
    for prompt in suite.prompts:
        for gold in prompt.golds if prompt.extract not in ("code", "likelihood") else ():
            kind = "letter" if prompt.choices else _type(gold, prompt)
            types[kind] += 1
            if kind == "text" and len(gold.split()) > LONG_WORDS:
                long_texts.append(prompt.id)
    return SuiteCheck(
        name=suite.name,
        format=read.format,
        records=read.records,
        prompts=len(suite.prompts),
        variants=len(suite.variants),
        scored=sum(prompt.scored for prompt in suite.prompts),
        golds=sum(len(prompt.golds) for prompt in suite.prompts),
        rules=dict(Counter(prompt.extract for prompt in suite.prompts).most_common()),
        types=dict(types.most_common()),
        tags=len({tag for prompt in suite.prompts for tag in prompt.tags}),
        left_out=read.left_out,
        unread=tuple(unread),
        long_texts=tuple(dict.fromkeys(long_texts)),
        sha256=suite.sha256,
        example=suite.prompts[0],
    )


def warnings(read: ReadFile) -> list[str]:
    """Sentences about what cannot be scored, for a run that is about to sample."""
    return sentences(check_suite(read))


def sentences(check: SuiteCheck) -> list[str]:
    """One sentence for each problem of the suite."""
    found = []
    if check.left_out:
        found.append(
            f"{len(check.left_out)} prompts say that they have no right answer, beside others that have one, and are "
            f"left out ({_few(check.left_out)})."
        )
    if check.unread:
        first = check.unread[0]
        found.append(
            f"{len(check.unread)} of {check.golds} right answers cannot be read from a reply, so no reply can be right "
            f"({_few(one.id for one in check.unread)}); the first is {first.gold[:40]!r}: {first.reason}."
        )
    if check.long_texts:
        found.append(
            f"{len(check.long_texts)} right answers are texts of more than {LONG_WORDS} words, which a reply has to "
            f"state word for word ({_few(check.long_texts)})."
        )
    return found


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(f"`{name}`" for name in listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")


def _type(gold: str, prompt: Prompt) -> str:
    if prompt.extract == "text":
        return "text"
    answer = read_span(gold)
    return "text" if answer is None else answer.type


def _unread(prompt: Prompt) -> list[Unread]:
    if prompt.extract in ("checks", "code", "likelihood"):
        return []
    found = []
    for gold in prompt.golds:
        if not any(read_reply(prompt, reply, truncated=False).correct for reply in _replies(prompt, gold)):
            found.append(
                Unread(prompt.id, gold, f"a reply that states it is not read so by the rule `{prompt.extract}`")
            )
    return found


def _replies(prompt: Prompt, gold: str) -> tuple[str, ...]:
    if prompt.extract == "text":
        return (gold,)
    forms = {"boxed": (f"\\boxed{{{gold}}}",), "hash": (f"#### {gold}",)}
    return forms.get(prompt.extract, (f"The answer is {gold}.", f"\\boxed{{{gold}}}", gold))
