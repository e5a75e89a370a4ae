"""Position at which coupled samples first differ: survival curve, and hazard per 100 tokens.

Samples of two models that are drawn with the same random numbers (coupled) are equal token for token until a difference
of the distributions changes a choice. A pair that ends equal is censored at its length: it might have differed later.
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
    """One pair of coupled samples: the 0-based ``position`` of the first difference, or the length if they are
    equal."""

    position: int
    parted: bool


def first_divergence(reference: Sequence[int], other: Sequence[int]) -> Parting:
    """Compare two sequences of token ids; the end of the shorter one counts as a difference."""
    shared = min(len(reference), len(other))
    differs = np.flatnonzero(np.asarray(reference[:shared]) != np.asarray(other[:shared]))
    if differs.size:
        return Parting(int(differs[0]), True)
    return Parting(shared, len(reference) != len(other))


@dataclass(frozen=True, slots=True)
class SurvivalCurve:
    """Kaplan and Meier's estimate (JASA 1958) of P(equal up to and including position t) at the positions of
    differences.

    ``low`` and ``high`` are pointwise intervals on the log-log scale. Their variance is the one between prompts
    (Williams, Biometrics 1995), since pairs of one prompt are not independent, or Greenwood's if that is larger.

    ``median``: the first position at which at most half of the pairs are still equal; None if there is none. Its
    interval comes from the ends of the curve (Brookmeyer and Crowley, Biometrics 1982) and is infinite where the upper
    one stays above one half.
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
    """int64 [2, positions]: number of pairs compared at each position, and of those that first differ there.

    A pair that ended equal after L tokens was compared at the positions 0 .. L - 1.
    """
    parted = np.sort([pair.position for pair in pairs if pair.parted])
    last = np.sort([_compared(pair) - 1 for pair in pairs])
    exposed = last.size - np.searchsorted(last, positions, side="left")
    events = np.searchsorted(parted, positions, side="right") - np.searchsorted(parted, positions, side="left")
    return np.stack([exposed, events])


def _ends(survival: float, half: float, exposed: int, level: float) -> tuple[float, float]:
    """Ends of the interval on the scale of log(-log S); ``half`` is its half width on the scale of log S."""
    if not 0.0 < survival < 1.0:
        return 0.0, clopper_pearson_upper(0, exposed, level) if exposed else 1.0  # the last pairs parted at once
    factor = math.exp(half / abs(math.log(survival)))
    return survival**factor, survival ** (1 / factor)


def hazard_per_100(prompts: Sequence[Sequence[Parting]], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """First differences per 100 compared tokens, over all pairs; the interval resamples prompts.

    Without any difference the interval has the one-sided exact bound 1 - (1 - level)^(1 / tokens).
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
    """Hazard per 100 tokens at positions 0-99, 100-199, ..., with an interval over prompts.

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
    """Estimate without any difference in ``tokens`` tokens, which are treated as independent."""
    bound = clopper_pearson_upper(0, tokens, level)
    return Estimate(0.0, Interval(0.0, bound, level, "Clopper-Pearson, one-sided")).scaled(PER)


def _compared(parting: Parting) -> int:
    """Number of compared tokens, including the one that differs."""
    return parting.position + parting.parted
