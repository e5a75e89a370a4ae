"""Where coupled samples part: position of the first divergence, its survival curve, the hazard per 100 tokens.

Two samples drawn with the same noise are equal token for token until the models' distributions differ where it matters.
A pair that ends equal is censored at its length: it might have parted later.

Must not know: models, texts, why they parted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.intervals import LEVEL, cluster_interval, wilson
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

PER = 100


@dataclass(frozen=True, slots=True)
class Parting:
    """One pair of coupled samples: the 0-based position where they parted, or the length they ended at, both equal."""

    position: int
    parted: bool


def first_divergence(reference: Sequence[int], other: Sequence[int]) -> Parting:
    """Compare two sequences of token ids. A sequence that ends earlier than the other parts where it ends."""
    shared = min(len(reference), len(other))
    differs = np.flatnonzero(np.asarray(reference[:shared]) != np.asarray(other[:shared]))
    if differs.size:
        return Parting(int(differs[0]), True)
    return Parting(shared, len(reference) != len(other))


@dataclass(frozen=True, slots=True)
class SurvivalCurve:
    """Kaplan and Meier's estimate (JASA 1958) of P(still equal before position t + 1) at the positions of partings.

    ``low`` and ``high`` are pointwise, log-log transformed with Greenwood's variance; they treat pairs as independent.
    """

    positions: tuple[int, ...]
    survival: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    median: int | None


def survival_curve(partings: Sequence[Parting], level: float = LEVEL) -> SurvivalCurve:
    """The survival curve of at least one pair; ``median`` is None where half the pairs never part."""
    from edgedistill.verify.special import normal_quantile

    z = normal_quantile(0.5 + level / 2)
    at = np.array([parting.position for parting in partings])
    parted = np.array([parting.parted for parting in partings], np.bool_)
    positions = np.unique(at[parted])
    survival, variance = 1.0, 0.0
    rows: list[tuple[int, float, float, float]] = []
    for position in positions:
        # A pair that ended equal after L tokens was compared at the positions 0 .. L - 1.
        exposed = int((at[parted] >= position).sum() + (at[~parted] > position).sum())
        events = int((at[parted] == position).sum())
        survival *= 1 - events / exposed
        if exposed > events:
            variance += events / (exposed * (exposed - events))
        if 0.0 < survival < 1.0:
            factor = math.exp(z * math.sqrt(variance) / abs(math.log(survival)))
            low, high = survival**factor, survival ** (1 / factor)
        else:
            low, high = 0.0, clipped_upper(exposed, level)
        rows.append((int(position), survival, low, high))
    median = next((row[0] for row in rows if row[1] <= 0.5), None)
    columns: list[tuple[float, ...]] = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return SurvivalCurve(tuple(int(p) for p in columns[0]), columns[1], columns[2], columns[3], median)


def clipped_upper(exposed: int, level: float) -> float:
    """Upper end where all of the last ``exposed`` pairs parted at once."""
    return float(1 - (1 - level) ** (1 / exposed)) if exposed else 1.0


def hazard_per_100(prompts: Sequence[Sequence[Parting]], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Partings per 100 tokens compared, over all pairs; the interval resamples prompts.

    No parting at all: the one-sided exact bound 1 - (1 - level)^(1 / tokens), which treats tokens as independent.
    """
    rows = np.array([[sum(p.parted for p in pairs), sum(_compared(p) for p in pairs)] for pairs in prompts], np.float64)
    events, tokens = rows.sum(axis=0)
    if tokens == 0:
        return Estimate(math.nan)
    if events == 0:
        bound = PER * (1 - (1 - level) ** (1 / tokens))
        return Estimate(0.0, Interval(0.0, bound, level, "Clopper-Pearson, one-sided"))

    def statistic(weights: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sums = weights @ values
        return np.asarray(PER * sums[:, 0] / np.maximum(sums[:, 1], 1.0))

    return Estimate(float(PER * events / tokens), cluster_interval(rows, statistic, level=level, seed=seed))


def hazard_by_position(partings: Sequence[Parting], level: float = LEVEL) -> list[Estimate]:
    """Hazard per 100 tokens within positions 0-99, 100-199, ..., with Wilson's interval per token compared."""
    longest = max((_compared(parting) for parting in partings), default=0)
    hazards = []
    for start in range(0, longest, PER):
        tokens = sum(min(max(_compared(p) - start, 0), PER) for p in partings)
        events = sum(p.parted and start <= p.position < start + PER for p in partings)
        interval = wilson(events, tokens, level)
        scaled = Interval(PER * interval.low, PER * interval.high, level, interval.method)
        hazards.append(Estimate(PER * events / tokens, scaled))
    return hazards


def _compared(parting: Parting) -> int:
    """Tokens that were compared: the one that differs counts."""
    return parting.position + parting.parted
