"""Intervals for shares and quantiles of observations in clusters, such as tokens or samples of the same prompt.

Observations of one cluster are not independent, so there are fewer independent ones than were counted. The exact
interval of a proportion is taken at the number of independent observations that would give the variance seen between
clusters (Korn and Graubard, Survey Methodology 24, 1998); an interval of a quantile is that of the share below it, read
off the observed distribution (Woodruff, JASA 1952).

The jackknife over groups of clusters is for statistics that a bootstrap would distort: resampling with replacement
repeats observations, which lowers entropies and the number of different things. Leaving some out does not (Tukey 1958;
Efron and Stein, Annals of Statistics 9, 1981: its variance is not too small in the mean).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.stats.intervals import LEVEL
from edgedistill.verify.stats.special_functions import beta_quantile, normal_quantile, student_quantile
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

SHARE_METHOD = "Clopper-Pearson, effective number"
QUANTILE_METHOD = "Woodruff, effective number"


def effective_number(share: float, residuals: Floats, sizes: Floats, level: float = LEVEL) -> float:
    """How many independent observations would leave the error of ``share``.

    Reduced by (z / t)^2 because the error is an estimate itself: t has the degrees of freedom of its variance
    (Satterthwaite, Biometrics Bulletin 1946), from the fourth moments of the residuals. Where few clusters hold all
    that is rare these are few. At most as many as were observed; and no fewer than there are clusters, weighed by size
    (Kish 1965), since no number in [0, 1] varies more than a yes or no.

    Args:
        share: In [0, 1].
        residuals: float64 [clusters], at least 2: what each adds to the error of the share; they sum to about 0.
        sizes: float64 [clusters]: observations of each, positive.
    """
    count, squares = residuals.size, float((residuals**2).sum())
    most, least = float(sizes.sum()), float(sizes.sum() ** 2 / (sizes**2).sum())
    if squares <= 0.0 or not 0.0 < share < 1.0:
        return least
    spread = float((residuals**4).sum()) - squares**2 / count
    degrees = min(count - 1.0, 2 * squares**2 / spread) if spread > 0 else count - 1.0
    variance = count / (count - 1) * squares
    return min(most, max(least, number_of_error(share, variance, max(1.0, degrees), level)))


def number_of_error(share: float, variance: float, degrees: float, level: float = LEVEL) -> float:
    """Independent observations of a share whose estimate has so large a variance, reduced by (z / t)^2 for its
    ``degrees`` of freedom.
    """
    p = 0.5 + level / 2
    return (normal_quantile(p) / student_quantile(p, degrees)) ** 2 * share * (1 - share) / variance


def share_interval(share: float, number: float, level: float = LEVEL) -> Interval:
    """Clopper and Pearson's interval of a share of ``number`` observations, which need not be whole."""
    tail, successes = 0.5 - level / 2, share * number
    failures = number - successes
    low = 0.0 if successes <= 0 else beta_quantile(tail, successes, failures + 1)
    high = 1.0 if failures <= 0 else beta_quantile(1 - tail, successes + 1, failures)
    return Interval(min(low, share), max(high, share), level, SHARE_METHOD)


def cluster_share(successes: npt.ArrayLike, trials: npt.ArrayLike, level: float = LEVEL) -> Estimate:
    """Sum of successes over sum of trials, with an interval over clusters.

    Args:
        successes, trials: float64 [clusters]; 0 <= successes <= trials. Clusters without trials are left out.

    Returns:
        NaN without trials; no interval for one cluster.
    """
    hits, sizes = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    hits, sizes = hits[sizes > 0], sizes[sizes > 0]
    if not sizes.size:
        return Estimate(math.nan)
    share = float(hits.sum() / sizes.sum())
    if sizes.size == 1:
        return Estimate(share)
    number = effective_number(share, (hits - share * sizes) / float(sizes.sum()), sizes, level)
    return Estimate(share, share_interval(share, number, level))


def cluster_quantiles(
    clusters: Sequence[Floats],
    probabilities: Sequence[float],
    *,
    level: float = LEVEL,
    low: float = -math.inf,
    high: float = math.inf,
) -> list[Estimate]:
    """Quantiles of all observations, each with an interval over clusters.

    An end that so many observations cannot give is ``low`` or ``high``: of 100 independent ones none need lie above the
    quantile of 0.99. The maximum (probability 1) has no interval.

    Args:
        clusters: Of each cluster float64 [observations], finite; some may be empty, not all.
        probabilities: In (0, 1].
        low, high: Bounds of an observation.
    """
    clusters = [values for values in clusters if values.size]
    every = np.sort(np.concatenate(clusters))
    sizes = np.array([values.size for values in clusters], np.float64)
    found = []
    for probability in probabilities:
        value = float(np.quantile(every, probability))
        if probability >= 1.0 or len(clusters) == 1:
            found.append(Estimate(value))
            continue
        below = np.array([np.count_nonzero(values <= value) for values in clusters], np.float64)
        share = float(below.sum() / sizes.sum())
        number = effective_number(share, (below - share * sizes) / every.size, sizes, level)
        ends, tail = share_interval(probability, number, level), 0.5 - level / 2
        bottom = low if (1 - probability) ** number > tail else float(np.quantile(every, ends.low))
        top = high if probability**number > tail else float(np.quantile(every, ends.high))
        found.append(Estimate(value, Interval(min(bottom, value), max(top, value), level, QUANTILE_METHOD)))
    return found


GROUPS = 20
METHOD = "jackknife over prompts"
ROUNDING = 1e-12
"""Relative to the statistic: a smaller error is none."""


def leave_out(clusters: npt.ArrayLike, groups: int = GROUPS) -> Iterator[npt.NDArray[np.bool_]]:
    """What to keep, bool [observations], with each of at most ``groups`` groups of clusters left out in turn.

    Args:
        clusters: [observations]: labels; equal ones stay together.
    """
    labels, member = np.unique(np.asarray(clusters), return_inverse=True)
    count = labels.size
    if count < 2:
        return
    # Neighbours in a suite are alike (bands of difficulty): every group takes some of each.
    for group in range(min(groups, count)):
        yield member % min(groups, count) != group


def jackknife_error(left_out: Sequence[float]) -> float:
    """Standard error from the statistic with each group left out; NaN for fewer than 2 that are finite."""
    values = np.array([value for value in left_out if math.isfinite(value)])
    if values.size < 2:
        return math.nan
    return math.sqrt((values.size - 1) / values.size * float(((values - values.mean()) ** 2).sum()))


def jackknife_interval(
    value: float,
    left_out: Sequence[float],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    level: float = LEVEL,
    method: str = METHOD,
) -> Interval | None:
    """``value`` and Student's t times its error, within [low, high]; None where the error is undefined or 0."""
    error = jackknife_error(left_out)
    if not (math.isfinite(value) and error > ROUNDING * max(1.0, abs(value))):
        return None
    degrees = sum(map(math.isfinite, left_out)) - 1
    half = student_quantile(0.5 + level / 2, degrees) * error
    return Interval(max(low, value - half), min(high, value + half), level, method)


def ratio_left_out(tops: npt.ArrayLike, bottoms: npt.ArrayLike) -> list[float]:
    """Sum of ``tops`` over sum of ``bottoms`` with each entry left out in turn; NaN where nothing remains."""
    top, bottom = np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return [float(value) for value in (top.sum() - top) / (bottom.sum() - bottom)]


def each_left_out(statistic: Callable[[npt.NDArray[np.bool_]], float], clusters: npt.ArrayLike) -> list[float]:
    """``statistic`` of what is kept, for every group of ``leave_out``."""
    return [statistic(kept) for kept in leave_out(clusters)]
