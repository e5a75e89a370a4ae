"""Where a text states its answer.

Order of ``auto``: the last balanced ``\\boxed{...}``, ``#### x``, "the answer is x", the last number. Reasoning has to
be removed from the text before.

Must not know: tokens, models, suites, votes.
"""

from __future__ import annotations

import re
from typing import Literal

from edgedistill.answers.canonical import canonical, parse_number, plain_fractions

AnswerRule = Literal["auto", "boxed", "hash", "phrase", "number", "choice", "text"]
"""How an answer is taken from a text; see ``extract``."""

_BOXED = re.compile(r"\\f?boxed\s*\{")
_HASH = re.compile(r"####[ \t]*([^\n]+)")
_PHRASE = re.compile(
    r"\b(?:the\s+(?:final\s+)?answer\s*(?:is|=)|(?:final\s+)?answer\s*(?:is|[:=]))(?=\W)[\s:*_]*", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<!\d)\.(?=\s|$)|(?<=\d)\.(?=\s|$)|;|\s+(?:because|since|so|which|as)\b")
_NUMBER = re.compile(
    r"(?<![\w.])(?:[-−]\s?(?=[\d.$€£]))?[$€£]?\s?"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,2}(?!\w))?"
    r"(?:\s?/\s?\d+(?:\.\d+)?)?"
)
_CHOICE = re.compile(r"(?<![A-Za-z])\(?([A-J])\)?(?![A-Za-z'])")
_SPACES = re.compile(r"\s+")


def extract(text: str, rule: AnswerRule = "auto") -> str | None:
    """The canonical answer in ``text`` (reasoning removed already); None where there is none.

    ``auto`` tries boxed, hash, phrase, number in this order; ``choice`` is the letter of a multiple-choice question;
    ``text`` is the whole text with case and white space folded.
    """
    if rule == "text":
        return _SPACES.sub(" ", text).strip().casefold() or None
    if rule == "choice":
        return _choice(text)
    finders = {"boxed": _boxed, "hash": _hash, "phrase": _phrase, "number": _last_number}
    for name in finders if rule == "auto" else (rule,):
        found = finders[name](text)
        if found is not None:
            return found
    return None


def boxed_contents(text: str) -> list[str]:
    """The contents of every balanced ``\\boxed{...}``, in order of their closing; nested ones count once, as the
    outer.
    """
    contents, start = [], 0
    while (found := _BOXED.search(text, start)) is not None:
        depth, at = 1, found.end()
        while at < len(text) and depth:
            if text[at] == "\\":  # an escaped brace is not a brace
                at += 2
                continue
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        if depth == 0:
            contents.append(text[found.end() : at - 1])
            start = at
        else:
            start = found.end()
    return contents


def _boxed(text: str) -> str | None:
    contents = boxed_contents(text)
    return canonical(contents[-1]) if contents else None


def _hash(text: str) -> str | None:
    found = _HASH.findall(text)
    return canonical(found[-1]) if found else None


def _phrase(text: str) -> str | None:
    tails = _phrase_tail(text)
    if not tails:
        return None
    tail = tails[0]
    cut = _SENTENCE_END.search(tail)
    tail = tail[: cut.start()] if cut else tail
    # "the answer is about 40 apples": a number in the phrase is the answer, words around it are not.
    numbers = _numbers(tail)
    whole = canonical(tail)
    if whole is None or not numbers or parse_number(whole) is not None or "\\" in whole or whole[0] in "([":
        return whole
    return canonical(numbers[-1])


def _phrase_tail(text: str) -> list[str]:
    """What follows the last "the answer is" on its line (a line may state an answer, doubt it and state another)."""
    ends = [found.end() for found in _PHRASE.finditer(text)]
    return [text[end:].partition("\n")[0] for end in ends[-1:]]


def _numbers(text: str) -> list[str]:
    return [found.group() for found in _NUMBER.finditer(plain_fractions(text))]


def _last_number(text: str) -> str | None:
    numbers = _numbers(text)
    return canonical(numbers[-1]) if numbers else None


def _choice(text: str) -> str | None:
    for candidates in (boxed_contents(text)[-1:], _HASH.findall(text)[-1:], _phrase_tail(text), [text]):
        letters = [letter for part in candidates for letter in _CHOICE.findall(part)]
        if letters:
            return str(letters[0] if candidates != [text] else letters[-1])
    return None
