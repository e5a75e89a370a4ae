"""Bets stay valid however often one looks, and decide early where the answer is clear. Power formulas by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import damaged, draw, skilled

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.gate.sequential import SequentialGate
from edgedistill.verify.metrics.paired import Comparison, PerPrompt, compare
from edgedistill.verify.stats.e_process import Bettor, bet_on, prompt_order
from edgedistill.verify.stats.power import (
    components,
    decider,
    power_curve,
    power_equivalence,
    power_one_sided,
    smallest_effect,
)

MARGINS = Margins(accuracy=0.10, agreement=0.15, entropy_bits=0.5, length_ratio=1.3, truncation=0.10)


NULLS = {
    "coin": lambda rng, n: rng.choice([-1.0, 1.0], size=n),
    "rare and total": lambda rng, n: np.where(rng.random(n) < 0.05, -0.95, 0.05),
    "rare and good": lambda rng, n: np.where(rng.random(n) < 0.05, 0.95, -0.05),
    "uniform": lambda rng, n: rng.uniform(-1, 1, size=n),
}


@pytest.mark.parametrize("name", NULLS)
def test_wealth_under_the_null_whatever_the_stopping_time(name: str) -> None:
    """Mean exactly 0, looked at after every one of 400 prompts: it reaches 20 in at most 5 % of the runs."""
    rng, up, down, runs = np.random.default_rng(0), 0, 0, 400
    for _ in range(runs):
        bettor = bet_on(NULLS[name](rng, 400), -1.0, 1.0)
        up += bettor.p_up() <= 0.05
        down += bettor.p_down() <= 0.05
    limit = 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / runs)
    assert up / runs <= limit
    assert down / runs <= limit


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.3, 0.0, 0.4, 1.0]), max_size=40))
def test_a_bet_cannot_ruin_and_is_fair(x: list[float]) -> None:
    bettor = bet_on(x, -1.0, 1.0)
    assert math.isfinite(bettor.log_up)
    assert math.isfinite(bettor.log_down)
    # Fair: over a coin toss of +-1 the expected wealth after is the wealth before.
    ahead, behind = bet_on([*x, 1.0], -1.0, 1.0), bet_on([*x, -1.0], -1.0, 1.0)
    assert (math.exp(ahead.log_up) + math.exp(behind.log_up)) / 2 == pytest.approx(math.exp(bettor.log_up), rel=1e-9)


def test_bounds_are_kept() -> None:
    with pytest.raises(VerifyError, match="outside"):
        bet_on([1.5], -1.0, 1.0)
    with pytest.raises(ValueError, match="both sides"):
        Bettor(0.0, 1.0)


def test_rare_harm_needs_as_many_prompts_as_it_must() -> None:
    """No difference at all, margin 0.02: 0.98^P <= 0.05 asks for 149 prompts; the bet may need some more, never
    fewer.
    """
    needed = next(n for n in range(1, 400) if bet_on([0.02] * n, -0.98, 1.02).p_up() <= 0.05)
    assert 149 <= needed <= 230


def test_the_order_depends_on_ids_and_seed_alone() -> None:
    ids = [f"p{i}" for i in range(50)]
    assert prompt_order(ids, 1) == prompt_order(ids[::-1], 1)
    assert prompt_order(ids, 1) != prompt_order(ids, 2)
    assert sorted(prompt_order(ids, 1)) == sorted(ids)


def models(prompts: int, loss: float, rng: np.random.Generator) -> Comparison:
    before, gold = skilled(prompts, rng)
    after = damaged(before, gold, loss)
    noise = rng.random((prompts, 8))
    return compare(draw(before, 8, rng, gold=gold, uniforms=noise), draw(after, 8, rng, gold=gold, uniforms=noise))


def test_the_gate_stops_early_and_rightly() -> None:
    rng, fine, broken = np.random.default_rng(1), [], []
    for _ in range(15):
        fine.append(SequentialGate(MARGINS).update(models(150, 0.0, rng)))
        broken.append(SequentialGate(MARGINS).update(models(150, 0.45, rng)))
    assert sum(state.outcome == "pass" for state in fine) >= 12
    assert not any(state.outcome == "fail" for state in fine)
    assert all(state.outcome == "fail" for state in broken)
    assert np.mean([state.prompts for state in broken]) < 60
    assert np.mean([state.prompts for state in fine]) < 130


def test_false_alarms_of_the_sequential_gate() -> None:
    rng = np.random.default_rng(2)
    fails = sum(SequentialGate(MARGINS).update(models(40, 0.0, rng)).outcome == "fail" for _ in range(200))
    assert fails <= 10


def one_prompt(comparison: Comparison, index: int) -> Comparison:
    """The comparison of a single prompt out of many, for feeding a gate prompt by prompt."""
    return replace(
        comparison,
        prompts=(comparison.prompts[index],),
        reference=_row(comparison.reference, index),
        quantized=_row(comparison.quantized, index),
        halves=None,
    )


def _row(model: PerPrompt, index: int) -> PerPrompt:
    def cut(values: np.ndarray) -> np.ndarray:
        return values[index : index + 1]

    return PerPrompt(
        None if model.accuracy is None else cut(model.accuracy),
        cut(model.agreement),
        cut(model.entropy),
        cut(model.garbage),
        cut(model.tokens),
    )


def test_feeding_prompt_by_prompt_changes_nothing() -> None:
    comparison = models(80, 0.02, np.random.default_rng(3))
    whole, single = SequentialGate(MARGINS), SequentialGate(MARGINS)
    state = whole.update(comparison)
    for index in range(80):
        last = single.update(one_prompt(comparison, index))
    assert last == state
    assert single.update(one_prompt(comparison, 0)) == state or state.outcome == "inconclusive"


def test_undecided_says_how_many_more() -> None:
    comparison = models(25, 0.0, np.random.default_rng(4))
    gate = SequentialGate(MARGINS)
    state = gate.update(comparison)
    assert state.outcome == "inconclusive"
    assert state.further_prompts is not None
    assert 1 <= state.further_prompts < 400
    assert SequentialGate(MARGINS).state().further_prompts is None
    with pytest.raises(VerifyError, match="samples a prompt"):
        gate.update(compare(*_other_size()))
    with pytest.raises(VerifyError, match="alpha"):
        SequentialGate(MARGINS, alpha=0.0)


def _other_size() -> tuple[dict, dict]:
    rng = np.random.default_rng(5)
    distributions, gold = skilled(3, rng)
    return draw(distributions, 6, rng, gold=gold), draw(distributions, 6, rng, gold=gold)


def test_components_tell_prompts_from_samples() -> None:
    rng, between, within = np.random.default_rng(7), [], []
    for _ in range(200):
        true = rng.normal(0, 0.1, size=50)
        halves = true + rng.normal(0, 0.5 / math.sqrt(8), size=(2, 50))  # 16 samples of variance 0.25
        parts = components(halves.mean(axis=0), halves, 16)
        between.append(parts.between)
        within.append(parts.within)
    assert np.mean(between) == pytest.approx(0.01, rel=0.15)
    assert np.mean(within) == pytest.approx(0.25, rel=0.1)


def test_power_of_one_sided_and_equivalence_tests() -> None:
    assert power_one_sided(0.0, 0.01, 0.05) == pytest.approx(0.05)
    assert power_equivalence(0.05, 0.05, 0.001, 0.05) == pytest.approx(0.05, abs=1e-6)
    assert power_equivalence(0.0, 0.05, 0.2, 0.05) == 0.0
    curve = power_curve([0.0, 0.01, 0.02, 0.04], 0.02, 0.006, 0.05, equivalence=False)
    assert list(curve) == sorted(curve, reverse=True)
    assert curve[2] == pytest.approx(0.05)
    assert power_one_sided(0.1, 0.0, 0.05) == 1.0


def test_decider_asks_for_prompts_before_samples() -> None:
    parts = components(np.tile([-0.2, 0.2], 20), None, 16)
    few = decider(parts, 0.05, 40, alpha=0.05)
    assert few.prompts is not None
    assert few.samples is None, "between-prompt variance is not bought off with samples"
    assert power_one_sided(0.05, math.sqrt(parts.variance(few.prompts, 16)), 0.05) >= 0.8
    assert smallest_effect(parts, few.prompts, alpha=0.05) <= 0.05
    noisy = components(np.tile([-0.2, 0.2], 20), np.stack([np.tile([-0.4, 0.4], 20), np.tile([0.0, 0.0], 20)]), 16)
    assert noisy.between < 0.05 * noisy.within / 16
    assert (decider(noisy, 0.05, 40, alpha=0.05).samples or 0) > 16
    assert decider(parts, 0.0, 40, alpha=0.05).prompts is None
    assert decider(parts, 1e-9, 40, alpha=0.05).prompts is None
