"""Defines the kinds of arithmetic problems: how numbers are drawn, the answer, and several wordings of the question.

Every kind has at least two wordings with the same meaning (paraphrases), and answers that are positive whole numbers.
Bands are levels of difficulty: one-step, two-step, three-step; stretch goes beyond two-digit numbers or three steps;
hard has four-digit sums, products of two-digit numbers and long chains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

BANDS = ("one-step", "two-step", "three-step", "stretch", "hard")

NAMES = (
    "Mia", "Tom", "Anna", "Ben", "Lena", "Max", "Sara", "Paul", "Nina", "Leo", "Emma", "Jack", "Zoe", "Omar",
    "Ruth",
)  # fmt: skip
ITEMS = ("apples", "pears", "books", "pens", "cards", "marbles", "shells", "stamps", "cookies", "beads", "nuts", "keys")
PACKS = ("bags", "boxes", "packs", "baskets", "jars")

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem.

    Attributes:
        band, family: Difficulty, and "expression", "word", "compare" or "units".
        draw: Numbers for the wordings' fields a, b, c, ...
        answer: The gold answer of those numbers.
        wordings: Format strings over a, b, c, ... and the words name, friend, item, pack.
    """

    band: str
    family: str
    draw: Callable[[Random], Numbers]
    answer: Callable[..., int]
    wordings: tuple[str, ...]

    def question(self, wording: int, numbers: Numbers, words: dict[str, str]) -> str:
        """The text of one wording."""
        return self.wordings[wording].format(**dict(zip("abcdef", numbers, strict=False)), **words)


def words_for(rng: Random) -> dict[str, str]:
    """Names and things for a story, drawn once for a problem and all its variants."""
    name, friend = rng.sample(NAMES, 2)
    return {"name": name, "friend": friend, "item": rng.choice(ITEMS), "pack": rng.choice(PACKS)}


def _draw(*ranges: tuple[int, int], check: Callable[..., bool] | None = None) -> Callable[[Random], Numbers]:
    """Numbers uniform in the ranges (ends included), drawn again until ``check`` holds."""

    def draw(rng: Random) -> Numbers:
        while True:
            numbers = tuple(rng.randint(low, high) for low, high in ranges)
            if check is None or check(*numbers):
                return numbers

    return draw


def _exact(divisor: tuple[int, int], quotient: tuple[int, int], *rest: tuple[int, int]) -> Callable[[Random], Numbers]:
    """(dividend, divisor, ...): a division without remainder, then further numbers."""

    def draw(rng: Random) -> Numbers:
        b, q = rng.randint(*divisor), rng.randint(*quotient)
        return (b * q, b, *(rng.randint(low, high) for low, high in rest))

    return draw


_TWO = (11, 99)
_DIGIT = (2, 9)

ONE_STEP = (
    Kind(
        "one-step",
        "expression",
        _draw(_TWO, _TWO),
        lambda a, b: a + b,
        ("What is {a} + {b}?", "Calculate {a} plus {b}.", "Add {a} and {b}."),
    ),
    Kind(
        "one-step",
        "expression",
        _draw(_TWO, _TWO, check=lambda a, b: a > b + 1),
        lambda a, b: a - b,
        ("What is {a} - {b}?", "How much is {a} minus {b}?", "Subtract {b} from {a}."),
    ),
    Kind(
        "one-step",
        "expression",
        _draw(_DIGIT, _TWO),
        lambda a, b: a * b,
        ("What is {a} * {b}?", "How much is {a} times {b}?", "Multiply {a} by {b}."),
    ),
    Kind(
        "one-step",
        "expression",
        _exact(_DIGIT, _TWO),
        lambda a, b: a // b,
        ("What is {a} / {b}?", "Calculate {a} divided by {b}.", "Divide {a} by {b}."),
    ),
    Kind(
        "one-step",
        "word",
        _draw((5, 99), (5, 99)),
        lambda a, b: a + b,
        (
            "{name} has {a} {item}. {name} finds {b} more. How many {item} does {name} have now?",
            "{name} starts with {a} {item}. Then {name} gets {b} more from {friend}. How many is that in total?",
        ),
    ),
    Kind(
        "one-step",
        "word",
        _draw(_DIGIT, (5, 30)),
        lambda a, b: a * b,
        (
            "{name} has {a} {pack} with {b} {item} each. How many {item} does {name} have now?",
            "{name} has {a} {pack} of {b} {item}. What is the number of {item} now?",
        ),
    ),
    Kind(
        "one-step",
        "compare",
        _draw((100, 999), (100, 999), (100, 999), check=lambda *n: len(set(n)) == 3),
        max,
        ("Which number is largest: {a}, {b} or {c}?", "Which is biggest, {a}, {b} or {c}?"),
    ),
    Kind(
        "one-step",
        "units",
        _draw((2, 15)),
        lambda a: 60 * a,
        ("How many minutes are in {a} hours?", "Convert {a} hours to minutes."),
    ),
)

TWO_STEP = (
    Kind(
        "two-step",
        "expression",
        _draw(_TWO, _TWO, _TWO, check=lambda a, b, c: a + b > c + 1),
        lambda a, b, c: a + b - c,
        ("What is {a} + {b} - {c}?", "Start with {a}, add {b}, then subtract {c}. What do you get?"),
    ),
    Kind(
        "two-step",
        "expression",
        _draw(_DIGIT, _TWO, _TWO),
        lambda a, b, c: a * b + c,
        ("What is {a} * {b} + {c}?", "Calculate {a} times {b} plus {c}."),
    ),
    Kind(
        "two-step",
        "word",
        _draw((20, 99), (5, 60), (5, 60), check=lambda a, b, c: a + b > c + 1),
        lambda a, b, c: a + b - c,
        (
            "{name} has {a} {item}. {friend} gives {name} {b} {item}. Later {name} loses {c}. How many are left?",
            "{name} collected {a} {item}. Then {name} finds {b} more. Then {name} gives away {c} {item}. "
            "How many {item} does {name} have now?",
        ),
    ),
    Kind(
        "two-step",
        "word",
        _draw((5, 90), _DIGIT, (2, 20)),
        lambda a, b, c: a + b * c,
        (
            "{name} has {a} {item}. {name} buys {b} {pack} with {c} {item} each. How many {item} does {name} have now?",
            "{name} starts with {a} {item}. {name} gets {b} {pack} of {c} {item}. What is the number of {item} now?",
        ),
    ),
    Kind(
        "two-step",
        "compare",
        _draw(_DIGIT, (3, 30), (11, 99), check=lambda a, b, c: abs(a * b - c) > 1),
        lambda a, b, c: abs(a * b - c),
        ("What is the difference between {a} * {b} and {c}?", "How far apart are {a} * {b} and {c}?"),
    ),
    Kind(
        "two-step",
        "units",
        _draw((2, 9), (2, 59)),
        lambda a, b: 60 * a + b,
        ("How many minutes are in {a} hours and {b} minutes?", "Convert {a} hours and {b} minutes to minutes."),
    ),
)

THREE_STEP = (
    Kind(
        "three-step",
        "expression",
        _draw(_TWO, _TWO, _TWO, _TWO, check=lambda a, b, c, d: a - b + c + d > 1 and a > b),
        lambda a, b, c, d: a - b + c + d,
        ("What is {a} - {b} + {c} + {d}?", "Calculate {a} minus {b} plus {c} plus {d}."),
    ),
    Kind(
        "three-step",
        "expression",
        _draw(_DIGIT, (11, 60), _DIGIT, (11, 60)),
        lambda a, b, c, d: a * b + c * d,
        ("What is {a} * {b} + {c} * {d}?", "Calculate {a} times {b} plus {c} times {d}."),
    ),
    Kind(
        "three-step",
        "word",
        _draw(_DIGIT, (5, 20), (5, 60), (5, 60), check=lambda a, b, c, d: a * b + c > d + 1),
        lambda a, b, c, d: a * b + c - d,
        (
            "{name} has {a} {pack} with {b} {item} each. {name} finds {c} more. Later {name} sells {d}. "
            "How many are left?",
            "{name} has {a} {pack} of {b} {item}. Then {name} gets {c} more from {friend}. Then {name} loses {d}. "
            "How many {item} does {name} have now?",
        ),
    ),
    Kind(
        "three-step",
        "word",
        _draw(_DIGIT, (2, 30), _DIGIT, (2, 30)),
        lambda a, b, c, d: a * b + c * d,
        (
            "A book costs {b} euros and a hat costs {d} euros. {name} buys {a} books and {c} hats. What does it cost?",
            "A book costs {b} euros and a hat costs {d} euros. {name} buys {a} books and {c} hats. "
            "How much does {name} pay?",
        ),
    ),
    Kind(
        "three-step",
        "compare",
        _draw(_DIGIT, (3, 30), (20, 99), (20, 99), check=lambda a, b, c, d: abs(a * b - c - d) > 1),
        lambda a, b, c, d: abs(a * b - c - d),
        (
            "What is the difference between {a} * {b} and {c} + {d}?",
            "By how much do {c} + {d} and {a} * {b} differ?",
        ),
    ),
)

STRETCH = (
    Kind(
        "stretch",
        "expression",
        _draw((100, 999), (100, 999), (100, 999), check=lambda a, b, c: a + b > c + 1),
        lambda a, b, c: a + b - c,
        ("What is {a} + {b} - {c}?", "Calculate {a} plus {b} minus {c}."),
    ),
    Kind(
        "stretch",
        "expression",
        _draw((100, 499), _DIGIT),
        lambda a, b: a * b,
        ("What is {a} * {b}?", "Multiply {a} by {b}."),
    ),
    Kind(
        "stretch",
        "word",
        _draw(_DIGIT, (5, 20), (10, 60), (10, 60), (5, 40), check=lambda a, b, c, d, e: a * b + c + d > e + 1),
        lambda a, b, c, d, e: a * b + c + d - e,
        (
            "{name} has {a} {pack} with {b} {item} each. {name} finds {c} more. {friend} gives {name} {d} {item}. "
            "Later {name} loses {e}. How many {item} does {name} have in the end?",
            "{name} has {a} {pack} of {b} {item}. Then {name} wins {c}. Then {name} buys {d} more. "
            "{friend} takes {e} of the {item}. How many are left?",
        ),
    ),
)

HARD = (
    Kind(
        "hard",
        "expression",
        _draw((1000, 9999), (1000, 9999)),
        lambda a, b: a + b,
        ("What is {a} + {b}?", "Calculate {a} plus {b}.", "Add {a} and {b}."),
    ),
    Kind(
        "hard",
        "expression",
        _draw(_TWO, _TWO),
        lambda a, b: a * b,
        ("What is {a} * {b}?", "How much is {a} times {b}?", "Multiply {a} by {b}."),
    ),
    Kind(
        "hard",
        "expression",
        _draw(_TWO, _TWO, _TWO, _TWO, _TWO, _TWO, check=lambda a, b, c, d, *_: a > b and a - b + c - d > 1),
        lambda a, b, c, d, e, f: a - b + c - d + e + f,
        (
            "What is {a} - {b} + {c} - {d} + {e} + {f}?",
            "Start with {a}, subtract {b}, add {c}, subtract {d}, add {e}, and add {f}. What do you get?",
        ),
    ),
    Kind(
        "hard",
        "compare",
        _draw(_TWO, _TWO, (100, 999), (100, 999), check=lambda a, b, c, d: a * b != c + d),
        lambda a, b, c, d: max(a * b, c + d),
        (
            "Which is larger, {a} * {b} or {c} + {d}? Give its value.",
            "Compare {a} * {b} and {c} + {d}. What is the bigger value?",
        ),
    ),
)

KINDS: dict[str, tuple[Kind, ...]] = {
    "one-step": ONE_STEP,
    "two-step": TWO_STEP,
    "three-step": THREE_STEP,
    "stretch": STRETCH,
    "hard": HARD,
}
