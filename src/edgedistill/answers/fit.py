"""An answer in the form that the right answer has: "12 km" where 12 is asked for, "y = 3" where 3 is.

The right answer says whether a unit, a percent sign or a name belongs to the answers of its prompt. Replies that leave it
out, or add it, mean the same, so that it is no difference between the answers of this prompt.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from edgedistill.answers.typed import Answer, read_span

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMERIC = ("number", "fraction")
_MEASURED = ("percent", "money", "unit")
_QUANTITY = re.compile(r"(-?\d+(?:/[1-9]\d*)?)(%| [^\d]+(?:\^[23])?)?")
_COUNTED = re.compile(r"(?<![\w/])(-?\d+(?:/\d+)?) [^\W\d_]{3,}(?: [^\W\d_]+)*(?=,|$)")
"""An entry of a list with what it counts: 3 red."""
_NAMED = re.compile(r"([A-Za-z](?:_\w+)?(?:\([a-z]\))?)=(.+)")


def fit(answer: Answer, golds: Sequence[str], tolerance: float | None = None) -> str:
    """The key of ``answer`` in the form of the right answers; the first of them where it equals any.

    Args:
        golds: Keys of the right answers, at least one; the first gives the form.
        tolerance: Largest absolute difference of numbers that are equal.
    """
    for gold in golds:
        if _fitted(answer, gold, tolerance) == gold:
            return golds[0]
    return _common(_fitted(answer, golds[0], None))


def _common(key: str) -> str:
    """Of a wrong answer, so that 2 h and 120 min are one."""
    amount = read_span(key) if _QUANTITY.fullmatch(key) else None
    return key if amount is None else amount.key


def _fitted(answer: Answer, gold: str, tolerance: float | None) -> str:
    key = answer.stated or answer.key
    wanted = read_span(gold)
    if wanted is None:
        return key
    if gold in (key, answer.key) or wanted.key == answer.key:
        return gold
    named, gold_named = _NAMED.fullmatch(key), _NAMED.fullmatch(gold)
    if named is not None and gold_named is None and wanted.type != "relation":
        key = named[2]
    elif gold_named is not None and named is None and answer.type in (*_NUMERIC, "expression"):
        key = f"{gold_named[1]}={key}"
    if {answer.type, wanted.type} <= {"list", "set"} and _entries(gold) in (
        _entries(key),
        _entries(_COUNTED.sub(r"\1", key)),
    ):
        return gold
    value, gold_value = _QUANTITY.fullmatch(key), _QUANTITY.fullmatch(gold)
    if value is None or gold_value is None:
        return key
    number, right = Fraction(value[1]), Fraction(gold_value[1])
    unit, gold_unit = value[2] or "", gold_value[2] or ""
    if (unit, gold_unit) in (("%", ""), ("", "%")) and number == (right * 100 if unit else right / 100):
        return gold
    if wanted.type in _NUMERIC and answer.type in (*_MEASURED, "relation"):
        unit = ""
    elif wanted.type in _MEASURED and answer.type in _NUMERIC:
        unit = gold_unit
    if tolerance is not None and unit == gold_unit and abs(number - right) <= Fraction(tolerance):
        return gold
    return value[1] + unit


def _entries(key: str) -> list[str]:
    return sorted(key.strip("{}").split(","))
