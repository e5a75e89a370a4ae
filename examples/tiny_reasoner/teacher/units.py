"""Unit conversions: larger units to smaller ones with a remainder, back again, and sums of two amounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan import Plan, Term, reply_text
from .problem import Problem

if TYPE_CHECKING:
    from random import Random

# (large, large plural, small plural, factor)
UNITS = (
    ("hour", "hours", "minutes", 60),
    ("minute", "minutes", "seconds", 60),
    ("day", "days", "hours", 24),
    ("week", "weeks", "days", 7),
    ("year", "years", "months", 12),
    ("meter", "meters", "centimeters", 100),
    ("m", "m", "cm", 100),
    ("cm", "cm", "mm", 10),
    ("km", "km", "meters", 1000),
    ("kg", "kg", "grams", 1000),
    ("liter", "liters", "ml", 1000),
    ("euro", "euros", "cents", 100),
    ("dollar", "dollars", "cents", 100),
    ("foot", "feet", "inches", 12),
    ("yard", "yards", "feet", 3),
    ("dozen", "dozen", "eggs", 12),
)


def make(band: str, rng: Random) -> Problem:
    """Return a conversion of the band."""
    large, plural, small, factor = rng.choice(UNITS)
    n = rng.randint(2, 9) if factor >= 24 or (band == "one-step" and rng.random() < 0.5) else rng.randint(2, 20)
    fact = f"1 {large} = {factor} {small}.\n"
    if band == "one-step" and rng.random() < 0.35 and factor != 24:
        plan = Plan((Term(1, n * factor, "/", factor),))
        question = rng.choice(
            (
                f"How many {plural} are {n * factor} {small}?",
                f"Convert {n * factor} {small} to {plural}.",
                f"{n * factor} {small} is how many {plural}?",
            )
        )
        return _problem(band, plan, question, f"{factor} {small} = 1 {large}.\n", plural, rng)
    if band == "hard":
        n = rng.randint(11, 39) if factor < 1000 else rng.randint(2, 9)
    rest = rng.randint(1, max(1, min(factor - 1, 999)))
    if factor == 1000:
        rest = rest - rest % 50 or 50
    terms = [Term(1, n, "*", factor)]
    amount = f"{n} {plural}"
    if band != "one-step":
        terms.append(Term(1, rest))
        amount += f" and {rest} {small}"
    if band in ("three-step", "stretch", "hard"):
        extra = rng.randint(2, 99)
        more = rng.random() < 0.5 or extra > n * factor
        terms.append(Term(1 if more else -1, extra))
        if band != "three-step":
            terms.append(Term(1, rng.randint(2, 99 if band == "stretch" else 999)))
            tail = f" {'plus' if more else 'minus'} {extra} {small} plus {terms[-1].a} {small}"
        else:
            tail = f" {'plus' if more else 'minus'} {extra} {small}"
        question = rng.choice((f"How many {small} are {amount}{tail}?", f"What is {amount}{tail} in {small}?"))
    else:
        question = rng.choice(
            (
                f"How many {small} are in {amount}?",
                f"How many {small} are {amount}?",
                f"Convert {amount} to {small}.",
                f"What is {amount} in {small}?",
                f"Express {amount} in {small}.",
                f"{amount} is how many {small}?",
            )
        )
    return _problem(band, Plan(tuple(terms)), question, fact, small, rng)


def _problem(band: str, plan: Plan, question: str, fact: str, unit: str, rng: Random) -> Problem:
    return Problem(
        family="units",
        band=band,
        key=plan.key,
        question=question,
        reasoning=fact + "\n".join(plan.solve(rng)),
        reply=reply_text(plan.value, (f"It is {{}} {unit}.", f"That is {{}} {unit}."), rng),
        answer=str(plan.value),
    )
