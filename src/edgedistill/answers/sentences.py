"""Sentences of a reply: where they end, and the only number or time of day among the words of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgedistill.answers.moments import has_date, only_date, time_key
from edgedistill.answers.quantities import quantity
from edgedistill.answers.spans import core
from edgedistill.answers.typed import Answer, read_span, typed_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

EDGES = " .,;…"
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.^])(?<!\^\()(?:(?<![\d)])[-−]\s?(?=[\d.$€£]))?[$€£]?\s?"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?!\d|\.\d)(?:[eE][+-]?\d{1,2}(?!\w))?(?:\s?/\s?\d+(?:\.\d+)?)?%?"
)
_STOP = re.compile(r"[.!?](?=[*_\"')\]$]*(?:\s|$))|[。！？।]")
_ABBREVIATIONS = frozenset((
    "rs", "rp", "mr", "mrs", "dr", "st", "vs", "ca", "no", "approx", "e.g", "i.e", "fig", "eq", "prof", "jr", "sr", "mt", "ft",
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
))  # fmt: skip
_NAME_AND_INITIAL = re.compile(r"(?:[A-Z][a-z]+|\b[A-Z]\.) [A-Z]$")
_INITIAL = re.compile(r"(?<![\w.])[A-Z]$")
_DAY = re.compile(r"(?<!\S)\d{1,2}$")
_NEXT_INITIAL = re.compile(r"\s[A-Z]\.")
_GOES_ON = re.compile(r"\s[a-z]")
_FACTORIAL = re.compile(r"(?<=[\d)])!(?=\s*[.$*])")
_WORDY = re.compile(
    r"\b(?:not|no|never|cannot|can't|unknown|impossible|least|most|more|less|fewer|between|than|or|nor|from|to|twice|thrice|double|triple|half|"
    r"third|quarter|squared?|bce?|b\.c\.?|ago|o'?clock|(?:is|are|was|were) (?:wrong|incorrect|false)|cubed?|root|power|times|plus|minus|negative|divided)\b|n't\b",
    re.IGNORECASE,
)
_NO_PLAIN_NUMBER = re.compile(
    r"[<>^|{}\[\]\\=]|\bsqrt\b|\bpi\b|[A-Za-z]\d|[A-Za-z]-\d|\d-[A-Z]|\d(?:st|nd|rd|th)\b|\d[:/]|\d ?[ap]\.?m\b|\bdeg [NSEW]\b|['\"] ?:|"
    r"^[\d.,/ ]+\w* (?:due )?(?:north|south|east|west)\w*$|[北南]纬|[东西]经"
)
"""A formula, a name with a number in it, an ordinal, a time, a bearing."""
_TAKEN_BACK = re.compile(
    r"(?:[.!?…—–;,\n-]\s*)(?:(?:oh|hmm|but|or rather)[,.]? )?(?:no[,.…]* wait|no\b(?=,)|wait\b|actually\b|oops\b|sorry\b|i mean\b|correction\b|scratch that\b)"
    r"[,.:…!—–-]*(?:\s+(?:no|wait|actually|it's|it is|it should be|that's|that should be|should be|make that|i meant?)\b[,:]?)*\s+",
    re.IGNORECASE,
)
_TIME = re.compile(r"(?<![\w:.])\d{1,2}(?:[:.]\d{2})?\s?[ap]\.?m\b\.?|(?<=\bat )\d{1,2}:\d{2}(?![\w:])", re.IGNORECASE)
_WHEN = re.compile(
    r"\b(?:before|after|until|till|by|past|every|each|yesterday|tomorrow|(?:mon|tues|wednes|thurs|fri|satur|sun)days?)\b",
    re.IGNORECASE,
)


def first_sentence(line: str) -> str:
    """Up to the end of the sentence; the points of 3.5, p.m. and of initials end none."""
    return next((line[:start] for start, _ in _stops(line)), line)


def _stops(line: str) -> Iterator[tuple[int, int]]:
    """Where sentences end."""
    for stop in _STOP.finditer(line, 1):
        start, end = stop.span()
        if stop.group() == ".":
            before = line[:start][-24:]
            if (
                (_DAY.search(before) and not line.startswith(" May", end) and has_date(before + line[start : end + 24]))
                or re.split(r"[^\w.]", before)[-1].casefold() in _ABBREVIATIONS
                or _NAME_AND_INITIAL.search(before)
                or (_INITIAL.search(before) and _NEXT_INITIAL.match(line, end))
                or _GOES_ON.match(line, end)
            ):
                continue
        elif _FACTORIAL.match(line, start):
            continue
        yield start, end


def last_sentence(line: str) -> str:
    """The last one that says something."""
    start = 0
    for _, end in _stops(line):
        if line[end:].strip(" .*_)$\"'"):
            start = end
    return line[start:].strip()


def only_number(sentence: str, decimal_comma: bool) -> Answer | None:
    """The only number among words that neither deny nor bound it ("he has 12 apples left"); None where the sentence
    says more.
    """
    text = core(sentence)
    found = list(NUMBER.finditer(text))
    if len(found) > 1 and not _WORDY.search(text):  # 2 hours and 30 minutes
        amount = quantity(text[found[0].start() :].strip(EDGES), decimal_comma=decimal_comma)
        return typed_answer("unit", amount[1], sentence) if amount is not None and amount[0] == "unit" else None
    if len(found) != 1 or _WORDY.search(text) or has_date(text) or _NO_PLAIN_NUMBER.search(text):
        return None
    rest = text[found[0].start() :]
    for candidate in (rest, " ".join(rest.split()[:2]), found[0].group()):
        if (typed := quantity(candidate.strip(EDGES), decimal_comma=decimal_comma)) is not None:
            return typed_answer(typed[0], typed[1], sentence)  # type: ignore[arg-type]
    return None


def only_moment(text: str) -> Answer | None:
    """The only date ("he died on 4 July 1776"), or time of day among words that say no more of when it is ("the train
    leaves at 3 pm").
    """
    if (date := only_date(core(text))) is not None and not _WORDY.search(text) and not _WHEN.search(text):
        return Answer("date", date, text)
    times, words = _TIME.findall(core(text)), _TIME.sub("", core(text))
    if len(times) != 1 or re.search(r"\d", words) or _WORDY.search(words) or _WHEN.search(words):
        return None
    key = time_key(times[0])
    return None if key is None else Answer("time", key, text)


def corrected(tail: str) -> Answer | None:
    """What the last words that take an answer back put in its place ("no, wait, it is 6"); None where they put nothing."""
    taken_back = list(_TAKEN_BACK.finditer(tail))
    answer = read_span(first_sentence(tail[taken_back[-1].end() :].partition("\n")[0])) if taken_back else None
    return None if answer is None or answer.type == "text" else answer
