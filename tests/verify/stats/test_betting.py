"""Bets on bounded means: valid at the boundary whatever the distribution, and the interval is their inversion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.verify.stats.betting import (
    Bets,
    holm,
    log_capital,
    log_capital_path,
    mean_bets,
    prompt_order,
    stakes,
)

ALPHA = 0.05


@pytest.mark.parametrize("count", [1, 8, 30, 150, 2400, 20_000])
def test_stakes_reach_down_to_what_the_number_of_observations_asks_for(count: int) -> None:
    found = stakes(count)
    assert found[0] == 0.98
    assert np.all(found[1:] * 2 == found[:-1])
    if count >= 8:
        assert 1.2 <= found[-1] * math.sqrt(count) <= 2.4


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("count", [20, 150])
def test_the_mean_capital_at_the_boundary_is_one_at_most(share: float, count: int) -> None:
    """Rare and total: what symmetric tests and the bootstrap cannot see coming."""
    rng = np.random.default_rng(count)
    x = share - (rng.random((4_000, count)) < share)  # mean 0, in [share - 1, share]
    for sign, bound in ((1, 1 - share), (-1, share)):
        e = np.exp(log_capital(np.asarray(sign * x, np.float64), bound, stakes(count)))
        assert (e >= 1 / ALPHA).mean() <= ALPHA
        path = log_capital_path(np.asarray(sign * x, np.float64), bound, stakes(count))
        assert path[:, -1] == pytest.approx(np.log(e))
        assert (path.max(axis=1) >= math.log(1 / ALPHA)).mean() <= ALPHA


def test_pooled_samples_of_prompts_that_differ_are_valid_for_their_mean() -> None:
    """Half of the prompts always lose, half never: pooled bets are about the mean of these prompts."""
    rng = np.random.default_rng(0)
    p = np.repeat([0.0, 0.02, 0.9, 1.0], 10)
    x = (rng.random((4_000, 40, 8)) < p[:, None]).reshape(4_000, -1) - p.mean()
    for sign, bound in ((1, p.mean()), (-1, 1 - p.mean())):
        assert (
            log_capital(np.asarray(sign * x, np.float64), bound, stakes(320)) >= math.log(1 / ALPHA)
        ).mean() <= ALPHA


numbers = st.lists(st.floats(-1, 1), min_size=2, max_size=60)


@settings(deadline=None, max_examples=60)
@given(numbers, st.floats(-0.95, 0.95), st.booleans())
def test_the_interval_is_the_inversion_of_the_test(values: list[float], theta: float, ordered: bool) -> None:
    top = np.array(values)
    bets = Bets(top, np.ones_like(top), -1.0, 1.0, ordered=ordered)
    low, high = bets.lower(ALPHA), bets.upper(ALPHA)
    assert -1 <= low <= bets.estimate <= high <= 1
    if abs(theta - low) > 1e-7:
        assert (bets.p(theta, above=True) <= ALPHA) == (theta < low)
    if abs(theta - high) > 1e-7:
        assert (bets.p(theta, above=False) <= ALPHA) == (theta > high)


@pytest.mark.parametrize("ordered", [False, True])
def test_observations_that_show_nothing_leave_the_capital_as_it_was(ordered: bool) -> None:
    low = Bets(np.full(40, -0.5), np.ones(40), -1.0, 1.0, ordered=ordered)
    assert low.p(0.0, above=True) == 1.0
    assert low.p(1.0, above=True) == low.p(-1.0, above=False) == 1.0
    assert low.log_e(0.0, above=True) <= 0.0 < low.log_e(0.0, above=False)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.05, 20))
def test_the_interval_of_a_ratio_is_the_inversion_too(seed: int, theta: float) -> None:
    rng = np.random.default_rng(seed)
    top, bottom = rng.random(80), rng.random(80)
    bets = Bets(top, np.ones(80), 0.0, 1.0, bottom, 1.0)
    low, high = bets.lower(ALPHA), bets.upper(ALPHA)
    assert 0 <= low <= bets.estimate <= high
    if abs(theta - low) > 1e-6:
        assert (bets.p(theta, above=True) <= ALPHA) == (theta < low)
    if abs(theta - high) > 1e-6:
        assert (bets.p(theta, above=False) <= ALPHA) == (theta > high)


def test_ratios_without_a_top_or_a_bottom() -> None:
    none, some = np.zeros(50), np.full(50, 0.5)
    assert math.isnan(Bets(none, np.ones(50), 0.0, 1.0, none).estimate)
    gone = Bets(none, np.ones(50), 0.0, 1.0, some)
    assert (gone.estimate, gone.lower(ALPHA)) == (0.0, 0.0)
    assert gone.upper(ALPHA) < 0.5
    new = Bets(some, np.ones(50), 0.0, 1.0, none)
    assert math.isinf(new.estimate)
    assert math.isinf(new.upper(ALPHA))
    assert new.lower(ALPHA) > 2


def test_intervals_cover_where_harm_is_rare() -> None:
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        bets = mean_bets(-1.0 * (rng.random(60) < 0.03), -1.0, 1.0)
        covered += bets.lower(0.025) <= -0.03 <= bets.upper(0.025)
    assert covered / 300 >= 0.95


def test_predicted_power_is_what_is_found_or_less() -> None:
    """By the best stake alone, so a lower bound; not a useless one."""
    rng, shown, predicted = np.random.default_rng(2), [], []
    for _ in range(300):
        bets = mean_bets(np.clip(rng.normal(0.0, 0.1, 100), -1, 1), -1.0, 1.0)
        shown.append(bets.p(-0.05, above=True) <= ALPHA)
        predicted.append(bets.moved(0.0).power(-0.05, ALPHA, above=True))
    assert 0.3 < np.mean(shown) < 0.95
    assert np.mean(shown) - 0.2 <= np.mean(predicted) <= np.mean(shown) + 0.05


def test_more_observations_have_more_power() -> None:
    bets = mean_bets(np.tile([-0.3, 0.3], 20), -1.0, 1.0)
    power = [bets.power(-0.1, ALPHA, above=True, scale=scale) for scale in (0.5, 1, 2, 4, 8)]
    assert power == sorted(power)
    assert power[0] < 0.2
    assert power[-1] > 0.95


def test_holm_divides_alpha_by_the_hypotheses_that_are_left() -> None:
    """Three hypotheses: alpha / 3, then alpha / 2, then alpha; the first that stands stops all the rest."""
    assert holm([0.016, 0.024, 0.049], 0.05) == ([True, True, True], [0.05 / 3, 0.05 / 2, 0.05])
    assert holm([0.049, 0.016, 0.024], 0.05) == ([True, True, True], [0.05, 0.05 / 3, 0.05 / 2])
    assert holm([0.017, 0.001, 0.026], 0.05) == ([True, True, True], [0.05 / 2, 0.05 / 3, 0.05])
    assert holm([0.017, 0.018, 0.019], 0.05) == ([False] * 3, [0.05 / 3] * 3)
    assert holm([0.001, 0.026, 0.030], 0.05) == ([True, False, False], [0.05 / 3, 0.05 / 2, 0.05 / 2])


def test_holm_with_weights_gives_each_its_share_of_what_is_left() -> None:
    assert holm([0.024, 0.012, 0.012], 0.05, [2, 1, 1]) == ([True, True, True], [0.025, 0.025, 0.05])
    assert holm([0.024, 0.030, 0.040], 0.05, [2, 1, 1]) == ([True, False, False], [0.025, 0.025, 0.025])
    assert holm([0.026, 0.013, 0.013], 0.05, [2, 1, 1]) == ([False] * 3, [0.025, 0.0125, 0.0125])
    # Nothing but the hypotheses and their weights decides, and more weight rejects no less.
    assert holm([0.012, 0.024, 0.012], 0.05, [1, 2, 1])[0] == [True, True, True]
    assert holm([0.010, 0.5], 0.05, [1, 9]) == ([False, False], [0.005, 0.045])


def test_the_weighted_procedure_errs_no_more_often_than_alpha() -> None:
    """Uniform p-values, independent, of which some hypotheses are false: any true one rejected is an error."""
    rng, weights = np.random.default_rng(0), [4.0, 2.0, 1.0, 0.5, 0.5]
    for false in ([], [0], [2, 3]):
        errors = 0
        for _ in range(2000):
            p = rng.random(5)
            p[false] *= 1e-3
            errors += any(was for at, was in enumerate(holm(p.tolist(), 0.05, weights)[0]) if at not in false)
        assert errors <= 2000 * 0.05 + 4 * (2000 * 0.05 * 0.95) ** 0.5


def test_the_order_of_prompts_depends_on_ids_and_seed_alone() -> None:
    ids = [f"p{i}" for i in range(50)]
    assert prompt_order(ids, 3) == prompt_order(ids[::-1], 3)
    assert sorted(prompt_order(ids, 3)) == sorted(ids)
    assert prompt_order(ids, 3) != prompt_order(ids, 4)
