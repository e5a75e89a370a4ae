"""The mean answer entropy of a suite, with an interval that is valid for any number of samples per prompt.

An entropy estimated from N samples misses rare answers, by a similar amount on every prompt, so an interval from the
spread between prompts would be too low however many prompts there are. Here the two ends come from two other numbers of
each prompt (Zhang, Neural Computation 24, 2012): H = sum_v z_v / v nats, z_v = sum_a p_a (1 - p_a)^v. The terms below N
have an unbiased estimate; their sum is at most H, and its mean over prompts gives the lower end. The remaining terms
are at most z_(N-1) g, where g depends only on the rarest answer, and the share of answers seen once is an unbiased
estimate of z_(N-1). With that added, the mean is at least H and gives the upper end. Both ends are computed by betting
on bounded means (``stats.betting``), which is valid for any number of prompts and any distribution over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.metrics.consistency import (
    UNDERSAMPLED,
    class_counts,
    entropy_value,
    garbage_bits,
    miller_madow_bits,
    plug_in_bits,
    rest_bits,
    shown_bits,
)
from edgedistill.verify.stats.betting import mean_bets
from edgedistill.verify.stats.intervals import LEVEL
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.verify.stats.answer_counts import Tally

    Floats = npt.NDArray[np.float64]

_GARBAGE_BIAS = 0.6 / math.log(2)
"""Upper bound, in bits times samples, of the mean excess of k log2 k over m log2 m, for a count k of mean m."""

METHOD = "betting over prompts"


@dataclass(frozen=True, slots=True)
class SuiteEntropies:
    """Means over prompts, in bits: of the answer entropy, and of its two naive estimates."""

    answers: Estimate
    plug_in: Estimate
    miller_madow: Estimate


def suite_entropies(prompts: Sequence[Tally], level: float = LEVEL) -> SuiteEntropies:
    """All three, with their intervals (none for a single prompt).

    Args:
        prompts: Counts of each prompt, at least 2 samples.
    """
    shown = [_shown(count) for count in prompts]
    missing = [share * rest_bits(count.total) for count, (_, share) in zip(prompts, shown, strict=True)]
    most = max(_most_bits(count.total) + rest_bits(count.total) for count in prompts)
    seen = np.array([bits for bits, _ in shown])
    extra = np.array([garbage_bits(count) for count in prompts])
    sure = np.array([_sure_garbage(count) for count in prompts])
    rare = sum(share for _, share in shown) / len(shown)

    def mean(values: list[float], low: Floats, high: Floats) -> Estimate:
        value = float(np.mean(values))
        if len(prompts) < 2:
            return Estimate(value)
        tail = 0.5 - level / 2
        bottom = mean_bets(np.clip(low, 0.0, most), 0.0, most).lower(tail)
        top = math.inf
        if rare <= UNDERSAMPLED:
            top = mean_bets(np.clip(high + missing, 0.0, most), 0.0, most).upper(tail)
        return Estimate(value, Interval(min(bottom, value), max(top, value), level, METHOD))

    return SuiteEntropies(
        mean([entropy_value(count) for count in prompts], seen + sure, seen + extra),
        mean([plug_in_bits(count) for count in prompts], seen, seen),
        mean([miller_madow_bits(count) for count in prompts], seen, seen),
    )


def _shown(count: Tally) -> tuple[float, float]:
    """Bits of the terms below N, and the share of samples whose class came once."""
    return shown_bits(count), np.count_nonzero(class_counts(count) == 1) / count.total


def _most_bits(samples: int) -> float:
    """Bits of the terms below N if every sample has a different answer."""
    return float((1.0 / np.arange(1, samples)).sum()) / math.log(2)


def _sure_garbage(count: Tally) -> float:
    """Bits that garbage adds at least; ``garbage_bits`` is slightly too high in the mean."""
    kinds = (count.unparsed > 0) + (count.truncated > 0)
    return max(0.0, garbage_bits(count) - kinds * _GARBAGE_BIAS / count.total)
