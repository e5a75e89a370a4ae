"""Intervals of shares, quantiles, collapse, diversity and of single prompts cover: simulated, the truth being known.

Of 200 repetitions of a 95 % interval 0.90 lies more than three standard errors below what is claimed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from intervals_support import covers
from scipy import stats

from edgedistill.verify.metrics.accuracy import majority_at_k_estimate, pass_at_k_estimate
from edgedistill.verify.metrics.answer_distance import distance_estimate, distribution_distance
from edgedistill.verify.metrics.collapse import Collapse, collapse_audit
from edgedistill.verify.metrics.consistency import majority_share
from edgedistill.verify.metrics.diversity import diversity
from edgedistill.verify.metrics.token_divergence import TokenDivergence
from edgedistill.verify.report.tokens import PromptDivergences, prompt_tokens
from edgedistill.verify.stats.answer_counts import tally
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
from edgedistill.verify.stats.intervals import clopper_pearson, clopper_pearson_upper, prompt_mean, sample_mean
from edgedistill.verify.types import Estimate

LEAST = 0.90
QUANTILES = (0.5, 0.9, 0.99)


@pytest.mark.parametrize("prompts", [8, 30, 120])
@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_quantiles_over_prompts_are_covered(prompts: int, alike: float) -> None:
    """Log-normal, part of the spread being between prompts."""
    rng = np.random.default_rng(prompts)
    found = [
        cluster_quantiles(
            [np.exp(alike * rng.normal() + rng.normal(size=rng.integers(10, 80))) for _ in range(prompts)],
            QUANTILES,
            low=0.0,
        )
        for _ in range(200)
    ]
    truths = np.exp(math.hypot(1.0, alike) * stats.norm.ppf(QUANTILES))
    assert min(covers([row[i] for row in found], truth) for i, truth in enumerate(truths)) >= LEAST
    tops = [row[2].interval.high for row in found if row[2].interval is not None]
    assert math.isinf(max(tops)) == (prompts < 100), "few positions set no upper end to p99"


def test_quantiles_without_clusters_are_those_of_order_statistics() -> None:
    values = np.random.default_rng(0).normal(size=400)
    (found,) = cluster_quantiles([np.array([v]) for v in values], [0.5])
    assert found.interval is not None
    assert found.interval.low == pytest.approx(np.sort(values)[181], abs=0.05)
    assert found.interval.high == pytest.approx(np.sort(values)[219], abs=0.05)
    assert cluster_quantiles([values], [0.5])[0].interval is None
    assert cluster_quantiles([values, values], [1.0])[0] == Estimate(float(values.max()))
    _, median = cluster_quantiles([values, values], [1.0, 0.5])
    assert median.interval is not None, "quantiles below a maximum keep theirs"


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.995])
@pytest.mark.parametrize("prompts", [10, 60])
def test_shares_over_prompts_are_covered(mean: float, prompts: int) -> None:
    rng, found = np.random.default_rng(3), []
    for _ in range(200):
        sizes = rng.integers(5, 30, size=prompts)
        found.append(cluster_share(rng.binomial(sizes, rng.beta(3 * mean, 3 * (1 - mean), size=prompts)), sizes))
    assert covers(found, mean) >= LEAST
    assert math.isnan(cluster_share([0.0], [0.0]).value)
    assert cluster_share([1.0], [2.0]) == Estimate(0.5)


def test_the_effective_number_lies_between_clusters_and_observations() -> None:
    sizes = np.full(50, 10.0)
    alone = share_interval(0.3, 40)
    assert (alone.low, alone.high) == pytest.approx((clopper_pearson(12, 40).low, clopper_pearson(12, 40).high))
    assert effective_number(1.0, np.zeros(50), sizes) == 50
    rng = np.random.default_rng(0)
    same = np.where(rng.random(50) < 0.3, 1.0, 0.0)  # all observations of a cluster are equal
    assert effective_number(same.mean(), (same - same.mean()) / 50, sizes) == pytest.approx(50, rel=0.1)
    binomial = rng.binomial(10, 0.3, size=50) / 10
    assert 250 < effective_number(binomial.mean(), (binomial - binomial.mean()) / 50, sizes) <= 500


@given(st.lists(st.integers(0, 6), min_size=2, max_size=60))
def test_leaving_out_takes_every_cluster_once_and_whole(clusters: list[int]) -> None:
    left = [~kept for kept in leave_out(clusters)]
    if len(set(clusters)) < 2:
        assert not left
        return
    assert np.array_equal(np.sum(left, axis=0), np.ones(len(clusters)))
    for gone in left:
        inside = {c for c, g in zip(clusters, gone, strict=True) if g}
        assert inside.isdisjoint(c for c, g in zip(clusters, gone, strict=True) if not g)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=30)
    left = ratio_left_out(values, np.ones(30))
    assert jackknife_error(left) == pytest.approx(values.std(ddof=1) / math.sqrt(30))
    low, high = stats.t.interval(0.95, 29, values.mean(), values.std(ddof=1) / math.sqrt(30))
    found = jackknife_interval(float(values.mean()), left)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high))
    assert jackknife_interval(1.0, [1.0, 1.0, 1.0]) is None
    assert jackknife_interval(1.0, [math.nan, 1.0]) is None


def audits(prompts: int, skill: tuple[float, float], favourite: float, repetitions: int = 150) -> list[Collapse]:
    """Ten gold answers, given with a probability uniform in ``skill``; else 10 (as often as ``favourite``) or 11."""
    rng, found = np.random.default_rng(prompts), []
    for _ in range(repetitions):
        gold, rows = rng.integers(10, size=prompts), []
        for answer in gold:
            right = rng.random(8) < rng.uniform(*skill)
            rows.append(np.where(right, answer, np.where(rng.random(8) < favourite, 10, 11)))
        found.append(collapse_audit(rows, gold.tolist(), permutations=2))
    return found


@pytest.mark.parametrize("prompts", [20, 120])
@pytest.mark.parametrize(("skill", "favourite"), [((0.7, 1.0), 0.5), ((0.1, 0.5), 0.7), ((0.0, 0.06), 1.0)])
def test_numbers_of_the_collapse_audit_are_covered(prompts: int, skill: tuple[float, float], favourite: float) -> None:
    found = audits(prompts, skill, favourite)
    right = (skill[0] + skill[1]) / 2
    shares = np.array([right / 10] * 10 + [(1 - right) * favourite, (1 - right) * (1 - favourite)])
    assert covers([one.top_share for one in found], shares.max()) >= LEAST
    assert covers([one.off_prompt_collision for one in found], (shares**2).sum()) >= LEAST
    # Entropies of few prompts are low: these two cover what as many prompts give in the mean.
    for numbers in ([one.effective_answers for one in found], [one.information_bits for one in found]):
        assert covers(numbers, float(np.mean([number.value for number in numbers]))) >= 0.88


def test_effective_answers_of_many_prompts_cover_the_truth() -> None:
    shares = np.array([0.03] * 10 + [0.49, 0.21])
    found = [one.effective_answers for one in audits(400, (0.1, 0.5), 0.7, 100)]
    assert covers(found, 2 ** -float((shares * np.log2(shares)).sum())) >= 0.88


def test_what_does_not_vary_is_bounded_by_prompts_that_were_not_asked() -> None:
    constant = collapse_audit([np.zeros(4, np.int64)] * 30)
    perfect = collapse_audit([np.full(4, i) for i in range(30)], list(range(30)))
    unseen = 1 - 0.05 ** (1 / 30)
    assert constant.ratio.interval is not None
    assert (constant.ratio.value, constant.ratio.interval.low) == pytest.approx((0.0, 0.0))
    assert 0.1 < constant.ratio.interval.high < 0.5
    assert perfect.ratio.interval is not None
    assert perfect.ratio.interval.low == pytest.approx(1 - unseen)
    assert perfect.ratio.interval.high == pytest.approx(1.0)
    assert constant.top_share.interval is not None
    assert constant.top_share.interval.low == pytest.approx(clopper_pearson(30, 30).low)
    assert constant.effective_answers.interval is not None
    assert constant.effective_answers.interval.low == 1.0 < constant.effective_answers.interval.high
    assert perfect.off_prompt_collision.interval is not None
    assert perfect.off_prompt_collision.interval.high == pytest.approx(clopper_pearson_upper(1, 30) ** 2)
    assert constant.off_prompt_collision.interval is not None
    assert constant.off_prompt_collision.interval.low == pytest.approx((1 - unseen) ** 2)


@pytest.mark.parametrize("favourites", [1, 2, 10])
def test_collisions_that_were_not_seen_are_covered(favourites: int) -> None:
    """Answers that are all different, but for favourites that few prompts have: often none collide."""
    rng, none, found = np.random.default_rng(favourites), 0, []
    share = {1: 0.12, 2: 0.06, 10: 0.015}[favourites]
    for _ in range(300):
        kinds = rng.random(30) // share  # below ``favourites``: that one
        rows = [np.full(4, kind if kind < favourites else 100 + i, np.int64) for i, kind in enumerate(kinds)]
        found.append(collapse_audit(rows, permutations=1).off_prompt_collision)
        none += found[-1].value == 0
    assert none > 25, "the case that is tested"
    assert covers(found, favourites * share**2) >= LEAST


def test_diversity_is_covered() -> None:
    """Texts of a prompt share its vocabulary; truth: the mean over all repetitions."""
    rng, words = np.random.default_rng(0), 1 / np.arange(1, 121)
    found = []
    for _ in range(60):
        texts, prompts = [], []
        for prompt in range(20):
            p = rng.dirichlet(60 * words / words.sum())
            texts += [" ".join(map(str, rng.choice(120, size=rng.integers(8, 20), p=p))) for _ in range(2)]
            prompts += [f"p{prompt}"] * 2
        found.append(diversity(texts, prompts))
    for numbers in (
        *([one.distinct[n] for one in found] for n in range(3)),
        [one.vendi for one in found],
    ):
        assert covers(numbers, float(np.mean([number.value for number in numbers]))) >= 0.85
        widths = [n.interval.high - n.interval.low for n in numbers if n.interval is not None]
        assert np.mean(widths) < 3 * 3.92 * np.std([number.value for number in numbers]), "not by being useless"
    assert diversity(texts, ["one"] * len(texts)).vendi.interval is None


@pytest.mark.parametrize("n", [16, 128])
@pytest.mark.parametrize("p", [[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.4, 0.2, 0.15, 0.15, 0.1], [0.2, 0.6, 0.2]])
def test_pass_and_majority_of_one_prompt_are_covered(p: list[float], n: int) -> None:
    """The first is gold, the last garbage."""
    rng = np.random.default_rng(n)
    for k in (1, 4, 16):
        votes = rng.multinomial(k, p, size=20_000)[:, :-1]
        best = votes.max(axis=1)
        wins = ((votes[:, 0] == best) & (best > 0)) / (votes == best[:, None]).sum(axis=1)
        passes, majorities = [], []
        for _ in range(120):
            counts = rng.multinomial(n, p)
            seen = np.flatnonzero(counts[:-1])
            gold = int(np.flatnonzero(seen == 0)[0]) if counts[0] else -1
            answers = tuple(int(v) for v in counts[seen])
            passes.append(pass_at_k_estimate(int(counts[0]), n, k))
            majorities.append(majority_at_k_estimate(answers, int(counts[-1]), gold, k))
        assert covers(passes, 1 - (1 - p[0]) ** k) >= LEAST
        assert covers(majorities, float(wins.mean()), slack=0.01) >= LEAST, k  # 400 votes stand for all


@given(st.lists(st.integers(0, 20), max_size=5), st.integers(0, 20), st.integers(-1, 4), st.sampled_from([1, 4, 16]))
def test_majority_intervals_hold_their_value(answers: list[int], garbage: int, gold: int, k: int) -> None:
    counts = tuple(count for count in answers if count)
    found = majority_at_k_estimate(counts, garbage, gold if gold < len(counts) else -1, k)
    if sum(counts) + garbage < k:
        assert math.isnan(found.value)
        return
    assert found.interval is not None
    assert 0 <= found.interval.low <= found.value <= found.interval.high <= 1


@pytest.mark.parametrize("n", [16, 96])
@pytest.mark.parametrize(
    ("p", "q"),
    [([0.9, 0.1], [0.9, 0.1]), ([0.95, 0.05], [0.85, 0.15]), ([0.5, 0.3, 0.2], [0.3, 0.5, 0.2]), ([1.0, 0], [1.0, 0])],
)
def test_the_distance_of_one_prompt_is_covered(p: list[float], q: list[float], n: int) -> None:
    rng, truth = np.random.default_rng(n), float(((np.array(p) - np.array(q)) ** 2).sum())
    coupled, apart = [], []
    for _ in range(200):
        shared = rng.random(n) * (1 - 1e-9)
        left, right = (np.searchsorted(np.cumsum(x), shared, side="right") for x in (p, q))
        coupled.append(distance_estimate(left, right, coupled=True))
        assert coupled[-1].value == distribution_distance(left, right, coupled=True)
        a, b = (rng.choice(len(x), size=n, p=x) for x in (p, q))
        apart.append(distance_estimate(a, b, coupled=False))
    assert min(covers(coupled, truth), covers(apart, truth)) >= LEAST


def test_equal_replies_of_both_models_bound_the_distance() -> None:
    same = np.zeros(16, np.int64)
    found = distance_estimate(same, same, coupled=True)
    assert found.interval is not None
    assert (found.value, found.interval.low) == (0.0, 0.0)
    assert 0.02 < found.interval.high < 0.2
    garbage = distance_estimate(np.full(8, -1), np.full(8, -2), coupled=True)
    assert garbage.value == 0.0


def test_means_of_samples_are_covered() -> None:
    rng = np.random.default_rng(0)
    lengths = [sample_mean(rng.lognormal(4, 0.4, size=16), low=0.0, high=math.inf) for _ in range(300)]
    assert covers(lengths, math.exp(4 + 0.08)) >= LEAST
    equal = sample_mean([0.0] * 20, low=0.0, high=1.0)
    assert equal.interval is not None
    assert equal.interval.high == pytest.approx(1 - 0.05 ** (1 / 20))
    assert sample_mean([7.0] * 20, low=0.0, high=math.inf).interval is None
    assert sample_mean([7.0], low=0.0, high=9.0).interval is None


@pytest.mark.parametrize("n", [8, 16, 64])
@pytest.mark.parametrize("p", [[1 / 64] * 64, [1 / 16] * 16, [1 / 3] * 3, [0.5, 0.5], [0.4, 0.3, 0.3], [0.9, 0.1]])
def test_the_majority_share_is_covered_however_diffuse_the_answers(p: list[float], n: int) -> None:
    """The largest of many equal shares looks larger than any is."""
    rng = np.random.default_rng(n)
    found = [majority_share(tally(rng.choice(len(p), size=n, p=p))) for _ in range(300)]
    assert covers(found, max(p)) >= 0.93


@pytest.mark.parametrize("prompts", [60, 150])
def test_p99_is_covered_where_a_twentieth_of_the_prompts_holds_the_tail(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    truth = math.exp(float(np.quantile(3.0 * (np.arange(400_000) % 20 == 0) + rng.normal(size=400_000), 0.99)))
    found = [
        cluster_quantiles(
            [np.exp(3 * (rng.random() < 0.05) + rng.normal(size=40)) for _ in range(prompts)], [0.99], low=0.0
        )[0]
        for _ in range(200)
    ]
    assert covers(found, truth) >= LEAST


def test_divergences_of_one_prompt_are_covered_over_its_replies() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        replies = []
        for _ in range(8):
            kl = np.full(int(rng.integers(10, 40)), rng.gamma(4.0, 0.025))  # positions of a reply are alike
            replies.append(TokenDivergence(kl, kl + rng.normal(0.5, 0.1), kl, kl, rng.random(kl.size) < 0.9))
        found.append(prompt_tokens(PromptDivergences("p", tuple(replies)), 0.95))
    assert covers([one.kl for one in found if one.kl], 0.1) >= LEAST
    assert covers([one.top_agreement for one in found if one.top_agreement], 0.9) >= LEAST
    assert covers([one.delta_entropy for one in found if one.delta_entropy], 0.5) >= LEAST
    assert found[0].kl_on_policy is None
    single = prompt_tokens(PromptDivergences("p", (replies[0],)), 0.95)
    assert single.kl is not None
    assert single.kl.interval is None


def test_intervals_of_shares_and_quantiles_state_their_level_and_method() -> None:
    found = cluster_share([3, 1, 2, 0], [4, 4, 4, 4], 0.8)
    assert found.interval is not None
    assert (found.interval.level, found.interval.method) == (0.8, "Clopper-Pearson, effective number")
    (middle,) = cluster_quantiles([np.arange(9.0), np.arange(9.0)], [0.5], level=0.8)
    assert middle.interval is not None
    assert (middle.interval.level, middle.interval.method) == (0.8, "Woodruff, effective number")
    assert cluster_share([3], [4]) == Estimate(0.75)
    assert cluster_share([3, 0], [4, 0]) == Estimate(0.75)
    assert sample_mean([2.5], low=0, high=9) == Estimate(2.5)
    assert prompt_mean([2.5, math.nan], low=0, high=9) == Estimate(2.5)


def test_the_degrees_of_freedom_of_a_share_are_at_most_those_of_its_clusters() -> None:
    # Two clusters, one degree: t is 12.7 times as wide as its unit, where the normal quantile is 1.96.
    sizes = np.array([1000.0, 1000.0])
    residuals = np.array([0.001, -0.001])
    expected = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 1)) ** 2 * 0.25 / (2 * (residuals**2).sum())
    assert effective_number(0.5, residuals, sizes) == pytest.approx(expected, rel=1e-9)


def test_an_error_of_rounding_is_none_however_large_the_statistic() -> None:
    assert jackknife_interval(1e9, [1e9, 1e9 + 1e-4]) is None
    assert jackknife_interval(1.0, [1.0, 1.0 + 1e-4]) is not None
    assert not list(leave_out([]))
    assert not list(leave_out([3, 3]))
