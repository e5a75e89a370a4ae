"""Checks conditions on a reply that a program can decide, such as its number of words, strictly or loosely.

The kinds are the toolkit's own, similar to those of IFEval (Zhou et al., arXiv 2311.07911), and IFEval's (``ifeval``).
Loose scoring forgives what chat models often add: a first line of introduction, a last line of farewell, Markdown
emphasis. A check holds loosely if it holds for any of the eight combinations of leaving these out.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING

from edgedistill.errors import SuiteError
from edgedistill.verify.suites import ifeval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.verify.types import Check

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?\s][^.!?]*(?:[.!?]+|$)")
_BULLET = re.compile(r"^\s*[-*•]\s+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^\s*(\d+)[.)]\s+\S", re.MULTILINE)
_FENCE = re.compile(r"^```[a-z]*\n(.*)\n```$", re.DOTALL)


def words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits, with apostrophes and hyphens inside words."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """Sentences, cut at full stops, question and exclamation marks."""
    return [found.strip() for found in _SENTENCE.findall(text) if _WORD.search(found)]


def paragraphs(text: str) -> list[str]:
    """Paragraphs, cut at empty lines."""
    return [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _count(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _json(text: str, keys: Sequence[str]) -> bool:
    fenced = _FENCE.match(text.strip())
    try:
        value = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


def _numbered(text: str, n: int) -> bool:
    return [int(number) for number in _NUMBERED.findall(text)] == list(range(1, n + 1))


def _one_of(text: str, options: Sequence[str]) -> bool:
    return text.strip().rstrip(".!").strip().casefold() in {option.casefold() for option in options}


OWN: dict[str, tuple[tuple[str, ...], Callable[[str, Check], bool]]] = {
    "words-at-least": (("n",), lambda text, c: len(words(text)) >= c.get("n")),
    "words-at-most": (("n",), lambda text, c: len(words(text)) <= c.get("n")),
    "sentences": (("n",), lambda text, c: len(sentences(text)) == c.get("n")),
    "paragraphs": (("n",), lambda text, c: len(paragraphs(text)) == c.get("n")),
    "lines": (("n",), lambda text, c: len(_lines(text)) == c.get("n")),
    "bullets": (("n",), lambda text, c: len(_BULLET.findall(text)) == c.get("n")),
    "numbered-list": (("n",), lambda text, c: _numbered(text, c.get("n"))),
    "lowercase": ((), lambda text, _: any(map(str.isalpha, text)) and text == text.lower()),
    "uppercase": ((), lambda text, _: any(map(str.isalpha, text)) and text == text.upper()),
    "contains": (("words",), lambda text, c: all(_count(text, word) for word in c.get("words"))),
    "avoids": (("words",), lambda text, c: not any(_count(text, word) for word in c.get("words"))),
    "word-count": (("word", "n"), lambda text, c: _count(text, c.get("word")) == c.get("n")),
    "starts-with": (("text",), lambda text, c: text.casefold().startswith(c.get("text").casefold())),
    "ends-with": (("text",), lambda text, c: text.rstrip().casefold().endswith(c.get("text").casefold())),
    "quoted": ((), lambda text, _: len(text) > 2 and text[0] in '"“' and text[-1] in '"”'),
    "no-commas": ((), lambda text, _: "," not in text),
    "no-digits": ((), lambda text, _: not any(map(str.isdigit, text))),
    "no-letter": (("letter",), lambda text, c: c.get("letter").casefold() not in text.casefold()),
    "json": (("keys",), lambda text, c: _json(text, c.get("keys"))),
    "title": ((), lambda text, _: re.match(r"<<[^<>\n]+>>", text) is not None),
    "placeholders": (("n",), lambda text, c: len(re.findall(r"\[[^\[\]\n]+\]", text)) >= c.get("n")),
    "separator": (("text",), lambda text, c: _halves(text, c.get("text"))),
    "one-of": (("options",), lambda text, c: _one_of(text, c.get("options"))),
    "comma-list": (("n",), lambda text, c: len([part for part in text.split(",") if words(part)]) == c.get("n")),
}
"""Kind of check: names of its parameters, and the test on the text (outer white space stripped)."""
KINDS = {**OWN, **ifeval.IFEVAL}


def _halves(text: str, separator: str) -> bool:
    parts = text.split(separator)
    return len(parts) == 2 and all(words(part) for part in parts)


INTEGERS = {"n"} | ifeval.INTEGERS
LISTS = {"words", "keys", "options"} | ifeval.LISTS


def validate(check: Check) -> None:
    """Raises SuiteError for an unknown kind, or parameters that are missing, unknown or of the wrong type."""
    if check.kind not in KINDS:
        raise SuiteError(f"Check `{check.kind}` is unknown; expected one of {', '.join(sorted(KINDS))}.")
    ifeval.require(check.kind)
    expected, given = set(KINDS[check.kind][0]), dict(check.parameters)
    if set(given) != expected:
        wanted = ", ".join(f"`{name}`" for name in sorted(expected)) or "none"
        found = ", ".join(f"`{name}`" for name in sorted(given)) or "none"
        raise SuiteError(f"Check `{check.kind}` has the parameters {found}; expected {wanted}.")
    for name, value in given.items():
        if name in INTEGERS:
            good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            form = "a whole number from 0"
        elif name in LISTS:
            good = isinstance(value, tuple) and len(value) > 0 and all(isinstance(v, str) and v for v in value)
            form = "a list of texts"
        elif name in ifeval.CHOICES:
            good, form = value in ifeval.CHOICES[name], " or ".join(map(repr, ifeval.CHOICES[name]))
        else:
            good, form = isinstance(value, str) and value != "", "a text"
        if not good:
            raise SuiteError(f"Check `{check.kind}`: `{name}` is {value!r}; expected {form}.")


def holds(check: Check, text: str) -> bool:
    """Whether a check holds for ``text``, strictly. No check holds for an empty text."""
    stripped = text.strip()
    return bool(stripped) and KINDS[check.kind][1](text if check.kind in ifeval.IFEVAL else stripped, check)


def follows(checks: Sequence[Check], text: str) -> tuple[bool, bool]:
    """Whether all checks hold, (strictly, loosely). Loosely, each check may hold on another variant of the text."""
    strict = all(holds(check, text) for check in checks)
    if strict:
        return True, True
    variants = _loosened(text)
    return False, all(any(holds(check, variant) for variant in variants) for check in checks)


def _loosened(text: str) -> list[str]:
    lines = text.strip().split("\n")
    variants = []
    for first, last, emphasis in itertools.product((False, True), repeat=3):
        kept = lines[1 if first else 0 : len(lines) - 1 if last else len(lines)]
        variant = "\n".join(kept).strip()
        variants.append(variant.replace("**", "").replace("*", "") if emphasis else variant)
    return variants
