"""The teacher of tiny-reasoner never writes a false equation, and never shows a held-out problem in training."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher import BANDS, IN_RANGE_BANDS, draw, example, heldout, split_of
from teacher.arithmetic import SYMBOLS
from teacher.dialogue import FAMILIES, follow_up
from teacher.plan import Plan, Term, in_range
from teacher.steps import apply, explain

EQUATION = re.compile(r"(\d+(?: [-+*/] \d+)?) ([=<>]) (\d+)(?! [a-z])")
NUMERIC = tuple(band for band in BANDS if band != "outside")
seeds = st.integers(0, 2**32)


def value_of(expression: str) -> Fraction:
    """An evaluator of its own (precedence, brackets) so that the teacher is not checked against itself."""
    tokens = re.findall(r"\d+|[-+*/()]", expression)

    def atom() -> Fraction:
        token = tokens.pop(0)
        if token == "(":
            inner = total()
            assert tokens.pop(0) == ")"
            return inner
        return Fraction(token)

    def product() -> Fraction:
        left = atom()
        while tokens and tokens[0] in "*/":
            left = left * atom() if tokens.pop(0) == "*" else left / atom()
        return left

    def total() -> Fraction:
        left = product()
        while tokens and tokens[0] in "+-":
            left = left + product() if tokens.pop(0) == "+" else left - product()
        return left

    result = total()
    assert not tokens, expression
    return result


def holds(left: str, relation: str, right: str) -> bool:
    a, b = value_of(left), Fraction(right)
    return {"=": a == b, "<": a < b, ">": a > b}[relation]


def plain(text: str) -> str:
    """Undo the typographic variants and words of a question's expression."""
    for op, marks in SYMBOLS.items():
        for mark in marks:
            if mark != "x":
                text = text.replace(mark, op) if mark != ":" else re.sub(r"(?<=[\d)]) ?: ?(?=[\d(])", "/", text)
    text = re.sub(r"(?<=[\d)]) ?x ?(?=[\d(])", "*", text)
    for word, op in (("divided by", "/"), ("times", "*"), ("plus", "+"), ("minus", "-")):
        text = text.replace(word, op)
    return text


@given(st.integers(1, 9999), st.integers(1, 9999), st.sampled_from("+-*/"), seeds)
@settings(max_examples=400, deadline=None)
def test_a_split_operation_is_true_in_every_equation_and_ends_in_the_result(a: int, b: int, op: str, seed: int) -> None:
    if op == "-" and b > a:
        a, b = b, a
    if op == "/":
        a, b = a * (b % 9 + 1), b % 9 + 1
    text = explain(a, op, b, Random(seed))
    found = EQUATION.findall(text)
    assert found
    assert all(holds(*e) for e in found), text
    assert int(found[-1][2]) == apply(a, op, b) == value_of(f"{a}{op}{b}")


@given(st.sampled_from(NUMERIC), st.sampled_from(sorted(FAMILIES)), seeds)
@settings(max_examples=600, deadline=None)
def test_every_equation_of_a_trace_is_true_and_the_reply_boxes_the_answer(band: str, family: str, seed: int) -> None:
    problem = FAMILIES[family][0](band, Random(seed))
    found = EQUATION.findall(problem.reasoning)
    assert found
    assert all(holds(*e) for e in found), problem
    assert re.findall(r"\\boxed\{(\d+)\}", problem.reply) == [problem.answer]
    assert problem.band == band
    if family != "compare":
        assert found[-1][2] == problem.answer, problem


@given(st.sampled_from(NUMERIC), seeds)
@settings(max_examples=300, deadline=None)
def test_an_arithmetic_answer_equals_the_value_of_the_expression_in_the_question(band: str, seed: int) -> None:
    problem = FAMILIES["arithmetic"][0](band, Random(seed))
    expressions = re.findall(r"\(?\d[-+*/() \d]*[-+*/][-+*/() \d]*\d\)?(?:[*/ ]+\d+)?", plain(problem.question))
    if len(expressions) == 1 and "Start" not in problem.question:
        assert value_of(expressions[0]) == int(problem.answer or ""), problem


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_a_comparison_answer_is_one_of_the_numbers_asked_about(seed: int) -> None:
    problem = FAMILIES["compare"][0]("one-step", Random(seed))
    numbers = sorted(int(n) for n in re.findall(r"\d+", problem.question))
    small = re.search(r"smallest|smaller|lowest|lower|least|less", problem.question)
    assert int(problem.answer or "") == (numbers[0] if small else numbers[-1]), problem


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_plans_of_one_calculation_share_a_key_in_every_order(seed: int) -> None:
    rng = Random(seed)
    terms = [Term(1, rng.randint(2, 99)) for _ in range(3)]
    shuffled = terms[:]
    rng.shuffle(shuffled)
    assert Plan(tuple(terms)).key == Plan(tuple(shuffled)).key
    assert Plan((Term(1, 7, "*", 12),)).key == Plan((Term(1, 12, "*", 7),)).key
    assert Plan((Term(1, 7), Term(-1, 3))).key != Plan((Term(1, 3), Term(-1, 7))).key


def test_train_and_held_out_problems_are_disjoint() -> None:
    rng = Random("any")
    trained = {example(rng).problem.key for _ in range(3000)}
    asked = {problem.key for band in BANDS for problem in heldout(band, 100)}
    assert not trained & asked
    assert {split_of(key) for key in asked} == {"heldout"}
    assert {split_of(key) for key in trained} == {"train"}


@pytest.mark.parametrize("band", NUMERIC)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_many_phrasings_of_a_family(band: str, family: str) -> None:
    rng = Random(3)
    shapes = {re.sub(r"\d+", "N", FAMILIES[family][0](band, rng).question) for _ in range(300)}
    assert len(shapes) >= (8 if band == "stretch" and family == "compare" else 10)


def test_one_calculation_has_several_orders_of_reasoning() -> None:
    plan = Plan((Term(1, 14), Term(-1, 3), Term(1, 4, "*", 23), Term(1, 6, "*", 5)))
    assert len({"\n".join(plan.solve(Random(seed))) for seed in range(200)}) >= 10
    assert all(EQUATION.findall(plan.solve(Random(seed))[-1])[-1][2] == "133" for seed in range(50))


def test_in_range_bands_stay_in_range() -> None:
    rng = Random(11)
    for band in IN_RANGE_BANDS:
        for _ in range(200):
            problem = draw(band, "train", rng, "word")
            assert int(problem.answer or "") <= 999
    assert not in_range(Plan((Term(1, 100), Term(1, 5))))
    assert not in_range(Plan((Term(1, 12, "*", 12),)))
    assert not in_range(Plan((Term(1, 5), Term(-1, 9), Term(1, 20))))


def test_questions_outside_the_field_have_no_boxed_answer() -> None:
    rng = Random(2)
    replies = {draw("outside", "train", rng).reply for _ in range(300)}
    assert len(replies) >= 3
    assert all("arithmetic" in reply and "boxed" not in reply for reply in replies)


def test_conversations_vary_and_a_follow_up_continues_from_the_last_answer() -> None:
    rng = Random(5)
    drawn = [example(rng) for _ in range(1000)]
    assert {m["role"] for e in drawn for m in e.messages} == {"system", "user", "assistant"}
    assert all(e.messages[-1]["role"] == "user" for e in drawn)
    assert {e.thinking for e in drawn} == {True, False}
    for _ in range(50):
        earlier, later = follow_up("train", rng)
        start = int(earlier.answer or "")
        assert abs(int(later.answer or "") - start) == int(re.findall(r"\d+", later.question)[0])
