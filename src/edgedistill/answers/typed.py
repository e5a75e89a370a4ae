"""The type of an answer and its key: equal keys, equal answers.

The whole span is typed. What is none of the types of numbers and formulas is text; nothing is reduced to a number
inside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from edgedistill.answers.expression import expression_key
from edgedistill.answers.plain import plain
from edgedistill.answers.quantities import MAX_LENGTH, date_key, quantity, ratio_key, time_key

AnswerType = Literal[
    "number", "fraction", "list", "set", "tuple", "interval", "relation", "expression", "date", "time", "ratio", "money",
    "percent", "unit", "letter", "text",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its ``type``, the ``key`` that equal answers share, and the ``span`` of the reply that it was read
    from.
    """

    type: AnswerType
    key: str
    span: str


_OUTER = " \t\r\n.,;:!?\"'`*_…。"
_RELATION = re.compile(r"<=|>=|!=|~=|->|[<>=]|\bin\b(?= ?(?:[(\[{]|[A-Z]\b))")
_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_HEDGE = re.compile(
    r"(?:approximately|approx\.?|about|around|roughly|nearly|exactly|equal to|equals|simply|just|only|therefore|thus|hence|so|"
    r"ungefähr|etwa|circa|ca\.|aproximadamente|unos|environ|cerca de|circa|примерно|около|约|大约|約|およそ|약|प्रायः|लगभग|khoảng|ประมาณ|"
    r"yaklaşık|sekitar|حوالي|تقريبا|~=|~|that|there (?:are|is)|it is|it's|they are|given by|option|choice|réponse|"
    r"the (?:number|integer|value|fraction|letter|option|choice))(?=[\s\d$\\(:]|(?<=\W))[ :]*",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"(?<=\S)\s+[(\[（]([^()\[\]（）]*)[)\]）]\s*[.。]?$")
_ASIDE_WORD = re.compile(
    r"(?<![^\W\d_])(?!(?:sqrt|sin|cos|tan|log|pi|ln|exp|mod|alpha|beta|theta|deg|infinity)\b)[^\W\d_]{2,}"
)
_CLAUSE = re.compile(
    r",?\s+(?:because|since|which|rounded|where|as (?:the|we|it)|after|given that|weil|porque|parce que|car|потому что|because of|"
    r"so (?:the|it|we|that)|when|for (?:all|every|any))\b|,\s+(?:so|as|and so|or (?:about|approximately|roughly)|not|if|with|where|but)\s|"
    r"\s[—–]\s(?=[^\W\d])|[，,](?=因为|所以|即|也就是)"
)
_SUFFIX = re.compile(
    r"(?:です|でした|だ|である|になります|となります|입니다|이다|이에요|예요|입니다|ครับ|ค่ะ| है| हैं|'[dt][ıiuü]r|\s+olur|。)+[.。\s]*$"
)
_LETTER = re.compile(
    r"[(\[]?\s*([A-Za-z])\s*[)\]]?[.:]?|\(\s*([A-Z])\s*\)\s*[-–:.]?\s+(?!(?:and|or|und|oder|y|o|et|ou|и|или|&)\s*\(?[A-Z]\b)\S.*|([A-Z])[.):]\s+(?![A-Z]\.)\S.*|([A-Z]) ?[-–—:] ?[^\W\d].{2,}",
    re.DOTALL,
)
_TAG = re.compile(r"</?(?:b|i|u|em|strong|span|p|br|sub|code)(?: [^<>]*)?/?>", re.IGNORECASE)
_YES = re.compile(
    r"(yes|no|true|false|да|нет|是|否|はい|いいえ|네|아니요|sí|oui|non|ja|nein|sim|não)\b(?:[,.;:!]|$)", re.IGNORECASE
)
_WORDS_AND = r"(?:and|und|et|и|&|dan)"
_WORDS_OR = r"(?:or|oder|ou|или|veya|atau|hoặc)"
_LETTER_AND = r"(?<=[\w)\]}%])\s+(?:y|e|o|ve)\s+(?![-+*/=<>^)])"
"""And and or in languages where they are one letter: a variable where a sign follows."""
_AND = re.compile(rf"\s+(?:{_WORDS_AND}|{_WORDS_OR})\s+|{_LETTER_AND}|\s*(?:和|或|と|または|그리고|와|또는)\s*")
_OR = re.compile(rf"\s+{_WORDS_OR}\s+|或|または|또는")
_LEADING_AND = re.compile(rf"^(?:{_WORDS_AND}|{_WORDS_OR}|[yeo](?=\s+[^\s=<>+*/^-]))\s+")
_VARIABLE = re.compile(r"[A-Za-z](?:_\w+)?(?:\([a-z]\))?")
_NAME_IN_WORDS = re.compile(r"[^\W\d_]{1,12}(?: [^\W\d_]{1,12}){0,2}")
_NAMED = re.compile(r"(?:[xX]|\([a-z](?:, ?[a-z]){1,3}\)|[^\W\d_]{2,}(?: [^\W\d_]+){0,4})\s*=\s*(?=\S)|x in (?=[(\[{])")
_ARTICLE = re.compile(r"^(?:the|an?)\s+(?=\w)", re.IGNORECASE)
_OPEN, _CLOSE = "([{⟦", ")]}⟧"
_SEPARATORS = ",;"
_MAX_DEPTH = 24
"""Brackets inside each other; what has more is read as text."""


def read_span(span: str, *, decimal_comma: bool = False) -> Answer | None:
    """The answer that a span states as a whole; None for nothing, or more than MAX_LENGTH characters.

    Args:
        span: Text of a reply that holds an answer and at most an aside or a reason behind it.
        decimal_comma: 2,5 is two and a half (the language of the reply), not a list of 2 and 5.
    """
    if len(span) > MAX_LENGTH:
        return None
    return _read(span, decimal_comma)


@lru_cache(maxsize=4096)
def _read(span: str, decimal_comma: bool) -> Answer | None:
    text = core(span)
    if not text:
        return None
    if (found := _YES.match(text)) is not None:
        return Answer("text", found[1].casefold(), span)
    if (found := _LETTER.fullmatch(text)) is not None:
        letter = next(group for group in found.groups() if group)
        if letter.isupper() or text != letter:
            return Answer("letter", letter.upper(), span)
    if max(_depths(text)) > _MAX_DEPTH:
        return Answer("text", _text(text), span)
    kind, key = _typed(text, decimal_comma)
    return Answer(kind, key, span) if key else None


def canonical(text: str) -> str | None:
    """The key of an answer as a suite or a reply states it; None for nothing at all or more than MAX_LENGTH
    characters.
    """
    answer = read_span(text)
    return None if answer is None else answer.key


def core(span: str) -> str:
    """The span in ``plain`` spelling without emphasis, hedges, asides and reasons."""
    # Emphasis first: a power is written x**2, never **2**.
    span = _TAG.sub("", span) if "<" in span else span
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", span.strip())
    text = _SUFFIX.sub("", plain(text))
    if (clause := _CLAUSE.search(text)) is not None and clause.start():
        text = text[: clause.start()]
    while (
        (aside := _ASIDE.search(text)) is not None
        and _ASIDE_WORD.search(aside[1])
        and text[: aside.start()].strip(_OUTER)
    ):
        text = text[: aside.start()]
    text = _outer(text)
    text = re.sub(r"(?<=\S) +(?:square |cubic )?units?$", "", text)
    while (hedge := _HEDGE.match(text)) is not None and text[hedge.end() :].strip(_OUTER):
        text = _outer(text[hedge.end() :])
    return _SUFFIX.sub("", text)


def _outer(text: str) -> str:
    """Without outer punctuation; a leading point belongs to a decimal, "!" after a figure or bracket is a factorial."""
    tail = text.lstrip(_OUTER)
    stripped = tail.rstrip(_OUTER)
    before, after = text.removesuffix(tail), tail.removeprefix(stripped)
    if stripped[:1].isdigit() and before.endswith("."):
        stripped = "." + stripped
    if re.fullmatch(r"(?:\d+|[a-z]|\(.*\))", stripped) and after.startswith("!"):
        stripped += "!"
    return stripped


def _typed(text: str, decimal_comma: bool) -> tuple[AnswerType, str]:
    if not text:
        return "text", text
    for kind, read in (("date", date_key), ("time", time_key), ("ratio", ratio_key)):
        if (key := read(text)) is not None:
            return kind, key  # type: ignore[return-value]
    if (found := quantity(text, decimal_comma=decimal_comma)) is not None:
        return found  # type: ignore[return-value]
    return (
        _bracketed(text, decimal_comma)
        or _both_signs(text, decimal_comma)
        or _relation(text, decimal_comma)
        or _items(text, decimal_comma)
        or _formula(text, decimal_comma)
        or ("text", _text(text))
    )


def _key(text: str, decimal_comma: bool) -> str:
    return _typed(text, decimal_comma)[1]


def _formula(text: str, decimal_comma: bool) -> tuple[AnswerType, str] | None:
    key = expression_key(re.sub(r"(?<=\d),(?=\d)", ".", text) if decimal_comma else text)
    return None if key is None else ("expression", key)


def _text(text: str) -> str:
    return _outer(_ARTICLE.sub("", text)).casefold()


def _depths(text: str) -> list[int]:
    """How many brackets are open behind each character."""
    return list(accumulate((character in _OPEN) - (character in _CLOSE) for character in text))


def _split(text: str, decimal_comma: bool) -> list[str]:
    """Cut at commas and semicolons outside brackets and numbers."""
    parts, start = [], 0
    for at, depth in enumerate(_depths(text)):
        if text[at] in _SEPARATORS and depth <= 0 and not _inside_number(text, at, decimal_comma):
            parts.append(text[start:at])
            start = at + 1
    return [part.strip() for part in (*parts, text[start:])]


def _inside_number(text: str, at: int, decimal_comma: bool) -> bool:
    """Whether a comma groups thousands: 1,200 and 12,345.6; not 1, 200. Or is a decimal's: 2,5; not 1,2,3."""
    before, after = text[:at], text[at + 1 :]
    if decimal_comma:
        return re.search(r"(?<![\d,])\d+$", before) is not None and re.match(r"\d+(?!\d|,\d)", after) is not None
    return (
        text[at] == ","
        and re.search(r"(?<![\d,.])\d{1,3}(?:,\d{3})*$", before) is not None
        and re.match(r"\d{3}(?:,\d{3})*(?!\d|,\d)", after) is not None
    )


def _bracketed(text: str, decimal_comma: bool) -> tuple[AnswerType, str] | None:
    """Sets, tuples, intervals, matrices, and unions of sets and intervals."""
    if " union " in text:
        united = {_typed(part.strip(), decimal_comma) for part in text.split(" union ")}
        return None if "text" in dict(united) else ("interval", " union ".join(sorted(key for _, key in united)))
    if text[0] not in _OPEN or text[-1] not in _CLOSE or not _one_bracket(text):
        return None
    inner = text[1:-1].strip()
    decimal_comma = decimal_comma and ";" in inner  # (2,5) is a pair in every language
    parts = _split(inner, decimal_comma)
    if text[0] == "{":
        if "|" in inner or ":" in inner:
            return "set", "{" + inner.replace(" ", "").replace("|", ":") + "}"
        return "set", "{" + ",".join(sorted({_key(part, decimal_comma) for part in parts if part})) + "}"
    if text[0] == "⟦":
        rows = [
            ",".join(_key(cell, False) for cell in _split(row, False) if cell)
            for row in inner.split(";")
            if row.strip()
        ]
        return "tuple", "[" + ";".join(rows) + "]"
    if len(parts) < 2:
        return None if text[0] == "(" else ("list", f"[{_key(inner, decimal_comma)}]")
    keys = ",".join(_key(part, decimal_comma) for part in parts)
    if (text[0], text[-1]) == ("[", "]") and len(parts) > 2:
        return "list", keys
    return ("tuple" if text[0] + text[-1] == "()" else "interval"), text[0] + keys + text[-1]


def _one_bracket(text: str) -> bool:
    """Whether the first bracket closes with the last character."""
    *before, last = _depths(text)
    return last == 0 and 0 not in before


def _both_signs(text: str, decimal_comma: bool) -> tuple[AnswerType, str] | None:
    """Plus or minus a value is a list of both."""
    found = re.fullmatch(r"(.{0,40}?=)?\s*\+-\s*(.+)", text)
    if found is None or _AND.search(text) or "+-" in found[2] or len(_split(found[2], decimal_comma)) > 1:
        return None
    name = found[1] or ""
    return "list", ",".join(sorted(_key(f"{name}{sign}{found[2]}", decimal_comma) for sign in ("", "-")))


def _items(text: str, decimal_comma: bool) -> tuple[AnswerType, str] | None:
    """Lists without brackets. Two entries ("6 and 8", "-5, 5") have no order, nor have those joined by "or"; three or
    more have one.
    """
    pieces = _split(text, decimal_comma)
    parts = [half.strip() for piece in pieces for half in _AND.split(_LEADING_AND.sub("", piece)) if half.strip()]
    if len(parts) < 2:
        return None
    typed = [_typed(_outer(part), decimal_comma) for part in parts]
    if any(kind == "text" and re.search(r"\d", key) for kind, key in typed):
        return None
    if len(pieces) <= 2 and any(kind == "text" and len(key.split()) > 3 for kind, key in typed):
        return None  # a sentence
    keys = [key for _, key in typed]
    if _OR.search(text) or len(parts) == 2:
        keys = sorted(set(keys))
    return ("list", ",".join(keys)) if len(keys) > 1 else typed[0]


def _relation(text: str, decimal_comma: bool) -> tuple[AnswerType, str] | None:
    """Equations, inequalities and chains of them, smaller side first; a name (x, or words) of one value is left out."""
    named = _NAMED.match(text)
    if len(_split(text, decimal_comma)) > 1 or _AND.search(text):
        return None
    if named is not None and not _RELATION.search(text[named.end() :]):
        return _typed(text[named.end() :].strip(), decimal_comma)
    cuts = list(_RELATION.finditer(text))
    if not cuts:
        return None
    bounds = [0, *(end for cut in cuts for end in cut.span()), len(text)]
    sides = [text[a:b].strip() for a, b in zip(bounds[::2], bounds[1::2], strict=True)]
    signs = [cut.group() for cut in cuts]
    typed = [_typed(side, decimal_comma) for side in sides]
    if any(kind == "text" and not _NAME_IN_WORDS.fullmatch(side) for (kind, _), side in zip(typed, sides, strict=True)):
        return None
    values = [key for _, key in typed]
    if set(signs) <= {"=", "~="}:
        return _equation(typed, signs)
    if all(sign in (">", ">=") for sign in signs):
        values, signs = values[::-1], [_FLIP[sign] for sign in reversed(signs)]
    return "relation", "".join(value + sign for value, sign in zip(values, [*signs, ""], strict=True))


def _equation(typed: list[tuple[AnswerType, str]], signs: list[str]) -> tuple[AnswerType, str]:
    """A chain of sides that are equal, or about equal, as one value or as a name and its value."""
    exact = typed[: signs.index("~=") + 1] if "~=" in signs else typed
    named = _VARIABLE.fullmatch(exact[0][1]) is not None
    if len(exact) == 1:
        if not named:  # the exact value, or a name in words of an approximate one
            return typed[1] if typed[0][0] == "text" else typed[0]
        exact = typed[:2]
    (_, first), (kind, last) = exact[0], exact[-1]
    if not named:
        if re.fullmatch(r"-?\d+(?:/\d+)?", last) and not re.search(r"[A-Za-z]", first.replace("sqrt", "")):
            return "number", last  # 3 + 4 = 7
        if re.fullmatch(r"[A-Za-z](?:_\w+)?", last):
            (kind, last), first = exact[0], last
    return (kind, last) if first in ("x", "X") else ("relation", f"{first}={last}")
