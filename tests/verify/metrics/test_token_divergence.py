"""Per-token numbers against definitions and SciPy; survival against a known hazard."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.survival import (
    Parting,
    first_divergence,
    hazard_by_position,
    hazard_per_100,
    survival_curve,
)
from edgedistill.verify.metrics.token_divergence import (
    TokenDivergence,
    divergence,
    exposure_index,
    llama_cpp_positions,
    log_softmax,
    summarise,
)


def logits(rows: int, seed: int, vocabulary: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, size=(rows, vocabulary)).astype(np.float32)


def test_divergence_against_scipy() -> None:
    p, q = logits(20, 0), logits(20, 1)
    found = divergence(p, q)
    a, b = np.exp(log_softmax(p)), np.exp(log_softmax(q))
    assert np.allclose(found.kl, [stats.entropy(x, y) for x, y in zip(a, b, strict=True)])
    assert np.allclose(found.entropy_p, stats.entropy(a, base=2, axis=1))
    assert np.allclose(found.entropy_q, stats.entropy(b, base=2, axis=1))
    assert found.top_agrees.tolist() == (p.argmax(1) == q.argmax(1)).tolist()
    assert np.allclose(divergence(p, p).kl, 0)
    assert np.allclose(divergence(p + 1000, q - 1000).kl, found.kl, atol=1e-3)


def test_masked_tokens_and_impossible_ones() -> None:
    p, q = np.array([[0.0, 0.0, -np.inf]]), np.array([[0.0, -np.inf, 0.0]])
    assert math.isinf(divergence(p, q).kl[0])
    assert divergence(p, np.array([[0.0, 0.0, 0.0]])).kl[0] == pytest.approx(math.log(1.5))
    both = summarise([divergence(np.vstack([p, p]), np.vstack([q, p]))])
    assert (both.infinite, both.positions, both.kl.value) == (1, 2, 0.0)
    with pytest.raises(VerifyError, match="vocabularies"):
        summarise([divergence(p, q)])


@pytest.mark.parametrize("bad", [np.array([[np.nan, 0.0]]), np.array([[-np.inf, -np.inf]]), np.array([[np.inf, 0.0]])])
def test_broken_logits_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(VerifyError, match="not finite"):
        divergence(bad, np.zeros((1, 2)))


def test_different_vocabularies_are_refused() -> None:
    with pytest.raises(VerifyError, match="vocabulary"):
        divergence(logits(2, 0, 50), logits(2, 0, 51))


def test_llama_cpp_definitions() -> None:
    p = np.array([[0.0, -20.0, -3.0]])
    q = np.array([[0.0, 5.0, -3.0]])
    log_p, log_q = log_softmax(p)[0], log_softmax(q)[0]
    kept = [0, 2]  # the middle token has ln p = -20.05
    expected = sum(math.exp(log_p[i]) * (log_p[i] - log_q[i]) for i in kept)
    assert divergence(p, q).kl_llama_cpp[0] == pytest.approx(expected)
    mask = llama_cpp_positions(1200)
    assert np.flatnonzero(mask).tolist() == [*range(256, 512), *range(768, 1024)]


def test_summary_and_its_coverage() -> None:
    rng, hits = np.random.default_rng(0), 0
    prompts = [divergence(logits(30, s), logits(30, s) + rng.normal(0, 0.1, (30, 50))) for s in range(40)]
    found = summarise(prompts)
    every = np.concatenate([d.kl for d in prompts])
    assert found.kl.value == pytest.approx(every.mean())
    assert {name: quantile.value for name, quantile in found.quantiles.items()} == pytest.approx(
        {"max": every.max(), **{f"p{100 * q:g}": np.quantile(every, q) for q in (0.5, 0.9, 0.99, 0.999)}}
    )
    assert found.entropy_p.value == pytest.approx(np.concatenate([d.entropy_p for d in prompts]).mean())
    assert all(estimate.interval is not None for estimate in (found.entropy_p, found.entropy_q, found.top_agreement))
    assert found.kl.interval is not None
    for seed in range(100):  # prompts of different lengths and levels, positions within a prompt alike
        means, lengths = rng.gamma(2, 0.05, size=40), rng.integers(5, 60, size=40)
        rows = [_constant(m, n) for m, n in zip(means, lengths, strict=True)]
        hits += 0.1 in summarise(rows, seed=seed).kl.interval  # type: ignore[operator]
    assert hits >= 87


def _constant(kl: float, positions: int) -> TokenDivergence:
    from edgedistill.verify.metrics.token_divergence import TokenDivergence

    values = np.full(positions, kl)
    return TokenDivergence(values, values, values, values, np.ones(positions, np.bool_))


def test_exposure_index() -> None:
    forced, own = [_constant(0.1, 20)] * 5, [_constant(0.2, 30)] * 5
    assert exposure_index(forced, own).value == pytest.approx(2.0)
    rng, hits = np.random.default_rng(3), 0
    for seed in range(100):
        means = rng.gamma(2, 0.05, size=40)
        forced = [_constant(m, n) for m, n in zip(means, rng.integers(5, 60, 40), strict=True)]
        scale = 2 * rng.gamma(4, 0.25, size=40)
        own = [_constant(m, n) for m, n in zip(means * scale, rng.integers(5, 60, 40), strict=True)]
        hits += 2.0 in exposure_index(forced, own, seed=seed).interval  # type: ignore[operator]
    assert hits >= 87


@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), max_size=20))
def test_first_divergence(a: list[int], b: list[int]) -> None:
    found = first_divergence(a, b)
    assert a[: found.position] == b[: found.position]
    assert found.parted == (a != b)
    if found.parted and found.position < min(len(a), len(b)):
        assert a[found.position] != b[found.position]


def simulate(hazard: float, rng: np.random.Generator, prompts: int = 40, pairs: int = 8) -> list[list[Parting]]:
    rows = []
    for _ in range(prompts):
        parted = rng.geometric(hazard, size=pairs) - 1
        ends = rng.integers(20, 200, size=pairs)
        rows.append([Parting(int(min(p, e)), bool(p < e)) for p, e in zip(parted, ends, strict=True)])
    return rows


def test_hazard_is_unbiased_and_covered_under_censoring() -> None:
    rng, hits, values = np.random.default_rng(1), 0, []
    for seed in range(200):
        estimate = hazard_per_100(simulate(0.01, rng), seed=seed)
        values.append(estimate.value)
        hits += 1.0 in estimate.interval  # type: ignore[operator]
    assert np.mean(values) == pytest.approx(1.0, abs=4 * np.std(values) / math.sqrt(200) + 0.005)
    assert hits / 200 >= 0.90


def test_no_parting_is_a_bound_and_not_zero() -> None:
    estimate = hazard_per_100([[Parting(100, False)]] * 30)
    assert estimate.value == 0.0
    assert estimate.interval is not None
    assert estimate.interval.high == pytest.approx(100 * (1 - 0.05 ** (1 / 3000)))
    assert math.isnan(hazard_per_100([[Parting(0, False)]]).value)


def test_survival_curve_follows_the_truth() -> None:
    rng = np.random.default_rng(2)
    hazard, inside, total = 0.01, 0, 0
    for _ in range(30):
        curve = survival_curve(simulate(hazard, rng))
        assert list(curve.survival) == sorted(curve.survival, reverse=True)
        for t, low, high in zip(curve.positions[10:60:10], curve.low[10:60:10], curve.high[10:60:10], strict=True):
            inside += low <= (1 - hazard) ** (t + 1) <= high
            total += 1
    assert inside / total >= 0.88
    assert curve.median == pytest.approx(math.log(2) / hazard, rel=0.35)


def test_survival_without_events_and_with_nothing_but_events() -> None:
    assert survival_curve([[Parting(50, False)]] * 5).median is None
    gone = survival_curve([[Parting(0, True)]] * 5)
    assert (gone.survival, gone.median) == ((0.0,), 0)
    assert survival_curve([[Parting(3, True), Parting(9, False)]]).survival == (0.5,)


def test_survival_covers_where_pairs_of_a_prompt_part_alike() -> None:
    """Half the prompts part five times as fast: pairs as independent would be far too sure."""
    rng, inside, medians, rounds = np.random.default_rng(4), 0, 0, 200
    slow, fast = 0.005, 0.025
    truth = lambda t: 0.5 * (1 - slow) ** (t + 1) + 0.5 * (1 - fast) ** (t + 1)  # noqa: E731
    middle = next(t for t in range(500) if truth(t) <= 0.5)
    for _ in range(rounds):
        rows = []
        for hazard in rng.choice([slow, fast], size=30):
            parted = rng.geometric(hazard, size=16) - 1
            rows.append([Parting(int(min(p, 150)), bool(p < 150)) for p in parted])
        curve = survival_curve(rows)
        at = int(np.searchsorted(curve.positions, 40, side="right")) - 1
        inside += curve.low[at] <= truth(40) <= curve.high[at]
        medians += curve.median_interval is not None and middle in curve.median_interval
    assert min(inside, medians) / rounds >= 0.9


def test_hazard_by_position_bins() -> None:
    pairs = [Parting(50, True), Parting(150, True), Parting(250, False)]
    bins = hazard_by_position([[pair] for pair in pairs])
    assert [round(b.value, 3) for b in bins] == [round(100 / 251, 3), round(100 / 151, 3), 0.0]
    assert all(b.interval is not None and b.value in b.interval for b in bins)
