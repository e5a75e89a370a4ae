"""The gate keeps its promises: false alarms, false passes, power, and what would decide."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated import damaged, draw, skilled

from edgedistill.errors import VerifyError
from edgedistill.profile.profile import VerifyMargins
from edgedistill.verify.gate.decide import SAFE_PROMPTS, GateResult, collapse_endpoint, decide, overall
from edgedistill.verify.gate.endpoints import Margins, endpoints
from edgedistill.verify.metrics.collapse_verdict import Verdict
from edgedistill.verify.metrics.paired import Comparison, PerPrompt, compare
from edgedistill.verify.stats.permutation import sign_flip

MARGINS = Margins(accuracy=0.05, agreement=0.08, entropy_bits=0.25, length_ratio=1.15, truncation=0.05)
SAMPLES = 12


def models(prompts: int, loss: float, rng: np.random.Generator, *, coupled: float = 0.0) -> Comparison:
    """A reference and its damaged twin; ``coupled``: share of samples that use the same noise."""
    before, gold = skilled(prompts, rng)
    after = damaged(before, gold, loss)
    noise = rng.random((prompts, SAMPLES))
    other = np.where(rng.random(noise.shape) < coupled, noise, rng.random(noise.shape))
    return compare(
        draw(before, SAMPLES, rng, gold=gold, uniforms=noise), draw(after, SAMPLES, rng, gold=gold, uniforms=other)
    )


def of_differences(d: np.ndarray, rng: np.random.Generator) -> Comparison:
    """A comparison whose accuracies differ by ``d`` and that is equal in everything else."""
    zero, half = np.zeros(d.size), np.full(d.size, 0.5)
    reference = PerPrompt(half, half, half, zero, half * 100)
    return Comparison(tuple(map(str, range(d.size))), SAMPLES, reference, replace(reference, accuracy=half + d), None)


def test_the_reference_against_itself_hardly_ever_fails() -> None:
    rng, fails, passes = np.random.default_rng(0), 0, 0
    margins = replace(MARGINS, accuracy=0.08, agreement=0.12, entropy_bits=0.4)
    for seed in range(200):
        outcome = decide(models(40, 0.0, rng), margins, seed=seed).outcome
        fails += outcome == "fail"
        passes += outcome == "pass"
    assert fails <= 10  # 5 % nominal; the truth is well within the margins, so next to none is due
    assert passes >= 150


@pytest.mark.parametrize("method", ["permutation", "bootstrap", "betting"])
def test_at_the_margin_passing_and_failing_are_rare(method: str) -> None:
    """The truth lies exactly on the accuracy margin: P(pass) and P(fail) are each at most alpha."""
    rng, passed, failed, repetitions = np.random.default_rng(1), 0, 0, 200
    for seed in range(repetitions):
        d = rng.normal(-MARGINS.accuracy, 0.15, size=50)
        result = decide(of_differences(np.clip(d, -0.5, 0.5), rng), MARGINS, method=method, seed=seed)  # type: ignore[arg-type]
        passed += result.outcome == "pass"
        failed += result.outcome == "fail"
    limit = 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / repetitions)
    assert passed / repetitions <= limit
    assert failed / repetitions <= limit


def test_betting_holds_where_harm_is_rare_and_total() -> None:
    """One prompt in twenty fails entirely, exactly at the margin: symmetric methods cannot see it coming, bets can."""
    rng, passed = np.random.default_rng(2), {"betting": 0, "permutation": 0}
    for seed in range(200):
        d = np.where(rng.random(40) < 0.10, -0.5, 0.0)
        for method in passed:
            found = of_differences(d, rng)
            passed[method] += decide(found, MARGINS, method=method, seed=seed).outcome == "pass"  # type: ignore[arg-type]
    assert passed["betting"] <= 200 * 0.05 + 8
    result = decide(of_differences(np.zeros(40), rng), MARGINS)
    assert result.blind_spot == pytest.approx(1 - 0.05 ** (1 / 40))


def test_power_rises_with_the_damage_and_matches_the_formula() -> None:
    rng = np.random.default_rng(3)
    shares = []
    for loss in (0.0, 0.05, 0.12, 0.30):
        results = [decide(models(40, loss, rng), MARGINS, seed=seed) for seed in range(24)]
        shares.append(
            (np.mean([r.outcome == "fail" for r in results]), np.mean([r.outcome == "pass" for r in results]))
        )
    fails, passes = zip(*shares, strict=True)
    assert list(fails) == sorted(fails)
    assert list(passes) == sorted(passes, reverse=True)
    assert (fails[0], fails[-1], passes[-1]) == (0.0, 1.0, 0.0)
    assert passes[1] <= 0.15


def test_predicted_power_is_the_power_found() -> None:
    rng, passed, predicted = np.random.default_rng(4), 0, []
    tight = replace(MARGINS, accuracy=0.04)
    for seed in range(200):
        found = decide(of_differences(np.clip(rng.normal(0, 0.1, size=40), -0.5, 0.5), rng), tight, seed=seed)
        passed += found.endpoints[0].outcome == "pass"
        predicted.append(found.endpoints[0].power)
    assert passed / 200 == pytest.approx(np.mean(predicted), abs=0.08)


def test_predicted_power_of_bets_is_the_power_found() -> None:
    rng, passed, predicted = np.random.default_rng(4), 0, []
    for seed in range(60):
        d = np.clip(rng.normal(0, 0.1, size=75), -0.5, 0.5)
        found = decide(of_differences(d, rng), MARGINS, method="betting", seed=seed)
        passed += found.endpoints[0].outcome == "pass"
        predicted.append(found.endpoints[0].power)
    assert 0.1 < passed / 60 < 0.9
    assert passed / 60 == pytest.approx(np.mean(predicted), abs=0.15)


def test_margins_too_small_for_floating_point_decide_nothing() -> None:
    found = decide(of_differences(np.zeros(40), np.random.default_rng(0)), replace(MARGINS, entropy_bits=1e-300))
    assert found.further_prompts is None


def test_what_would_decide_decides_at_80_percent() -> None:
    rng = np.random.default_rng(5)
    open_one = of_differences(np.array([-0.30, 0.30] * 20) - 0.01, rng)
    result = decide(open_one, MARGINS)
    accuracy = result.endpoints[0]
    assert accuracy.outcome == "inconclusive"
    assert accuracy.decide is not None
    wanted = accuracy.decide.prompts
    assert wanted is not None
    assert result.further_prompts == wanted - 40
    decided = 0
    for seed in range(60):
        d = rng.choice([-0.31, 0.29], size=wanted)
        decided += decide(of_differences(d, rng), MARGINS, seed=seed).endpoints[0].outcome != "inconclusive"
    assert 0.68 <= decided / 60 <= 0.92


def test_coupling_makes_the_same_samples_decide_more() -> None:
    rng, outcomes = np.random.default_rng(6), {0.0: 0, 0.9: 0}
    tight = replace(MARGINS, accuracy=0.03, agreement=0.05, entropy_bits=0.15)
    for seed in range(30):
        for coupled in outcomes:
            outcomes[coupled] += decide(models(40, 0.0, rng, coupled=coupled), tight, seed=seed).outcome == "pass"
    assert outcomes[0.9] >= outcomes[0.0] + 8


def test_few_prompts_never_pass_but_may_fail() -> None:
    rng = np.random.default_rng(7)
    few = decide(models(SAFE_PROMPTS - 10, 0.0, rng, coupled=1.0), MARGINS)
    assert few.outcome == "inconclusive"
    assert few.further_prompts is not None
    assert few.further_prompts >= 10
    assert "too few" in few.notes[0]
    assert {row.power for row in few.endpoints} == {0.0}
    for row in few.endpoints:
        assert row.decide is not None
        assert row.decide.further_prompts is not None
        assert row.decide.further_prompts >= 10
        assert row.decide.further_samples is None
    assert decide(models(12, 0.5, rng), MARGINS).outcome == "fail"


def test_exit_codes_and_overall() -> None:
    rng = np.random.default_rng(8)
    assert decide(models(40, 0.0, rng, coupled=1.0), MARGINS).exit_code == 0
    assert decide(models(40, 0.4, rng), MARGINS).exit_code == 1
    assert decide(models(20, 0.0, rng, coupled=1.0), MARGINS).exit_code == 3
    assert overall(["pass", "inconclusive", "fail"]) == "fail"
    assert overall(["pass", "inconclusive"]) == "inconclusive"
    assert overall([]) == "inconclusive"


def test_more_agreement_than_the_reference_is_a_shift_and_fails() -> None:
    """Accuracy may rise, agreement may not: a quantized model that collapses onto its answers has changed."""
    rng = np.random.default_rng(9)
    gold = [f"g{i}" for i in range(60)]
    soft = [{g: 0.6, "a" + g: 0.2, "b" + g: 0.2} for g in gold]
    hard = [{g: 1.0} for g in gold]
    result = decide(compare(draw(soft, SAMPLES, rng, gold=gold), draw(hard, SAMPLES, rng, gold=gold)), MARGINS)
    by_name = {endpoint.name: endpoint.outcome for endpoint in result.endpoints}
    assert (by_name["accuracy"], by_name["agreement"], by_name["entropy"]) == ("pass", "fail", "fail")
    assert result.outcome == "fail"


def test_length_and_garbage_endpoints() -> None:
    rng = np.random.default_rng(10)
    distributions, gold = skilled(40, rng)
    reference = draw(distributions, SAMPLES, rng, gold=gold)
    longer = decide(compare(reference, draw(distributions, SAMPLES, rng, gold=gold, tokens=150)), MARGINS)
    length = {e.name: e for e in longer.endpoints}["length"]
    assert (length.outcome, length.margin) == ("fail", pytest.approx(1.15))
    assert length.change.value == pytest.approx(1.5, abs=0.06)
    cut = [{**{k: 0.8 * v for k, v in d.items()}, "<truncated>": 0.2} for d in distributions]
    broken = decide(compare(reference, draw(cut, SAMPLES, rng, gold=gold)), MARGINS)
    assert {e.name: e.outcome for e in broken.endpoints}["garbage"] == "fail"


def test_without_gold_accuracy_is_no_endpoint() -> None:
    rng = np.random.default_rng(11)
    distributions, _ = skilled(40, rng)
    comparison = compare(draw(distributions, SAMPLES, rng), draw(distributions, SAMPLES, rng))
    assert [e.name for e in endpoints(comparison, MARGINS)] == ["agreement", "entropy", "length", "garbage"]


def test_collapse_endpoint() -> None:
    fine, gone = Verdict("consistent-correct", True, ""), Verdict("collapsed", True, "")
    unsure = Verdict("diffuse", False, "")
    assert collapse_endpoint(fine, fine).outcome == "pass"
    assert collapse_endpoint(fine, gone).outcome == "fail"
    assert collapse_endpoint(unsure, gone).outcome == "fail"
    assert collapse_endpoint(fine, unsure).outcome == "inconclusive"
    rng = np.random.default_rng(12)
    result: GateResult = decide(models(40, 0.0, rng, coupled=1.0), MARGINS, verdicts=(fine, gone))
    assert result.outcome == "fail"


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 0.0},
        {"accuracy": -0.1},
        {"agreement": 1.5},
        {"entropy_bits": math.nan},
        {"length_ratio": 1.0},
        {"length_ratio": 0.5},
        {"truncation": 2.0},
        {"entropy_bits": 60.0},
        {"accuracy": 1.0},
    ],
)
def test_margins_that_make_no_sense(change: dict[str, float]) -> None:
    with pytest.raises(VerifyError, match="margin"):
        decide(models(10, 0.0, np.random.default_rng(0)), replace(MARGINS, **change))


def test_margins_of_a_profile_and_alpha() -> None:
    assert Margins.of(VerifyMargins()).accuracy == 0.02
    with pytest.raises(VerifyError, match="alpha"):
        decide(models(10, 0.0, np.random.default_rng(0)), MARGINS, alpha=0.7)


def test_unpaired_data_are_refused() -> None:
    rng = np.random.default_rng(0)
    distributions, gold = skilled(5, rng)
    groups = draw(distributions, 4, rng, gold=gold)
    with pytest.raises(VerifyError, match="one model only"):
        compare(groups, {k: v for k, v in groups.items() if k != "p0"})
    with pytest.raises(VerifyError, match="found 1 prompt"):
        compare({"p0": groups["p0"]}, {"p0": groups["p0"]})
    with pytest.raises(VerifyError, match=r"has 4 sample\(s\) of the reference and 3"):
        compare(groups, {k: v[:3] for k, v in groups.items()})
    with pytest.raises(VerifyError, match="at least 2"):
        compare({k: v[:1] for k, v in groups.items()}, {k: v[:1] for k, v in groups.items()})


def test_sign_flips_exact_and_drawn_agree_with_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(1)
    d = rng.normal(0.3, 1, size=10)
    exact = sign_flip(d)
    theirs = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert exact.exact
    assert exact.greater == pytest.approx(theirs.pvalue)
    many = rng.normal(0.3, 1, size=40)
    drawn = sign_flip(many)
    assert drawn.greater == pytest.approx(stats.ttest_1samp(many, 0, alternative="greater").pvalue, abs=0.02)
    assert sign_flip(np.zeros(5)).greater == sign_flip(np.zeros(5)).less == 1.0


def test_sign_flip_size() -> None:
    rng = np.random.default_rng(2)
    p = np.array([sign_flip(rng.laplace(size=20), flips=399, seed=s).greater for s in range(600)])
    assert (p <= 0.05).mean() <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 600)
    assert (p <= 0.05).mean() >= 0.02
