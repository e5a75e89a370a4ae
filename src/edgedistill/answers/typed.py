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

from edgedistill.answers.chemistry import molecule_key
from edgedistill.answers.expression import expression_key
from edgedistill.answers.measures import common
from edgedistill.answers.moments import date_key, time_key
from edgedistill.answers.numerals import in_figures
from edgedistill.answers.quantities import MAX_LENGTH, quantity, ratio_key
from edgedistill.answers.spans import core, outer

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
    stated: str = ""
    """The key in the unit that the reply has, where ``key`` has another one: 150 min is "2 h 30 min"."""


_RELATION = re.compile(r"<=|>=|!=|~=|->|[<>=]|\bin\b(?= ?(?:[(\[{\]]|[A-Zℝℤℕℚℂ](?!\w)))")
_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_LETTER = re.compile(
    r"[(\[]?\s*([A-Za-z])\s*[)\]]?[.:]?|\(\s*([A-Z])\s*\)\s*[-–:.]?\s+(?!(?:and|or|und|oder|y|o|et|ou|и|или|&)\s*\(?[A-Z]\b)\S.*|([A-Z])[.):]\s+(?![A-Z]\.)\S.*|([A-Z])(?: [-–—] ?| ?: ?|[–—] )[^\W\d].{2,}",
    re.DOTALL,
)
_YES = re.compile(
    r"(yes|no(?!\. ?\d)|true|false|да|нет|是|否|はい|いいえ|네|아니요|sí|oui|non|ja|nein|sim|não)\b(?:[,.;:!]|$)",
    re.IGNORECASE,
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
_NAMED = re.compile(
    r"(?:[xX]|\([a-z](?:, ?[a-z]){1,3}\)|[^\W\d_]{2,}(?: [^\W\d_]+){0,4})\s*=\s*(?=\S)|x in (?=[(\[{\]ℝℤℕℚℂ])|x_\(1, ?2\) ?= ?"
)
_COUNTED = re.compile(r"(?<=\d )[^\W\d_]{3,}(?: [^\W\d_]+)*$")
_BOTH_ROOTS = re.compile(r"x_\(1, ?2\) ?=")
_NUMBERED = re.compile(r"x_\(?(\d)\)? ?= ?")
_ALLELES = re.compile(r"(?:([a-z])\1){1,2}", re.IGNORECASE)
"""Aa is not aa."""
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
    return typed_answer(kind, key, span) if key else None


def typed_answer(kind: AnswerType, stated: str, span: str) -> Answer:
    """An answer of a known type and key as the reply states it; its key has the common unit of its kind."""
    name, sign, amount = stated.rpartition("=") if kind in ("unit", "money", "relation") else ("", "", "")
    key = name + sign + common(amount) if amount else stated
    return Answer(kind, key, span, "" if key == stated else stated)


def canonical(text: str) -> str | None:
    """The key of an answer as a suite or a reply states it, in its own unit; None for nothing at all or more than
    MAX_LENGTH characters.
    """
    answer = read_span(text)
    return None if answer is None else answer.stated or answer.key


def _typed(text: str, decimal_comma: bool) -> tuple[AnswerType, str]:
    if not text:
        return "text", text
    if ("∧" in text or "∨" in text) and _RELATION.search(text):  # two statements, not a formula of logic
        text = text.replace("∧", "and").replace("∨", "or")
    for kind, read in (("date", date_key), ("time", time_key), ("ratio", ratio_key)):
        if (key := read(text)) is not None:
            return kind, key  # type: ignore[return-value]
    if (molecule := molecule_key(text)) is not None:
        return "text", molecule
    if (found := quantity(text, decimal_comma=decimal_comma)) is not None:
        return found  # type: ignore[return-value]
    if (found := _in_words(text)) is not None:
        return found
    return (
        _bracketed(text, decimal_comma)
        or _both_signs(text, decimal_comma)
        or _relation(text, decimal_comma)
        or _items(text, decimal_comma)
        or _formula(text, decimal_comma)
        or ("text", _text(text))
    )


def _in_words(text: str) -> tuple[AnswerType, str] | None:
    """A number in words, with a unit or, in English, with things that are counted."""
    spelled = in_figures(text)
    found = None if spelled is None else quantity(spelled[0])
    if spelled is None or found is None:
        return None
    figures, nouns = spelled
    behind = re.sub(r"^[-\d/ ]+", "", figures)
    if found[0] in ("number", "fraction") and behind and not (nouns and behind.islower()):
        return None
    return found  # type: ignore[return-value]


def _key(text: str, decimal_comma: bool) -> str:
    return _typed(text, decimal_comma)[1]


def _formula(text: str, decimal_comma: bool) -> tuple[AnswerType, str] | None:
    key = expression_key(re.sub(r"(?<=\d),(?=\d)", ".", text) if decimal_comma else text)
    if key is None:
        return None
    return ("number" if re.fullmatch(r"-?\d+(?:/\d+)?", key) else "expression"), key


def _text(text: str) -> str:
    kept = outer(_ARTICLE.sub("", text))
    return kept if _ALLELES.fullmatch(kept) else kept.casefold()


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
    name = "" if _BOTH_ROOTS.fullmatch(found[1] or "") else found[1] or ""
    return "list", ",".join(sorted(_key(f"{name}{sign}{found[2]}", decimal_comma) for sign in ("", "-")))


def _items(text: str, decimal_comma: bool) -> tuple[AnswerType, str] | None:
    """Lists without brackets. Two entries ("6 and 8", "-5, 5") have no order, nor have those joined by "or"; three or
    more have one.
    """
    names = _NUMBERED.findall(text)
    if len(names) > 1 and names == [str(at) for at in range(1, len(names) + 1)] and text.count("=") == len(names):
        text = _NUMBERED.sub("", text)  # the solutions of one equation
    pieces = _split(text, decimal_comma)
    parts = [half.strip() for piece in pieces for half in _AND.split(_LEADING_AND.sub("", piece)) if half.strip()]
    if len(parts) < 2:
        return None
    typed = [_typed(outer(part), decimal_comma) for part in parts]
    if any(kind == "text" and re.search(r"\d", key) for kind, key in typed):
        return None
    if len(pieces) <= 2 and any(kind == "text" and len(key.split()) > 3 for kind, key in typed):
        return None  # a sentence
    keys = _counted(parts, typed)
    if _OR.search(text) or len(parts) == 2:
        keys = sorted(set(keys))
    return ("list", ",".join(keys)) if len(keys) > 1 else typed[0]


def _counted(parts: list[str], typed: list[tuple[AnswerType, str]]) -> list[str]:
    """The keys of entries; numbers of different things (3 red, 4 blue) keep the names of these."""
    keys = [key for _, key in typed]
    nouns = [
        _COUNTED.search(part) if kind in ("number", "fraction") else None
        for part, (kind, _) in zip(parts, typed, strict=True)
    ]
    if len({noun[0].casefold().rstrip("s") for noun in nouns if noun is not None}) < 2:
        return keys
    return [key if noun is None else f"{key} {noun[0].casefold()}" for key, noun in zip(keys, nouns, strict=True)]


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
