"""Cutting trajectories off: the exact rule never changes a verdict, the sequential one at most at its rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.trajectories.early_stop import (
    decided,
    majority_is_certain,
    required_leads,
    saved_tokens,
    worst_error,
)
from edgedistill.trajectories.vote import Ballot, majority

ANSWERS = st.sampled_from(["1", "2", "3", "4", None])


def verdict(answers):
    result = majority([Ballot(i, "answered" if a else "unparsed", a) for i, a in enumerate(answers)])
    return result.answer, result.tied


@given(st.lists(ANSWERS, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_exact_rule_never_changes_the_verdict(answers, random) -> None:
    order = list(range(len(answers)))
    random.shuffle(order)  # trajectories end in any order
    finished = {}
    for index in order:
        finished[index] = answers[index]
        if decided("exact", finished, len(answers), 0.05):
            seen = [finished.get(i) for i in range(len(answers))]
            assert verdict(seen)[1] == verdict(answers)[1] == ()
            assert verdict(seen)[0] == verdict(answers)[0]
            return
    assert not decided("exact", finished, len(answers), 0.05)  # nothing left to cut


@given(st.lists(ANSWERS, max_size=12), st.integers(0, 12))
def test_the_exact_rule_stops_as_soon_as_it_may(answers, remaining) -> None:
    best = verdict(answers)[0]
    leader = sum(a == best for a in answers) if best else 0
    others = max((sum(a == b for a in answers) for b in ("1", "2", "3", "4", "new") if b != best), default=0)
    # the worst that can come: every further vote for the strongest rival, who is new where there is none
    assert majority_is_certain(answers, remaining) == (leader > others + remaining)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("count", [3, 8, 16, 31, 64])
def test_the_sequential_rules_error_is_bounded_at_every_share_of_two_answers(count, rate) -> None:
    leads = required_leads(count, rate)
    assert len(leads) == count
    assert leads[-1] is None
    assert worst_error(leads) <= rate


def test_the_sequential_rule_stops_earlier_than_the_exact_one() -> None:
    leads = required_leads(16, 0.05)
    assert min(n for n, lead in enumerate(leads, 1) if lead is not None and lead <= n) < 9  # 9 of 16 equal is certain
    loose = [lead or 99 for lead in required_leads(16, 0.2)]
    assert all(a <= b for a, b in zip(loose, [lead or 99 for lead in leads], strict=True))


@pytest.mark.parametrize(
    "shares", [[0.5, 0.5], [0.6, 0.4], [0.4, 0.3, 0.3], [0.25] * 4, [0.45, 0.35], [0.35, 0.3, 0.1]]
)
def test_the_sequential_rules_error_rate_by_simulation(shares) -> None:
    """Full votes against stopped ones; what is missing to 1 are trajectories without an answer."""
    rate, count, runs = 0.1, 12, 1500
    generator = np.random.default_rng(5)
    names = [str(i) for i in range(len(shares))] + [None]
    wrong = stopped = 0
    for _ in range(runs):
        drawn = [names[i] for i in generator.choice(len(names), size=count, p=[*shares, max(0.0, 1 - sum(shares))])]
        for n in range(1, count):
            finished = dict(enumerate(drawn[:n]))
            if decided("sequential", finished, count, rate):
                stopped += 1
                wrong += verdict(drawn) != verdict(drawn[:n])
                break
    assert wrong / runs <= rate + 3 * np.sqrt(rate * (1 - rate) / runs)
    assert stopped


def test_the_sequential_rule_never_looks_past_an_open_trajectory() -> None:
    equal = dict.fromkeys(range(1, 6), "7")  # five quick ones, number 0 still thinks
    assert not decided("sequential", equal, 16, 0.05)
    assert decided("sequential", {0: "7", **equal}, 16, 0.05)


def test_off_never_stops() -> None:
    assert not decided("off", dict.fromkeys(range(7), "1"), 8, 0.05)


@pytest.mark.parametrize(("skew", "low", "high"), [(0.02, 0.9, 1.1), (0.2, 0.75, 1.05), (0.5, 0.5, 1.0)])
def test_the_saving_is_about_what_the_others_would_have_taken(skew, low, high) -> None:
    generator = np.random.default_rng(3)
    claimed = taken = 0
    for _ in range(400):
        lengths = np.sort(np.exp(generator.normal(6.0, skew, size=8)).astype(int) + 1)
        ended, rest = lengths[:5].tolist(), lengths[5:]
        claimed += saved_tokens(ended, [ended[-1]] * 3)
        taken += int((rest - ended[-1]).sum())
    assert low < claimed / taken < high


def test_the_saving_of_what_had_not_begun_is_a_whole_trajectory() -> None:
    assert saved_tokens([50, 60, 70], [0, 0]) == pytest.approx(2 * 60, abs=20)
    assert saved_tokens([50], [50, 50]) == 2  # each would have gone on
    assert saved_tokens([50, 60], []) == 0
