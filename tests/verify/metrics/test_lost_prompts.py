"""The prompts that lost most: named, in order, and called more than noise only where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from simulated import draw

from edgedistill.verify.metrics.lost_prompts import MOST, LostPrompt, chance_of_loss, lost_prompts, sign_test
from edgedistill.verify.metrics.suite_summary import summarise_suite
from edgedistill.verify.types import Message, Prompt, Sample, Suite

Distributions = Sequence[dict[str, float]]


def lost(
    before: Distributions, after: Distributions, gold: list[str] | None, n: int = 32, seed: int = 0
) -> list[LostPrompt]:
    rng = np.random.default_rng(seed)
    first, second = (draw(list(one), n, rng, gold=gold) for one in (before, after))
    prompts = [Prompt(f"p{i}", (Message("user", str(i)),), gold[i] if gold else None) for i in range(len(before))]
    suite = Suite("s", tuple(prompts))
    results = [summarise_suite(suite, [s for rows in group.values() for s in rows]) for group in (first, second)]
    right = {prompt.id: prompt.answer for prompt in prompts}
    return list(lost_prompts(results[0].prompts, results[1].prompts, first, second, right))


GOLD = [f"{30 + i}" for i in range(12)]
RIGHT = [{gold: 0.95, "x": 0.05} for gold in GOLD]


@pytest.mark.parametrize("gold", [GOLD, None])
def test_prompts_whose_answer_changed_come_first_with_both_answers(gold: list[str] | None) -> None:
    after = [{"86": 0.9, "x": 0.1} if i == 6 else {"<truncated>": 1.0} if i == 2 else RIGHT[i] for i in range(12)]
    worst, second, *rest = lost(RIGHT, after, gold)
    assert {worst.prompt_id, second.prompt_id} == {"p2", "p6"}
    wrong, none = (worst, second) if worst.prompt_id == "p6" else (second, worst)
    assert (wrong.reference.answer, wrong.bundle.answer, none.bundle.answer) == ("36", "86", None)
    assert none.bundle.share.value == 1.0
    assert wrong.reference.share.value > 0.8 < wrong.bundle.share.value
    assert wrong.gold == (None if gold is None else "36")
    assert wrong.before.value > 0.8
    assert wrong.after.value == 0.0
    assert wrong.before.interval is not None
    assert wrong.before.interval.low > 0.6
    assert (wrong.beyond_noise, none.beyond_noise) == (True, True)
    assert not any(row.beyond_noise for row in rest)
    falls = [row.before.value - row.after.value for row in (worst, second, *rest)]
    assert falls == sorted(falls, reverse=True)
    assert min(falls) > 0
    assert len(falls) <= MOST


def test_a_prompt_that_turned_right_did_not_lose() -> None:
    assert not lost([{"7": 1.0}] * 12, RIGHT, GOLD)
    assert not lost([{"<unparsed>": 1.0}] * 12, RIGHT, None)


@pytest.mark.parametrize("gold", [GOLD, None])
@pytest.mark.parametrize("answers", [2, 4, 12])
def test_equal_models_lose_nothing_beyond_noise(gold: list[str] | None, answers: int) -> None:
    """In 5 % of runs at most; without gold the answer that is most frequent by luck must not count as lost."""
    even = [{GOLD[(i + k) % 12]: 1 / answers for k in range(answers)} for i in range(12)]
    rng, found = np.random.default_rng(answers), 0
    for _ in range(60):
        before, after = (draw(even, 64, rng, gold=gold) for _ in range(2))
        found += min(chance_of_loss(before[name], after[name]) for name in before) * 12 <= 0.05
    assert found <= stats.binom.ppf(0.999, 60, 0.05)


@pytest.mark.parametrize(("lost_pairs", "gained"), [(0, 0), (5, 0), (7, 3), (3, 7)])
def test_the_sign_test_is_that_of_scipy(lost_pairs: int, gained: int) -> None:
    theirs = stats.binomtest(lost_pairs, lost_pairs + gained, alternative="greater").pvalue if lost_pairs else 1.0
    assert sign_test(lost_pairs, gained) == pytest.approx(theirs)


def test_prompts_without_shared_samples_are_left_out() -> None:
    def sample(index: int, answer: str) -> Sample:
        return Sample("p", index, "parsed", answer, answer, 3, 0, False, 0.0, None)

    suite = Suite("s", (Prompt("p", (Message("user", "?"),)),))
    before, after = [sample(0, "1"), sample(1, "1")], [sample(2, "2"), sample(3, "2")]
    first, second = (summarise_suite(suite, group).prompts for group in (before, after))
    assert lost_prompts(first, second, {"p": before}, {"p": after}, {"p": None}) == ()
