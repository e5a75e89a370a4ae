"""What the gate does exactly at a limit, a level or a bound, and that its parts are what the statistics give."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.decide import Decider, Levels, decide
from edgedistill.verify.gate.endpoints import Endpoint, Margins, endpoints, relative_change
from edgedistill.verify.gate.reach import fewest_prompts, out_of_reach, unchanged
from edgedistill.verify.gate.sequential import SequentialGate, joined
from edgedistill.verify.metrics.paired import DISTANCES, SIGNS, Comparison, Observations, PerPrompt
from edgedistill.verify.stats.betting import Bets, mean_bets

if TYPE_CHECKING:
    from edgedistill.verify.gate.endpoints import Estimand

MARGINS = Margins(accuracy=0.1, agreement=0.2, entropy_bits=0.5, length_ratio=1.4, truncation=0.1, distance=0.2)


def lost(prompts: int, share: float, *, samples: int = 8, agreement: float = 1.0) -> Comparison:
    """Right answers of which the quantized model loses ``share`` of each prompt's to one wrong answer."""
    ones = np.ones(prompts)
    kept = (1 - share) ** 2 + share**2
    rows = np.tile([0.0, 1 - kept, 0.0, kept], (prompts, 1))
    apart = np.tile([0.0, 0.0, (1 - share) ** 2, 2 * share * (1 - share), share**2], (prompts, 1))
    same = unchanged(prompts, samples, gold=True, length=1.0)
    return replace(
        same,
        reference=replace(same.reference, agreement=agreement * ones),
        quantized=PerPrompt((1 - share) * ones, agreement * kept * ones, 0 * ones, ones, ones),
        accuracy=Observations(SIGNS, np.tile([share, 1 - share, 0.0], (prompts, 1)), samples),
        agreement=replace(same.agreement, weights=rows),
        distance=Observations(DISTANCES, apart, samples // 2),
    )


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("accuracy", 0.0, 1.0),
        ("agreement", 0.0, 1.0),
        ("entropy_bits", 0.0, 64.0),
        ("length_ratio", 1.0, 100.0),
        ("truncation", 0.0, 1.0),
        ("distance", 0.0, 2.0),
        ("shorter_ratio", 0.0, 1.0),
    ],
)
def test_margins_lie_between_no_difference_and_the_largest_there_is(name: str, low: float, high: float) -> None:
    for value in (low + 1e-9, 0.5 * (low + high), high - 1e-9):
        assert getattr(replace(MARGINS, **{name: value}).validated(), name) == value
    for value in (low - 1e-9, high, math.inf, math.nan, *((low,) if name != "shorter_ratio" else ())):
        with pytest.raises(VerifyError, match=f"Margin `{name}` is"):
            replace(MARGINS, **{name: value}).validated()


@pytest.mark.parametrize(("low", "high"), [(-0.2, None), (None, 0.15), (-0.2, 0.15)])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_power_of_an_endpoint_is_that_of_its_bets(low: float | None, high: float | None, scale: float) -> None:
    bets = mean_bets(np.tile([-0.3, 0.35], 30), -1.0, 1.0)
    endpoint = Endpoint("agreement", bets, 0.0, low, high)
    limits = [(limit, side) for limit, side in ((low, True), (high, False)) if limit is not None]
    passing = [bets.moved(0.01).power(limit, 0.05, above=side, scale=scale) for limit, side in limits]
    failing = [bets.power(limit, 0.02, above=not side, scale=scale) for limit, side in limits]
    assert endpoint.power(0.01, 0.05, scale=scale) == max(0.0, sum(passing) - len(passing) + 1)
    assert endpoint.power_to_fail(0.02, scale=scale) == max(failing)
    assert endpoint.within() == [bets.p(limit, above=side) for limit, side in limits]
    assert endpoint.beyond() == [bets.p(limit, above=not side) for limit, side in limits]
    if scale == 1.0:
        assert endpoint.power(0.01, 0.05) == endpoint.power(0.01, 0.05, scale=1.0)
        assert endpoint.power_to_fail(0.02) == endpoint.power_to_fail(0.02, scale=1.0)


def test_an_endpoint_passes_exactly_at_its_level() -> None:
    """Fixed or sequential: evidence of 1 / alpha is enough, and of a hair less is not."""
    comparison = lost(60, 0.0)
    p = max(one.p_pass for one in decide(comparison, MARGINS, estimand="population").endpoints)
    assert 0 < p < 0.5
    for level, outcome in ((p, "pass"), (p * (1 - 1e-9), "inconclusive")):
        assert decide(comparison, MARGINS, estimand="population", levels=Levels(level, 0.05)).outcome == outcome
    p = max(one.p_pass for one in decide(comparison, MARGINS, estimand="population", sequential=True).endpoints)
    for level, outcome, further in ((p, "pass", None), (p * (1 - 1e-9), "inconclusive", 1)):
        gate = SequentialGate(MARGINS, alpha=level)
        assert (gate.state().prompts, gate.state().further_prompts) == (0, None)
        state = gate.update(comparison)
        assert (state.prompts, state.outcome, state.further_prompts) == (60, outcome, further)
        assert gate.update(comparison) == state or outcome == "inconclusive"


@pytest.mark.parametrize("estimand", ["suite", "population"])
def test_growing_damage_moves_every_number_one_way(estimand: Estimand) -> None:
    """Of accuracy: the more is lost, the more speaks for harm and the less against it."""
    found = [decide(lost(30, share), MARGINS, estimand=estimand).endpoints[0] for share in (0.0, 0.05, 0.2, 0.5, 0.9)]
    assert [one.change.value for one in found] == pytest.approx([0.0, -0.05, -0.2, -0.5, -0.9])
    for numbers in ([one.p_pass for one in found], [-one.p_fail for one in found]):
        assert numbers == sorted(numbers)
    assert (found[0].outcome, found[-1].outcome) == ("pass" if estimand == "suite" else "inconclusive", "fail")
    assert all(one.change.value in one.change.interval for one in found)  # type: ignore[operator]


def test_prompts_that_hardly_repeat_themselves_are_blind_below_a_tenth() -> None:
    """C_q + C_p of exactly 0.1 can still tell; the other endpoints keep what they found."""
    comparison = replace(unchanged(200, 64, gold=False, length=1.0), accuracy=None)
    for agreement, blind in ((0.1, False), (0.0999, True)):
        model = replace(comparison.reference, agreement=np.full(200, agreement))
        nothing = replace(comparison.quantized, agreement=np.zeros(200))
        result = decide(replace(comparison, reference=model, quantized=nothing), MARGINS)
        assert {one.name: one.outcome for one in result.endpoints} == {
            one: "inconclusive" if blind and one == "distance" else "pass"
            for one in ("distance", "agreement", "entropy", "length", "tokens", "garbage")
        }
        assert len(result.notes) == blind
        assert all(note.startswith("On 200 of 200 prompts") for note in result.notes)
        assert result.endpoints[0].decide == (Decider(None, None, None, None) if blind else None)


def test_one_token_after_none_is_the_largest_change() -> None:
    tokens = Observations(np.array([[1.0, 0.0, 0.5]]), np.full((1, 3), 1 / 3), 3, np.array([[0.0, 0.0, 0.25]]))
    assert relative_change(tokens).top == pytest.approx(np.array([[1.0, 0.0, 0.5]]))


def test_two_prompts_are_the_fewest_and_enough_of_many_samples() -> None:
    many = {"estimand": "suite", "alpha": 0.05, "gold": True}
    assert fewest_prompts(Margins(), 8192, **many)[1] == 2  # type: ignore[arg-type]
    assert out_of_reach(2, Margins(), 8192, **many) == ""  # type: ignore[arg-type]
    found = {}
    for shorter in (0.0, 0.99):  # of two limits the nearer one is the harder
        margins = replace(Margins(), shorter_ratio=shorter)
        name, needed = found[shorter] = fewest_prompts(margins, 64, **many)  # type: ignore[arg-type]
        assert out_of_reach(needed, margins, 64, **many) == ""  # type: ignore[arg-type]
        assert f"the endpoint {name} takes {needed} at" in out_of_reach(needed - 1, margins, 64, **many)  # type: ignore[arg-type]
        for prompts, outcome in ((needed, "pass"), (needed - 1, "inconclusive")):
            assert decide(unchanged(prompts, 64, gold=True, length=1.0), margins).outcome == outcome
    assert 2 < found[0.0][1] < found[0.99][1]
    assert found[0.99][0] in ("length", "tokens")


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(1, 20), st.booleans(), st.floats(0.01, 1.0))
def test_two_models_that_are_one_differ_in_nothing(prompts: int, pairs: int, gold: bool, length: float) -> None:
    """Every change is none, in every form, and half a number of samples makes the pairs."""
    comparison = unchanged(prompts, 2 * pairs + 1, gold=gold, length=length)
    assert (comparison.samples, comparison.limit, len(comparison.prompts)) == (2 * pairs + 1, 1, prompts)
    for one in endpoints(comparison, Margins(), "suite"):
        assert one.bets.estimate == pytest.approx(one.null)
        assert one.bets.count == pytest.approx(
            prompts * (pairs if one.name in ("distance", "agreement", "entropy") else 2 * pairs + 1)
        )
        assert max(one.within()) <= 1.0
        assert min(one.beyond()) == 1.0
    for one in endpoints(comparison, Margins(), "population"):
        assert one.bets.count == prompts
    assert (comparison.accuracy is None) is not gold
    twice = joined(comparison, comparison)
    for one, whole in zip(endpoints(comparison, Margins(), "suite"), endpoints(twice, Margins(), "suite"), strict=True):
        assert whole.bets.count == pytest.approx(2 * one.bets.count)
        assert max(whole.within()) <= max(one.within()) + 1e-12


def test_the_entropy_limits_are_a_factor_each_way() -> None:
    """Models that trade places have the opposite change in bits."""
    less, more = np.array([0.4, 0.9]), np.array([0.8, 1.0])
    up, down = Bets(less, np.ones(2), 0.0, 1.0, more), Bets(more, np.ones(2), 0.0, 1.0, less)
    one, other = (Endpoint("entropy", bets, 1.0, 0.5, 2.0).shown(bets.estimate) for bets in (up, down))
    assert one == pytest.approx(-other)
    assert one == pytest.approx(math.log2(1.8 / 1.3))
