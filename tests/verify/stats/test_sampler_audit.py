"""The audit of a sampler: what it finds on samplers whose faults are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from edgedistill.errors import VerifyError
from edgedistill.verify.stats.sampler_audit import (
    DRAWS,
    SIGNIFICANCE,
    ChiSquare,
    SamplerAudit,
    audit_sampler,
    chi_square,
    seeds_differ,
)

FIRST = [[1, 2, 3], [4, 5]]
OTHER = [[1, 2, 3], [4, 6]]
FAIR = np.full(4, 0.25)
EVEN = np.full(4, 100)


@pytest.mark.parametrize(
    ("again", "others", "counts", "problems"),
    [
        (FIRST, [OTHER], EVEN, ()),
        (FIRST, [FIRST, OTHER], EVEN, ()),
        (OTHER, [OTHER], EVEN, ("the same seed gave different tokens",)),
        (FIRST[:1], [OTHER], EVEN, ("the same seed gave different tokens",)),
        (FIRST, [FIRST, FIRST], EVEN, ("different seeds gave the same tokens",)),
        (FIRST, [OTHER], np.array([400, 0, 0, 0]), ("frequencies of sampled tokens",)),
        (OTHER, [FIRST, FIRST], np.array([0, 0, 0, 400]), ("the same seed", "different seeds", "frequencies")),
    ],
)
def test_an_audit_names_every_fault_and_no_other(again, others, counts, problems) -> None:
    audit = audit_sampler(FIRST, again, others, [1e-6, 1e-6], counts, FAIR)
    assert len(audit.problems()) == len(problems)
    for found, expected in zip(audit.problems(), problems, strict=True):
        assert expected in found
    assert audit.sound is (not problems)
    if problems:
        with pytest.raises(VerifyError, match=f"The sampler of it failed its audit: {problems[0]}"):
            audit.require_sound("it")
    else:
        audit.require_sound("it")


def test_equal_tokens_of_other_seeds_are_a_fault_only_where_chance_would_not_give_them() -> None:
    assert seeds_differ(FIRST, [OTHER], [1.0, 1.0]) is True
    assert seeds_differ(FIRST, [FIRST], [1.0, 1.0]) is None
    assert seeds_differ(FIRST, [FIRST], [0.9, 0.9]) is None
    assert seeds_differ(FIRST, [FIRST], [0.0, 1.0]) is False  # probabilities of 0 have a logarithm here
    assert seeds_differ(FIRST, [FIRST], [1e-9, 1.0]) is False
    assert seeds_differ(FIRST, [FIRST], [1e-4, 1.0]) is None, "one in ten thousand is not below it"
    # The chance is the product over prompts and over seeds.
    few, many = [[FIRST] * n for n in (3, 300)]
    assert seeds_differ(FIRST, few, [0.95, 0.95]) is None
    assert seeds_differ(FIRST, many, [0.95, 0.95]) is False


def test_frequencies_are_wrong_below_the_level_not_at_it() -> None:
    at = SamplerAudit(reproduces=True, varies=True, chi_square=ChiSquare(20.0, 3, SIGNIFICANCE))
    below = SamplerAudit(reproduces=True, varies=True, chi_square=ChiSquare(20.0, 3, math.nextafter(SIGNIFICANCE, 0)))
    assert at.sound
    assert not below.sound


def test_the_draws_of_an_audit_find_a_shift_that_a_quarter_of_them_does_not() -> None:
    """Four tokens of a quarter each, of which one is drawn 2.5 % too often at the cost of another."""
    shifted = np.array([0.275, 0.225, 0.25, 0.25])
    found, missed = (
        chi_square(np.rint(draws * shifted).astype(np.int64), FAIR).p_value for draws in (DRAWS, DRAWS / 4)
    )
    assert found < SIGNIFICANCE**2
    assert missed > SIGNIFICANCE


def test_chi_square_is_pearsons_where_every_class_is_expected_five_times() -> None:
    counts, weights = np.array([30, 14, 25, 31]), np.array([3.0, 1.0, 3.0, 3.0])
    found = chi_square(counts, weights)
    expected = stats.chisquare(counts, weights / weights.sum() * counts.sum())
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.degrees == 3


def test_rare_classes_are_pooled() -> None:
    # Expected 50, 44, 2, 2, 2: the last three share a class of 6.
    found = chi_square(np.array([48, 44, 4, 2, 2]), np.array([0.5, 0.44, 0.02, 0.02, 0.02]))
    expected = stats.chisquare([48, 44, 8], [50, 44, 6])
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.degrees == 2
    # Expected 50, 46, 2, 2: even together too rare, so they join the smaller of the others.
    found = chi_square(np.array([48, 46, 4, 2]), np.array([0.5, 0.46, 0.02, 0.02]))
    expected = stats.chisquare([48, 52], [50, 50])
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.degrees == 1
    # Nothing but rare classes: one class, which fits.
    found = chi_square(np.array([1, 2, 1]), np.array([1.0, 1.0, 1.0]))
    assert (found.statistic, found.degrees, found.p_value) == (0.0, 0, 1.0)
    # Exactly five expected is a class of its own.
    assert chi_square(np.array([5, 5, 70]), np.array([5.0, 5.0, 70.0])).degrees == 2


def test_impossible_draws_and_none_at_all() -> None:
    found = chi_square(np.array([99, 1, 0]), np.array([1.0, 0.0, 1.0]))
    assert (found.statistic, found.degrees, found.p_value) == (math.inf, 1, 0.0)
    assert chi_square(np.array([99, 1]), np.array([1.0, 0.0])).degrees == 1
    for counts, probabilities in ((np.zeros(4, np.int64), FAIR), (EVEN[:3], FAIR)):
        with pytest.raises(VerifyError, match="expected some over 4"):
            chi_square(counts, probabilities)


SKEWED = np.array([0.5, 0.3, 0.15, 0.04999, 0.00001])


def test_chi_square_rejects_true_samplers_at_its_level_and_false_ones() -> None:
    rng = np.random.default_rng(0)
    rejected = sum(chi_square(rng.multinomial(10_000, SKEWED), SKEWED).p_value < 0.05 for _ in range(2000))
    assert 0.03 < rejected / 2000 < 0.07  # 4 standard errors around 0.05
    assert chi_square(rng.multinomial(10_000, [0.54, 0.26, 0.15, 0.05, 0.0]), SKEWED).p_value < 1e-4
    assert chi_square(np.array([5, 5]), np.array([1.0, 0.0])).p_value == 0.0
    assert chi_square(np.array([7]), np.array([1.0])).p_value == 1.0


def test_a_sampler_that_ignores_its_seed_is_stopped() -> None:
    good = np.random.default_rng(0).multinomial(10_000, SKEWED)
    first = [[1, 2], [3, 4]]
    stuck = audit_sampler(first, first, [first] * 4, [0.01, 0.02], good, SKEWED)
    assert stuck.varies is False
    with pytest.raises(VerifyError, match="different seeds gave the same tokens"):
        stuck.require_sound("m")
    audit_sampler(first, first, [[[1, 2], [3, 5]]], [0.01, 0.02], good, SKEWED).require_sound("m")
    drifting = audit_sampler(first, [[1, 2], [3, 9]], [[[0]] * 2], [0.5, 0.5], good, SKEWED)
    assert not drifting.sound
    biased = audit_sampler(first, first, [[[0]] * 2], [0.5, 0.5], np.array([10_000, 0, 0, 0, 0]), SKEWED)
    assert biased.problems()[0].endswith("(chi-square p = 0)")


def test_equal_samples_of_a_certain_model_prove_nothing() -> None:
    first = [[1, 2], [3, 4]]
    assert seeds_differ(first, [first] * 4, [0.999, 0.9999]) is None
    assert seeds_differ(first, [first], [0.001, 0.5]) is None, "one repetition of one prompt happens by chance"
    assert seeds_differ(first, [first] * 3, [0.001, 0.5]) is False
