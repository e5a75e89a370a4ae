"""Intervals of the entropy of a suite's answers cover: simulated, the truth being known."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from intervals_support import covers

from edgedistill.verify.metrics.consistency import (
    RAREST,
    answer_entropy,
    binary_bits,
    class_entropies,
    rest_bits,
    shown_bits,
    spread_bits,
)
from edgedistill.verify.metrics.suite_entropy import suite_entropies
from edgedistill.verify.stats.answer_counts import Tally, tally

SURE, SPREAD = np.array([0.9, 0.1]), np.array([0.5, 0.3, 0.1, 0.05, 0.05])
SUITES: dict[str, list[tuple[float, npt.NDArray[np.float64]]]] = {
    "concentrated": [(0.4, np.array([0.97, 0.03])), (0.3, SURE), (0.3, SPREAD)],
    "a third diffuse": [(1 / 3, SURE), (1 / 3, SPREAD), (1 / 3, np.full(16, 1 / 16))],
    "a tenth very diffuse": [(0.9, np.array([0.97, 0.03])), (0.1, np.full(256, 1 / 256))],
    "many rare answers": [(0.5, np.array([0.9, *[0.001] * 100])), (0.5, np.array([0.95, 0.05]))],
    "all diffuse": [(1.0, np.full(64, 1 / 64))],
    "one in twenty": [(0.95, np.array([1.0])), (0.05, np.full(1000, 0.001))],
}


PROMPTS_OF_RARE_ANSWERS = {
    "a tenth on 100 answers": np.array([0.9, *[0.001] * 100]),
    "a twentieth on 50": np.array([0.95, *[0.001] * 50]),
    "two likely ones and 50": np.array([0.5, 0.4, *[0.002] * 50]),
    "five": SPREAD,
    "sure": np.array([0.97, 0.03]),
}


@pytest.mark.parametrize("samples", [16, 32, 64, 128, 256, 1024])
@pytest.mark.parametrize("name", PROMPTS_OF_RARE_ANSWERS)
def test_the_entropy_of_a_prompt_is_covered_however_rare_its_answers(name: str, samples: int) -> None:
    """As long as none is rarer than the upper end allows for. A normal interval covered 82 to 89 % of the first."""
    p = PROMPTS_OF_RARE_ANSWERS[name]
    truth, rng = float(-(p * np.log2(p)).sum()), np.random.default_rng(samples)
    found = [answer_entropy(Tally(count[count > 0], 0, 0)) for count in rng.multinomial(samples, p, size=400)]
    assert covers(found, truth) >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / 400)
    widths = [one.interval.high - one.interval.low for one in found if one.interval is not None]
    finite = [width for width in widths if math.isfinite(width)]
    assert len(finite) > 0.8 * len(widths)
    assert np.median(finite) < {16: 5.0, 32: 3.0, 64: 2.5, 128: 1.6, 256: 0.9, 1024: 0.5}[samples], (
        "not by being useless"
    )


def test_the_upper_end_holds_what_answers_that_were_not_seen_can_add() -> None:
    def high(*counts: int) -> float:
        interval = answer_entropy(Tally(np.array(counts), 0, 0)).interval
        assert interval is not None
        return interval.high

    assert spread_bits(0.0) == 0.0
    assert spread_bits(RAREST / 2) == pytest.approx(binary_bits(RAREST / 2)), "less than one such answer"
    assert spread_bits(0.5) == pytest.approx(1 + 0.5 * math.log2(500))
    assert spread_bits(0.9) > spread_bits(0.6)
    # Of the same mass beside the majority: one answer, known; answers that came once, of which there may be many.
    assert high(88, 8) < high(88, 2, 2, 2, 2) < high(88, 1, 1, 1, 1, 1, 1, 1, 1)
    assert high(160, 40) < high(160, 20, *[1] * 20)
    assert math.isinf(high(10, *[1] * 90))


@pytest.mark.parametrize("p", [[0.6, 0.3, 0.1], [0.9, *[0.001] * 100], [1 / 30] * 30])
def test_both_parts_of_the_series_are_the_entropy(p: list[float]) -> None:
    """Zhang's terms below N, estimated without bias, and those from N on, of which the rest holds the most."""
    shares, samples, rng = np.array(p), 24, np.random.default_rng(0)
    z = [float((shares * (1 - shares) ** v).sum()) for v in range(1, 20_000)]
    terms = np.array(z) / np.arange(1, 20_000) / math.log(2)
    assert terms.sum() == pytest.approx(float(-(shares * np.log2(shares)).sum()), abs=1e-3)
    drawn = [shown_bits(Tally(c[c > 0], 0, 0)) for c in rng.multinomial(samples, shares, size=4000)]
    error = np.std(drawn) / math.sqrt(len(drawn))
    assert np.mean(drawn) == pytest.approx(terms[: samples - 1].sum(), abs=4 * error)
    assert terms[samples - 1 :].sum() <= z[samples - 2] * rest_bits(samples) + 1e-9


@pytest.mark.parametrize(("prompts", "samples"), [(20, 8), (20, 16), (60, 8)])
@pytest.mark.parametrize("name", SUITES)
def test_the_entropy_of_a_suite_is_covered_however_few_the_samples(name: str, prompts: int, samples: int) -> None:
    """8 samples of a prompt see little of many answers; the means of the estimates lie far below the truth then."""
    shares, kinds = zip(*SUITES[name], strict=True)
    truth = float(np.dot(shares, [-(p * np.log2(p)).sum() for p in kinds]))
    rng, found = np.random.default_rng(prompts + samples), []
    for _ in range(40):
        drawn = rng.choice(len(kinds), size=prompts, p=shares)
        counts = [rng.multinomial(samples, kinds[kind]) for kind in drawn]
        found.append(suite_entropies([Tally(count[count > 0], 0, 0) for count in counts]))
    for numbers in (
        [one.answers for one in found],
        [one.plug_in for one in found],
        [one.miller_madow for one in found],
    ):
        assert covers(numbers, truth) >= 0.95
        assert all(number.value in number.interval for number in numbers if number.interval)
    tops = [one.answers.interval.high for one in found if one.answers.interval is not None]
    assert math.isinf(max(tops)) == ("diffuse" in name), "many answers that came once set no upper end"


def test_the_interval_of_a_suites_entropy_closes_with_samples_and_prompts() -> None:
    rng = np.random.default_rng(0)
    found = suite_entropies([Tally(rng.multinomial(2000, SPREAD), 0, 0) for _ in range(400)]).answers
    truth = -float((SPREAD * np.log2(SPREAD)).sum())
    assert found.value == pytest.approx(truth, abs=0.01)
    assert found.interval is not None
    assert truth - 0.1 < found.interval.low < truth < found.interval.high < truth + 0.2
    assert suite_entropies([Tally(np.array([5, 3]), 0, 0)]).answers.interval is None
    sure = suite_entropies([Tally(np.array([32]), 0, 0)] * 150).answers
    assert sure.interval is not None
    assert (sure.value, sure.interval.low) == (0.0, 0.0)
    assert 0.05 < sure.interval.high < 0.4, "what prompts that were not asked, and unseen answers, could add"


def test_garbage_counts_as_samples_that_are_all_different() -> None:
    """As ``answer_entropy`` has it: all of 32 samples without an answer are 5 bits."""
    found = suite_entropies([Tally(np.empty(0, np.int64), 30, 2)] * 40)
    assert found.answers.value == pytest.approx(5.0, abs=0.1)
    assert found.answers.interval is not None
    assert 3.5 < found.answers.interval.low <= found.answers.value <= found.answers.interval.high
    assert found.plug_in.value < 0.4


def test_both_naive_entropies_have_the_interval_of_the_entropy() -> None:
    rng, p = np.random.default_rng(0), np.array([0.6, 0.2, 0.1, 0.05, 0.05])
    found = [class_entropies(tally(rng.choice(5, size=40, p=p))) for _ in range(200)]
    for numbers in zip(*found, strict=True):
        assert covers(list(numbers), -float((p * np.log2(p)).sum())) >= 0.90
        assert all(number.value in number.interval for number in numbers)
