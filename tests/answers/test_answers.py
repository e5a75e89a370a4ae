"""What counts as an answer, and that equal answers get one spelling."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.answers.boxes import boxed_contents
from edgedistill.answers.extract import extract
from edgedistill.answers.quantities import parse_number
from edgedistill.answers.typed import canonical
from edgedistill.runtime.text.reasoning import TagPair
from edgedistill.verify.sampling.answers import read_reply
from edgedistill.verify.types import Check, Message, Prompt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/2", "1/2"),
        ("0.5", "1/2"),
        (".50", "1/2"),
        (r"\frac{1}{2}", "1/2"),
        (r"\dfrac{2}{4}", "1/2"),
        (r"\frac12", "1/2"),
        (r"10,\!000", "10000"),
        (r"-\frac{1}{2}", "-1/2"),
        ("1,000", "1000"),
        ("1000", "1000"),
        ("1000.0", "1000"),
        ("1e3", "1000"),
        ("$1,234.50", "2469/2"),
        (r"\$18", "18"),
        ("-$5", "-5"),
        ("−5", "-5"),
        ("50%", "50%"),
        (r"50\%", "50%"),
        ("12 cm", "12 cm"),
        ("3.5 km/h", "7/2 km/h"),
        (r"12\text{ apples}", "12"),
        (r"90^\circ", "90"),
        ("x = 7", "7"),
        ("1 1/2", "3/2"),
        ("**42**", "42"),
        (" 42. ", "42"),
        ("$42$", "42"),
        (r"\left( 3, \frac{1}{2} \right)", "(3,1/2)"),
        ("[1, 2)", "[1,2)"),
        ("1, 2, 3", "1,2,3"),
        ("Paris", "paris"),
        ("  New   York.", "new york"),
        (r"x^2 + 1", "x^2+1"),
        (r"2\sqrt{3}", "2sqrt(3)"),
        ("3x", "3x"),
        ("5 or 6", "5,6"),
        ("1/0", "1/0"),
    ],
)
def test_canonical(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["", "   ", "...", "a" * 401, "$$"])
def test_nothing_is_no_answer(text: str) -> None:
    assert canonical(text) is None or text == "$$"


def test_hostile_exponents_cost_nothing() -> None:
    assert parse_number("1e9999") is None
    assert parse_number("1e99") == Fraction(10) ** 99
    assert parse_number("9" * 100_000) is None


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_and_its_latex_are_one_answer(value: Fraction) -> None:
    n, d = value.numerator, value.denominator
    sign = "-" if n < 0 else ""
    assert canonical(f"{n}/{d}") == canonical(rf"{sign}\frac{{{abs(n)}}}{{{d}}}") == str(value)


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_decimals_are_exact(value: int, places: int) -> None:
    exact = Fraction(value, 10**places)
    digits = f"{abs(value):0{places + 1}d}"
    text = ("-" if value < 0 else "") + (digits[: len(digits) - places] + "." + digits[len(digits) - places :])
    assert parse_number(text) == exact
    assert parse_number(f"{value:,}") == value


@given(st.text(max_size=200))
def test_canonical_is_stable_and_never_fails(text: str) -> None:
    once = canonical(text)
    if once is not None and parse_number(text) is not None:
        assert canonical(once) == once


@given(st.text(max_size=300), st.sampled_from(["auto", "boxed", "hash", "phrase", "number", "choice", "text"]))
def test_extraction_never_fails(text: str, rule: str) -> None:
    found = extract(text, rule)  # type: ignore[arg-type]
    assert found is None or found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So 3 + 4 = 7. \boxed{7}", "7"),
        (r"\boxed{1} no, \boxed{2} of 3", "2"),
        (r"\boxed{\frac{1}{2}} and then 9", "1/2"),
        (r"\boxed{5 is unbalanced, so the answer is 6", "6"),
        ("#### 1,234\n", "1234"),
        ("The answer is 12. There are 3 more.", "12"),
        ("The answer is **3.5**.", "7/2"),
        ("The answer is 5. Wait, that is wrong. The answer is 6.", "6"),
        (r"The answer is $\frac{3}{4}$.", "3/4"),
        ("The answer is 3 1/2 cups.", "7/2 cup"),
        (r"Hence we get $-\frac{3}{4}$", "-3/4"),
        ("Answer: Paris", "paris"),
        ("the final answer is 10 apples because 5 + 5", "10"),
        ("It is about 40 apples", "40"),
        ("First 3, then 4.", None),
        ("a range of 3-5", None),
        ("It costs $1,000.50!", "2001/2"),
        ("2 + 2 = -4", "-4"),
        ("half is 1/2 of it", "1/2"),
        ("I do not know", None),
        ("", None),
    ],
)
def test_order_of_extraction(text: str, expected: str | None) -> None:
    assert extract(text) == expected


def test_boxed_contents_nest_and_escape() -> None:
    assert boxed_contents(r"\boxed{a{b}c} \fbox{x} \boxed {\boxed{2}} \boxed{\}}") == ["a{b}c", r"\boxed{2}", r"\}"]


@given(st.text(alphabet="ab{}\\ ", max_size=30))
def test_balanced_contents_are_found(inner: str) -> None:
    depth, ok, i = 0, True, 0
    while i < len(inner):
        if inner[i] == "\\":
            ok = ok and i + 1 < len(inner)
            i += 2
            continue
        depth += {"{": 1, "}": -1}.get(inner[i], 0)
        ok = ok and depth >= 0
        i += 1
    if ok and depth == 0 and "boxed" not in inner:
        assert boxed_contents(rf"x \boxed{{{inner}}} y") == [inner]


def test_choice() -> None:
    assert extract("The answer is (B) because A is wrong", "choice") == "B"
    assert extract(r"A or C? \boxed{C}", "choice") == "C"
    assert extract("I think D.", "choice") == "D"
    assert extract("no letter", "choice") is None


def _prompt(**overrides: object) -> Prompt:
    return Prompt("p", (Message("user", "?"),), **overrides)  # type: ignore[arg-type]


def test_reasoning_is_never_searched() -> None:
    reading = read_reply(_prompt(answer="7"), r"<think>\boxed{7}</think>I cannot say.", truncated=False)
    assert (reading.kind, reading.answer, reading.correct) == ("unparsed", None, False)
    reading = read_reply(_prompt(answer="7"), r"<think>8</think>\boxed{7}", truncated=False)
    assert (reading.kind, reading.answer, reading.correct) == ("parsed", "7", True)


def test_unclosed_reasoning_has_no_answer() -> None:
    reading = read_reply(_prompt(answer="7"), r"<think>so \boxed{7}", truncated=False)
    assert (reading.kind, reading.unclosed, reading.correct) == ("unparsed", True, False)
    opened = TagPair("<think>", "</think>")
    reading = read_reply(_prompt(answer="7"), r"so \boxed{7}", truncated=True, opened=opened)
    assert (reading.kind, reading.unclosed) == ("truncated", True)


def test_a_truncated_reply_is_truncated_whatever_it_says() -> None:
    reading = read_reply(_prompt(answer="7"), r"\boxed{7} and", truncated=True)
    assert (reading.kind, reading.answer, reading.correct) == ("truncated", None, False)


def test_without_gold_nothing_is_right_or_wrong() -> None:
    assert read_reply(_prompt(), "7", truncated=False).correct is None
    assert read_reply(_prompt(), "7", truncated=True).correct is None


def test_checks_are_scored_strictly_and_loosely() -> None:
    prompt = _prompt(extract="checks", checks=(Check("quoted"),))
    assert read_reply(prompt, '"A motto"', truncated=False).correct is True
    reading = read_reply(prompt, 'Sure!\n"A motto"', truncated=False)
    assert (reading.answer, reading.correct, reading.loose) == ("violates", False, True)
    assert read_reply(prompt, "", truncated=False).kind == "unparsed"
