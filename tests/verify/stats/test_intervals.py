"""Intervals cover what they claim to cover: simulated against known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from simulated import draw

from edgedistill.verify.metrics.accuracy import hallucination_variance
from edgedistill.verify.metrics.answer_distance import distribution_distance
from edgedistill.verify.metrics.collapse import collapse_audit
from edgedistill.verify.metrics.consistency import (
    agreement,
    answer_entropy,
    grassberger_bits,
    majority_share,
    miller_madow_bits,
    plug_in_bits,
)
from edgedistill.verify.metrics.lengths import form_summary, length_ratio
from edgedistill.verify.stats.answer_counts import Tally, tally
from edgedistill.verify.stats.intervals import (
    bca,
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
    prompt_mean,
    weighted_mean,
    wilson,
)

LEVEL = 0.95
DISTRIBUTIONS = {
    "95/5": [0.95, 0.05],
    "99/1": [0.99, 0.01],
    "80/20": [0.8, 0.2],
    "half": [0.5, 0.5],
    "four": [0.25] * 4,
    "skew": [0.6, 0.2, 0.1, 0.05, 0.05],
    "tail": list((1 / np.arange(1, 21)) / (1 / np.arange(1, 21)).sum()),
    "rare": [0.998, 0.001, 0.001],
}


def counts_of(p: list[float], n: int, rng: np.random.Generator) -> Tally:
    return tally(rng.choice(len(p), size=n, p=p))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (511, 512), (40, 64)])
def test_proportions_against_scipy(k: int, n: int) -> None:
    exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    ours = clopper_pearson(k, n)
    assert (ours.low, ours.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    score = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    assert (wilson(k, n).low, wilson(k, n).high) == pytest.approx((score.low, score.high), abs=1e-9)


@pytest.mark.parametrize("p", [0.001, 0.02, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("n", [5, 40, 300])
def test_exact_bounds_cover_exactly(p: float, n: int) -> None:
    k = np.arange(n + 1)
    mass = stats.binom.pmf(k, n, p)
    inside = [p in clopper_pearson(int(i), n) for i in k]
    above = [clopper_pearson_lower(int(i), n) <= p for i in k]
    below = [clopper_pearson_upper(int(i), n) >= p for i in k]
    assert min(float(mass @ inside), float(mass @ above), float(mass @ below)) >= 0.95 - 1e-9
    if n * min(p, 1 - p) >= 5:
        covered = float(mass @ np.array([p in wilson(int(i), n) for i in k]))
        assert covered > 0.92


def test_512_of_512_support_what_the_claim_hides() -> None:
    counts = Tally(np.array([512]), 0, 0)
    share = majority_share(counts)
    assert share.value == 1.0
    assert share.interval is not None
    assert share.interval.low == pytest.approx(0.9942, abs=5e-5)
    bits = answer_entropy(counts)
    tail = 1 - 0.05 ** (1 / 512)
    h = -tail * math.log2(tail) - (1 - tail) * math.log2(1 - tail)
    assert bits.value == 0.0
    assert bits.interval is not None
    # Spread over answers of one in a thousand: as many as fit.
    assert bits.interval.high == pytest.approx(h + tail * math.log2(tail / 1e-3))
    assert bits.interval.high == pytest.approx(0.0665, abs=1e-4)
    assert agreement(counts).interval.low == pytest.approx(0.05 ** (2 / 512))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_coverage_on_one_prompt(name: str) -> None:
    p, rng = DISTRIBUTIONS[name], np.random.default_rng(7)
    true_agreement, true_bits = sum(x * x for x in p), -sum(x * math.log2(x) for x in p)
    for n in (24, 96):
        hits = np.zeros(2)
        for _ in range(300):
            counts = counts_of(p, n, rng)
            hits += (true_agreement in agreement(counts).interval, true_bits in answer_entropy(counts).interval)  # type: ignore[operator]
        # 95 % claimed; three standard errors of 300 repetitions are 3.8 %.
        assert hits.min() / 300 >= 0.91, (n, hits / 300)


def test_bias_of_the_estimators() -> None:
    p, n, rng = DISTRIBUTIONS["skew"], 40, np.random.default_rng(3)
    bits = -sum(x * math.log2(x) for x in p)
    rows = np.array(
        [
            (agreement(c).value, plug_in_bits(c), miller_madow_bits(c), grassberger_bits(c))
            for c in (counts_of(p, n, rng) for _ in range(1500))
        ]
    )
    bias = rows.mean(axis=0) - [sum(x * x for x in p), bits, bits, bits]
    error = rows.std(axis=0) / math.sqrt(len(rows))
    assert abs(bias[0]) < 4 * error[0], "C is unbiased"
    expected = (len(p) - 1) / (2 * n * math.log(2))
    assert bias[1] == pytest.approx(-expected, rel=0.35), "plug-in is low by (K-1)/(2N ln 2)"
    assert abs(bias[2]) < 0.35 * abs(bias[1])
    assert abs(bias[3]) < 0.35 * abs(bias[1])


def test_distance_is_unbiased_coupled_or_not() -> None:
    rng = np.random.default_rng(4)
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.3, 0.2])
    true, n, rows = float(((p - q) ** 2).sum()), 20, []
    for _ in range(3000):
        u = rng.random(n)
        a, b = np.searchsorted(np.cumsum(p), u), np.searchsorted(np.cumsum(q), u)
        c = rng.choice(3, size=n, p=q)
        naive = distribution_distance(a, b, coupled=False)
        rows.append((distribution_distance(a, b, coupled=True), distribution_distance(a, c, coupled=False), naive))
    means, errors = np.mean(rows, axis=0), np.std(rows, axis=0) / math.sqrt(len(rows))
    assert abs(means[0] - true) < 4 * errors[0]
    assert abs(means[1] - true) < 4 * errors[1]
    assert abs(means[2] - true) > 8 * errors[2], "counting the pairs that share noise would be wrong"


def test_garbage_never_looks_consistent() -> None:
    garbage = Tally(np.empty(0, np.int64), 300, 212)
    assert agreement(garbage).value == 0.0
    assert majority_share(garbage).value == 0.0
    assert answer_entropy(garbage).value > 8
    half = Tally(np.array([256]), 256, 0)
    assert agreement(half).value == pytest.approx(0.25, abs=0.01)
    assert answer_entropy(half).value > 1 + 0.5 * 7
    assert distribution_distance(np.array([-1, -1, -1]), np.array([0, 0, 0]), coupled=True) == pytest.approx(1.0)


@pytest.mark.parametrize("prompts", [30, 100])
def test_coverage_over_prompts(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    truth, hits = 0.8, 0
    for seed in range(250):
        values = rng.beta(4, 1, size=prompts)  # skewed, mean 0.8
        hits += truth in prompt_mean(values, low=0, high=1, seed=seed, resamples=600).interval  # type: ignore[operator]
    assert hits / 250 >= 0.90


def test_equal_values_are_not_certainty() -> None:
    estimate = prompt_mean(np.ones(100), low=0, high=1)
    assert estimate.interval is not None
    assert (estimate.value, estimate.interval.high) == (1.0, 1.0)
    assert estimate.interval.low == pytest.approx(0.05 ** (1 / 100))
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):  # 1 prompt in 50 fails entirely: 60 prompts often show none
        values = (rng.random(60) > 0.02).astype(float)
        hits += 0.98 in prompt_mean(values, low=0, high=1, resamples=400).interval  # type: ignore[operator]
    assert hits / 300 >= 0.90
    assert prompt_mean([math.nan, 0.5], low=0, high=1).value == 0.5
    assert math.isnan(prompt_mean([], low=0, high=1).value)


def test_bca_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=60)
    low, high = bca(values[:, None], weighted_mean, resamples=8000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=8000, method="BCa", rng=2).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_length_ratio_and_form_cover() -> None:
    rng, hits = np.random.default_rng(2), 0
    for seed in range(150):
        before = rng.gamma(4, 25, size=50)
        after = 1.1 * before * rng.normal(1, 0.2, size=50)
        hits += 1.1 in length_ratio(before.tolist(), after.tolist(), seed=seed).interval  # type: ignore[operator]
    assert hits / 150 >= 0.89
    form = form_summary(draw([{"a": 0.5, "<truncated>": 0.25, "<unparsed>": 0.25}] * 40, 20, rng))
    assert 0.25 in form.truncated.interval  # type: ignore[operator]
    assert 0.25 in form.unparsed.interval  # type: ignore[operator]
    p50, p90, _, longest = form.token_quantiles
    assert p50.value <= p90.value <= longest.value
    assert p50.interval is not None
    assert p50.interval.low <= 100 <= p50.interval.high
    assert longest.interval is None


def test_hallucination_variance_is_split_without_bias() -> None:
    rng, rows, n, inside, between_hits, total_hits = np.random.default_rng(5), [], 12, 0, 0, 0
    true_within, true_between = 1 / 6, 1 / 12  # p uniform on [0, 1]
    for seed in range(200):
        wrong = rng.binomial(n, rng.random(60))
        parts = hallucination_variance(wrong.tolist(), [n] * 60, seed=seed)
        rows.append((parts.within.value, parts.between.value))
        inside += true_within in parts.within.interval  # type: ignore[operator]
        between_hits += true_between in parts.between.interval  # type: ignore[operator]
        total_hits += true_within + true_between in parts.total.interval  # type: ignore[operator]
    error = np.std(rows, axis=0) / math.sqrt(len(rows))
    assert np.all(np.abs(np.mean(rows, axis=0) - [true_within, true_between]) < 4 * error)
    assert min(inside, between_hits, total_hits) / 200 >= 0.88
    certain = hallucination_variance([0, 12, 0], [12] * 3)
    assert (certain.within.value, certain.always_right, certain.always_wrong, certain.mixed) == (0.0, 2, 1, 0)


def test_the_share_of_information_is_covered() -> None:
    """Of what the estimator gives in the mean with so many samples; with few, permuted labels take too much from it."""
    rng, skills, found = np.random.default_rng(7), np.array([0.3, 0.6, 0.9]), []
    for seed in range(150):
        p = rng.choice(skills, size=60)
        rows = [np.where(rng.random(12) < s, i % 10, 10 + rng.integers(3, size=12)) for i, s in enumerate(p)]
        found.append(collapse_audit(rows, [i % 10 for i in range(60)], seed=seed, permutations=10).ratio)
    expected = np.mean([ratio.value for ratio in found])
    assert np.mean([expected in ratio.interval for ratio in found]) >= 0.9  # type: ignore[operator]
    assert 0.4 < expected < 0.7


def test_permuted_labels_take_the_chance_out_of_the_information() -> None:
    rng = np.random.default_rng(6)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    values = [
        collapse_audit([rng.choice(4, size=8, p=p) for _ in range(40)], permutations=30, seed=s).information_bits.value
        for s in range(60)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(60) + 1e-3
    raw = [
        collapse_audit([rng.choice(4, size=8, p=p) for _ in range(40)], permutations=0).information_bits.value
        for _ in range(9)
    ]
    assert np.mean(raw) > 0.1, "without them few samples look like information"
