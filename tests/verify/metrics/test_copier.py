"""Models that copy a number of the prompt, on simulated answers to questions with two numbers."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import draw

from edgedistill.verify.metrics.suite_summary import SuiteResult, summarise_suite
from edgedistill.verify.types import Message, Prompt, Suite

PROMPTS, SAMPLES = 40, 16


def judge(prompts: list[Prompt], distributions: list[dict[str, float]]) -> SuiteResult:
    gold = None if prompts[0].answer is None else [str(prompt.answer) for prompt in prompts]
    groups = draw(distributions, SAMPLES, np.random.default_rng(0), gold=gold)
    return summarise_suite(Suite("s", tuple(prompts)), [s for group in groups.values() for s in group])


def sums(distributions: list[dict[str, float]], *, gold: bool = True) -> SuiteResult:
    """On the questions "Add 13 + 107 now", "Add 16 + 109 now" and so on."""
    right = [str(120 + 5 * i) for i in range(len(distributions))]
    prompts = [
        Prompt(f"p{i}", (Message("user", f"Add {13 + 3 * i} + {107 + 2 * i} now"),), right[i] if gold else None)
        for i in range(len(distributions))
    ]
    return judge(prompts, distributions)


@pytest.mark.parametrize("gold", [True, False])
def test_a_copier_is_collapsed_although_its_answers_differ_from_prompt_to_prompt(*, gold: bool) -> None:
    found = sums([{str(107 + 2 * i): 0.97, "x": 0.03} for i in range(PROMPTS)], gold=gold)
    assert found.collapse is not None
    assert found.collapse.ratio.value > 0.9, "information does not show it"
    assert found.copied is not None
    assert found.copied.place == "second number"
    assert found.copied.share.value > 0.9
    assert found.verdict is not None
    assert found.verdict.name == ("collapsed" if gold else None)
    if gold:
        assert found.verdict.certain
    assert "second number of the prompt" in found.verdict_reason
    assert "a copier" in found.verdict_reason


def test_copies_on_a_part_of_the_prompts_are_named_with_their_share() -> None:
    found = sums([{str(13 + 3 * i): 1.0} if i % 7 < 3 else {str(120 + 5 * i): 1.0} for i in range(PROMPTS)])
    assert found.verdict is not None
    assert (found.verdict.name, found.verdict.certain) == ("partly-collapsed", True)
    assert "The first number of the prompt is the answer to 45.0% of the prompts" in found.verdict_reason


def test_right_answers_that_stand_in_the_prompt_are_no_copies() -> None:
    gold = [str(100 + i) for i in range(PROMPTS)]
    prompts = [
        Prompt(f"p{i}", (Message("user", f"Which is larger, {i} or {gold[i]}?"),), gold[i]) for i in range(PROMPTS)
    ]
    found = judge(prompts, [{right: 0.97, "x": 0.03} for right in gold])
    assert found.copied is not None
    assert found.copied.share.value == 0.0
    assert found.verdict is not None
    assert found.verdict.name == "consistent-correct"
    solver = sums([{str(120 + 5 * i): 0.9, str(121 + 5 * i): 0.1} for i in range(PROMPTS)])
    assert solver.verdict is not None
    assert solver.verdict.name == "consistent-correct"


def test_what_is_the_same_in_all_prompts_is_a_constant_and_no_copy() -> None:
    questions = [Prompt(f"p{i}", (Message("user", str(i)),), ("yes", "no")[i % 2]) for i in range(PROMPTS)]
    assert judge(questions, [{"yes": 1.0}] * PROMPTS).copied is None
    orders = [Prompt(f"p{i}", (Message("user", "Say 7"),), str(i)) for i in range(PROMPTS)]
    same = judge(orders, [{"7": 1.0}] * PROMPTS)
    assert same.copied is None
    assert same.verdict is not None
    assert same.verdict.name == "collapsed"
    assert "copier" not in same.verdict_reason
