"""Checks that the sampler draws from the model's distribution, before any number about consistency is reported.

The same seed has to reproduce the tokens, different seeds have to differ if the entropy is above 0, and the frequencies
of many draws have to follow the distribution that they were drawn from. Without this check, a sampler that ignores its
seed would give identical answers, and the model would look perfectly consistent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.stats.special_functions import chi_square_tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

DRAWS = 10_000
SIGNIFICANCE = 1e-4
"""Below this p-value the frequencies are wrong: one false stop in ten thousand audits."""

_LEAST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """Pearson's test: statistic, degrees of freedom after pooling rare classes, p-value."""

    statistic: float
    degrees: int
    p_value: float


@dataclass(frozen=True, slots=True)
class SamplerAudit:
    """``reproduces``: equal seeds gave equal tokens. ``varies``: different seeds differed; None where the model leaves
    too little choice to tell. ``chi_square``: frequencies against the known distribution.
    """

    reproduces: bool
    varies: bool | None
    chi_square: ChiSquare

    @property
    def sound(self) -> bool:
        """Whether consistency may be measured with this sampler."""
        return not self.problems()

    def problems(self) -> list[str]:
        """The problems found, as parts of a sentence."""
        found = []
        if not self.reproduces:
            found.append("the same seed gave different tokens")
        if self.varies is False:
            found.append("different seeds gave the same tokens although the model leaves a choice")
        if self.chi_square.p_value < SIGNIFICANCE:
            found.append(
                f"frequencies of sampled tokens do not follow the model's distribution (chi-square p = "
                f"{self.chi_square.p_value:.1g})"
            )
        return found

    def require_sound(self, model: str) -> None:
        """Raises VerifyError naming every problem; ``model`` is whose sampler it is."""
        problems = self.problems()
        if problems:
            raise VerifyError(
                f"The sampler of {model} failed its audit: {'; '.join(problems)}. No consistency can be measured with "
                "it.",
                hint="Report this with the output of `edgedistill inspect`.",
            )


def audit_sampler(
    first: Sequence[Sequence[int]],
    again: Sequence[Sequence[int]],
    other_seeds: Sequence[Sequence[Sequence[int]]],
    repeat_probability: Sequence[float],
    counts: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
) -> SamplerAudit:
    """Test the draws of a sampler.

    Args:
        first, again: Per prompt the tokens of one seed, and of the same seed once more.
        other_seeds: For each of several other seeds, the same prompts' tokens.
        repeat_probability: Per prompt the probability of the tokens in ``first`` (exp of their log probability): how
            likely another, sound draw is to repeat them by chance.
        counts, probabilities: int64 and float64 [vocabulary]: draws from a known distribution.
    """
    reproduces = len(first) == len(again) and all(list(a) == list(b) for a, b in zip(first, again, strict=True))
    return SamplerAudit(
        reproduces, seeds_differ(first, other_seeds, repeat_probability), chi_square(counts, probabilities)
    )


def seeds_differ(
    first: Sequence[Sequence[int]],
    other_seeds: Sequence[Sequence[Sequence[int]]],
    repeat_probability: Sequence[float],
) -> bool | None:
    """Whether other seeds gave other tokens anywhere.

    False if nothing differed although chance would leave everything equal with probability below SIGNIFICANCE only;
    None if nothing differed and that is no surprise.
    """
    if any(list(a) != list(b) for run in other_seeds for a, b in zip(first, run, strict=True)):
        return True
    log_chance = len(other_seeds) * sum(math.log(max(p, 1e-300)) for p in repeat_probability)
    return False if log_chance < math.log(SIGNIFICANCE) else None


def chi_square(counts: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> ChiSquare:
    """Pearson's chi-square of ``counts`` against ``probabilities`` (normalised here).

    Classes expected fewer than 5 times are pooled. A draw of an impossible class has p-value 0.

    Raises:
        VerifyError: shapes that differ, or no draws.
    """
    total = int(counts.sum())
    if counts.shape != probabilities.shape or total == 0:
        raise VerifyError(f"Found {total} draws over {counts.size} tokens; expected some over {probabilities.size}.")
    p = probabilities / probabilities.sum()
    if counts[p == 0].any():
        return ChiSquare(math.inf, max(1, int((p > 0).sum()) - 1), 0.0)
    expected = p * total
    rare = expected < _LEAST_EXPECTED
    seen, due = counts[~rare].astype(np.float64), expected[~rare]
    pooled_seen, pooled_due = float(counts[rare].sum()), float(expected[rare].sum())
    if pooled_due >= _LEAST_EXPECTED or not due.size:
        seen, due = np.append(seen, pooled_seen), np.append(due, pooled_due)
    else:  # even together too rare for a class of their own
        smallest = int(due.argmin())
        seen[smallest] += pooled_seen
        due[smallest] += pooled_due
    statistic = float(((seen - due) ** 2 / due).sum())
    degrees = seen.size - 1
    return ChiSquare(statistic, degrees, chi_square_tail(statistic, degrees) if degrees else 1.0)
