"""Flips, pass@k, majority votes, repetition, counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import sample

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.accuracy import flips, hallucination_variance, majority_at_k, pass_at_k
from edgedistill.verify.metrics.answer_distance import distribution_distance
from edgedistill.verify.metrics.consistency import agreement
from edgedistill.verify.metrics.lengths import repetition_rate
from edgedistill.verify.stats.answer_counts import TRUNCATED, UNPARSED, Codebook, by_prompt, paired, tally


@given(st.integers(1, 60), st.data())
def test_pass_at_k_by_its_formula(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(c, n, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))


def test_pass_at_k_beyond_the_samples_is_undefined() -> None:
    assert math.isnan(pass_at_k(1, 4, 5))


def test_majority_at_k_by_enumeration() -> None:
    counts, garbage, gold, k = np.array([3, 2, 2]), 2, 0, 4
    votes = [0] * 3 + [1] * 2 + [2] * 2 + [-1] * 2
    total = won = 0.0
    for chosen in itertools.combinations(votes, k):
        tallies = [chosen.count(a) for a in range(3)]
        best = max(tallies)
        total += 1
        won += (tallies[gold] == best) / tallies.count(best) if best else 0
    assert majority_at_k(counts, garbage, gold, k, draws=40_000) == pytest.approx(won / total, abs=0.01)
    assert majority_at_k(counts, garbage, gold, 9) == 1.0
    assert majority_at_k(np.array([2, 2]), 0, 0, 4) == 0.5
    assert majority_at_k(counts, garbage, -1, k) == 0.0
    assert majority_at_k(np.empty(0, np.int64), 3, -1, 2) == 0.0
    assert math.isnan(majority_at_k(counts, garbage, gold, 10))


def test_flips_both_ways() -> None:
    found = flips([True, True, False, False], [True, False, True, True])
    assert (found.lost, found.gained, found.rate) == (1, 2, 0.75)
    with pytest.raises(VerifyError):
        flips([True], [True, False])


def test_repetition_rate() -> None:
    assert repetition_rate(list(range(100))) == 0.0
    assert repetition_rate([1] * 100) == pytest.approx(1 - 1 / 93)
    assert repetition_rate([1] * 8) == 0.0
    loop = [1, 2, 3] * 10
    assert repetition_rate(loop) == pytest.approx(1 - 3 / 23)


def test_codes_and_tallies() -> None:
    group = [sample("p", i, a) for i, a in enumerate(["7", "7", "<unparsed>", "8", "<truncated>", "<truncated>"])]
    codes = Codebook().encode(group)
    assert codes.tolist() == [0, 0, UNPARSED, 1, TRUNCATED, TRUNCATED]
    counts = tally(codes)
    assert (counts.answers.tolist(), counts.unparsed, counts.truncated, counts.total) == ([2, 1], 1, 2, 6)
    assert agreement(counts).value == pytest.approx(2 / 30)


def test_samples_are_grouped_in_order_and_never_twice() -> None:
    rows = [sample("b", 1, "x"), sample("a", 0, "y"), sample("b", 0, "z")]
    groups = by_prompt(rows)
    assert [s.answer for s in groups["b"]] == ["z", "x"]
    with pytest.raises(VerifyError, match="occurs twice"):
        by_prompt([*rows, rows[0]])
    left, right = paired(groups["b"], [sample("b", 1, "q")])
    assert [(a.index, b.index) for a, b in zip(left, right, strict=True)] == [(1, 1)]


def test_too_few_samples_are_one_line() -> None:
    with pytest.raises(VerifyError, match="at least 2"):
        agreement(tally(np.array([0])))
    with pytest.raises(VerifyError, match="pairs of them"):
        distribution_distance(np.array([0, 1]), np.array([0, 1, 1]), coupled=True)
    with pytest.raises(VerifyError, match="2 prompts and 2 samples"):
        hallucination_variance([1], [4])
