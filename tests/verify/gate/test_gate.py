"""The gate keeps its promises: interval and verdict agree, false passes are rare, and what would decide does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated import damaged, draw, skilled

from edgedistill.errors import VerifyError
from edgedistill.profile.profile import VerifyMargins
from edgedistill.verify.gate.decide import Decider, GateResult, collapse_endpoint, decide, overall
from edgedistill.verify.gate.endpoints import Endpoint, Estimand, Margins, endpoints
from edgedistill.verify.metrics.answer_distance import distribution_distance
from edgedistill.verify.metrics.collapse_verdict import Verdict
from edgedistill.verify.metrics.paired import AGREES, DISTANCES, Comparison, compare, pair_atoms
from edgedistill.verify.stats.betting import holm

MARGINS = Margins(accuracy=0.05, agreement=0.08, entropy_bits=0.25, length_ratio=1.15, truncation=0.05, distance=0.1)
SAMPLES = 12
LIMIT = 400


def models(
    prompts: int, loss: float, rng: np.random.Generator, *, coupled: float = 0.9, samples: int = SAMPLES
) -> Comparison:
    """A reference and its damaged twin; ``coupled``: share of samples that use the same noise."""
    before, gold = skilled(prompts, rng)
    after = damaged(before, gold, loss)
    noise = rng.random((prompts, samples))
    other = np.where(rng.random(noise.shape) < coupled, noise, rng.random(noise.shape))
    return compare(
        draw(before, samples, rng, gold=gold, uniforms=noise),
        draw(after, samples, rng, gold=gold, uniforms=other),
        limit=LIMIT,
    )


def outcomes(result: GateResult) -> dict[str, str]:
    return {row.name: row.outcome for row in result.endpoints}


def test_atoms_of_pairs_are_the_unbiased_statistics() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, q = rng.integers(-2, 4, size=(2, 9))
        agree, distance = pair_atoms(p, q)
        kinds = np.arange(4)
        for codes, mean in ((q, agree @ AGREES[0]), (p, agree @ AGREES[1])):
            n = (codes[:, None] == kinds).sum(axis=0)
            assert mean == pytest.approx((n * (n - 1)).sum() / (9 * 8))
        assert distance @ DISTANCES == pytest.approx(distribution_distance(p, q, coupled=True))


@pytest.mark.parametrize("estimand", ["suite", "population"])
def test_interval_and_verdict_agree(estimand: str) -> None:
    """Within the margin exactly if the endpoint passes, beyond it exactly if it fails."""
    rng, seen = np.random.default_rng(1), set()
    margins = replace(MARGINS, shorter_ratio=0.9)
    for _ in range(6):
        comparison = models(int(rng.integers(20, 120)), float(rng.choice([0.0, 0.05, 0.3])), rng)
        result = decide(comparison, margins, estimand=estimand)  # type: ignore[arg-type]
        for row, endpoint in zip(result.endpoints, endpoints(comparison, margins, estimand), strict=True):  # type: ignore[arg-type]
            interval = row.change.interval
            assert interval is not None
            ends = [-math.inf if endpoint.low is None else endpoint.shown(endpoint.low)]
            ends.append(math.inf if endpoint.high is None else endpoint.shown(endpoint.high))
            low, high = sorted(ends)
            within = low - 1e-8 <= interval.low and interval.high <= high + 1e-8
            beyond = interval.high <= low + 1e-8 or interval.low >= high - 1e-8
            assert (row.outcome == "pass") == within
            assert (row.outcome == "fail") == beyond
            assert row.change.value in interval
            seen.add(row.outcome)
    assert seen == {"pass", "fail", "inconclusive"}


def test_the_reference_against_itself_passes_and_never_fails() -> None:
    rng = np.random.default_rng(0)
    found = [decide(models(60, 0.0, rng), MARGINS).outcome for _ in range(8)]
    assert found.count("fail") == 0
    assert found.count("pass") >= 5


def test_failing_divides_alpha_over_the_limits_of_all_endpoints() -> None:
    """An endpoint beyond its margin at alpha alone is not enough: accuracy has four elevenths."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        result = decide(models(40, 0.10, rng), MARGINS)
        row = result.endpoints[0]
        if 0.2 / 11 < row.p_fail <= 0.05 and min(r.p_fail for r in result.endpoints) == row.p_fail:
            break
    else:
        pytest.fail("no such case was drawn")
    assert sum(len(e.beyond()) for e in endpoints(models(40, 0.1, rng), MARGINS)) == 9
    assert row.outcome == "inconclusive"
    interval = row.change.interval
    assert interval is not None
    assert interval.level == pytest.approx(1 - 0.05 - 0.2 / 11)
    assert interval.high > -MARGINS.accuracy


def test_outcomes_follow_the_damage() -> None:
    rng = np.random.default_rng(3)
    shares = []
    for loss in (0.0, 0.05, 0.12, 0.30):
        found = [decide(models(60, loss, rng), MARGINS).outcome for _ in range(3)]
        shares.append((found.count("fail"), found.count("pass")))
    fails, passes = zip(*shares, strict=True)
    assert list(fails) == sorted(fails)
    assert list(passes) == sorted(passes, reverse=True)
    assert (fails[0], fails[-1], passes[-1]) == (0, 3, 0)


@pytest.mark.parametrize("estimand", ["suite", "population"])
def test_what_would_decide_decides(estimand: str) -> None:
    """At 80 % power or, since the prediction is a lower bound, more."""
    rng = np.random.default_rng(6)
    population = estimand == "population"
    tight = replace(MARGINS, accuracy=0.03)
    while True:  # the prediction holds if the truth is as observed
        row = decide(models(60, 0.0, rng, samples=6), tight, estimand=estimand).endpoints[0]  # type: ignore[arg-type]
        if row.outcome == "inconclusive" and -0.004 < row.change.value < 0:
            break
    assert row.decide is not None
    wanted = row.decide.prompts if population else row.decide.samples
    assert wanted is not None
    assert (row.decide.samples if population else row.decide.prompts) is None
    prompts, samples = (wanted, 6) if population else (60, wanted)
    decided = sum(
        decide(models(prompts, 0.0, rng, samples=samples), tight, estimand=estimand).endpoints[0].outcome  # type: ignore[arg-type]
        != "inconclusive"
        for _ in range(5)
    )
    assert decided >= 3


def is_inside(endpoint: Endpoint) -> bool:
    """Whether the parameter, as observed, keeps its limits."""
    truth = endpoint.bets.estimate
    return (endpoint.low is None or truth > endpoint.low) and (endpoint.high is None or truth < endpoint.high)


def chance(endpoint: Endpoint, level: float, scale: float) -> float:
    """Of a decision with ``scale`` times as many observations: of passing inside the limits, of failing outside."""
    if is_inside(endpoint):
        return endpoint.power(endpoint.bets.estimate, 0.05, scale=scale)
    return endpoint.power_to_fail(level, scale=scale)


@pytest.mark.parametrize("estimand", ["suite", "population"])
def test_what_would_decide_is_the_fewest_that_have_the_power(estimand: Estimand) -> None:
    """One or two fewer have less than 80 %; inside the margins to pass, outside to fail at Holm's level."""
    rng, seen = np.random.default_rng(14), set()
    for loss in (0.0, 0.02, 0.05, 0.08, 0.12, 0.15):
        comparison = models(40, loss, rng, samples=6)
        result = decide(comparison, MARGINS, estimand=estimand)
        found = endpoints(comparison, MARGINS, estimand)
        weights = [weight for endpoint in found for weight in endpoint.shares()]
        levels = iter(holm([p for endpoint in found for p in endpoint.beyond()], result.alpha, weights)[1])
        have = 6 if estimand == "suite" else 40
        for row, endpoint in zip(result.endpoints, found, strict=True):
            level = min(next(levels) for _ in endpoint.beyond())
            assert (row.decide is not None) == (row.outcome == "inconclusive")
            if row.decide is None:
                continue
            kept, other = ("samples", "prompts") if estimand == "suite" else ("prompts", "samples")
            total, further = getattr(row.decide, kept), getattr(row.decide, f"further_{kept}")
            assert (getattr(row.decide, other), getattr(row.decide, f"further_{other}")) == (None, None)
            if total is None:
                assert further is None
                assert chance(endpoint, level, 1_000_000 / have) < 0.8
                continue
            assert further == total - have > 0
            assert chance(endpoint, level, total / have) >= 0.8
            assert total == have + 1 or chance(endpoint, level, (total - 2) / have) < 0.8
            seen.add(is_inside(endpoint))
    assert seen == {True, False}


def test_what_cannot_be_decided_in_practice_names_no_number() -> None:
    """The truth lies on the limit, as far as the samples tell."""
    comparison = models(40, 0.1, np.random.default_rng(15))
    observed = decide(comparison, MARGINS).endpoints[0].change.value
    assert observed < 0
    result = decide(comparison, replace(MARGINS, accuracy=-observed + 1e-6))
    row = result.endpoints[0]
    assert row.outcome == "inconclusive"
    assert row.decide == Decider(None, None, None, None)
    assert result.outcome != "inconclusive" or result.further_samples is None


def test_a_result_says_what_it_rests_on() -> None:
    comparison = models(30, 0.05, np.random.default_rng(16), samples=7)
    for estimand, sequential, method in (
        ("suite", False, "betting, samples of these prompts"),
        ("population", False, "betting, prompts"),
        ("population", True, "betting, prompts, sequential"),
    ):
        result = decide(comparison, MARGINS, alpha=0.04, estimand=estimand, sequential=sequential)  # type: ignore[arg-type]
        assert (result.prompts, result.samples, result.alpha) == (30, 7, 0.04)
        assert (result.method, result.estimand) == ("betting", estimand)
        assert (1 - result.blind_spot) ** 30 == pytest.approx(0.04)
        for row in result.endpoints:
            assert row.change.interval is not None
            assert row.change.interval.method == method


def test_bounds_are_the_least_and_the_most_that_can_be_observed() -> None:
    """Bets within narrower bounds could lose more than their stake, within wider ones they would show less."""
    found = {one.name: one for one in endpoints(models(10, 0.1, np.random.default_rng(17)), MARGINS)}
    bounds = {name: (one.bets.low, one.bets.high, one.bets.most) for name, one in found.items()}
    assert bounds["distance"] == (DISTANCES.min(), DISTANCES.max(), 1.0)
    assert bounds["agreement"] == ((AGREES[0] - AGREES[1]).min(), (AGREES[0] - AGREES[1]).max(), 1.0)
    assert bounds["entropy"] == (AGREES[0].min(), AGREES[0].max(), AGREES[1].max())
    assert bounds["tokens"] == (0.0, LIMIT, LIMIT)
    assert {bounds[name] for name in ("accuracy", "length", "garbage")} == {(-1.0, 1.0, 1.0)}
    assert {name: (one.low, one.high) for name, one in found.items()} == {
        "accuracy": (-MARGINS.accuracy, None),
        "distance": (None, MARGINS.distance),
        "agreement": (-MARGINS.agreement, MARGINS.agreement),
        "entropy": (2**-MARGINS.entropy_bits, 2**MARGINS.entropy_bits),
        "length": (None, 1 - 1 / MARGINS.length_ratio),
        "tokens": (None, MARGINS.length_ratio),
        "garbage": (None, MARGINS.truncation),
    }
    assert {name: one.null for name, one in found.items()} == dict.fromkeys(found, 0.0) | {
        "entropy": 1.0,
        "tokens": 1.0,
    }


def test_coupling_makes_the_same_samples_decide_more() -> None:
    rng, passes = np.random.default_rng(6), {0.0: 0, 0.95: 0}
    for _ in range(5):
        for coupled in passes:
            passes[coupled] += decide(models(40, 0.0, rng, coupled=coupled), MARGINS).outcome == "pass"
    assert passes[0.95] >= passes[0.0] + 3


def test_few_prompts_pass_for_themselves_and_not_for_others() -> None:
    comparison = models(20, 0.0, np.random.default_rng(7), coupled=1.0, samples=64)
    assert decide(comparison, MARGINS).exit_code == 0
    others = decide(comparison, MARGINS, estimand="population")
    assert others.exit_code == 3
    assert others.further_prompts is not None
    assert others.further_prompts > 20
    assert others.further_samples is None
    assert decide(models(12, 0.5, np.random.default_rng(8)), MARGINS).exit_code == 1


def test_overall() -> None:
    assert overall(["pass", "inconclusive", "fail"]) == "fail"
    assert overall(["pass", "inconclusive"]) == "inconclusive"
    assert overall([]) == "inconclusive"


def test_more_agreement_than_the_reference_is_a_shift_and_more_accuracy_is_better() -> None:
    rng = np.random.default_rng(9)
    gold = [f"g{i}" for i in range(60)]
    soft = [{g: 0.6, "a" + g: 0.2, "b" + g: 0.2} for g in gold]
    hard = [{g: 1.0} for g in gold]
    result = decide(
        compare(draw(soft, SAMPLES, rng, gold=gold), draw(hard, SAMPLES, rng, gold=gold), limit=LIMIT), MARGINS
    )
    found = outcomes(result)
    assert (found["accuracy"], found["agreement"], found["entropy"]) == ("pass", "fail", "fail")
    directions = {row.name: row.direction for row in result.endpoints}
    assert (directions["accuracy"], directions["agreement"], directions["entropy"]) == ("better", "higher", "lower")


def test_length_and_garbage_endpoints() -> None:
    rng = np.random.default_rng(10)
    distributions, gold = skilled(40, rng)
    reference = draw(distributions, SAMPLES, rng, gold=gold)
    longer = decide(compare(reference, draw(distributions, SAMPLES, rng, gold=gold, tokens=150), limit=LIMIT), MARGINS)
    for name in ("length", "tokens"):
        row = next(row for row in longer.endpoints if row.name == name)
        assert (row.outcome, row.direction) == ("fail", "higher")
        assert row.margin == pytest.approx(1.15)
        assert row.change.value == pytest.approx(1.5, abs=0.07)
    cut = [{**{k: 0.8 * v for k, v in d.items()}, "<truncated>": 0.2} for d in distributions]
    broken = decide(compare(reference, draw(cut, SAMPLES, rng, gold=gold), limit=LIMIT), MARGINS)
    assert outcomes(broken)["garbage"] == "fail"


def test_reasoning_that_disappears_fails_where_a_profile_limits_that_side() -> None:
    rng = np.random.default_rng(11)
    distributions, gold = skilled(40, rng)
    short = compare(
        draw(distributions, SAMPLES, rng, gold=gold),
        draw(distributions, SAMPLES, rng, gold=gold, tokens=40),
        limit=LIMIT,
    )
    assert outcomes(decide(short, MARGINS))["tokens"] == "pass"
    both = decide(short, replace(MARGINS, shorter_ratio=0.8))
    assert {outcomes(both)[name] for name in ("length", "tokens")} == {"fail"}
    assert [row.least for row in both.endpoints if row.name in ("length", "tokens")] == pytest.approx([0.8, 0.8])


def test_without_gold_accuracy_is_no_endpoint() -> None:
    rng = np.random.default_rng(11)
    distributions, _ = skilled(40, rng)
    comparison = compare(draw(distributions, SAMPLES, rng), draw(distributions, SAMPLES, rng), limit=LIMIT)
    names = [e.name for e in endpoints(comparison, MARGINS)]
    assert names == ["distance", "agreement", "entropy", "length", "tokens", "garbage"]


def test_collapse_endpoint() -> None:
    fine, gone = Verdict("consistent-correct", True, ""), Verdict("collapsed", True, "")
    unsure = Verdict("diffuse", False, "")
    assert collapse_endpoint(fine, fine).outcome == "pass"
    assert collapse_endpoint(fine, gone).outcome == "fail"
    assert collapse_endpoint(unsure, gone).outcome == "fail"
    assert collapse_endpoint(fine, unsure).outcome == "inconclusive"
    result = decide(models(60, 0.0, np.random.default_rng(12)), MARGINS, verdicts=(fine, gone))
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
        {"entropy_bits": 64.0},
        {"accuracy": 1.0},
        {"distance": 2.0},
        {"shorter_ratio": 1.0},
    ],
)
def test_margins_that_make_no_sense(change: dict[str, float]) -> None:
    with pytest.raises(VerifyError, match="Margin"):
        decide(models(10, 0.0, np.random.default_rng(0)), replace(MARGINS, **change))


def test_margins_of_a_profile_alpha_and_estimand() -> None:
    assert Margins.of(VerifyMargins()) == Margins()
    comparison = models(10, 0.0, np.random.default_rng(0))
    with pytest.raises(VerifyError, match="alpha"):
        decide(comparison, MARGINS, alpha=0.7)
    with pytest.raises(VerifyError, match="samples its prompts"):
        decide(comparison, MARGINS, sequential=True)


def test_unequal_samples_are_refused() -> None:
    rng = np.random.default_rng(13)
    distributions, _ = skilled(4, rng)
    first, second = draw(distributions, 8, rng), draw(distributions, 8, rng)
    with pytest.raises(VerifyError, match="same number"):
        compare(first, {**second, "p0": second["p0"][:5]}, limit=LIMIT)
    with pytest.raises(VerifyError, match="one model only"):
        compare(first, {p: second[p] for p in list(second)[:3]}, limit=LIMIT)
    with pytest.raises(VerifyError, match="at least 2"):
        compare({"p0": first["p0"]}, {"p0": second["p0"]}, limit=LIMIT)
