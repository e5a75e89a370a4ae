"""Comparisons: the larger or smaller of numbers and small calculations, and how far they are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan import Plan, Term, reply_text
from .problem import Problem
from .steps import explain

if TYPE_CHECKING:
    from random import Random

NAMES = {"*": " * ", "/": " / ", "+": " + ", "-": " - "}


def make(band: str, rng: Random) -> Problem:
    """Return a comparison of the band: plain numbers (one-step), or calculations to be compared."""
    if band == "one-step":
        return _plain(rng, band, rng.choice((99, 999)), rng.choice((2, 2, 3)))
    if band == "two-step":
        return _calculated(rng, band, 1) if rng.random() < 0.7 else _plain(rng, band, 999, 4)
    if band == "three-step":
        return _calculated(rng, band, 2)
    if band == "stretch":
        return _plain(rng, band, 9999, 4)
    return _calculated(rng, band, 2, hard=True)


def _relation(a: int, b: int) -> str:
    """Compare digit by digit from the left, the shorter number padded with zeros, up to the first difference.

    Both digits stand side by side before the word that says how they compare: all it depends on is in sight.
    """
    width = max(len(str(a)), len(str(b)))
    parts = []
    for x, y in zip(f"{a:0{width}}", f"{b:0{width}}", strict=True):
        parts.append(f"{x} {y} {'same' if x == y else 'less' if x < y else 'more'}")
        if x != y:
            break
    return f"{a} and {b}: {', '.join(parts)}, {a} {'<' if a < b else '>'} {b}"


def _plain(rng: Random, band: str, largest: int, count: int) -> Problem:
    numbers = [rng.randint(largest // 10, largest)]
    while len(numbers) < count:
        near = numbers[0] + rng.choice((1, 9, 10, 90, 100, 11)) * rng.choice((-1, 1))
        candidate = near if rng.random() < 0.4 else rng.randint(largest // 10, largest)
        if candidate not in numbers and 1 < candidate <= largest:
            numbers.append(candidate)
    rng.shuffle(numbers)
    up = rng.random() < 0.5
    best = numbers[0]
    marks = []
    for n in numbers[1:]:
        marks.append(_relation(best, n))
        best = max(best, n) if up else min(best, n)
    listed = (
        ", ".join(map(str, numbers[:-1])) + f" {rng.choice(('or', 'or', 'and')) if count == 2 else 'or'} {numbers[-1]}"
    )
    if count == 2:
        word = rng.choice(("larger", "bigger", "greater") if up else ("smaller", "less", "lower"))
    else:
        word = rng.choice(("largest", "biggest", "greatest") if up else ("smallest", "lowest", "least"))
    forms = [
        f"Which is {word}, {listed}?",
        f"Which number is {word}: {listed}?",
        f"Which one is {word}, {listed}?",
        f"Tell me which is {word}: {listed}.",
    ]
    if word not in ("less", "least"):
        forms.append(f"Find the {word} number: {', '.join(map(str, numbers))}.")
    return Problem(
        family="compare",
        band=band,
        key="cmp " + " ".join(map(str, sorted(numbers))),
        question=rng.choice(forms),
        reasoning=".\n".join(marks) + ".",
        reply=reply_text(best, (f"The {word} number is {{}}.",) if word not in ("less", "least") else (), rng),
        answer=str(best),
    )


def _side(rng: Random, hard: bool) -> tuple[int, str, int]:
    op = rng.choice("+-*")
    top = 999 if hard else 99
    if op == "*":
        return (rng.randint(11, 99), op, rng.randint(11, 99)) if hard else (rng.randint(2, 9), op, rng.randint(3, 30))
    a, b = rng.randint(top // 10, top), rng.randint(top // 10, top)
    return (max(a, b), "-", min(a, b)) if op == "-" else (a, op, b)


def _calculated(rng: Random, band: str, sides: int, hard: bool = False) -> Problem:
    while True:
        left = _side(rng, hard)
        a, op, b = left
        x = Plan((Term(1, a), Term(1 if op == "+" else -1, b))) if op in "+-" else Plan((Term(1, a, op, b),))
        if sides == 2:
            c, op2, d = _side(rng, hard)
            y = Plan((Term(1, c), Term(1 if op2 == "+" else -1, d))) if op2 in "+-" else Plan((Term(1, c, op2, d),))
            right = f"{c}{NAMES[op2]}{d}"
        else:
            c = max(2, x.value + rng.choice((-1, 1)) * rng.choice((1, 2, 5, 10, 20, rng.randint(1, 60))))
            y = Plan((Term(1, c),))
            right = str(c)
        if x.value != y.value and x.value > 0 and y.value > 0:
            break
    lines = [explain(a, op, b, rng) + "."]
    if sides == 2:
        lines.append(explain(c, op2, d, rng) + ".")
    if rng.random() < 0.3:
        lines.reverse()
    left_text = f"{a}{NAMES[op]}{b}"
    first, second = (left_text, right) if rng.random() < 0.5 else (right, left_text)
    up, difference = rng.random() < 0.5, rng.random() < 0.35
    high, low = max(x.value, y.value), min(x.value, y.value)
    lines.append(_relation(x.value, y.value) + ".")
    if difference:
        answer = high - low
        lines.append(explain(high, "-", low, rng) + ".")
        forms = (
            f"What is the difference between {first} and {second}?",
            f"How far apart are {first} and {second}?",
            f"By how much do {first} and {second} differ?",
        )
        sentences: tuple[str, ...] = ("They differ by {}.", "The difference is {}.")
    else:
        answer = high if up else low
        word = rng.choice(("larger", "bigger", "greater") if up else ("smaller", "lower"))
        forms = (
            f"Which is {word}, {first} or {second}? Give its value.",
            f"Compare {first} and {second}. What is the {word} value?",
            f"What is the value of the {word} one: {first} or {second}?",
        )
        sentences = (f"The {word} value is {{}}.",)
    return Problem(
        family="compare",
        band=band,
        key="cmp " + " ".join(sorted((x.key, y.key))),
        question=rng.choice(forms),
        reasoning="\n".join(lines),
        reply=reply_text(answer, sentences, rng),
        answer=str(answer),
    )
