"""The sequential gate: valid whenever it is looked at, the same as deciding at once, and it stops early."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated import damaged, draw, skilled

from edgedistill.errors import VerifyError
from edgedistill.verify.gate.decide import decide
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.gate.sequential import SequentialGate, joined
from edgedistill.verify.metrics.paired import Comparison, compare

MARGINS = Margins(accuracy=0.10, agreement=0.15, entropy_bits=0.5, length_ratio=1.3, truncation=0.10, distance=0.2)
SAMPLES = 8


def parts(
    prompts: int, loss: float, rng: np.random.Generator, step: int = 10, samples: int = SAMPLES
) -> list[Comparison]:
    before, gold = skilled(prompts, rng)
    after = damaged(before, gold, loss)
    noise = rng.random((prompts, samples))
    left = draw(before, samples, rng, gold=gold, uniforms=noise)
    right = draw(after, samples, rng, gold=gold, uniforms=noise)
    ids = list(left)
    return [
        compare({p: left[p] for p in ids[at : at + step]}, {p: right[p] for p in ids[at : at + step]}, limit=400)
        for at in range(0, prompts, step)
    ]


def run(comparisons: list[Comparison]) -> SequentialGate:
    gate = SequentialGate(MARGINS)
    for comparison in comparisons:
        if gate.update(comparison).outcome != "inconclusive":
            break
    return gate


def test_it_stops_early_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    fine = [run(parts(150, 0.0, rng)).state() for _ in range(2)]
    broken = [run(parts(100, 0.6, rng)).state() for _ in range(2)]
    assert {state.outcome for state in fine} == {"pass"}
    assert {state.outcome for state in broken} == {"fail"}
    assert max(state.prompts for state in fine) < 150
    assert max(state.prompts for state in broken) < 100


def test_looking_on_the_way_and_deciding_at_once_agree() -> None:
    rng = np.random.default_rng(1)
    pieces = parts(60, 0.15, rng)
    gate = SequentialGate(MARGINS)
    whole = pieces[0]
    for index, piece in enumerate(pieces):
        whole = piece if index == 0 else joined(whole, piece)
        state = gate.update(piece)
        once = decide(whole, MARGINS, estimand="population", sequential=True)
        assert state.endpoints == {row.name: row.outcome for row in once.endpoints}
        assert state.evidence_for == {row.name: pytest.approx(1 / row.p_pass) for row in once.endpoints}
        assert state.evidence_against == {row.name: pytest.approx(1 / row.p_fail) for row in once.endpoints}
        assert state.prompts == len(whole.prompts)
        if state.outcome != "inconclusive":
            break
    after = gate.update(pieces[0])
    assert after == state or state.outcome == "inconclusive"


def test_an_unchanged_model_never_fails_at_any_look() -> None:
    rng = np.random.default_rng(2)
    assert sum(run(parts(60, 0.0, rng)).state().outcome == "fail" for _ in range(8)) == 0


def test_failing_divides_alpha_over_the_limits_of_all_endpoints() -> None:
    """Capital of 20 against one of nine limits is not enough: accuracy has four elevenths of alpha, the distance two,
    the others one, which two limits halve.
    """
    rng, near = np.random.default_rng(5), 0
    needed = {"accuracy": 11 / 4, "distance": 11 / 2, "agreement": 22, "entropy": 22}
    for _ in range(12):
        gate = SequentialGate(MARGINS)
        for piece in parts(80, 0.25, rng):
            state = gate.update(piece)
            if state.outcome == "pass":
                break
            enough = [capital >= needed.get(name, 11) / 0.05 for name, capital in state.evidence_against.items()]
            assert (state.outcome == "fail") == any(enough)
            near += max(state.evidence_against.values()) >= 20 and not any(enough)
            if state.outcome == "fail":
                break
    assert near >= 3


def test_an_open_run_says_how_many_prompts_are_missing() -> None:
    rng = np.random.default_rng(3)
    gate = SequentialGate(MARGINS)
    assert gate.state().further_prompts is None
    state = gate.update(parts(20, 0.0, rng, step=20)[0])
    assert state.outcome == "inconclusive"
    assert state.further_prompts is not None
    assert 1 <= state.further_prompts < 400
    assert max(state.evidence_against.values()) < 20, "whatever is open may still pass"
    missing = [
        20 * (math.log(1 / 0.05) / math.log(state.evidence_for[name]) - 1)
        for name, outcome in state.endpoints.items()
        if outcome == "inconclusive"
    ]
    assert state.further_prompts == math.ceil(max(missing))


def test_parts_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(4)
    gate = SequentialGate(MARGINS)
    first = parts(10, 0.0, rng)[0]
    gate.update(first)
    with pytest.raises(VerifyError, match="expected the same"):
        gate.update(parts(10, 0.0, rng, samples=12)[0])
    with pytest.raises(VerifyError, match="some prompts only"):
        gate.update(replace(first, accuracy=None))
    with pytest.raises(VerifyError, match="alpha"):
        SequentialGate(MARGINS, alpha=0.0)


def test_parts_one_after_the_other_are_the_whole() -> None:
    """Of any number of samples from the fewest on: what is short is filled with entries that count for nothing."""
    rng = np.random.default_rng(6)
    before, gold = skilled(6, rng)
    after = damaged(before, gold, 0.3)
    left, right = (draw(model, 7, rng, gold=gold) for model in (before, after))
    counts = dict(zip(left, (4, 5, 4, 4, 7, 4), strict=True))
    left, right = ({p: model[p][:n] for p, n in counts.items()} for model in (left, right))
    ids = list(left)
    halves = [
        compare({p: left[p] for p in some}, {p: right[p] for p in some}, limit=limit)
        for some, limit in ((ids[:3], 300), (ids[3:], 400))
    ]
    whole, found = compare(left, right, limit=400), joined(*halves)
    assert (found.prompts, found.samples, found.limit) == (whole.prompts, 4, 400)
    for name in ("accuracy", "garbage", "agreement", "distance", "tokens"):
        one, other = getattr(found, name), getattr(whole, name)
        assert one.count == other.count
        for array in ("top", "weights", "bottom"):
            assert np.array_equal(getattr(one, array), getattr(other, array)), (name, array)
    for name in ("accuracy", "agreement", "garbage", "tokens", "coverage"):
        for side in ("reference", "quantized"):
            assert np.array_equal(getattr(getattr(found, side), name), getattr(getattr(whole, side), name))
    bare = [replace(half, accuracy=None, reference=replace(half.reference, accuracy=None)) for half in halves]
    assert joined(*bare).accuracy is None
    assert joined(*bare).reference.accuracy is None
