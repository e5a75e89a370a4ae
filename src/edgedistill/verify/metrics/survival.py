"""Where coupled samples part: position of the first divergence, its survival curve, the hazard per 100 tokens.

Two samples drawn with the same noise are equal token for token until the models' distributions differ where it matters.
A pair that ends equal is censored at its length: it might have parted later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.cluster_intervals import cluster_share
from edgedistill.verify.stats.intervals import LEVEL, clopper_pearson_upper, cluster_interval
from edgedistill.verify.stats.special_functions import normal_quantile, student_quantile
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

    ``low`` and ``high`` are pointwise and log-log transformed. Their variance is the one between prompts (Williams,
    Biometrics 1995), since pairs of one prompt part alike, or Greenwood's where that is larger.

    ``median``: the first position before which half the pairs have parted; None where half never part. Its interval is
    what the ends of the curve allow (Brookmeyer and Crowley, Biometrics 1982), infinite where the upper one stays above
    one half.
    """

    positions: tuple[int, ...]
    survival: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    median: int | None
    median_interval: Interval | None = None


def survival_curve(prompts: Sequence[Sequence[Parting]], level: float = LEVEL) -> SurvivalCurve:
    """The survival curve of at least one pair.

    Args:
        prompts: The pairs of each prompt.
    """
    flat = [parting for pairs in prompts for parting in pairs]
    positions = np.unique([parting.position for parting in flat if parting.parted]).astype(np.int64)
    if not positions.size:
        return SurvivalCurve((), (), (), (), None)
    counts = np.array([_at_risk(pairs, positions) for pairs in prompts], np.float64)  # [prompts, 2, positions]
    exposed, events = counts.sum(axis=0)
    survival = np.cumprod(1 - events / exposed)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(events / (exposed * (exposed - events)))
        parts = np.cumsum((counts[:, 1] - counts[:, 0] * events / exposed) / (exposed - events), axis=1)
    count = len(prompts)
    between = (parts**2).sum(axis=0) * count / (count - 1) if count > 1 else greenwood
    error = np.sqrt(np.fmax(greenwood, between))
    p = 0.5 + level / 2
    factor = student_quantile(p, count - 1) if count > 2 else normal_quantile(p)
    ends = [_ends(float(s), factor * float(e), int(n), level) for s, e, n in zip(survival, error, exposed, strict=True)]
    low, high = tuple(end[0] for end in ends), tuple(end[1] for end in ends)

    def crossing(curve: Sequence[float]) -> int | None:
        return next((int(t) for t, value in zip(positions, curve, strict=True) if value <= 0.5), None)

    median, first, last = crossing(tuple(survival)), crossing(low), crossing(high)
    interval = None
    if median is not None and first is not None:
        interval = Interval(float(first), math.inf if last is None else float(last), level, "Brookmeyer-Crowley")
    return SurvivalCurve(tuple(map(int, positions)), tuple(map(float, survival)), low, high, median, interval)


def _at_risk(pairs: Sequence[Parting], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[2, positions]: pairs compared at each position, and those that part there.

    A pair that ended equal after L tokens was compared at the positions 0 .. L - 1.
    """
    parted = np.sort([pair.position for pair in pairs if pair.parted])
    last = np.sort([_compared(pair) - 1 for pair in pairs])
    exposed = last.size - np.searchsorted(last, positions, side="left")
    events = np.searchsorted(parted, positions, side="right") - np.searchsorted(parted, positions, side="left")
    return np.stack([exposed, events])


def _ends(survival: float, half: float, exposed: int, level: float) -> tuple[float, float]:
    """Ends on the scale of log(-log S), ``half`` being that of log S."""
    if not 0.0 < survival < 1.0:
        return 0.0, clopper_pearson_upper(0, exposed, level) if exposed else 1.0  # the last pairs parted at once
    factor = math.exp(half / abs(math.log(survival)))
    return survival**factor, survival ** (1 / factor)


def hazard_per_100(prompts: Sequence[Sequence[Parting]], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Partings per 100 tokens compared, over all pairs; the interval resamples prompts.

    No parting at all: the one-sided exact bound 1 - (1 - level)^(1 / tokens).
    """
    rows = np.array([[sum(p.parted for p in pairs), sum(_compared(p) for p in pairs)] for pairs in prompts], np.float64)
    events, tokens = rows.sum(axis=0)
    if tokens == 0:
        return Estimate(math.nan)
    if events == 0:
        return _no_parting(int(tokens), level)

    def statistic(weights: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sums = weights @ values
        return np.asarray(PER * sums[:, 0] / np.maximum(sums[:, 1], 1.0))

    return Estimate(float(PER * events / tokens), cluster_interval(rows, statistic, level=level, seed=seed))


def hazard_by_position(prompts: Sequence[Sequence[Parting]], level: float = LEVEL) -> list[Estimate]:
    """Hazard per 100 tokens within positions 0-99, 100-199, ..., with an interval over prompts.

    Args:
        prompts: The pairs of each prompt.
    """
    longest = max((_compared(pair) for pairs in prompts for pair in pairs), default=0)
    hazards = []
    for start in range(0, longest, PER):
        tokens = [sum(min(max(_compared(p) - start, 0), PER) for p in pairs) for pairs in prompts]
        events = [sum(p.parted and start <= p.position < start + PER for p in pairs) for pairs in prompts]
        if not sum(events):
            hazards.append(_no_parting(sum(tokens), level))
            continue
        hazards.append(cluster_share(events, tokens, level).scaled(PER))
    return hazards


def _no_parting(tokens: int, level: float) -> Estimate:
    """Of so many tokens compared; they are treated as independent, since nothing tells how far they are not."""
    bound = clopper_pearson_upper(0, tokens, level)
    return Estimate(0.0, Interval(0.0, bound, level, "Clopper-Pearson, one-sided")).scaled(PER)


def _compared(parting: Parting) -> int:
    """Tokens that were compared: the one that differs counts."""
    return parting.position + parting.parted
