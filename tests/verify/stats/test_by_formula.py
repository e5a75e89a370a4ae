"""Bets, bootstrap, proportions and quantiles against their published formulas, written out once more with SciPy."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from edgedistill.verify.stats import intervals
from edgedistill.verify.stats.betting import Bets, holm, log_capital, log_capital_path, mean_bets, stakes
from edgedistill.verify.stats.cluster_intervals import (
    cluster_quantiles,
    cluster_share,
    each_left_out,
    effective_number,
    jackknife_interval,
    ratio_left_out,
    share_interval,
)
from edgedistill.verify.stats.intervals import (
    bca_at,
    cluster_interval,
    prompt_mean,
    sample_mean,
    weighted_mean,
    weighted_ratio,
    wilson,
)
from edgedistill.verify.stats.special_functions import (
    beta_cdf,
    chi_square_quantile,
    chi_square_tail,
    student_quantile,
)


def capital(x: np.ndarray, bound: float, shares: np.ndarray, weights: np.ndarray) -> float:
    """The mean over stakes of the product of (1 + s x / bound)^weight."""
    return float(np.mean([np.prod((1 + s * x / bound) ** weights) for s in shares]))


TOP, BOTTOM, WEIGHTS = np.array([0.4, 0.1, 0.9]), np.array([1.0, 0.3, 1.7]), np.array([3.0, 2.0, 4.0])
STAKED = [  # bets, theta, above, x, bound
    (Bets(TOP, WEIGHTS, -0.5, 2.0), 0.3, True, TOP - 0.3, 0.8),
    (Bets(TOP, WEIGHTS, -0.5, 2.0), 0.9, False, 0.9 - TOP, 1.1),
    (Bets(TOP, WEIGHTS, 0.0, 1.0, BOTTOM, 2.0), 0.3, True, TOP - 0.3 * BOTTOM, 0.6),
    (Bets(TOP, WEIGHTS, 0.0, 1.0, BOTTOM, 2.0), 0.9, False, 0.9 * BOTTOM - TOP, 1.0),
]


@pytest.mark.parametrize(("bets", "theta", "above", "x", "bound"), STAKED)
def test_evidence_is_the_capital_of_the_stakes(
    bets: Bets, theta: float, above: bool, x: np.ndarray, bound: float
) -> None:
    assert bets.log_e(theta, above=above) == pytest.approx(math.log(capital(x, bound, stakes(9.0), WEIGHTS)))
    assert bets.p(theta, above=above) == pytest.approx(min(1.0, 1 / capital(x, bound, stakes(9.0), WEIGHTS)))
    looks = replace(bets, ordered=True, weights=np.ones(3))
    most = max(capital(x[:n], bound, stakes(1024), np.ones(n)) for n in (1, 2, 3))
    assert looks.log_e(theta, above=above) == pytest.approx(math.log(max(1.0, most)))


@pytest.mark.parametrize(("bets", "theta", "above", "x", "bound"), STAKED)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_power_is_that_of_the_best_stake(
    bets: Bets, theta: float, above: bool, x: np.ndarray, bound: float, ordered: bool, scale: float
) -> None:
    shares = stakes(1024 if ordered else 9 * scale)
    best = 0.0
    for share in shares:
        grown = np.log1p(share * x / bound)
        mean, variance = np.average(grown, weights=WEIGHTS), np.cov(grown, fweights=WEIGHTS.astype(int), ddof=0)
        gap = 9 * scale * mean - math.log(len(shares) / 0.05)
        best = max(best, stats.norm.cdf(gap / math.sqrt(9 * scale * variance)))
    assert replace(bets, ordered=ordered).power(theta, 0.05, above=above, scale=scale) == pytest.approx(best)


def test_at_its_bounds_nothing_is_to_be_shown() -> None:
    for bets in (mean_bets([0.5, 0.9], -1.0, 1.0), replace(mean_bets([0.5, 0.9], -1.0, 1.0), ordered=True)):
        assert bets.log_e(-1.0, above=True) == bets.log_e(1.0, above=False) == 0.0
        assert bets.log_e(-1.5, above=True) == bets.log_e(1.5, above=False) == 0.0


def test_runs_that_differ_have_each_their_own_capital() -> None:
    rows, shares = np.array([[0.5, -0.25, 0.1], [-0.3, 0.2, -0.4], [0.9, 0.9, 0.9]]), stakes(400.0)
    weights = np.array([1.0, 2.0, 0.5])
    whole, weighted = log_capital(rows, 0.5, shares), log_capital(rows, 0.5, shares, weights)
    path = log_capital_path(rows, 0.5, shares)
    for at, x in enumerate(rows):
        assert math.exp(whole[at]) == pytest.approx(capital(x, 0.5, shares, np.ones(3)))
        assert math.exp(weighted[at]) == pytest.approx(capital(x, 0.5, shares, weights))
        for n in (1, 2, 3):
            assert math.exp(path[at, n - 1]) == pytest.approx(capital(x[:n], 0.5, shares, np.ones(n)))


def test_a_fortune_is_counted_in_logarithms() -> None:
    """Of 5000 observations that nearly double the stake: the largest stake's capital, far beyond what a float holds."""
    found = log_capital(np.full(5000, 0.9), 1.0, stakes(25.0))
    assert found == pytest.approx(5000 * math.log1p(0.98 * 0.9) - math.log(len(stakes(25.0))))


def test_an_observation_beyond_its_bounds_loses_the_stake_and_not_the_sign() -> None:
    """Of capital 1 in two stakes the larger one is gone: what is left is the smaller one's."""
    left = 0.5 * (1 - 0.49 * 1.5)
    assert math.exp(log_capital(np.array([-1.5]), 1.0, stakes(9.0))) == pytest.approx(left)
    assert np.exp(log_capital_path(np.array([-1.5]), 1.0, stakes(9.0))) == pytest.approx([left])


@pytest.mark.parametrize(("count", "smallest"), [(0, 0), (1, 0), (5, 0), (6, 1), (23, 1), (24, 2), (1024, 4)])
def test_the_smallest_stake_is_at_least_one_and_a_fifth_over_the_root(count: int, smallest: int) -> None:
    assert list(stakes(count)) == [0.98 / 2**n for n in range(smallest + 1)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(-0.9, 0.9))
def test_signs_turned_turn_the_evidence(values: list[float], theta: float) -> None:
    one, other = mean_bets(values, -1.0, 1.0), mean_bets([-value for value in values], -1.0, 1.0)
    assert one.log_e(theta, above=True) == pytest.approx(other.log_e(-theta, above=False), abs=1e-12)
    assert one.lower(0.05) == pytest.approx(-other.upper(0.05), abs=1e-9)
    doubled = Bets(np.array(values), np.full(len(values), 2.0), -1.0, 1.0)
    assert doubled.log_e(theta, above=True) == pytest.approx(
        mean_bets(values * 2, -1.0, 1.0).log_e(theta, above=True), abs=1e-12
    )


def test_the_interval_of_a_ratio_ends_where_the_evidence_is_enough() -> None:
    for scale in (1e-4, 1.0, 400.0):  # of the numerator, whose bound it is
        bets = Bets(TOP * scale, WEIGHTS * 9, 0.0, scale, BOTTOM, 2.0)
        low, high = bets.lower(0.05), bets.upper(0.05)
        assert low < bets.estimate < high < math.inf
        assert bets.log_e(low, above=True) == pytest.approx(math.log(20), abs=1e-4)
        assert bets.log_e(high, above=False) == pytest.approx(math.log(20), abs=1e-4)
    assert Bets(TOP, WEIGHTS * 0.1, 0.0, 1.0, BOTTOM * 1e-5, 2.0).upper(0.05) == math.inf


def test_holm_on_one_hypothesis_is_its_level() -> None:
    assert holm([0.05], 0.05, [3.0]) == ([True], [0.05])
    assert holm([0.0500001], 0.05) == ([False], [0.05])


STATISTICS = {
    "mean": (weighted_mean, np.random.default_rng(5).gamma(1.0, size=(11, 1))),
    "ties": (weighted_mean, np.array([[0.0], [0.0], [1.0], [1.0], [1.0], [5.0]])),
    "most": (lambda weights, _: weights.max(axis=1), np.zeros((9, 1))),
    "least": (lambda weights, _: weights.min(axis=1), np.zeros((9, 1))),
    "skew": (weighted_mean, np.array([[0.0]] * 7 + [[40.0]])),
    "some undefined": (lambda w, _: np.where(w[:, 0] > 0, w[:, 1] - w[:, 0], np.nan), np.zeros((5, 1))),
}


@pytest.mark.parametrize("case", STATISTICS)
@pytest.mark.parametrize("chunk", [2_000_000, 50])
def test_the_bootstrap_is_efrons_with_hesterbergs_expansion(
    case: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "_CHUNK", chunk)
    statistic, values = STATISTICS[case]
    count, rng = len(values), np.random.default_rng(3)
    step, drawn = max(1, chunk // count), []
    for start in range(0, 150, step):
        picks = rng.integers(0, count, size=(min(step, 150 - start), count))
        drawn.append(statistic(np.stack([np.bincount(row, minlength=count) for row in picks]) * 1.0, values))
    found = np.concatenate(drawn)
    found = found[np.isfinite(found)]
    observed = statistic(np.ones((1, count)), values)[0]
    share = np.mean(found < observed) + np.mean(found == observed) / 2
    bias = stats.norm.ppf(np.clip(share, 0.5 / found.size, 1 - 0.5 / found.size))
    left = statistic(np.ones((count, count)) - np.eye(count), values)
    spread = ((left.mean() - left) ** 2).sum()
    acceleration = ((left.mean() - left) ** 3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    for level, ends in zip((0.95, 0.6), bca_at(values, statistic, (0.95, 0.6), seed=3, resamples=150), strict=True):
        z = bias + stats.t.ppf([0.5 - level / 2, 0.5 + level / 2], count - 1) * math.sqrt(count / (count - 1))
        if np.isnan(acceleration):
            assert np.isnan(ends).all()
            continue
        at = stats.norm.cdf(bias + z / np.maximum(1e-3, 1 - acceleration * z))
        assert ends == pytest.approx(np.quantile(found, at), rel=1e-6, abs=1e-9)


def test_what_is_undefined_has_no_interval_and_no_warning() -> None:
    """On every resample, on the prompts as they are, or on neither."""
    values = np.zeros((9, 2))
    for often, at_all in ((math.nan, 1.0), (1.0, math.nan), (math.nan, math.nan)):

        def statistic(weights: np.ndarray, _: np.ndarray, often: float = often, at_all: float = at_all) -> np.ndarray:
            return np.where(weights.max(axis=1) > 1, often, at_all)

        assert np.isnan(bca_at(values, statistic, (0.95, 0.5), resamples=20)).all()
        assert cluster_interval(values, statistic, resamples=20) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = (
            weighted_ratio(np.ones((1, 2)), np.array([[1.0, 0.0], [1.0, 0.0]])),
            weighted_ratio(np.ones((1, 9)), values),
        )
        left = ratio_left_out([1.0, 2.0], [1.0, 0.0]), ratio_left_out([1.0, 0.0], [1.0, 0.0])
    assert (found[0][0], math.isnan(found[1][0])) == (math.inf, True)
    assert (left[0], math.isnan(left[1][0])) == ([math.inf, 1.0], True)


def test_a_mean_over_prompts_is_bootstrapped_at_its_level() -> None:
    values = np.array([1.0, 2.0, 4.0, 4.5, 9.0])
    for level in (0.5, 0.9):
        found = prompt_mean(values, low=-99.0, high=99.0, level=level, seed=4, resamples=80).interval
        assert found is not None
        (ends,) = bca_at(values[:, None], weighted_mean, (level,), seed=4, resamples=80)
        assert ((found.low, found.high), found.level, found.method) == (ends, level, "BCa over prompts")
        assert cluster_interval(values[:, None], weighted_mean, level=level, seed=4, resamples=80) == found


def test_three_prompts_are_the_fewest_of_a_bootstrap() -> None:
    values = np.array([[1.0], [2.0], [4.0]])
    assert cluster_interval(values, weighted_mean, resamples=50) is not None
    assert cluster_interval(values[:2], weighted_mean, resamples=50) is None


@pytest.mark.parametrize("mean", [prompt_mean, sample_mean])
@pytest.mark.parametrize("size", [1.0, 1e9])
def test_differences_of_rounding_are_none(mean: object, size: float) -> None:
    """Relative to the mean, and absolute below 1."""
    for step, same in ((1e-13, True), (1e-9, False)):
        found = mean([size, size * (1 + step), size], low=0.0, high=4e9)  # type: ignore[operator]
        assert found.interval.method.startswith("unseen") is same
    small = mean([1e-6, 1e-6 + 1e-13, 1e-6], low=0.0, high=1.0)  # type: ignore[operator]
    assert small.interval.method.startswith("unseen")
    one = mean([0.5], low=0.0, high=1.0)  # type: ignore[operator]
    assert (one.value, one.interval) == (0.5, None)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("hits", "trials"), [(0, 4), (1, 4), (4, 4), (2.5, 7), (1, 5000)])
def test_wilsons_ends_solve_the_score_test(hits: float, trials: int, level: float) -> None:
    found, z = wilson(hits, trials, level), stats.norm.ppf(0.5 + level / 2)
    for end in (found.low, found.high):
        assert abs(hits / trials - end) == pytest.approx(z * math.sqrt(end * (1 - end) / trials), abs=1e-9)
    assert found.low <= hits / trials <= found.high
    assert (found.level, found.method) == (level, "Wilson")


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda p: (min(p), p[1])), min_size=2, max_size=12),
    st.sampled_from([0.5, 0.95]),
)
@settings(max_examples=40, deadline=None)
def test_a_share_over_clusters_by_korn_and_graubard(rows: list[tuple[int, int]], level: float) -> None:
    hits, sizes = np.array(rows, np.float64).T
    found = cluster_share(hits, sizes, level)
    share, count = hits.sum() / sizes.sum(), sizes.size
    residuals = (hits - share * sizes) / sizes.sum()
    squares = (residuals**2).sum()
    number = kish = sizes.sum() ** 2 / (sizes**2).sum()
    if 0 < share < 1 and squares > 1e-20:
        spread = (residuals**4).sum() - squares**2 / count
        degrees = min(count - 1, 2 * squares**2 / spread) if spread > 0 else count - 1
        ratio = stats.norm.ppf(0.5 + level / 2) / stats.t.ppf(0.5 + level / 2, degrees)
        number = min(max(kish, ratio**2 * share * (1 - share) / (count / (count - 1) * squares)), sizes.sum())
    assert effective_number(share, residuals, sizes, level) == pytest.approx(number, rel=1e-6)
    expected = share_interval(share, number, level)
    assert found.value == pytest.approx(share)
    assert found.interval.level == level
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), rel=1e-5)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_quantiles_over_clusters_are_woodruffs(level: float) -> None:
    rng = np.random.default_rng(1)
    clusters = [
        rng.normal(size=size) + shift for size, shift in zip((3, 9, 14, 5, 20, 7, 11, 4), range(8), strict=True)
    ]
    every, sizes = np.sort(np.concatenate(clusters)), np.array([len(one) for one in clusters], np.float64)
    wanted = (0.02, 0.3, 0.5, 0.9, 0.99, 1.0)
    for probability, found in zip(
        wanted, cluster_quantiles(clusters, wanted, level=level, low=-50, high=50), strict=True
    ):
        assert found.value == np.quantile(every, probability)
        if probability == 1.0:
            assert found.interval is None
            continue
        below = np.array([(one <= found.value).sum() for one in clusters])
        share = below.sum() / sizes.sum()
        number = effective_number(share, (below - share * sizes) / sizes.sum(), sizes, level)
        ends, tail = share_interval(probability, number, level), 0.5 - level / 2
        low = np.quantile(every, ends.low) if (1 - probability) ** number <= tail else -50
        high = np.quantile(every, ends.high) if probability**number <= tail else 50
        assert (found.interval.low, found.interval.high) == (low, high)


def test_each_left_out_is_the_statistic_of_the_rest() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    assert each_left_out(lambda kept: float(values[kept].sum()), [0, 1, 0, 2]) == [10.0, 13.0, 7.0]


def test_an_error_must_exceed_that_of_rounding() -> None:
    assert jackknife_interval(0.0, [0.0, 3e-12]) is not None
    assert jackknife_interval(0.0, [0.0, 1e-12]) is None
    assert jackknife_interval(1e6, [1e6, 1e6 + 1e-5]) is not None


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 3.5), st.floats(-1, 3.5), st.floats(1e-6, 1 - 1e-6))
def test_the_beta_distribution_of_any_shape(log_a: float, log_b: float, x: float) -> None:
    a, b = 10**log_a, 10**log_b
    assert beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-13)
    assert beta_cdf(x, a, b) + beta_cdf(1 - x, b, a) == pytest.approx(1.0, abs=1e-11)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 3), st.floats(0.01, 3))
def test_the_chi_square_tail_of_any_degrees(log_degrees: float, ratio: float) -> None:
    degrees = 10**log_degrees
    assert chi_square_tail(ratio * degrees, degrees) == pytest.approx(
        special.gammaincc(degrees / 2, ratio * degrees / 2), rel=1e-9, abs=1e-14
    )


@pytest.mark.parametrize("degrees", [0.3, 1.0, 2.0, 17.5, 400.0])
def test_quantiles_are_exact_to_the_last_digits(degrees: float) -> None:
    for p in (1e-4, 0.025, 0.5, 0.6, 0.975, 0.9999):
        assert student_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-9, abs=1e-6)
        assert chi_square_quantile(p, degrees) == pytest.approx(stats.chi2.ppf(p, degrees), rel=1e-9)
    assert student_quantile(0.5, degrees) == pytest.approx(0.0, abs=1e-6)
