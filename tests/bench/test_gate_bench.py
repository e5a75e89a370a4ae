"""A short turn of ``make bench-gate``: pass rates at the margin; what is simulated is what the gate decides by."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.metrics.paired import AGREES, DISTANCES, SIGNS
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.population import wanted_prompts
from edgedistill.verify.stats.betting import Bets

ALPHA = 0.05
REPETITIONS = 200
LONGEST = 2048.0


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
    import gate_populations

    yield gate_populations
    sys.path.pop(0)


@pytest.fixture(scope="module")
def most(bench: ModuleType) -> float:
    import gate

    found: float = gate.largest_rate(REPETITIONS)
    assert ALPHA < found < 3 * ALPHA
    return found


def test_there_are_populations_and_endpoints_enough(bench: ModuleType) -> None:
    assert len(bench.POPULATIONS) >= 10
    moved: set[str] = set()
    for population in bench.POPULATIONS.values():
        truths = bench.truths(population, np.array([kind.share for kind in population]))
        moved |= {name for name, truth in truths.items() if min(abs(truth), abs(truth - 1)) > 0.01}
    assert moved == set(bench.ENDPOINTS)


@pytest.mark.parametrize(("prompts", "samples"), [(20, 8), (60, 16)])
def test_at_the_margin_no_test_passes_more_often_than_it_may(
    bench: ModuleType, most: float, prompts: int, samples: int
) -> None:
    seen = set()
    for seed, name in enumerate(bench.POPULATIONS):
        for test, endpoint, rate in bench.rates(name, prompts, samples, REPETITIONS, seed, ALPHA):
            assert rate <= most, (name, test, endpoint)
            seen.add((test, endpoint))
    assert seen == {(test, endpoint) for test in bench.TESTS for endpoint in bench.ENDPOINTS}


def test_a_test_that_is_not_valid_is_found_out(bench: ModuleType, most: float) -> None:
    """Student's t on rare total loss: most suites of 60 prompts miss it, and then nothing varies."""
    population = bench.POPULATIONS["rare total loss"]
    drawn = bench.Drawn(population, 60, 16, REPETITIONS, np.random.default_rng(0), fixed=False)
    truth = bench.truths(population, np.array([kind.share for kind in population]))["accuracy"]
    changes = drawn.accuracy @ SIGNS
    t = (changes.mean(axis=1) - truth) / (changes.std(axis=1, ddof=1) / np.sqrt(60))
    assert (t > 1.671).mean() > 1.5 * most


@pytest.mark.parametrize(("samples", "limit"), [(8, 400.0), (32, 400.0), (16, 2048.0)])
def test_the_prompts_that_a_verdict_about_prompts_like_these_gets_let_no_change_pass(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, samples: int, limit: float
) -> None:
    """5 % of the paired samples part; replies are a quarter, or a twentieth, of their limit."""
    monkeypatch.setattr(bench, "LIMIT", limit)
    options = VerifyOptions(estimand="population", samples=samples)
    prompts = wanted_prompts(Margins(), options, gold=True, length=bench.TYPICAL / limit)
    found = bench.power(prompts, samples, 60, seed=samples)["population"]
    assert found > 0.65, "0.8 is said; 60 repetitions show less than this of it in one of a thousand"


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("name", ["rare total loss", "unanimous to spread", "longer by a tenth"])
def test_the_simulated_tests_are_those_of_the_gate(bench: ModuleType, name: str, *, fixed: bool) -> None:
    samples = 8
    population, rng = bench.POPULATIONS[name], np.random.default_rng(3)
    drawn = bench.Drawn(population, 30, samples, 12, rng, fixed=fixed)
    decided = set()
    for row in range(12):
        for endpoint, bets in _bets(drawn, row, samples, fixed=fixed).items():
            for theta, above in ((0.0, False), (0.9, True), (1.1, False), (-0.1, True)):
                if theta < bets.low or (bets.bottom is not None and theta <= 0):
                    continue
                found = bench.rejected(drawn, endpoint, theta, fixed=fixed, above=above, alpha=ALPHA)[row]
                assert found == (bets.p(theta, above=above) <= ALPHA), (endpoint, theta, above)
                decided.add(bool(found))
    assert decided == {True, False}


def _bets(drawn: object, row: int, samples: int, *, fixed: bool) -> dict[str, Bets]:
    """What ``gate.endpoints`` builds from a comparison, of one repetition."""

    def of(name: str, values: np.ndarray, low: float, high: float, count: int, under: np.ndarray | None = None) -> Bets:
        weights = getattr(drawn, name)[row]
        if fixed:
            return Bets(values, count * weights.sum(axis=0), low, high, under)
        top, bottom = weights @ values, None if under is None else weights @ under
        return Bets(top, np.ones(len(top)), low, high, bottom)

    before, after = drawn.before[row], drawn.after[row]  # type: ignore[attr-defined]
    spent = (after.ravel(), before.ravel()) if fixed else (after.mean(axis=1), before.mean(axis=1))
    pairs = samples // 2
    return {
        "accuracy": of("accuracy", SIGNS, -1.0, 1.0, samples),
        "garbage": of("garbage", SIGNS, -1.0, 1.0, samples),
        "distance": of("distance", DISTANCES, -2.0, 2.0, pairs),
        "agreement": of("agreement", AGREES[0] - AGREES[1], -1.0, 1.0, pairs),
        "entropy": of("agreement", AGREES[0], 0.0, 1.0, pairs, AGREES[1]),
        "tokens": Bets(spent[0], np.ones(spent[0].size), 0.0, LONGEST, spent[1], LONGEST),
    }
