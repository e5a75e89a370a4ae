"""Confidence intervals of proportions, of bounded means, and of any statistic by the bootstrap over prompts.

Prompts are the clusters: the samples of one prompt are never resampled apart from each other, because what varies from
prompt to prompt is what a suite of prompts leaves unknown.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.special_functions import beta_quantile, normal_cdf, normal_quantile, student_quantile
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Statistic = Callable[[Floats, Floats], Floats]

LEVEL = 0.95
RESAMPLES = 2000
_CHUNK = 2_000_000  # weights held at once: 16 MB


def wilson(successes: float, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion (Wilson, JASA 1927)."""
    z = normal_quantile(0.5 + level / 2)
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if successes == trials else min(1.0, centre + half), level, "Wilson")


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """The exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 1934): never below its level."""
    confidence = 0.5 + level / 2
    low = clopper_pearson_lower(successes, trials, confidence)
    return Interval(low, clopper_pearson_upper(successes, trials, confidence), level, "Clopper-Pearson")


def clopper_pearson_lower(successes: int, trials: int, confidence: float = LEVEL) -> float:
    """One-sided exact lower bound. All of N successes: (1 - confidence)^(1/N), so 512 of 512 support p >= 0.9942."""
    if successes == 0:
        return 0.0
    if successes == trials:
        return float((1 - confidence) ** (1 / trials))
    return beta_quantile(1 - confidence, successes, trials - successes + 1)


def clopper_pearson_upper(successes: int, trials: int, confidence: float = LEVEL) -> float:
    """One-sided exact upper bound."""
    return 1.0 - clopper_pearson_lower(trials - successes, trials, confidence)


def prompt_mean(
    values: npt.ArrayLike, *, low: float, high: float, level: float = LEVEL, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Mean over prompts of a per-prompt number in [low, high], with the BCa interval over prompts.

    Where all prompts have one and the same value v the bootstrap would say that nothing is unknown. Then at most a
    share t = 1 - (1 - level)^(1/P) of all prompts can have another value (exact, one-sided), and the interval runs from
    v - t (v - low) to v + t (high - v).

    Args:
        values: float64 [prompts]; NaN (undefined on a prompt) is left out.
        low, high: Bounds of a prompt's value; may be infinite, which leaves no interval in the degenerate case.
    """
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    if not array.size:
        return Estimate(math.nan)
    value = float(array.mean())
    if array.size == 1:
        return Estimate(value)
    if np.ptp(array) <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, _unseen(value, array.size, low, high, level, "unseen prompts"))
    ends = bca(array[:, None], weighted_mean, level=level, seed=seed, resamples=resamples)
    return Estimate(value, Interval(max(low, ends[0]), min(high, ends[1]), level, "BCa over prompts"))


def sample_mean(values: npt.ArrayLike, *, low: float, high: float, level: float = LEVEL) -> Estimate:
    """Mean of the independent samples of one prompt, each in [low, high], with Student's interval.

    Where all have one and the same value, as in ``prompt_mean``; one sample has no interval.

    Args:
        values: float64 [samples], at least one.
        low, high: Bounds of a sample; may be infinite, which leaves no interval in the degenerate case.
    """
    array = np.asarray(values, np.float64)
    value, count = float(array.mean()), array.size
    if count < 2:
        return Estimate(value)
    error = float(array.std(ddof=1)) / math.sqrt(count)
    if error <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, _unseen(value, count, low, high, level, "unseen samples"))
    half = student_quantile(0.5 + level / 2, count - 1) * error
    return Estimate(value, Interval(max(low, value - half), min(high, value + half), level, "Student's t"))


def _unseen(value: float, count: int, low: float, high: float, level: float, method: str) -> Interval | None:
    """Where ``count`` observations were all equal: at most so large a share of all can differ (exact, one-sided)."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    unseen = clopper_pearson_upper(0, count, level)
    return Interval(value - unseen * (value - low), value + unseen * (high - value), level, method)


def weighted_mean(weights: Floats, values: Floats) -> Floats:
    """Mean of the first column under each row of weights: [B, P], [P, k] -> [B]."""
    return np.asarray((weights @ values[:, 0]) / weights.sum(axis=1))


def weighted_ratio(weights: Floats, values: Floats) -> Floats:
    """Ratio of the sums of the first and second column under each row of weights: [B, P], [P, 2] -> [B]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((weights @ values[:, 0]) / (weights @ values[:, 1]))


def cluster_interval(
    values: Floats, statistic: Statistic, *, level: float = LEVEL, seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """The BCa interval of ``statistic`` over prompts; None where it does not vary or there are fewer than 3 prompts."""
    if len(values) < 3:
        return None
    low, high = bca(values, statistic, level=level, seed=seed, resamples=resamples)
    return (
        None
        if not (math.isfinite(low) and math.isfinite(high)) or low == high
        else Interval(low, high, level, "BCa over prompts")
    )


def bca(
    values: Floats, statistic: Statistic, *, level: float = LEVEL, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Ends of the bias-corrected and accelerated bootstrap interval (Efron, JASA 1987), prompts being resampled.

    Expanded for few prompts, where the bootstrap is too narrow: quantiles of t times sqrt(P / (P - 1)) instead of
    normal ones (Hesterberg, The American Statistician 2015).

    Args:
        values: float64 [prompts, columns]: what the statistic needs of each prompt.
        statistic: Takes weights [B, prompts] (multiplicities) and values; returns [B].
        level: Coverage aimed at.
        seed: Of the resampling.
    """
    return bca_at(values, statistic, (level,), seed=seed, resamples=resamples)[0]


def bca_at(
    values: Floats, statistic: Statistic, levels: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[tuple[float, float]]:
    """``bca`` at several levels from the same resamples; NaN where the statistic is undefined."""
    count = len(values)
    rng = np.random.default_rng(seed)
    drawn: list[Floats] = []
    for start, stop in _parts(resamples, count):
        rows = stop - start
        picks = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        drawn.append(statistic(weights, values))
    replicates = np.concatenate(drawn)
    replicates = np.sort(replicates[np.isfinite(replicates)])
    observed = float(statistic(np.ones((1, count)), values)[0])
    if not replicates.size or not math.isfinite(observed):
        return [(math.nan, math.nan)] * len(levels)
    # Ties count half: a discrete statistic would otherwise look biased.
    below = (np.count_nonzero(replicates < observed) + 0.5 * np.count_nonzero(replicates == observed)) / replicates.size
    bias = normal_quantile(float(np.clip(below, 0.5 / replicates.size, 1 - 0.5 / replicates.size)))
    left_out = _leave_one_out(values, statistic)
    centred = left_out.mean() - left_out
    spread = float((centred**2).sum())
    acceleration = float((centred**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    intervals = []
    for level in levels:
        ends = []
        for p in (0.5 - level / 2, 0.5 + level / 2):
            z = bias + student_quantile(p, count - 1) * math.sqrt(count / (count - 1))
            ends.append(normal_cdf(bias + z / max(1e-3, 1 - acceleration * z)))
        low, high = np.quantile(replicates, ends)
        intervals.append((float(low), float(high)))
    return intervals


def _parts(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Where the rows that are held at once begin and end."""
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def _leave_one_out(values: Floats, statistic: Statistic) -> Floats:
    count = len(values)
    parts = []
    for start, stop in _parts(count, count):
        weights = np.ones((stop - start, count))
        weights[np.arange(stop - start), np.arange(start, stop)] = 0.0
        parts.append(statistic(weights, values))
    return np.concatenate(parts)
