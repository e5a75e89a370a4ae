"""Statistics of a few observations, whose values a pencil gives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from simulated import sample

from edgedistill.errors import VerifyError
from edgedistill.verify.stats import intervals
from edgedistill.verify.stats.answer_counts import TRUNCATED, UNPARSED, Codebook, by_prompt, coverage, paired, tally
from edgedistill.verify.stats.betting import Bets, log_capital, log_capital_path, mean_bets, stakes
from edgedistill.verify.stats.cluster_intervals import (
    cluster_quantiles,
    cluster_share,
    effective_number,
    jackknife_error,
    jackknife_interval,
    leave_out,
    ratio_left_out,
    share_interval,
)
from edgedistill.verify.stats.intervals import bca, cluster_interval, prompt_mean, sample_mean, weighted_ratio
from edgedistill.verify.stats.sampler_audit import chi_square

Z = stats.norm.ppf(0.975)


def test_capital_is_the_mean_over_stakes_of_what_each_has_won() -> None:
    x, shares, weights = np.array([0.5, -0.25]), np.array([0.5, 0.25]), np.array([1.0, 2.0])
    plain = [(1.5 + 1.25) / 2, (1.5 * 0.75 + 1.25 * 0.875) / 2]
    weighted = (1.5 * 0.75**2 + 1.25 * 0.875**2) / 2
    for many in (x, np.stack([x, x])):  # one run, and two of them
        assert np.exp(log_capital(many, 0.5, shares)) == pytest.approx(plain[1])
        assert np.exp(log_capital(many, 0.5, shares, weights)) == pytest.approx(weighted)
        path = np.exp(log_capital_path(many, 0.5, shares))
        assert path.shape == many.shape
        assert path[..., 0] == pytest.approx(plain[0])
        assert path[..., 1] == pytest.approx(plain[1])


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_power_is_that_of_a_normal_sum(scale: float) -> None:
    """Of one stake, two outcomes, and as many observations as ``scale`` says."""
    bets = Bets(np.array([0.5, -0.5]), np.array([0.5, 0.5]), -1.0, 1.0)
    assert list(stakes(4.0)) == [0.98]
    for theta, above, won, bound in ((-0.9, True, (1.4, 0.4), 0.1), (0.7, False, (0.2, 1.2), 0.3)):
        grown = [math.log1p(0.98 * one / bound) for one in won]
        mean, error = sum(grown) / 2, abs(grown[0] - grown[1]) / 2
        gap = (mean * scale - math.log(1 / 0.05)) / (error * math.sqrt(scale))
        assert bets.power(theta, 0.05, above=above, scale=scale) == pytest.approx(stats.norm.cdf(gap))
    assert bets.power(-0.9, 0.05, above=True) == bets.power(-0.9, 0.05, above=True, scale=1.0)
    assert bets.power(-1.0, 0.05, above=True) == bets.power(1.0, 0.05, above=False) == 0.0


def test_observations_without_spread_decide_or_do_not() -> None:
    """Each of n multiplies a stake of 0.98 by 1.98, which makes 20 of it with the fifth."""
    found = [mean_bets(np.ones(n), 0.0, 2.0).power(0.5, 0.05, above=True) for n in (4, 5, 60)]
    assert found == [0.0, 1.0, 1.0]
    same = [mean_bets(np.full(n, 1.0), 0.0, 2.0).power(1.0, 0.05, above=True) for n in (5, 500)]
    assert same == [0.0, 0.0]


def test_moved_bets_have_the_parameter_and_keep_their_bounds() -> None:
    one = mean_bets([0.2, -0.2, 0.9], -1.0, 1.0)
    assert one.moved(0.4).top == pytest.approx([0.3, -0.1, 1.0])
    assert one.moved(one.estimate).top == pytest.approx(one.top)
    ratio = Bets(np.array([0.2, 0.6]), np.ones(2), 0.0, 1.0, np.array([0.5, 0.5]))
    assert [ratio.estimate, ratio.count] == pytest.approx([0.8, 2.0])
    more, less = ratio.moved(1.6), ratio.moved(0.4)
    assert more.top == pytest.approx([0.2, 0.6])
    assert more.bottom == pytest.approx([0.25, 0.25])
    assert less.top == pytest.approx([0.1, 0.3])
    assert less.bottom == pytest.approx([0.5, 0.5])
    nothing = replace(ratio, bottom=np.zeros(2))
    assert nothing.moved(1.0) is nothing
    none = replace(ratio, top=np.zeros(2))
    assert none.moved(1.0) is none


def test_ends_where_there_is_no_estimate_are_the_bounds() -> None:
    nothing = Bets(np.zeros(3), np.ones(3), 0.0, 1.0, np.zeros(3))
    assert (nothing.lower(0.05), nothing.upper(0.05)) == (0.0, math.inf)
    unknown = mean_bets([math.nan], -1.0, 2.0)
    assert (unknown.lower(0.05), unknown.upper(0.05)) == (-1.0, 2.0)
    one, odds = mean_bets([0.0], -1.0, 1.0), 19 / 0.98  # what a stake of 0.98 has to win to make 20
    assert (one.lower(0.05), one.upper(0.05)) == pytest.approx((-odds / (1 + odds), odds / (1 + odds)))


def test_weights_are_numbers_of_observations() -> None:
    few = Bets(np.array([0.5, -0.1]), np.array([30.0, 10.0]), -1.0, 1.0)
    many = mean_bets([0.5] * 30 + [-0.1] * 10, -1.0, 1.0)
    assert [few.count, few.estimate] == pytest.approx([40.0, 0.35])
    assert few.log_e(0.1, above=True) == pytest.approx(many.log_e(0.1, above=True))
    assert (few.lower(0.05), few.upper(0.05)) == pytest.approx((many.lower(0.05), many.upper(0.05)))


def test_kishs_number_is_the_least() -> None:
    sizes = np.array([1.0, 2.0, 3.0, 4.0])
    for share in (0.0, 0.5, 1.0):
        assert effective_number(share, np.zeros(4), sizes) == pytest.approx(100 / 30)
    assert effective_number(0.5, np.array([0.4, -0.4, 0.4, -0.4]), sizes) == pytest.approx(100 / 30)
    assert effective_number(0.5, np.array([1e-3, -1e-3, 1e-3, -1e-3]), sizes) == 10.0


def test_the_effective_number_by_its_degrees_of_freedom() -> None:
    """Residuals of one size have as many as clusters less one; one large one among eight has 28 / 9 (Satterthwaite)."""
    even = effective_number(0.5, np.array([1, -1, 1, -1]) / 16, np.full(4, 100.0))
    assert even == pytest.approx(0.25 * 48 * (Z / stats.t.ppf(0.975, 3)) ** 2)
    uneven = effective_number(0.5, np.array([7, -1, -1, -1, -1, -1, -1, -1]) / 100, np.full(8, 100.0))
    assert uneven == pytest.approx(0.25 / 0.0064 * (Z / stats.t.ppf(0.975, 28 / 9)) ** 2)
    pair = effective_number(0.2, np.array([0.02, -0.02]), np.full(2, 900.0), 0.5)
    ratio = stats.norm.ppf(0.75) / stats.t.ppf(0.75, 1)
    assert pair == pytest.approx(0.16 / 0.0016 * ratio**2)


@pytest.mark.parametrize(("share", "number"), [(0.99, 50.0), (0.01, 50.0), (0.3, 7.5), (0.97, 1.2)])
def test_shares_of_numbers_that_are_not_whole(share: float, number: float) -> None:
    found, hits = share_interval(share, number, 0.9), share * number
    low, high = stats.beta.ppf(0.05, hits, number - hits + 1), stats.beta.ppf(0.95, hits + 1, number - hits)
    assert (found.low, found.high) == pytest.approx((min(low, share), max(high, share)), rel=1e-7)
    assert (share_interval(0.0, number).low, share_interval(1.0, number).high) == (0.0, 1.0)
    assert share_interval(0.0, number).high == pytest.approx(1 - 0.025 ** (1 / number))


def test_clusters_without_trials_are_left_out() -> None:
    found = cluster_share([1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 2.0, 0.0])
    assert found == cluster_share([1.0, 0.0, 1.0], [1.0, 1.0, 2.0])
    assert found.value == 0.5
    assert found.interval is not None
    assert cluster_share([1.0, 0.0], [3.0, 0.0]).interval is None
    wide, narrow = (cluster_share([1.0, 0.0, 1.0], [4.0, 4.0, 2.0], level).interval for level in (0.99, 0.5))
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < 0.2 < narrow.high < wide.high


def test_few_clusters_set_no_end_to_an_extreme_quantile() -> None:
    clusters = [np.arange(5.0) + shift for shift in range(3)]
    first, last = (one.interval for one in cluster_quantiles([*clusters, np.empty(0)], [0.01, 0.99]))
    assert (first.low, last.high) == (-math.inf, math.inf)
    assert first.high < 6.0
    assert last.low > 0.0
    bounded = cluster_quantiles(clusters, [0.01, 0.99], low=-3.0, high=9.0)
    assert [bounded[0].interval.low, bounded[1].interval.high] == [-3.0, 9.0]
    assert cluster_quantiles(clusters, [0.5])[0].value == 3.0
    assert cluster_quantiles(clusters, [0.5], level=0.5)[0].interval.level == 0.5


def test_groups_take_every_nth_cluster() -> None:
    left = [np.flatnonzero(~kept).tolist() for kept in leave_out(range(50))]
    assert len(left) == 20
    assert left[:2] == [[0, 20, 40], [1, 21, 41]]
    assert [np.flatnonzero(~kept).tolist() for kept in leave_out(["b", "a", "b"])] == [[1], [0, 2]]
    assert len(list(leave_out(range(7), groups=3))) == 3
    assert not list(leave_out([]))


def test_the_jackknife_of_two_is_half_their_distance() -> None:
    assert jackknife_error([0.4, math.nan, 0.6]) == pytest.approx(0.1)
    assert math.isnan(jackknife_error([0.4, math.nan]))
    half = stats.t.ppf(0.95, 1) * 0.1
    free = jackknife_interval(0.5, [0.4, math.nan, 0.6], level=0.9)
    assert free is not None
    assert (free.low, free.high, free.level) == pytest.approx((0.5 - half, 0.5 + half, 0.9))
    kept = jackknife_interval(0.5, [0.4, 0.6], low=0.1, high=0.8)
    assert (kept.low, kept.high) == (0.1, 0.8)
    assert jackknife_interval(math.inf, [0.4, 0.6]) is None
    assert jackknife_interval(1e9, [1e9, 1e9 + 1e-4]) is None, "the error of rounding"
    left = ratio_left_out([1.0, 2.0, 3.0], [2.0, 0.0, 0.0])
    assert (math.isinf(left[0]), left[1:]) == (True, [2.0, 1.5])


def test_students_interval_of_a_mean() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    found = sample_mean(values, low=-math.inf, high=math.inf, level=0.9)
    assert found.interval is not None
    expected = stats.t.interval(0.9, 3, loc=3.0, scale=stats.sem(values))
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((3.0, *expected))
    kept = sample_mean(values, low=2.5, high=3.5).interval
    assert (kept.low, kept.high, kept.level) == (2.5, 3.5, 0.95)
    equal = sample_mean([3.0, 3.0], low=1.0, high=9.0, level=0.9).interval
    unseen = 1 - math.sqrt(0.1)
    assert (equal.low, equal.high) == pytest.approx((3 - 2 * unseen, 3 + 6 * unseen))
    for low, high in ((-math.inf, 9.0), (0.0, math.inf)):
        assert sample_mean([3.0, 3.0], low=low, high=high).interval is None


def test_the_bootstrap_is_seeded_and_takes_its_resamples_in_any_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=30)
    whole = prompt_mean(values, low=0.0, high=9.0)
    assert whole == prompt_mean(values, low=0.0, high=9.0, seed=0, level=0.95, resamples=2000)
    assert whole != prompt_mean(values, low=0.0, high=9.0, seed=1)
    pairs = np.stack([values, values[::-1]], axis=1)
    assert bca(pairs, weighted_ratio) == bca(pairs, weighted_ratio, seed=0, level=0.95, resamples=2000)
    assert cluster_interval(pairs, weighted_ratio) == cluster_interval(pairs, weighted_ratio, seed=0, level=0.95)
    narrow, wide = (cluster_interval(pairs, weighted_ratio, level=level, resamples=400) for level in (0.5, 0.99))
    assert wide.low < narrow.low < 1.0 < narrow.high < wide.high
    assert cluster_interval(pairs[:2], weighted_ratio) is None
    assert cluster_interval(np.ones((9, 2)), weighted_ratio) is None
    assert cluster_interval(np.zeros((9, 2)), weighted_ratio) is None
    monkeypatch.setattr(intervals, "_CHUNK", 400)
    parts = prompt_mean(values, low=0.0, high=9.0).interval
    assert (parts.low, parts.high) == pytest.approx((whole.interval.low, whole.interval.high), abs=0.05)
    assert prompt_mean(values, low=1.7, high=1.8).interval.low == 1.7


def test_answers_are_counted_and_garbage_agrees_with_nothing() -> None:
    book = Codebook()
    given = ("7", "8", "<truncated>", "<unparsed>", "7", "7")
    samples = [sample("p", index, answer) for index, answer in enumerate(given)]
    samples[2], samples[5] = replace(samples[2], answer="7"), replace(samples[5], answer=None)
    codes = book.encode(samples)
    assert codes.tolist() == [0, 1, TRUNCATED, UNPARSED, 0, UNPARSED]
    assert (book.answer_code("8"), book.answer_code("9"), book.answers()) == (1, 2, ["7", "8", "9"])
    counts = tally(codes)
    assert (counts.answers.tolist(), counts.unparsed, counts.truncated) == ([2, 1], 2, 1)
    assert (counts.total, counts.garbage, counts.largest) == (6, 3, 2)
    assert coverage(counts) == pytest.approx(1 - (1 + 3) / 6)
    nothing = tally(np.array([UNPARSED]))
    assert (nothing.total, nothing.largest, coverage(nothing)) == (1, 0, 0.0)
    assert coverage(tally(np.empty(0, np.int64))) == 0.0
    assert tally(np.array([3, 0, 3])).answers.tolist() == [1, 2]
    groups = by_prompt([samples[2], samples[0], replace(samples[1], prompt_id="q")])
    assert {name: [one.index for one in group] for name, group in groups.items()} == {"p": [0, 2], "q": [1]}
    with pytest.raises(VerifyError, match="Sample 0 of prompt `p` occurs twice"):
        by_prompt([samples[0], samples[0]])
    left, right = paired(samples[3::-1], samples[1:])
    assert [one.index for one in left] == [one.index for one in right] == [1, 2, 3]


def test_a_draw_of_what_cannot_be_has_the_degrees_of_what_can() -> None:
    assert chi_square(np.array([5, 5, 5, 1]), np.array([1.0, 1.0, 1.0, 0.0])).degrees == 2
