"""Measures how often the reader of answers merges different answers or splits equal ones, by kind of answer.

    python bench/answers.py [--pairs 20000] [--seed 0] [--opinion 600] [--markdown]

Answers from two lists (spellings that mean the same, and answers that differ) are put into replies in several
languages. A pair of replies with equal answers and different keys is a false split; one with different answers and the
same key is a false merge. A reply without a recognised answer is *unread*, and counts as a split. math-verify reads the
same replies (the first ``--opinion`` pairs); it was made for formulas, not for dates, times, letters or texts.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from edgedistill.answers.extract import extract

EQUAL: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("number", ("1200", "1,200", r"1{,}200", "1.2 \\times 10^3", "1200.0")),
    ("number", ("-5", "−5", "-5.0")),
    ("number", ("18", "１８", "18.00")),
    ("number", ("1500000", "1,500,000", "1.5 million")),
    ("number", ("12", "12 apples", "12.0")),
    ("number", ("0.000012", "1.2e-5", r"1.2\cdot 10^{-5}")),
    ("number", ("1234567", "1 234 567", "1,234,567")),
    ("fraction", ("1/2", "½", "0.5", r"\frac{1}{2}", r"\frac12", r"\dfrac{2}{4}", r"\cfrac{1}{2}")),
    ("fraction", ("7/2", "3.5", "3 1/2", r"3\frac{1}{2}", "3½")),
    ("fraction", ("-3/4", r"-\frac{3}{4}", "-0.75", r"\frac{-3}{4}")),
    ("fraction", ("1/3", r"0.\overline{3}", r"\frac{1}{3}", "2/6")),
    ("percent", ("50%", r"50\%", "50 percent", "50 per cent")),
    ("percent", ("12.5%", r"12.5\%", "12.50 percent")),
    ("money", ("€5", "5 euros", "5 EUR", "5 €")),
    ("money", ("$18", r"\$18", "18 dollars", "$18.00")),
    ("money", ("£7.50", "7.5 GBP", "£7.5")),
    ("unit", ("5 cm^2", "5 cm²", r"5\text{ cm}^2", "5 square centimeters")),
    ("unit", ("5 km", "5 kilometers", r"5\text{ km}", "5 kilometres")),
    ("unit", ("30 km/h", r"30\text{ km/h}", "30 kilometers per hour")),
    ("unit", ("20°C", "20 degrees Celsius", r"20^\circ\text{C}")),
    ("unit", ("2 hours 30 minutes", "2 h 30 min", "2 hours and 30 minutes")),
    ("unit", ("90°", r"90^\circ", "90 degrees", r"90^{\circ}")),
    ("expression", ("2x+3", "2x + 3", "3+2x", "3 + 2x")),
    ("expression", ("x^2", "x^{2}", "x²")),
    ("expression", (r"\sqrt{3}", r"\sqrt3", "√3")),
    ("expression", (r"2\sqrt{3}", r"\sqrt{12}", "2√3", r"2 \cdot \sqrt{3}")),
    ("expression", (r"3\pi", "3π", r"3 \cdot \pi", r"\pi \cdot 3")),
    ("expression", (r"\frac{\sqrt{2}}{2}", r"\sqrt{2}/2", r"\frac{1}{\sqrt{2}}")),
    ("expression", ("2xy", "2yx", r"2x \cdot y", "2 x y")),
    ("expression", ("(x+1)(x-2)", "(x-2)(x+1)", r"\left(x+1\right)\left(x-2\right)")),
    ("expression", (r"\frac{x}{2}", "x/2", r"\frac{1}{2}x", "0.5x")),
    ("expression", ("e^{2x}", r"\mathrm{e}^{2x}", "e^{x \\cdot 2}")),
    ("relation", (r"x \geq 5", "x ≥ 5", r"5 \leq x", "x>=5", r"x \ge 5")),
    ("relation", ("1 < x < 4", r"4 > x > 1", r"1 \lt x \lt 4")),
    ("relation", ("y = 2x + 1", "y=1+2x", "2x+1 = y")),
    ("relation", (r"x \neq 2", "x ≠ 2", r"x \ne 2")),
    ("set", (r"\{1, 2\}", r"\{2,1\}", r"\left\{ 1, 2 \right\}")),
    ("set", (r"\{-1, 0, 1\}", r"\{1, 0, -1\}", r"\{0,\, 1,\, -1\}")),
    ("tuple", ("(3, 1/2)", r"\left(3, \frac{1}{2}\right)", "(3, 0.5)", r"(3,\frac12)")),
    ("interval", (r"[1, \infty)", r"[1,\infty)", "[1, ∞)", r"\left[1, \infty\right)")),
    ("interval", (r"(-\infty, 2) \cup (3, \infty)", "(-∞, 2) ∪ (3, ∞)", r"(3,\infty)\cup(-\infty,2)")),
    ("list", ("6, 8", "6 and 8", "6,8")),
    ("list", ("1, 2, 3", "1, 2, and 3", "1, 2 and 3")),
    ("list", ("5 or -5", "-5 or 5", r"\pm 5", "±5")),
    ("date", ("January 5, 2024", "5 January 2024", "2024-01-05", "Jan 5, 2024", "January 5th, 2024")),
    ("date", ("March 9", "9 March", "March 9th")),
    ("date", ("2024年1月5日", "January 5, 2024")),
    ("time", ("3:45 PM", "3:45 p.m.", "15:45", "3:45pm")),
    ("time", ("9 AM", "9:00 AM", "9 a.m.")),
    ("ratio", ("3:2", "3 : 2", "3 to 2", "6:4")),
    ("letter", ("B", "(B)", "B.")),
    ("letter", ("K", "(K)")),
    ("text", ("Paris", "paris", '"Paris"')),
    ("text", ("yes", "Yes")),
    ("text", ("The Pacific Ocean", "the Pacific Ocean", "Pacific Ocean")),
    ("text", ("red and blue", "red, blue")),
    ("text", ("北京", "北京。")),
    ("text", ("São Paulo", "são paulo")),
    ("expression", (r"\binom{5}{2}", r"\dbinom{5}{2}")),
    ("expression", (r"\log_2 8", r"\log_{2} 8", r"\log_{2}(8)")),
)
"""60 answers with the spellings that must get one key."""

DIFFER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("number", ("1200", "1.2", "12000")),
    ("number", ("5", "-5")),
    ("number", ("1.5 million", "1.5", "1.5 billion")),
    ("number", ("3.14", "3.15", "314")),
    ("number", ("2,5", "3,5")),
    ("fraction", ("1/2", "1/3", "2/1")),
    ("fraction", ("3 1/2", "31/2", "5/2")),
    ("percent", ("50%", "5%", "0.5")),
    ("money", ("€5", "£5", "¥5")),
    ("money", ("$18", "$19", "18 cents")),
    ("unit", ("5 km", "5 m", "5 miles")),
    ("unit", ("5 cm", "5 cm^2", "5 cm^3")),
    ("unit", ("2 hours", "2 minutes", "2 days")),
    ("unit", ("2 hours 30 minutes", "3 hours 30 minutes")),
    ("unit", ("20°C", "20°F")),
    ("unit", ("3 kg", "3 g", "3 pounds")),
    ("expression", ("2x+3", "5x+3", "2x-3", "2x+5")),
    ("expression", ("2xy", "2", "2x", "3xy")),
    ("expression", (r"3\pi", "3", r"\pi", r"3\pi^2")),
    ("factorial", ("5!", "5", "6!")),
    ("expression", ("x^2", "x^3", "2x")),
    ("expression", (r"\sqrt{3}", r"\sqrt{5}", "3")),
    ("expression", (r"\frac{x}{2}", r"\frac{2}{x}", "2x")),
    ("expression", ("e^{2x}", "e^2 x", "e^{2}")),
    ("expression", ("2^{10}", "2^{11}", "210")),
    ("expression", (r"\sin x", r"\cos x", r"\sin 2x")),
    ("expression", ("x_1", "x_2", "x")),
    ("expression", ("(x+1)^2", "(x+2)^2", "x^2+1")),
    ("expression", ("3 \\times 4", "2 \\times 6")),
    ("expression", ("101_2", "101_3", "101")),
    ("expression", ("2+3i", "2-3i", "3+2i")),
    ("expression", ("n(n+1)", "n(n-1)", "n+1")),
    ("relation", (r"x \geq 5", r"x \leq 5", "x > 5", "x = 5")),
    ("relation", ("y = 3", "z = 3", "a = 3")),
    ("relation", ("1 < x < 4", "1 < x < 5", r"1 \leq x < 4")),
    ("relation", ("y = 2x + 1", "y = 2x - 1", "y = x + 2")),
    ("set", (r"\{1, 2\}", r"\{1, 3\}", r"\{1, 2, 3\}")),
    ("tuple", ("(3, 2)", "(2, 3)", "(3, -2)")),
    ("interval", ("[1, 5)", "(1, 5]", "[1, 5]")),
    ("interval", (r"(-\infty, 2)", r"(2, \infty)", r"(-\infty, 2]")),
    ("list", ("1, 2, 3", "7, 9, 3", "1, 2, 4")),
    ("list", ("6 and 8", "6 and 9", "5 and 8")),
    ("list", ("1, 200", "1,200")),
    ("date", ("January 5, 2024", "March 9, 2024", "January 6, 2024", "January 5, 2023")),
    ("date", ("5 January", "5 June")),
    ("date", ("2024-01-05", "2024-05-01")),
    ("time", ("3:45 PM", "4:45 PM", "3:45 AM", "3:54 PM")),
    ("time", ("3 PM", "3 AM", "3")),
    ("ratio", ("3:2", "5:2", "2:3")),
    ("ratio", ("1:2:3", "1:2:4")),
    ("letter", ("A", "B", "K")),
    ("letter", ("(C)", "(D)")),
    ("text", ("Paris", "London")),
    ("text", ("yes", "no")),
    ("text", ("red and blue", "red and green")),
    ("text", ("北京", "上海")),
    ("text", ("at least 5", "at most 5", "more than 5")),
    ("text", ("the 5th", "the 6th")),
    ("text", ("H2O", "HO2")),
    ("text", ("Henry IV", "Henry VIII")),
)
"""60 groups of answers of which no two are equal."""

PLAIN, MATH = "plain", "math"
FORMS: tuple[tuple[str, str, str], ...] = (
    ("en", PLAIN, "Let me see. The answer is {a}."),
    ("en", PLAIN, "First we add 3 and 4.\n\nThe final answer is: **{a}**"),
    ("en", PLAIN, "We need 2 steps.\nAnswer: {a}"),
    ("en", PLAIN, "Step 1: read.\nStep 2: think about 17.\n\n#### {a}"),
    ("en", MATH, "So there are 3 cases, and therefore \\boxed{{{a}}}."),
    ("en", MATH, "After 2 steps,\n\\[ \\boxed{{{a}}} \\]"),
    ("en", MATH, "The answer is ${a}$."),
    ("en", PLAIN, "## Answer\n\n{a}"),
    ("en", PLAIN, "The answer is {a} (see step 3)."),
    ("en", PLAIN, "There were 4 ways.\n\n**{a}**"),
    ("zh", PLAIN, "我们先算 3 加 4。答案是{a}。"),
    ("es", PLAIN, "Sumamos 3 y 4. La respuesta es {a}."),
    ("fr", PLAIN, "On calcule en 2 étapes.\nRéponse : {a}"),
    ("de", PLAIN, "In 2 Schritten.\nDie Antwort lautet {a}."),
    ("pt", PLAIN, "Em 2 passos.\n**Resposta final:** {a}"),
    ("ru", PLAIN, "За 2 шага.\nОтвет: {a}"),
    ("ja", PLAIN, "3と4を足します。答えは{a}です。"),
    ("ko", PLAIN, "3과 4를 더합니다. 정답은 {a}입니다."),
    ("ar", PLAIN, "نجمع 3 و 4.\nالإجابة هي {a}"),
    ("hi", PLAIN, "3 और 4 जोड़ें।\nउत्तर: {a}"),
    ("vi", PLAIN, "Có 2 bước.\nĐáp án là {a}."),
    ("th", PLAIN, "มี 2 ขั้นตอน คำตอบคือ {a}"),
)
"""Language, whether the answer stands in formulas, and the reply around it."""

_DECIMAL_COMMA = ("es", "fr", "de", "pt", "ru", "vi")
_ENGLISH = ("date", "money", "unit", "percent", "text", "time", "ratio", "list", "letter")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies of one prompt, and whether their answers are equal."""

    kind: str
    equal: bool
    spellings: tuple[str, str]
    replies: tuple[str, str]


def pairs(count: int, seed: int = 0) -> list[Pair]:
    """All pairs of spellings of both lists in turn, each in two forms of reply drawn at random."""
    generator = random.Random(seed)
    whole = [
        (kind, equal, couple)
        for equal, groups in ((True, EQUAL), (False, DIFFER))
        for kind, spellings in groups
        for couple in itertools.combinations(spellings, 2)
    ]
    found: list[Any] = []
    while len(found) < count:
        generator.shuffle(whole)
        for kind, equal, couple in whole[: count - len(found)]:
            first, second = (generator.choice(_forms(kind, spelling)) for spelling in couple)
            found.append(Pair(kind, equal, couple, (first.format(a=couple[0]), second.format(a=couple[1]))))
    return found


def _forms(kind: str, spelling: str) -> list[str]:
    """Forms of reply for a spelling: formulas between dollar signs or in a box only if it is one, "5!" only there;
    1,200 and 2,5 not in languages with a decimal comma.
    """
    comma = (
        re.fullmatch(r"[\d{},]+,[\d}]*|1, 200", spelling) is not None
        or re.fullmatch(r"\d+(?:\{,\}|,)\d[\d,]*", spelling) is not None
    )
    words = kind in ("text", "date", "letter")
    return [
        text
        for language, form, text in FORMS
        if not (comma and language in _DECIMAL_COMMA)
        and not (form == MATH and (words or "$" in spelling or ("$" in text and kind in _ENGLISH)))
        and not (form == PLAIN and kind == "factorial")
    ]


def measure(found: list[Pair]) -> dict[str, Counter[str]]:
    """Counts by kind: equal, split, different, merged, replies, unread."""
    counts: dict[str, Counter[str]] = {}
    for pair in found:
        keys = [extract(reply) for reply in pair.replies]
        same = keys[0] is not None and keys[0] == keys[1]
        _count(counts, pair, same, sum(key is None for key in keys))
    return counts


def _count(counts: dict[str, Counter[str]], pair: Pair, same: bool, unread: int) -> None:
    for kind in (pair.kind, "all"):
        row = counts.setdefault(kind, Counter())
        row["equal" if pair.equal else "different"] += 1
        row["split"] += pair.equal and not same
        row["merged"] += same and not pair.equal
        row["unread"] += unread
        row["replies"] += 2


def opinion(found: list[Pair]) -> dict[str, Counter[str]] | None:
    """The same counts for math-verify; None if it is not installed."""
    try:
        from math_verify import parse, verify
    except ImportError:
        return None
    counts: dict[str, Counter[str]] = {}
    for pair in found:
        read = [parse(reply, parsing_timeout=None) for reply in pair.replies]
        same = bool(all(read) and verify(read[0], read[1], timeout_seconds=None))
        _count(counts, pair, same, sum(not one for one in read))
    return counts


def table(counts: dict[str, Counter[str]]) -> list[str]:
    """Rows with kind, false merges and their number of pairs, false splits and theirs, unread replies."""
    rows = []
    for kind in (*sorted(set(counts) - {"all"}), "all"):
        row = counts[kind]
        merged = f"{100 * row['merged'] / row['different']:.2f} % of {row['different']}" if row["different"] else "-"
        split = f"{100 * row['split'] / row['equal']:.2f} % of {row['equal']}" if row["equal"] else "-"
        rows.append(f"| {kind} | {merged} | {split} | {100 * row['unread'] / row['replies']:.2f} % |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--opinion", type=int, default=600, help="pairs that math-verify reads too; 0: none")
    parser.add_argument("--errors", type=int, default=0, help="print so many pairs that were read wrongly")
    args = parser.parse_args()
    found = pairs(args.pairs, args.seed)
    head = ["| kind | false merges | false splits | unread |", "|---|---|---|---|"]
    print(f"{len(EQUAL)} answers in several spellings, {len(DIFFER)} groups that differ, {len(FORMS)} forms of reply")
    print(f"{len(found)} pairs\n")
    print("\n".join(head + table(measure(found))))
    for pair in found:
        keys = [extract(reply) for reply in pair.replies]
        if args.errors and (keys[0] is not None and keys[0] == keys[1]) != pair.equal:
            args.errors -= 1
            print(pair.kind, "equal" if pair.equal else "differ", pair.replies, keys)
    if args.opinion and (counts := opinion(found[: args.opinion])) is not None:
        print(f"\nmath-verify on the first {args.opinion} pairs\n")
        print("\n".join(head + table(counts)))
        print("\nthis reader on the same\n")
        print("\n".join(head + table(measure(found[: args.opinion]))))


if __name__ == "__main__":
    main()
