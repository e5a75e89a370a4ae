"""What a result of the gate says of its endpoints, on models whose numbers are known."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from simulated import damaged, draw, skilled

from edgedistill.errors import VerifyError
from edgedistill.profile.profile import VerifyMargins
from edgedistill.verify.gate.decide import (
    Decider,
    GateResult,
    Levels,
    collapse_endpoint,
    decide,
    ends,
    observed,
    require_alpha,
)
from edgedistill.verify.gate.endpoints import Endpoint, Margins, Name, endpoints, relative_change
from edgedistill.verify.metrics.collapse_verdict import Verdict
from edgedistill.verify.metrics.paired import Comparison, Observations, compare
from edgedistill.verify.stats.betting import holm, mean_bets

MARGINS = Margins(accuracy=0.05, agreement=0.08, entropy_bits=0.25, length_ratio=1.15, truncation=0.06, distance=0.1)
RIGHT, WRONG, CUT = {"g": 1.0}, {"w": 1.0}, {"<truncated>": 1.0}


def unanimous(
    before: dict[str, float], after: dict[str, float], tokens: tuple[float, float] = (100, 100), prompts: int = 40
) -> Comparison:
    rng, gold = np.random.default_rng(0), ["g"] * prompts
    left, right = (
        draw([model] * prompts, 8, rng, gold=gold, tokens=length)
        for model, length in zip((before, after), tokens, strict=True)
    )
    return compare(left, right, limit=400)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("accuracy", 0.25, 0.25), ("tokens", 1.5, 1.5), ("length", 0.0, 1.0), ("length", 0.5, 2.0),
        ("length", -0.5, 0.5), ("length", -1.0, 0.0), ("length", 1.0, math.inf),
        ("entropy", 1.0, 0.0), ("entropy", 0.5, 1.0),
        ("entropy", 4.0, -2.0), ("entropy", 0.0, math.inf), ("entropy", -1.0, math.inf),
        ("entropy", math.inf, -math.inf),
    ],
)  # fmt: skip
def test_parameters_are_shown_as_ratios_and_bits(name: Name, value: float, shown: float) -> None:
    """A reply k times as long changes by 1 - 1/k of the longer one; answers half as concentrated have a bit more."""
    found = Endpoint(name, mean_bets([0.0], -1.0, 1.0), 0.0, None, 1.0).shown(value)
    assert found == shown
    assert math.copysign(1.0, found) == math.copysign(1.0, shown), "no change is 0 and not -0"


def test_a_ratio_of_lengths_and_its_inverse_are_the_same_change() -> None:
    tokens = Observations(
        np.array([[150.0, 100.0, 0.0, 7.0]]), np.full((1, 4), 0.25), 4, np.array([[100.0, 150, 0, 0]])
    )
    change = relative_change(tokens)
    assert change.top == pytest.approx(np.array([[1 / 3, -1 / 3, 0.0, 1.0]]))
    assert (change.weights is tokens.weights, change.count, change.bottom) == (True, 4, None)
    assert relative_change(replace(tokens, bottom=None)).top == pytest.approx(np.array([[1.0, 1.0, 0.0, 1.0]]))


def test_the_power_on_two_sides_is_that_of_both_at_once() -> None:
    """At least the sum less one (Bonferroni); of failing, the likelier side."""
    bets = mean_bets(np.tile([-0.3, 0.3], 60), -1.0, 1.0)
    both = Endpoint("agreement", bets, 0.0, -0.12, 0.2)
    low, high = replace(both, high=None), replace(both, low=None)
    sides = [one.power(0.02, 0.05, scale=1.5) for one in (low, high)]
    assert 0.0 < min(sides) < 1.0
    assert both.power(0.02, 0.05, scale=1.5) == pytest.approx(max(0.0, sum(sides) - 1))
    assert both.power(0.02, 0.05, scale=1.5) > both.power(0.02, 0.05, scale=0.9)
    assert both.power(0.0, 0.05, scale=0.01) == 0.0
    out = Endpoint("agreement", mean_bets(np.tile([-0.5, 0.1], 60), -1.0, 1.0), 0.0, -0.12, 0.2)
    assert replace(out, high=None).power_to_fail(0.05) > 0.3
    assert out.power_to_fail(0.05) == replace(out, high=None).power_to_fail(0.05)
    assert replace(out, low=None).power_to_fail(0.05) < 0.01
    assert out.power_to_fail(0.05) > out.power_to_fail(0.001)
    up = replace(out, bets=mean_bets(np.tile([-0.1, 0.9], 60), -1.0, 1.0))
    assert up.power_to_fail(0.05) == replace(up, low=None).power_to_fail(0.05) > 0.5
    assert up.power_to_fail(0.05, scale=0.5) < up.power_to_fail(0.05) < up.power_to_fail(0.05, scale=2.0)
    assert Endpoint("agreement", bets, 0.0, None, None).power_to_fail(0.05) == 0.0


@pytest.mark.parametrize(
    ("before", "after", "tokens", "directions"),
    [
        (RIGHT, RIGHT, (100, 100), {}),
        (RIGHT, WRONG, (100, 100), {"accuracy": "worse", "distance": "higher"}),
        (WRONG, RIGHT, (100, 100), {"accuracy": "better", "distance": "higher"}),
        (RIGHT, CUT, (100, 100), {"accuracy": "worse", "distance": "higher", "agreement": "lower", "entropy": "higher",
                                  "garbage": "worse"}),
        (CUT, RIGHT, (100, 100), {"accuracy": "better", "distance": "higher", "agreement": "higher", "entropy": "lower",
                                  "garbage": "better"}),
        (RIGHT, RIGHT, (100, 200), {"length": "higher", "tokens": "higher"}),
        (RIGHT, RIGHT, (200, 100), {"length": "lower", "tokens": "lower"}),
    ],
)  # fmt: skip
def test_directions(
    before: dict[str, float], after: dict[str, float], tokens: tuple[float, float], directions: dict[str, str]
) -> None:
    result = decide(unanimous(before, after, tokens), MARGINS)
    assert {row.name: row.direction for row in result.endpoints if row.direction} == directions


def test_means_margins_and_changes_are_those_of_the_models() -> None:
    rng, gold = np.random.default_rng(1), ["g"] * 50
    half, most = {"g": 0.5, "w": 0.5}, {"g": 0.7, "<unparsed>": 0.3}
    comparison = compare(draw([half] * 50, 40, rng, gold=gold), draw([most] * 50, 40, rng, gold=gold), limit=400)
    result = decide(comparison, replace(MARGINS, shorter_ratio=0.9))
    rows = {row.name: row for row in result.endpoints}
    truth = {
        "accuracy": (0.5, 0.7, 0.2), "agreement": (0.5, 0.49, -0.01), "garbage": (0.0, 0.3, 0.3),
        "entropy": (1.0, -math.log2(0.49), -math.log2(0.98)), "tokens": (100.0, 100.0, 1.0),
        "length": (100.0, 100.0, 1.0),
    }  # fmt: skip
    for name, (before, after, change) in truth.items():
        row = rows[name]
        assert (row.reference, row.quantized) == pytest.approx((before, after), abs=6 if before == 100 else 0.1), name
        assert row.change.value == pytest.approx(change, abs=0.1), name
    assert math.isnan(rows["distance"].reference)
    assert math.isnan(rows["distance"].quantized)
    # (0.5 - 0.7)^2 for the right answer, 0.5^2 for the wrong one, and garbage agrees with nothing.
    assert rows["distance"].change.value == pytest.approx(0.04 + 0.25, abs=0.04)
    assert {name: row.margin for name, row in rows.items()} == pytest.approx(
        {"accuracy": 0.05, "agreement": 0.08, "entropy": 0.25, "garbage": 0.06, "distance": 0.1}
        | dict.fromkeys(("length", "tokens"), 1.15)
    )
    assert rows["entropy"].margin == 0.25, "the logarithm of a power is rounded"
    assert {name: row.least for name, row in rows.items() if row.least} == pytest.approx({"length": 0.9, "tokens": 0.9})
    nothing = decide(unanimous(CUT, CUT), MARGINS).endpoints
    row = next(row for row in nothing if row.name == "entropy")
    assert all(math.isnan(value) for value in (row.reference, row.quantized, row.change.value))


def some_comparison(loss: float, seed: int, prompts: int, samples: int) -> Comparison:
    rng = np.random.default_rng(seed)
    before, gold = skilled(prompts, rng)
    noise, after = rng.random((prompts, samples)), damaged(before, gold, loss)
    left, right = (draw(model, samples, rng, gold=gold, uniforms=noise) for model in (before, after))
    return compare(left, right, limit=400)


def test_a_look_at_a_run_that_may_end_several_times_decides_at_its_own_levels() -> None:
    outcomes = set()
    for loss, seed in ((0.0, 1), (0.12, 2)):
        comparison = some_comparison(loss, seed, 24, 16)
        found = endpoints(comparison, MARGINS)
        for levels in (Levels(0.05, 0.004), Levels(0.001, 0.05)):
            result = decide(comparison, MARGINS, levels=levels)
            sides = [endpoint.beyond() for endpoint in found]
            rejected = iter(holm([p for row in sides for p in row], levels.beyond)[0])
            for row, endpoint, side in zip(result.endpoints, found, sides, strict=True):
                fails = True in [next(rejected) for _ in side]
                passes = row.p_pass <= levels.within
                assert row.outcome == ("fail" if fails else "pass" if passes else "inconclusive")
                assert row.power == endpoint.power(endpoint.null, levels.within)
                outcomes.add(row.outcome)
            assert result.alpha == 0.05
    assert outcomes == {"pass", "fail", "inconclusive"}
    assert decide(comparison, MARGINS) == decide(comparison, MARGINS, levels=Levels(0.05, 0.05), estimand="suite")


@pytest.mark.parametrize("blind", [0, 3, 4, 60])
def test_where_no_answer_comes_twice_the_distance_decides_nothing(blind: int) -> None:
    """With a margin of 0.1 up to 0.05 of the prompts may be blind: no change of theirs is more than 2."""
    many = {f"a{i}": 1 / 300 for i in range(300)}
    models = [many] * blind + [RIGHT] * (60 - blind)
    for gold in (None, ["g"] * 60):
        drawn = draw(models, 10, np.random.default_rng(blind), gold=gold)
        result = decide(compare(drawn, drawn, limit=400), MARGINS)
        row = next(row for row in result.endpoints if row.name == "distance")
        if gold is None and blind > 3:
            assert (row.outcome, row.decide) == ("inconclusive", Decider(None, None, None, None))
            assert result.outcome == "inconclusive"
            assert [note.startswith(f"On {blind} of 60 prompts") for note in result.notes] == [True]
        else:
            assert (row.outcome, row.decide, result.notes) == ("pass", None, ())


def test_what_is_missing_in_all_is_the_most_of_what_is_missing() -> None:
    base = decide(unanimous(RIGHT, RIGHT, prompts=3), MARGINS)
    row = base.endpoints[0]

    def further(outcome: str, *deciders: Decider | None) -> tuple[int | None, int | None]:
        rows = tuple(replace(row, decide=decider) for decider in deciders)
        result: GateResult = replace(base, outcome=outcome, endpoints=rows)  # type: ignore[arg-type]
        return result.further_prompts, result.further_samples

    few, many, never = Decider(None, None, 12, 4), Decider(None, None, 20, 12), Decider(None, None, None, None)
    assert further("inconclusive", few, None, many) == (None, 12)
    assert further("inconclusive", Decider(90, 30, None, None), Decider(70, 10, None, None)) == (30, None)
    assert further("inconclusive", few, never) == (None, None)
    assert further("inconclusive", None) == (None, None)
    assert further("pass", few) == further("fail", few) == (None, None)
    assert [observed(name, 9) for name in ("accuracy", "tokens", "distance", "agreement", "entropy")] == [9, 9, 4, 4, 4]


@pytest.mark.parametrize(
    ("reference", "quantized", "outcome"),
    [
        (("diffuse", False), ("diffuse", False), "pass"),
        (("diffuse", True), ("collapsed", True), "fail"),
        (("diffuse", True), ("collapsed", False), "inconclusive"),
        (("diffuse", False), ("collapsed", True), "fail"),
        (("diffuse", False), ("partly-collapsed", True), "fail"),
        (("collapsed", False), ("diffuse", True), "inconclusive"),
        (("collapsed", True), ("diffuse", True), "fail"),
    ],
)
def test_a_changed_verdict_fails_where_both_are_certain_or_the_model_collapsed(
    reference: tuple[str, bool], quantized: tuple[str, bool], outcome: str
) -> None:
    before, after = (Verdict(name, certain, "") for name, certain in (reference, quantized))  # type: ignore[arg-type]
    found = collapse_endpoint(before, after)
    assert (found.outcome, found.reference, found.quantized) == (outcome, before, after)
    assert decide(unanimous(RIGHT, RIGHT), MARGINS, verdicts=(before, after)).outcome == outcome


def test_every_margin_of_a_profile_is_its_own() -> None:
    values = {one.name: 0.01 * n for n, one in enumerate(fields(Margins), start=1)} | {"length_ratio": 1.3}
    assert Margins.of(replace(VerifyMargins(), **values)) == Margins(**values)
    for name, hint in (("accuracy", True), ("length_ratio", True), ("shorter_ratio", False)):
        low = 1.0 if name == "length_ratio" else 0.0
        if hint:
            with pytest.raises(VerifyError, match=name) as raised:
                replace(MARGINS, **{name: low}).validated()
            assert "no difference at all" in str(raised.value.hint)
        with pytest.raises(VerifyError, match=name) as raised:
            replace(MARGINS, **{name: -0.01}).validated()
        assert raised.value.hint is None
    assert replace(MARGINS, shorter_ratio=0.0).validated().shorter_ratio == 0.0


@pytest.mark.parametrize(
    ("alpha", "fine"), [(0.0, False), (1e-6, True), (0.499, True), (0.5, False), (math.nan, False)]
)
def test_alpha_is_a_level(alpha: float, fine: bool) -> None:
    if fine:
        require_alpha(alpha)
    else:
        with pytest.raises(VerifyError, match="alpha"):
            require_alpha(alpha)


def test_right_answers_have_four_elevenths_of_alpha_and_the_same_answers_two() -> None:
    found = endpoints(some_comparison(0.1, 3, 10, 6), replace(MARGINS, shorter_ratio=0.9))
    shares = {one.name: one.shares() for one in found}
    total = sum(map(sum, shares.values()))
    assert {name: sum(each) / total for name, each in shares.items()} == pytest.approx(
        dict.fromkeys(shares, 1 / 11) | {"accuracy": 4 / 11, "distance": 2 / 11}
    )
    assert {name: len(each) for name, each in shares.items()} == {
        "accuracy": 1, "distance": 1, "agreement": 2, "entropy": 2, "length": 2, "tokens": 2, "garbage": 1,
    }  # fmt: skip
    assert all(len(set(each)) == 1 for each in shares.values())


@pytest.mark.parametrize(
    ("low", "high", "levels", "inconclusive", "passing"),
    [
        (-0.1, 0.2, [0.01, 0.02], (0.02, 0.01), (0.05, 0.05)),
        (-0.1, None, [0.01], (0.05, 0.01), (0.05, 0.01)),
        (None, 0.2, [0.01], (0.01, 0.05), (0.01, 0.05)),
    ],
)
def test_each_end_of_an_interval_has_the_level_of_its_task(
    low: float | None,
    high: float | None,
    levels: list[float],
    inconclusive: tuple[float, float],
    passing: tuple[float, float],
) -> None:
    """A limit on one side: alpha there and Holm's level on the other; on both sides Holm's levels unless it passes."""
    bets = mean_bets(np.tile([-0.2, 0.3], 40), -1.0, 1.0)
    endpoint = Endpoint("agreement", bets, 0.0, low, high)
    for outcome in ("inconclusive", "fail"):
        found = ends(endpoint, outcome, levels, 0.05)
        assert found == (bets.lower(inconclusive[0]), bets.upper(inconclusive[1]), 1 - sum(inconclusive))
    lowest, highest, level = ends(endpoint, "pass", levels, 0.05)
    assert level == pytest.approx(1 - sum(passing))
    assert lowest == (bets.lower(passing[0]) if low is None else max(low, bets.lower(passing[0])))
    assert highest == (bets.upper(passing[1]) if high is None else min(high, bets.upper(passing[1])))


def test_a_passing_interval_ends_at_the_limit_that_bisection_stops_short_of() -> None:
    endpoint = Endpoint("agreement", mean_bets(np.tile([-0.2, 0.3], 40), -1.0, 1.0), 0.0, 0.04, 0.06)
    assert ends(endpoint, "pass", [0.01, 0.01], 0.05)[:2] == (0.04, 0.06)
