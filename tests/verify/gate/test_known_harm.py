"""Cases that other gates pass, or fail without a reason, as docs/explanation/statistics.md lists them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated import TRUNCATED, draw, sample

from edgedistill.verify.gate.decide import GateResult, decide
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.metrics.paired import Comparison, compare
from edgedistill.verify.report.gate_text import gate_report

LIMIT = 2048
Distributions = list[dict[str, float]]


def pair(
    before: Distributions, after: Distributions, samples: int, seed: int = 0, gold: list[str] | None = None
) -> Comparison:
    """Samples of both under the same noise; lengths of equal noise are equal, too."""
    noise = np.random.default_rng(seed).random((len(before), samples))
    left, right = (
        draw(model, samples, np.random.default_rng(seed), gold=gold, uniforms=noise) for model in (before, after)
    )
    return compare(left, right, limit=LIMIT)


def outcome(result: GateResult, name: str) -> str:
    return next(row.outcome for row in result.endpoints if row.name == name)


@pytest.mark.parametrize("estimand", ["suite", "population"])
def test_every_answer_of_a_yes_no_suite_inverted(estimand: str) -> None:
    before = [{"yes": 0.9, "no": 0.1} if i % 2 else {"yes": 0.1, "no": 0.9} for i in range(60)]
    after = [{"yes": model["no"], "no": model["yes"]} for model in before]
    result = decide(pair(before, after, 16), Margins(), estimand=estimand)  # type: ignore[arg-type]
    assert (result.outcome, outcome(result, "distance")) == ("fail", "fail")
    assert outcome(result, "agreement") != "fail"  # as consistent as before


@pytest.mark.parametrize("prompts", [30, 60, 150])
@pytest.mark.parametrize(("share", "kept"), [(0.02, 0.0), (0.04, 0.5)])
def test_rare_harm_at_the_margin_passes_for_prompts_like_these_as_often_as_alpha_allows(
    prompts: int, share: float, kept: float
) -> None:
    """2 % of prompts lose everything, or 4 % half: a loss of exactly the margin."""
    rng, passes, repetitions = np.random.default_rng(prompts), 0, 20
    for repetition in range(repetitions):
        hit = rng.random(prompts) < share
        gold = ["g"] * prompts
        after = [{"g": kept, "w": 1 - kept} if is_hit else {"g": 1.0} for is_hit in hit]
        comparison = pair([{"g": 1.0}] * prompts, after, 16, repetition, gold)
        passes += outcome(decide(comparison, Margins(accuracy=0.02), estimand="population"), "accuracy") == "pass"
    assert passes <= 3  # of 20 at 5 %: four or more have a probability of .016


def test_one_prompt_of_150_lost_entirely() -> None:
    gold = ["g"] * 150
    comparison = pair([{"g": 1.0}] * 150, [{"w": 1.0}] + [{"g": 1.0}] * 149, 16, gold=gold)
    others = decide(comparison, Margins(accuracy=0.02), estimand="population")
    assert outcome(others, "accuracy") == "inconclusive"
    row = others.endpoints[0]
    assert row.p_pass >= 0.98**150 + 150 * 0.02 * 0.98**149  # of the exact binomial test: .196
    assert row.decide is not None
    assert row.decide.further_prompts is not None
    # Of these prompts the loss is known: a third of the margin.
    these = decide(comparison, Margins(accuracy=0.02))
    assert outcome(these, "accuracy") == "pass"
    assert these.endpoints[0].change.value == pytest.approx(-1 / 150)


@pytest.mark.parametrize(("before", "after", "samples"), [(64, 256, 16), (256, 4096, 64)])
def test_more_equally_likely_answers_than_samples(before: int, after: int, samples: int) -> None:
    """The plain entropy stops at log2 N and sees no change."""
    prompts = 40
    models = [[{f"{p}-{k}": 1 / kinds for k in range(kinds)} for p in range(prompts)] for kinds in (before, after)]
    comparison = pair(models[0], models[1], samples)
    result = decide(comparison, Margins())
    assert result.outcome != "pass"
    assert outcome(result, "entropy") != "pass"
    assert float(comparison.quantized.coverage.mean()) < 0.5
    text = " ".join(gate_report(result, comparison, Margins()).reasons)
    assert "Good-Turing coverage" in text or outcome(result, "entropy") == "fail"


@pytest.mark.parametrize("samples", [8, 16])
def test_a_twentieth_of_prompts_loops_to_twenty_times_the_length(samples: int) -> None:
    reference = {f"p{i}": [sample(f"p{i}", j, "a") for j in range(samples)] for i in range(100)}
    looping = {
        name: [replace(one, tokens=2000 if index < 5 else 100) for one in group]
        for index, (name, group) in enumerate(reference.items())
    }
    comparison = compare(reference, looping, limit=LIMIT)
    result = decide(comparison, Margins())
    tokens = next(row for row in result.endpoints if row.name == "tokens")
    assert tokens.change.value == pytest.approx(1.95)
    assert tokens.outcome != "pass"
    assert outcome(result, "length") == "pass"  # the typical reply is as long as before
    more = {name: group * 8 for name, group in reference.items()}
    longer = {name: group * 8 for name, group in looping.items()}
    numbered = [
        {name: [replace(one, index=i) for i, one in enumerate(group)] for name, group in groups.items()}
        for groups in (more, longer)
    ]
    assert outcome(decide(compare(numbered[0], numbered[1], limit=LIMIT), Margins()), "tokens") == "fail"


def test_truncation_of_a_fiftieth_is_not_passed() -> None:
    before = [{"a": 1.0}] * 50
    after = [{TRUNCATED: 1.0}] + [{"a": 1.0}] * 49
    for estimand in ("suite", "population"):
        result = decide(pair(before, after, 16), Margins(truncation=0.02), estimand=estimand)
        assert outcome(result, "garbage") == "inconclusive"  # exactly at the margin


def test_a_loss_beyond_the_margin_fails_and_its_interval_says_so() -> None:
    rng = np.random.default_rng(4)
    gold = ["g"] * 40
    hit = rng.random(40) < 0.35
    comparison = pair([{"g": 0.95, "w": 0.05}] * 40, [{"g": 0.3 if h else 0.95, "w": 0.7 if h else 0.05} for h in hit],
                      16, gold=gold)  # fmt: skip
    result = decide(comparison, Margins())
    row = result.endpoints[0]
    assert row.change.interval is not None
    assert (row.outcome, row.direction) == ("fail", "worse")
    assert row.change.interval.high < -0.02


@pytest.mark.parametrize(("prompts", "samples", "lost", "gained", "word"), [
    (40, 16, 140, 30, "fail"), (150, 32, 54, 19, "fail"), (150, 8, 54, 19, "inconclusive"), (150, 64, 29, 19, "pass"),
])  # fmt: skip
def test_a_loss_by_three_bits_fails_where_its_interval_can_lie_beyond_the_margin(
    prompts: int, samples: int, lost: int, gained: int, word: str
) -> None:
    """Of 1,000 pairs so many turn wrong and right: 11 points, and what tiny-reasoner loses by int3 (3.5 points)."""
    turns = np.random.default_rng(0).permutation(1000)[np.arange(prompts * samples) % 1000].reshape(prompts, samples)
    before, after = (
        {
            f"p{i}": [sample(f"p{i}", j, "w" if low <= turn < high else "g", "g") for j, turn in enumerate(turns[i])]
            for i in range(prompts)
        }
        for low, high in ((lost, lost + gained), (0, lost))
    )
    row = decide(compare(before, after, limit=LIMIT), Margins()).endpoints[0]
    assert row.change.interval is not None
    assert row.outcome == word
    assert (row.change.interval.high < -0.02) == (word == "fail")


def test_a_better_bundle_is_called_better() -> None:
    gold = ["g"] * 60
    comparison = pair([{"g": 0.8, "w": 0.2}] * 60, [{"g": 0.84, "w": 0.16}] * 60, 64, gold=gold)
    margins = Margins(agreement=0.2, entropy_bits=0.5)
    result = decide(comparison, margins)
    report = gate_report(result, comparison, margins)
    assert result.outcome == "pass"
    assert any("better than the reference in accuracy and nothing was shown to be worse" in r for r in report.reasons)
    assert not math.isnan(result.endpoints[0].change.value)


def _labels(prompts: int) -> Distributions:
    return [{"ABCD"[i % 4]: 0.9, "ABCD"[(i + 1) % 4]: 0.1} for i in range(prompts)]


@pytest.mark.parametrize("moves", [dict(zip("ABCD", "BCDA", strict=True)), {"A": "B", "B": "A"}])
def test_labels_of_a_choice_suite_shuffled(moves: dict[str, str]) -> None:
    before = _labels(60)
    after = [{moves.get(label, label): share for label, share in model.items()} for model in before]
    for estimand in ("suite", "population"):
        result = decide(pair(before, after, 16), Margins(), estimand=estimand)
        assert (result.outcome, outcome(result, "distance")) == ("fail", "fail")


def test_losses_that_gains_make_up_for() -> None:
    right, wrong = {"g": 1.0}, {"w": 1.0}
    result = decide(pair([right] * 58 + [wrong] * 2, [wrong] * 2 + [right] * 58, 32, gold=["g"] * 60), Margins())
    assert (outcome(result, "accuracy"), outcome(result, "distance")) == ("pass", "fail")


def test_hard_prompts_alone_are_hurt() -> None:
    sure, gold = [{"g": 1.0}] * 54, ["g"] * 60
    result = decide(pair(sure + [{"g": 0.5, "w": 0.5}] * 6, sure + [{"w": 1.0}] * 6, 32, gold=gold), Margins())
    assert outcome(result, "accuracy") == "fail"


def test_a_colder_bundle_is_no_better_one() -> None:
    result = decide(pair([{"g": 0.9, "w": 0.1}] * 60, [{"g": 1.0}] * 60, 32, gold=["g"] * 60), Margins())
    assert outcome(result, "accuracy") == "pass"
    assert {outcome(result, "agreement"), outcome(result, "entropy")} == {"fail"}


def test_a_few_replies_of_every_prompt_loop() -> None:
    reference = {f"p{i}": [sample(f"p{i}", j, "a") for j in range(16)] for i in range(100)}
    looping = {
        name: [replace(one, tokens=2000 if (7 * one.index + i) % 32 == 0 else 100) for one in group]
        for i, (name, group) in enumerate(reference.items())
    }
    result = decide(compare(reference, looping, limit=LIMIT), Margins())
    assert (outcome(result, "length"), outcome(result, "tokens")) == ("pass", "fail")


@pytest.mark.parametrize(("sure", "kinds", "samples"), [(0, 64, 512), (30, 1000, 64), (58, 1000, 64)])
def test_answers_so_diverse_that_no_endpoint_sees_all_of_them_change(sure: int, kinds: int, samples: int) -> None:
    """Without gold; the same number of equally likely answers before and after, and not one of them the same."""
    same: Distributions = [{f"{p}": 1.0} for p in range(sure)]
    sides = [
        [{f"{p}{side}{k}": 1 / kinds for k in range(kinds)} for p in range(30 if sure < 58 else 2)] for side in "xy"
    ]
    comparison = pair(same + sides[0], same + sides[1], samples)
    result = decide(comparison, Margins())
    assert result.outcome == "inconclusive"
    report = gate_report(result, comparison, Margins())
    assert any("hardly any two samples agree" in reason for reason in report.reasons)
    gold = [f"{p}" for p in range(sure)] + [f"{p}x0" for p in range(len(sides[0]))]
    assert not decide(pair(same + sides[0], same + sides[1], samples, gold=gold), Margins()).notes


def test_a_diverse_prompt_of_sixty_leaves_the_rest_decidable() -> None:
    same: Distributions = [{f"{p}": 1.0} for p in range(60)]
    diverse = [{f"x{k}": 1 / 1000 for k in range(1000)}]
    result = decide(pair(same + diverse, same + diverse, 64), Margins())
    assert result.outcome == "pass"


@pytest.mark.parametrize("samples", [8, 9])
def test_what_would_decide_does_where_an_odd_sample_counts_for_nothing(samples: int) -> None:
    """At 40 prompts an unchanged bundle passes with 10 samples of each, and never with 8 or 9."""

    def gate(count: int) -> tuple[GateResult, str]:
        drawn = draw([{"g": 1.0}] * 40, count, np.random.default_rng(0), gold=["g"] * 40, tokens=LIMIT / 2)
        same = compare(drawn, drawn, limit=LIMIT)
        result = decide(same, Margins())
        return result, gate_report(result, same, Margins()).power

    result, power = gate(samples)
    assert (result.outcome, result.further_samples) == ("inconclusive", 10 - samples)
    assert "with probability 0.00; with 10 samples of each, 1.00." in power
    decided, power = gate(10)
    assert decided.outcome == "pass"
    assert power.endswith("with probability 1.00.")
