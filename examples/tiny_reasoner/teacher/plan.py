"""A calculation as a sum of signed terms with an optional last factor or divisor, and the orders to work it out in.

Expressions, unit conversions and stories all become a `Plan`; words live elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .steps import apply, explain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random


@dataclass(frozen=True, slots=True)
class Term:
    """`sign` (+1 or -1) times a number (`op` is None) or times `a op b` with op `*` or `/`."""

    sign: int
    a: int
    op: str | None = None
    b: int = 0
    label: str = ""

    @property
    def value(self) -> int:
        return self.a if self.op is None else apply(self.a, self.op, self.b)

    @property
    def key(self) -> str:
        sign = "+" if self.sign > 0 else "-"
        if self.op is None:
            return f"{sign}{self.a}"
        numbers = sorted((self.a, self.b)) if self.op == "*" else [self.a, self.b]
        return f"{sign}{numbers[0]}{self.op}{numbers[1]}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Sum of terms, then optionally `outer` = (`*` or `/`, number). The first term is positive."""

    terms: tuple[Term, ...]
    outer: tuple[str, int] | None = None

    @property
    def total(self) -> int:
        return sum(term.sign * term.value for term in self.terms)

    @property
    def value(self) -> int:
        return self.total if self.outer is None else apply(self.total, *self.outer)

    @property
    def operations(self) -> int:
        return len(self.terms) - 1 + sum(term.op is not None for term in self.terms) + (self.outer is not None)

    @property
    def key(self) -> str:
        """Numbers and operations, without order or words."""
        outer = "" if self.outer is None else f"|{self.outer[0]}{self.outer[1]}"
        if len(self.terms) == 1 and self.terms[0].op is None and self.outer is not None:
            return Term(1, self.terms[0].a, *self.outer).key
        return " ".join(sorted(term.key for term in self.terms)) + outer

    def numbers(self) -> list[int]:
        """Every number that appears on the way when worked from left to right."""
        found, running = [], 0
        for term in self.terms:
            running += term.sign * term.value
            found += [term.a, term.b, term.value, running]
        return [*found, self.value]

    def is_sound(self, largest: int) -> bool:
        """True if no running total is negative, the last division is exact and nothing exceeds `largest`."""
        if self.outer is not None and self.outer[0] == "/" and (self.outer[1] == 0 or self.total % self.outer[1]):
            return False
        return all(0 <= n <= largest for n in self.numbers()) and self.value > 0

    def solve(self, rng: Random, *, notes: bool = False) -> list[str]:
        """Return the working, one operation a line, in a valid order. `notes` puts the terms' labels first."""
        terms = list(self.terms)
        lines: list[str] = []
        if len(terms) > 2 and any(t.sign < 0 for t in terms[1:-1]) and rng.random() < 0.25:
            terms.sort(key=lambda t: -t.sign)  # gains first, losses last: never goes below zero
        composite = [t for t in terms if t.op is not None]
        early = (len(composite) > 1 and rng.random() < 0.6) or (len(composite) == 1 and rng.random() < 0.4)
        if early:
            if len(composite) > 1 and rng.random() < 0.3:
                composite.reverse()
            lines += [_line(t, rng, notes) for t in composite]
        running: int | None = None
        for term in terms:
            if term.op is not None and not early:
                lines.append(_line(term, rng, notes))
            if running is None:
                running = term.value
                continue
            op = "+" if term.sign > 0 else "-"
            lines.append(explain(running, op, term.value, rng) + ".")
            running = apply(running, op, term.value)
        if self.outer is not None:
            lines.append(explain(self.total, *self.outer, rng) + ".")
        return lines


def _line(term: Term, rng: Random, notes: bool) -> str:
    assert term.op is not None
    prefix = f"{term.label}: " if notes and term.label else ""
    return f"{prefix}{explain(term.a, term.op, term.b, rng)}."


def in_range(plan: Plan, *, operand: int = 99, largest: int = 999) -> bool:
    """The range the model is meant for: operands to 99, one-digit factors and divisors, nothing above `largest`."""
    for term in plan.terms:
        if term.op is None and term.a > operand:
            return False
        if term.op == "*" and (min(term.a, term.b) > 10 or max(term.a, term.b) > operand):
            return False
        if term.op == "/" and (term.b > 10 or term.value > operand):
            return False
    if plan.outer is not None and (plan.outer[1] > 10 or (plan.outer[0] == "*" and plan.total > operand)):
        return False
    return plan.is_sound(largest)


def band_of(operations: int) -> str:
    """Return the in-range band for a number of operations (1 to 3)."""
    return ("one-step", "one-step", "two-step", "three-step")[operations]


def reply_text(answer: int, sentences: Sequence[str], rng: Random) -> str:
    """Fill one of `sentences` (with `{}` where the boxed number goes), or one that suits every question."""
    general = ("The answer is {}.", "The answer is {}.", "{}", "So the answer is {}.")
    choice = rng.choice(sentences) if sentences and rng.random() < 0.6 else rng.choice(general)
    return choice.replace("{}", f"\\boxed{{{answer}}}")
